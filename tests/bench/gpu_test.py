# SPDX-License-Identifier: Apache-2.0
"""What bench/gpu reads from other tools, on recorded outputs of theirs, and what it makes of them."""

import contextlib
import importlib.machinery
import importlib.util
import io
import os
import pathlib
import sys
import tempfile
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))
sys.dont_write_bytecode = True


def script(name):
    loader = importlib.machinery.SourceFileLoader("bench_" + name, str(BENCH / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


gpu = script("gpu")
report = script("cuda_report")


class Card(unittest.TestCase):
    def test_first_card_of_nvidia_smi(self):
        card = gpu.card_of("NVIDIA H100 80GB HBM3, 9.0, 570.124.06, 81559 MiB\nNVIDIA H100 80GB HBM3, 9.0, 570.124.06, 81559 MiB\n")
        self.assertEqual(card["name"], "NVIDIA H100 80GB HBM3")
        self.assertEqual(gpu.architecture_of(card["compute_capability"]), "90a")
        self.assertEqual(gpu.file_name(card), "h100_80gb_hbm3.json")

    def test_other_architectures(self):
        self.assertEqual([gpu.architecture_of(c) for c in ("8.0", "8.9", "10.0", "12.0")], ["80", "89", "100", "120"])

    def test_no_card_is_said(self):
        for text in ("No devices were found\n", "", "\n", "NVIDIA H100, [N/A], 570, 1 MiB\n"):
            with self.assertRaises(gpu.NoGpu):
                gpu.card_of(text)

    def test_exit_78_without_driver(self):
        with tempfile.TemporaryDirectory() as folder:
            path, os.environ["PATH"] = os.environ["PATH"], folder
            argv, sys.argv = sys.argv, ["gpu", "--quick"]
            said = io.StringIO()
            try:
                with contextlib.redirect_stderr(said):
                    self.assertEqual(gpu.main(), 78)
            finally:
                os.environ["PATH"], sys.argv = path, argv
            self.assertIn("no nvidia-smi", said.getvalue())


class Outputs(unittest.TestCase):
    def test_gtest_json(self):
        failure = {"failure": "file.cpp:3\nExpected equality", "type": ""}
        suite = {
            "name": "Ops/CudaCases",
            "testsuite": [
                {"name": "MatchTheReference/conv2d", "status": "RUN", "result": "COMPLETED"},
                {"name": "MatchTheReference/linear", "status": "RUN", "result": "COMPLETED", "failures": [failure]},
                {"name": "MatchTheReference/dropout", "status": "RUN", "result": "SKIPPED"},
                {"name": "MatchTheReference/max_pool2d", "status": "NOTRUN", "result": "SUPPRESSED"},
            ],
        }
        counts = gpu.summary_of({"testsuites": [suite]})
        self.assertEqual((counts["passed"], counts["skipped"]), (1, 1))
        self.assertEqual([f["test"] for f in counts["failed"]], ["Ops/CudaCases.MatchTheReference/linear"])
        self.assertIn("Expected equality", counts["failed"][0]["says"])

    def test_sanitizer_summary(self):
        self.assertEqual(gpu.sanitizer_errors("========= COMPUTE-SANITIZER\n[  PASSED  ] 1 test.\n========= ERROR SUMMARY: 0 errors\n"), 0)
        self.assertEqual(gpu.sanitizer_errors("========= Invalid __global__ read\n========= ERROR SUMMARY: 1 error\n"), 1)
        self.assertIsNone(gpu.sanitizer_errors("Segmentation fault"))

    def test_crash_is_a_failure(self):
        counts, _ = gpu.gtest("false", "X.*")
        self.assertEqual(len(counts["failed"]), 1)

    def test_ratio_is_of_the_best_of_each(self):
        def entry(kernel, library, seconds):
            return {"net": "unet", "op": "conv2d", "shape": "s", "dtype": "bf16", "kernel": kernel, "library": library,
                    "median_seconds": seconds}  # fmt: skip

        alone = {**entry("tiled", False, 1.0), "op": "linear"}
        found = gpu.ratios([entry("direct", False, 9.0), entry("implicit_gemm", False, 4.0), entry("cudnn", True, 2.0), alone])
        self.assertEqual([(r["ours"], r["library"], r["ratio"]) for r in found], [("implicit_gemm", "cudnn", 0.5)])

    def test_sides_take_turns_and_one_that_fails_is_left_out(self):
        calls = []

        def ours():
            calls.append("ours")
            return 4.0

        def peer(*words):
            calls.append("peer" + "".join(words))
            if words:
                raise gpu.Failed("exit 1")
            return 2.0

        row = gpu.measured("python", 3, ours, peer)
        self.assertEqual(calls, ["ours", "peer", "peer--compile", "ours", "peer", "ours", "peer"])
        self.assertEqual((row["lockstep"], row["pytorch"], row["pytorch compiled"]), ([4.0] * 3, [2.0] * 3, []))
        self.assertEqual(row["problems"], ["pytorch compiled: exit 1"])
        calls.clear()
        self.assertEqual(gpu.measured(None, 2, ours, peer)["pytorch"], [])
        self.assertEqual(calls, ["ours", "ours"])

    def test_table_of_failed_parts(self):
        text = gpu.table({"parts": {"tests": {"fine": True, "passed": 12, "skipped": 0, "failed": []},
                                    "kernels": {"fine": False, "error": "Failed: exit 70"}}})  # fmt: skip
        self.assertIn("12 passed, 0 failed", text)
        self.assertIn("| kernels: failed | Failed: exit 70 |", text)


SASS = """
	code for sm_90
		Function : _Z4gemmv
        /*0000*/                   LDC R1, c[0x0][0x28] ;              /* 0x00000a00ff017b82 */
        /*0010*/              @!P0 LDGSTS.E.BYPASS.128.ZFILL [R5], [R2.64], P1 ;
        /*0020*/                   LDG.E.U16 R3, [R2.64] ;
        /*0030*/               @P2 LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0040*/                   LDGDEPBAR ;
        /*0050*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;
        /*0060*/                   HFMA2.MMA R22, -RZ, RZ, 0, 0 ;
		Function : _Z5spillv
        /*0000*/                   STL.64 [R1], R4 ;
        /*0010*/                   LDL R4, [R1+0x8] ;
"""
USAGE = """Resource usage:
 Common:
  GLOBAL:0
 Function _Z4gemmv:
  REG:98 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:680 TEXTURE:0 SURFACE:0 SAMPLER:0
"""


class Report(unittest.TestCase):
    def test_instructions(self):
        kernels = report.counted_instructions(SASS.splitlines())
        self.assertEqual(dict(kernels["_Z4gemmv"]), {"tensor_core": 1, "global_loads": 3, "global_loads_16": 2})
        self.assertEqual(dict(kernels["_Z5spillv"]), {"local": 2})

    def test_resources(self):
        self.assertEqual(report.resources(USAGE), {"_Z4gemmv": {"registers": 98, "stack": 0, "static_shared": 1024}})

    def test_names_of_both_compilers_are_one(self):
        cuda = "void lockstep::cuda::(anonymous namespace)::forward<lockstep::bf16, 256, true>(lockstep::cuda::(anonymous namespace)::ForwardArgs<lockstep::bf16>)"
        host = "void lockstep::simt_watched::(anonymous namespace)::forward<lockstep::bf16, 256, true>(lockstep::simt_watched::(anonymous namespace)::ForwardArgs<lockstep::bf16>)"
        self.assertEqual(report.plain_name(cuda), "forward<bf16, 256, true>")
        self.assertEqual(report.plain_name(host), report.plain_name(cuda))

    def test_occupancy(self):
        # 98 registers a thread, in units of 256 a warp, are 104: four blocks of 128 threads.
        kernel = {"registers": 98, "static_shared": 1024}
        self.assertEqual(report.occupancy("90a", kernel, 128, 0), 16 / 64)
        self.assertEqual(report.occupancy("90a", kernel, 128, 100 << 10), 8 / 64)  # 228 KB hold two such blocks
        self.assertEqual(report.occupancy("80", {"registers": 32, "static_shared": 0}, 1024, 0), 1)

    def test_limits(self):
        def lines(registers=32, static=0, threads=128, dynamic=0, architecture="80"):
            compiled = {architecture: {"gemm": {"registers": registers, "static_shared": static}}}
            return report.over_limits({"compiled": compiled, "kernels": {"gemm": {"threads": threads, "dynamic_shared": dynamic}}})

        self.assertEqual(lines(), [])
        self.assertEqual(lines(registers=64, static=48 << 10, threads=1024, dynamic=115 << 10), [])
        for wrong, words in (
            (lines(registers=72, threads=1024), "sm_80: gemm: 73728 registers a block, 72 for 1024 threads; at most 65536"),
            (lines(registers=256), "sm_80: gemm: 256 registers a thread; at most 255"),
            (lines(static=(48 << 10) + 16), "sm_80: gemm: 49168 bytes of static shared memory; at most 49152"),
            (lines(static=16, dynamic=163 << 10), "sm_80: gemm: 166928 bytes of shared memory a block; at most 166912"),
        ):
            self.assertEqual(wrong, [words])
        # The system's 1,024 bytes of sm_90 and later are not the kernel's; what was not compiled has its launches' limits.
        self.assertEqual(lines(static=1024, dynamic=227 << 10, architecture="90a"), ["sm_80: gemm: 232448 bytes of shared memory a block; at most 166912"])
        self.assertEqual(len(lines(static=1040, dynamic=227 << 10, architecture="90a")), 2)
        self.assertEqual(len(lines(threads=1056)), 3)

    def test_architectures(self):
        self.assertEqual(report.architectures_of("80-real;90a-real;100-real;100-virtual"), ["80", "90a", "100"])
        self.assertEqual(report.architectures_of("90a"), ["90a"])


if __name__ == "__main__":
    unittest.main()
