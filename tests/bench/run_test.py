# SPDX-License-Identifier: Apache-2.0
"""What bench/run's parts read from Linux, from our programs and from Google Benchmark, and what they make of it."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
sys.dont_write_bytecode = True

import allreduce_table  # noqa: E402
import figures  # noqa: E402
import kernel_table  # noqa: E402
import limits  # noqa: E402
import process_memory  # noqa: E402
import pytorch  # noqa: E402
import step_split  # noqa: E402
from harness import Failed  # noqa: E402
from ours import seconds_until  # noqa: E402


class Figures(unittest.TestCase):
    def test_more_is_better_for_rates_and_less_for_times(self):
        self.assertEqual(figures.ratios([30, 10, 20], [10, 5, 4], "samples/s"), (4, 2, 5))
        self.assertEqual(figures.ratios([1, 2, 4], [8, 8, 8], "s"), (4, 2, 8))
        self.assertEqual(figures.ratios([50], [200], "MB"), (0.25, 0.25, 0.25))
        self.assertIsNone(figures.ratios([1], [], "s"))

    def test_texts(self):
        self.assertEqual(figures.shown([3, 1, 2000], "samples/s"), "3 (1 to 2,000)")
        self.assertEqual(figures.ratio_text((0.25, 0.2, 0.3), "MB", "PyTorch"), "0.25 (0.20 to 0.30) of PyTorch's")
        self.assertEqual(figures.ratio_text(None, "s", "PyTorch"), "–")


class Memory(unittest.TestCase):
    def test_descendants_through_all_levels(self):
        parent_of = {1: 0, 10: 1, 11: 10, 12: 11, 13: 11, 20: 1}
        self.assertEqual(sorted(process_memory.descendants(10, parent_of)), [10, 11, 12, 13])

    def test_parent_of_a_process_whose_name_looks_like_fields(self):
        with tempfile.TemporaryDirectory() as proc:
            folder = pathlib.Path(proc) / "42"
            folder.mkdir()
            (folder / "stat").write_text("42 (a) R 7 (b) S 41 42 42 0")
            (pathlib.Path(proc) / "self").mkdir()
            self.assertEqual(process_memory.parents(proc), {42: 41})

    def test_pss_of_a_rollup(self):
        text = "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:   2048 kB\nPss:   1000 kB\nPss_Dirty:   24 kB\n"
        self.assertEqual(process_memory.pss(text), 1_024_000)

    def test_peak_is_of_the_child_that_took_most_before_it_gave_it_back(self):
        child = "import time; x = bytearray(96 << 20); time.sleep(0.3); del x; time.sleep(0.1)"
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{child}'])"
        peak = process_memory.peak_pss([sys.executable, "-c", code])
        self.assertGreater(peak, 96 << 20)
        self.assertLess(peak, 160 << 20)

    def test_a_command_that_fails(self):
        with self.assertRaisesRegex(Failed, "exit 3"):
            process_memory.peak_pss([sys.executable, "-c", "import time; time.sleep(0.2); raise SystemExit(3)"])


class Start(unittest.TestCase):
    def test_time_until_a_line_is_said_by_a_process_that_is_then_stopped(self):
        code = "import time; time.sleep(0.2); print('first step', flush=True); time.sleep(600)"
        seconds = seconds_until([sys.executable, "-c", code], lambda p: pytorch.said(p, "first step"), stop=True)
        self.assertGreater(seconds, 0.2)
        self.assertLess(seconds, 300)

    def test_a_process_that_never_says_it(self):
        with self.assertRaises(Failed):
            seconds_until([sys.executable, "-c", "print('no')"], lambda p: pytorch.said(p, "first step"))


def span(name, category, begin, duration, pid=0, tid=0):
    return {"ph": "X", "name": name, "cat": category, "pid": pid, "tid": tid, "ts": begin, "dur": duration}


class Split(unittest.TestCase):
    def test_parts_of_two_steps(self):
        events = [{"ph": "M", "name": "process_name", "pid": 0, "args": {}}]
        for start in (0, 10000):
            events += [span("wait for data", "wait", start, 100), span("conv2d conv1", "forward", start + 100, 2000),
                       span("conv2d_weight_grad conv1", "backward", start + 2100, 4000),
                       span("allreduce batch norm", "communication", start + 6100, 50),
                       span("wait for allreduce", "wait", start + 6150, 350),
                       span("optimizer_step", "update", start + 6500, 500),
                       span("bucket 0", "communication", start, 9000, tid=1),  # hidden
                       span("optimizer_step", "update", start, 9000, pid=1)]  # another rank's
        parts = step_split.split({"traceEvents": events})
        expected = {"data": 0.1, "forward": 2, "backward": 4, "allreduce, exposed": 0.4, "optimizer": 0.5, "between them": 1.5}
        self.assertEqual(list(parts), list(step_split.PARTS))
        for part, milliseconds in expected.items():
            self.assertAlmostEqual(parts[part], milliseconds, msg=part)
        self.assertIn("| a row | 8.50 | 0.10 | 2.00 |", step_split.table({"a row": parts}))

    def test_trace_without_a_step(self):
        with self.assertRaises(ValueError):
            step_split.split({"traceEvents": [span("wait for data", "wait", 0, 100)]})


ALLREDUCE = """# 2 ranks on AMD EPYC, by lockstep
#         size        count     type  redop         time    algbw    busbw  #wrong
#          (B)   (elements)                         (us)   (GB/s)   (GB/s)
          1024          256    float    sum         0.50     2.05     2.05       0
       1048576       262144    float    sum        20.00    52.43    52.43       0
"""


class Allreduce(unittest.TestCase):
    def test_table(self):
        self.assertEqual(allreduce_table.parse(ALLREDUCE), {1024: 0.5, 1048576: 20.0})
        for bad in ("# nothing\n", ALLREDUCE.replace("52.43       0", "52.43       3")):
            with self.assertRaises(Failed):
                allreduce_table.parse(bad)

    def test_ratios_are_of_sizes_that_matter(self):
        times = {"Lockstep": {1024: [0.5], 1048576: [20, 10, 40]}, "gloo": {1024: [500], 1048576: [200, 100, 300]}}
        text = allreduce_table.table(times)
        self.assertIn("| 1 MiB | 262,144 | 20.0 | 52.43 | 52.43 | 200.0 | 10.0 |", text)
        self.assertIn("10.0 times as fast as gloo (10.0 to 10.0)", text)


def entry(name, microseconds, gflops, chosen, aggregate=None):
    e = {"run_name": name + "/real_time", "real_time": microseconds, "time_unit": "us", "GFLOP/s": gflops, "GB/s": 1.0,
         "calls": 3.0, "chosen": chosen, "threads": 2.0, "label": "f32[1, 2]"}  # fmt: skip
    return e | ({"aggregate_name": aggregate} if aggregate else {})


class Kernels(unittest.TestCase):
    report = {"benchmarks": [entry("conv2d/down.0/conv1/winograd/nhwc", 100.0, 500.0, 1.0), entry("conv2d/down.0/conv1/onednn/plain", 250.0, 200.0, 0.0),
                             entry("relu/x/highway/any", 100.0, 0.0, 1.0)]}  # fmt: skip

    def test_candidates_of_an_op(self):
        found = kernel_table.candidates(self.report, repeated=False)
        self.assertEqual(list(found), ["conv2d/down.0/conv1", "relu/x"])
        self.assertEqual([(k["kernel"], k["layout"], k["chosen"]) for k in found["conv2d/down.0/conv1"]],
                         [("winograd", "nhwc", True), ("onednn", "plain", False)])  # fmt: skip
        self.assertEqual(kernel_table.cost(found["conv2d/down.0/conv1"]), 300)

    def test_medians_of_repetitions(self):
        entries = [entry("a/b/k/any", 1.0, 1.0, 1.0), entry("a/b/k/any", 2.0, 1.0, 1.0, "mean"), entry("a/b/k/any", 3.0, 1.0, 1.0, "median")]
        self.assertEqual([k["us"] for k in kernel_table.candidates({"benchmarks": entries}, repeated=True)["a/b"]], [3.0])

    def test_table_marks_the_plans_kernel_and_says_what_it_leaves_out(self):
        text = kernel_table.table("a net", kernel_table.candidates(self.report, repeated=False), 1000, most=1)
        self.assertIn("| conv2d/down.0/conv1 | f32[1, 2] | 3 | **winograd**, nhwc | 100.0 | 500.0 | 50 % | 1.0 |", text)
        self.assertIn("| onednn, plain | 250.0 | 200.0 | 20 % |", text)
        self.assertIn("These are 50 % of the 0.60 ms", text)


class Limits(unittest.TestCase):
    def test_bf16_without_instructions_for_it_is_held_to_fp32(self):
        without = {"threads": 2, "peak": {"1": {"fp32_gflops": 100.0, "bf16_gflops": None}, "2": {"fp32_gflops": 190.0, "bf16_gflops": None}}}
        with_it = {"threads": 2, "peak": {"2": {"fp32_gflops": 190.0, "bf16_gflops": 380.0}}}
        self.assertEqual(limits.peak(without, 1, "fp32"), (100.0, "fp32"))
        self.assertEqual(limits.peak(without, 2, "bf16"), (190.0, "fp32"))
        self.assertEqual(limits.peak(with_it, 2, "bf16"), (380.0, "bf16"))


class SameWork(unittest.TestCase):
    def test_another_loss_is_said(self):
        pytorch.same_losses("net", [2.30001, 1.9], [2.3, 1.9])
        pytorch.same_losses("net", [2.31], [2.3], "bf16")
        with self.assertRaisesRegex(Failed, "step 2 .* not the same work"):
            pytorch.same_losses("net", [2.3, 1.91], [2.3, 1.9])


class Command(unittest.TestCase):
    def test_help_needs_neither_build_nor_peers(self):
        done = subprocess.run([sys.executable, pytorch.ROOT / "bench/run", "--help"], text=True, capture_output=True)
        self.assertEqual(done.returncode, 0)
        self.assertIn("--markdown", done.stdout)


if __name__ == "__main__":
    unittest.main()
