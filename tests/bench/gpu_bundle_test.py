# SPDX-License-Identifier: Apache-2.0
"""bench/gpu bundle --quick on the build of these tests, and run-gpu --dry as it lies in the bundle.

    python3 tests/bench/gpu_bundle_test.py BUILD-FOLDER
"""

import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
sys.dont_write_bytecode = True

from gpu_stages import programs  # noqa: E402

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
STAGES = ("probe", "cases", "words", "timings", "training", "pytorch", "pipeline", "sanitizer")


def bundle(build, file):
    return subprocess.run([sys.executable, ROOT / "bench/gpu", "bundle", file, "--quick", "--build", build], text=True, capture_output=True)


HAS = json.loads((BUILD / "gpu_build.json").read_text())


@unittest.skipUnless(all(HAS[part] for part in ("cuda", "nccl", "cudnn", "cublaslt")), f"this build lacks a part of a bundle: {HAS}")
class Bundle(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.scratch.name)
        done = bundle(BUILD, cls.folder / "gpu.tar.xz")
        assert done.returncode == 0, done.stdout + done.stderr
        with tarfile.open(cls.folder / "gpu.tar.xz") as tar:
            tar.extractall(cls.folder / "unpacked")

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def dry(self, *words):
        # No driver, wherever the test runs: of the PATH only what the programs start.
        environment = {**os.environ, "PATH": str(self.folder / "no-programs"), "LD_LIBRARY_PATH": self.of_target()}
        command = [sys.executable, self.folder / "unpacked/run-gpu", "--dry", "--out", self.folder / "out", *words]
        return subprocess.run(command, text=True, capture_output=True, env=environment)

    def of_target(self):
        """Where the libraries lie that a bundle leaves to the target, where a program does not start without."""
        done = subprocess.run(["ldd", BUILD / "bench/gpu_programs"], text=True, capture_output=True)
        nccl = [line.split()[2] for line in done.stdout.splitlines() if "libnccl" in line]
        return ":".join([os.path.dirname(file) for file in nccl] + [os.environ.get("LD_LIBRARY_PATH", "")])

    def test_every_stage_begins_and_says_what_is_missing(self):
        began = time.monotonic()
        done = self.dry()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        lines = [json.loads(line) for line in (self.folder / "out/results.jsonl").read_text().splitlines()]
        states = {line["stage"]: line for line in lines if "state" in line}
        self.assertEqual({name: line["state"] for name, line in states.items()}, dict.fromkeys(STAGES, "rehearsed"), done.stdout)
        for name in STAGES:
            self.assertIn("a GPU: there is no nvidia-smi", states[name]["why"], name)
        rehearsed = {line["stage"]: line["rehearsed"] for line in lines if "rehearsed" in line}
        self.assertIn("lockstep ", rehearsed["probe"])
        self.assertRegex(rehearsed["cases"], r"[1-9]\d+ processes of tests.* and [1-9]\d* of collectives")
        self.assertRegex(rehearsed["timings"], r"[1-9]\d+ groups of [1-9]\d+ kernels")
        self.assertEqual(rehearsed["training"], "8 jobs, 8 as they should be")
        self.assertEqual(rehearsed["pipeline"], "3 programs in 2 precisions: denoise, encode_text, decode")
        self.assertIn("| what | result |", (self.folder / "out/table.md").read_text())
        self.assertLess(time.monotonic() - began, 120)  # of a busy machine; alone some seconds

    def test_no_gpu_is_78(self):
        environment = {**os.environ, "PATH": str(self.folder / "no-programs")}
        command = [sys.executable, self.folder / "unpacked/run-gpu", "--out", self.folder / "none"]
        done = subprocess.run(command, text=True, capture_output=True, env=environment)
        self.assertEqual(done.returncode, 78)
        self.assertIn("no GPU", done.stderr)

    def test_it_brings_its_own_libraries(self):
        unpacked = self.folder / "unpacked"
        about = json.loads((unpacked / "bundle.json").read_text())
        there = {file.name for file in (unpacked / "lib").iterdir()}
        self.assertIn("libmpi.so.40", there)
        self.assertIn("libstdc++.so.6", there)
        self.assertFalse([name for name in there if name.startswith(("libc.so", "libnccl", "libcudnn", "libcuda"))])
        self.assertRegex(about["glibc"], r"^2\.\d+$")
        environment = {**os.environ, "LD_LIBRARY_PATH": f"{unpacked}/lib:{self.of_target()}"}
        done = subprocess.run(["ldd", unpacked / "bin/gpu_programs"], text=True, capture_output=True, env=environment)
        for line in done.stdout.splitlines():
            if "=>" in line and not any(part in line for part in ("libc.so", "libm.so", "libnccl", "libpthread", "libdl", "librt", "libresolv")):
                self.assertIn(str(unpacked / "lib"), os.path.realpath(line.split()[2]), line)

    def test_kernels_are_timed(self):
        """On the host, with the kernels' twins there."""
        environment = {**os.environ, "LD_LIBRARY_PATH": f"{self.folder}/unpacked/lib:{self.of_target()}"}
        command = [self.folder / "unpacked/bin/gpu_programs", "kernel_timings", "--few", "--device", "simt", "--batch", "2", "--repeats", "2",
                   "--groups", "3,0", "--without", "3:direct"]  # fmt: skip
        done = subprocess.run(command, text=True, capture_output=True, env=environment)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        timed = [(line["group"], line["kernel"]) for line in lines if line.get("seconds")]
        self.assertEqual(timed, [(3, "implicit_gemm"), (0, "direct")])
        self.assertEqual([line["group"] for line in lines if "done" in line], [3, 0])
        self.assertTrue(all(len(line["seconds"]) == 2 and min(line["seconds"]) > 0 for line in lines if line.get("seconds")))

    def test_programs_are_timed(self):
        """A small pipeline, on the host, with the GPU kernels' twins there."""
        environment = {**os.environ, "LD_LIBRARY_PATH": f"{self.folder}/unpacked/lib:{self.of_target()}"}
        command = [self.folder / "unpacked/bin/gpu_programs", "program_timings", "--few", "--device", "simt", "--calls", "1"]
        for precision in ("fp32", "bf16"):
            done = subprocess.run([*command, "--precision", precision], text=True, capture_output=True, env=environment)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            lines = {line["program"]: line for line in map(json.loads, done.stdout.splitlines())}
            self.assertEqual(set(lines), {"denoise", "encode_text", "decode"})
            for line in lines.values():
                self.assertEqual((line["precision"], len(line["seconds"])), (precision, 1))
                self.assertTrue(line["flops"] > 0 and line["parameters"] > 0 and min(line["seconds"]) > 0, line)

    def test_its_mpirun_starts_two_ranks(self):
        unpacked = self.folder / "unpacked"
        environment = {**os.environ, **programs.openmpi_environment(unpacked), "PATH": f"{unpacked}/openmpi/bin:/usr/bin:/bin",
                       "LD_LIBRARY_PATH": f"{unpacked}/lib:{self.of_target()}"}  # fmt: skip
        command = [unpacked / "bin/gpu_programs", "fit", unpacked / "configs/mnist_article.yaml", "--set", "hyperparameters.steps=2",
                   "--output", self.folder / "run"]  # fmt: skip
        done = subprocess.run(command, text=True, capture_output=True, env=environment)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Lacking(unittest.TestCase):
    def test_a_build_without_the_libraries_headers_is_78(self):
        with tempfile.TemporaryDirectory() as folder:
            build = pathlib.Path(folder)
            (build / "bench").mkdir()
            (build / "bench/gpu_programs").touch()
            whole = {"cuda": "13.0", "architectures": "90a", "nccl": True, "cudnn": True, "cudnn_frontend": False, "cublaslt": True}
            for lacks, words in (({"cudnn": False}, "without the headers of cudnn"), ({"cuda": ""}, "without CUDA")):
                (build / "gpu_build.json").write_text(json.dumps(whole | lacks))
                done = bundle(build, build / "gpu.tar.xz")
                self.assertEqual(done.returncode, 78)
                self.assertIn(words, done.stderr)
                self.assertFalse((build / "gpu.tar.xz").exists())

    def test_no_build_is_78(self):
        with tempfile.TemporaryDirectory() as folder:
            done = bundle(folder, pathlib.Path(folder) / "gpu.tar.xz")
            self.assertEqual(done.returncode, 78)
            self.assertIn("holds no gpu_programs", done.stderr)


if __name__ == "__main__":
    unittest.main()
