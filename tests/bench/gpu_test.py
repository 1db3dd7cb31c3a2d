# SPDX-License-Identifier: Apache-2.0
"""bench/gpu: what it reads from other tools, on recorded outputs of theirs; what it makes of them; how its stages hold out
against programs that fail or hang, on small ones in their place."""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import types
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))
sys.dont_write_bytecode = True

from gpu_stages import all_stages, card, cases, closure, gtest, pipeline, processes, programs, results, sanitizer, session, summary, timings, training, words  # noqa: E402
from peers import ranks  # noqa: E402


def script(name):
    loader = importlib.machinery.SourceFileLoader("bench_" + name.replace("-", "_"), str(BENCH / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


gpu = script("gpu")
run_gpu = script("run-gpu")
report = script("cuda_report")


class Card(unittest.TestCase):
    def test_first_card_of_nvidia_smi(self):
        found = card.card_of("NVIDIA H100 80GB HBM3, 9.0, 570.124.06, 81559 MiB\nNVIDIA H100 80GB HBM3, 9.0, 570.124.06, 81559 MiB\n")
        self.assertEqual(found["name"], "NVIDIA H100 80GB HBM3")
        self.assertEqual(card.architecture_of(found["compute_capability"]), "90a")
        self.assertEqual(card.file_name(found), "h100_80gb_hbm3.json")

    def test_other_architectures(self):
        self.assertEqual([card.architecture_of(c) for c in ("8.0", "8.9", "10.0", "12.0")], ["80", "89", "100", "120"])

    def test_no_card_is_said(self):
        for text in ("No devices were found\n", "", "\n", "NVIDIA H100, [N/A], 570, 1 MiB\n"):
            with self.assertRaises(card.NoGpu):
                card.card_of(text)

    def test_data_sheet(self):
        self.assertEqual(card.data_sheet("NVIDIA H200")["memory"], 4.8)
        self.assertEqual(card.data_sheet("NVIDIA GH200 480GB")["memory"], 4.0)
        self.assertEqual(card.data_sheet("NVIDIA H100 PCIe")["bf16"], 756)
        self.assertIsNone(card.data_sheet("Tesla K80"))

    def test_exit_78_without_driver(self):
        with tempfile.TemporaryDirectory() as folder:
            path, os.environ["PATH"] = os.environ["PATH"], folder
            said = io.StringIO()
            try:
                with contextlib.redirect_stderr(said):
                    self.assertEqual(gpu.main(["--quick"]), 78)
            finally:
                os.environ["PATH"] = path
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
        counts = gtest.summary_of({"testsuites": [suite]})
        self.assertEqual((counts["passed"], counts["skipped"]), (1, 1))
        self.assertEqual([f["test"] for f in counts["failed"]], ["Ops/CudaCases.MatchTheReference/linear"])
        self.assertIn("Expected equality", counts["failed"][0]["says"])

    def test_gtest_list(self):
        text = ("Running main()\nCudaWords.\n  AddIsExact\n  MulIsExact\nCudaCollectives.\n  OneRank\n"
                'Ops/CudaCases.  # TypeParam = x\n  MatchTheReference/conv2d  # GetParam() = "conv2d"\n  MatchTheReference/linear\n')  # fmt: skip
        tests = gtest.listed(text)
        self.assertEqual(len(tests), 5)
        together, alone = cases.wanted(tests)
        self.assertEqual(together, ["Ops/CudaCases.MatchTheReference/conv2d", "Ops/CudaCases.MatchTheReference/linear"])
        self.assertEqual(alone, ["CudaCollectives.*"])
        self.assertEqual(gtest.filters([t for t in tests if gtest.WORDS.search(t[0])]), ["CudaWords.*"])

    def test_sanitizer_summary(self):
        self.assertEqual(sanitizer.errors("========= COMPUTE-SANITIZER\n[  PASSED  ] 1 test.\n========= ERROR SUMMARY: 0 errors\n"), 0)
        self.assertEqual(sanitizer.errors("========= Invalid __global__ read\n========= ERROR SUMMARY: 1 error\n"), 1)
        self.assertEqual(sanitizer.errors("========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)\n"), 2)
        self.assertIsNone(sanitizer.errors("Segmentation fault"))

    def test_sanitizer_begins_where_most_can_go_wrong(self):
        tests = [("Ops/CudaCases", f"MatchTheReference/{op}") for op in ("concat", "conv2d", "reorder", "linear_input_grad")]
        order = [(check, test.rpartition("/")[2]) for check, test in sanitizer.jobs(tests)]
        self.assertEqual(order[:4], [("memcheck", "conv2d"), ("memcheck", "linear_input_grad"), ("racecheck", "conv2d"), ("racecheck", "linear_input_grad")])
        self.assertEqual(len(order), 8)

    def test_ldd(self):
        text = ("\tlinux-vdso.so.1 (0x0007)\n\tlibnccl.so.2 => /usr/local/cuda/lib/libnccl.so.2 (0x07)\n\tlibfmt.so.9 => not found\n"
                "\t/lib64/ld-linux-x86-64.so.2 (0x07)\n")  # fmt: skip
        self.assertEqual(closure.parse_ldd(text), {"libnccl.so.2": pathlib.Path("/usr/local/cuda/lib/libnccl.so.2"), "libfmt.so.9": None})
        for there in ("libnccl.so.2", "libcudnn_ops.so.9", "libcublasLt.so.13", "libcuda.so.1", "libnvrtc.so.13"):
            self.assertTrue(closure.TARGET_HAS.match(there), there)
        for libc in ("libc.so.6", "libm.so.6", "libmvec.so.1", "ld-linux-x86-64.so.2"):
            self.assertTrue(closure.LIBC.match(libc), libc)
        for carried in ("libcurl.so.4", "libmpi.so.40", "libcrypto.so.3", "libcom_err.so.2"):
            self.assertFalse(closure.LIBC.match(carried) or closure.TARGET_HAS.match(carried), carried)

    def test_glibc_of_a_program(self):
        self.assertGreaterEqual(closure.needed_glibc([sys.executable]), (2, 2))
        self.assertIn("need glibc 99.0", run_gpu.too_old("99.0"))
        self.assertEqual(run_gpu.too_old("2.9"), "")

    def test_pip_folders_of_both_layouts(self):
        with tempfile.TemporaryDirectory() as folder:
            for part in ("cudnn/lib", "cu13/lib", "nccl/lib"):
                (pathlib.Path(folder) / "nvidia" / part).mkdir(parents=True)
            (pathlib.Path(folder) / "nvidia/cu13/lib/libcublasLt.so.13").touch()
            found = programs.pip_folders([folder, folder])
            self.assertEqual(len(found), 3)
            self.assertEqual(programs.find_library("libcublasLt.so.", found), f"{folder}/nvidia/cu13/lib/libcublasLt.so.13")


class Processes(unittest.TestCase):
    def test_ends_at_the_limit_with_all_that_it_started(self):
        with tempfile.TemporaryDirectory() as folder:
            pid = pathlib.Path(folder) / "pid"
            inner = f"echo $$ >{pid}; echo begun; sleep 600"
            done = processes.run(["sh", "-c", f"setsid sh -c '{inner}' & wait"], 1.5)
            self.assertIsNone(done.code)
            self.assertIn("begun", done.said)
            self.assertIn("no end after", done.why())
            self.assertFalse(self.lives(int(pid.read_text())))

    def test_what_a_program_leaves_running_ends_with_it(self):
        with tempfile.TemporaryDirectory() as folder:
            pid = pathlib.Path(folder) / "pid"
            done = processes.run(["sh", "-c", f"sh -c 'echo $$ >{pid}; sleep 600' & sleep 0.3; echo done"], 20)
            self.assertEqual((done.code, done.said), (0, "done\n"))
            self.assertFalse(self.lives(int(pid.read_text())))

    @staticmethod
    def lives(pid):
        for _ in range(100):  # until it is reaped
            try:
                state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except FileNotFoundError:
                return False
            if state == "Z":
                return False
            time.sleep(0.05)
        return True


class Written(unittest.TestCase):
    def test_lines_as_they_come_and_no_more_than_may_be(self):
        with tempfile.TemporaryDirectory() as folder:
            written = results.Results(pathlib.Path(folder) / "new/out")
            written.add("probe", what=1)
            self.assertEqual(json.loads(written.file.read_text()), {"stage": "probe", "what": 1})
            most, results.MOST_BYTES = results.MOST_BYTES, 1000
            try:
                for _ in range(100):
                    written.add("cases", says="x" * 50)
            finally:
                results.MOST_BYTES = most
            self.assertLessEqual(written.file.stat().st_size, 1000)
            self.assertEqual(len(written.of("cases")), 100)
            self.assertLessEqual(len(list(written.folder.iterdir())), 8)


# In gpu_programs' place, for kernel_tests: one op passes, one fails, one crashes, one hangs.
TESTS = """#!{python}
import json, os, sys, time
option = lambda name: next((w.split("=", 1)[1] for w in sys.argv if w.startswith(name + "=")), None)
if "--gtest_list_tests" in sys.argv:
    print("CudaCollectives.\\n  OneRank\\nCudaWords.\\n  AreExact\\nOps/CudaCases.")
    for op in ("cast", "conv2d", "linear", "reorder"): print(f"  MatchTheReference/{{op}}  # GetParam() = \\"{{op}}\\"")
    sys.exit()
suite, _, name = option("--gtest_filter").partition(".")
if name.endswith("linear"): os.abort()
if name.endswith("reorder"): time.sleep(600)
failures = [{{"failure": "off by one", "type": ""}}] if name.endswith("conv2d") else []
test = {{"name": name, "status": "RUN", "result": "COMPLETED", **({{"failures": failures}} if failures else {{}})}}
open(option("--gtest_output")[5:], "w").write(json.dumps({{"testsuites": [{{"name": suite, "testsuite": [test]}}]}}))
print("========= ERROR SUMMARY: 0 errors")
sys.exit(bool(failures))
"""


class Cases(unittest.TestCase):
    def run_stage(self, stage):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "gpu_programs"
            program.write_text(TESTS.format(python=sys.executable))
            program.chmod(0o755)
            there = types.SimpleNamespace(ours=program, scratch=pathlib.Path(folder), environment=dict(os.environ), python=None)
            s = session.Session(there, results.Results(pathlib.Path(folder) / "out"), 1)
            s.stage = stage.NAME
            stage.work(s)
            return s.results.lines

    def test_a_process_an_op_and_the_collectives_last(self):
        limit, cases.LIMIT = cases.LIMIT, 3
        try:
            lines = self.run_stage(cases)
        finally:
            cases.LIMIT = limit
        of = {line["test"].rpartition("/")[2]: line for line in lines}
        self.assertEqual(lines[-1]["test"], "CudaCollectives.*")
        self.assertEqual((of["cast"]["passed"], of["cast"]["failed"]), (1, []))
        self.assertEqual(of["conv2d"]["failed"], [{"test": "Ops/CudaCases.MatchTheReference/conv2d", "says": "off by one"}])
        self.assertIn("exit -6", of["linear"]["failed"][0]["says"])
        self.assertRegex(of["reorder"]["failed"][0]["says"], "^no end after [0-9]+ s")
        self.assertNotIn("CudaWords.*", [line["test"] for line in lines])

    def test_words_alone(self):
        lines = self.run_stage(words)
        self.assertEqual([(line["test"], line["passed"]) for line in lines], [("CudaWords.*", 1)])

    def test_sanitizer_runs_the_program_under_the_tool(self):
        with tempfile.TemporaryDirectory() as folder:
            tool = pathlib.Path(folder) / "compute-sanitizer"
            tool.write_text('#!/bin/sh\nwhile [ "$1" != "${1#--}" ]; do shift 2; done\nexec "$@"\n')
            tool.chmod(0o755)
            kept, jobs, sanitizer.tool = sanitizer.tool, sanitizer.jobs, lambda: str(tool)
            sanitizer.jobs = lambda tests: [job for job in jobs(tests) if "reorder" not in job[1]]
            try:
                lines = self.run_stage(sanitizer)
            finally:
                sanitizer.tool, sanitizer.jobs = kept, jobs
        found = {(line["check"], line["test"].rpartition("/")[2]): line for line in lines}
        self.assertEqual(len(found), 6)
        self.assertEqual((found["memcheck", "cast"]["errors"], found["memcheck", "cast"]["failed"]), (0, []))
        self.assertIsNone(found["racecheck", "linear"]["errors"])
        self.assertEqual(len(found["racecheck", "conv2d"]["failed"]), 1)


# In gpu_programs' place: conv2d's group 0 has a kernel that breaks the device and one that hangs, group 1 one that throws.
TIMINGS = """
import json, sys, time
def say(**line): print(json.dumps(line), flush=True)
words = sys.argv[1:]
of = lambda option: words[words.index(option) + 1].split(",") if option in words else []
kernels = {0: ["fine", "breaks", "hangs"], 1: ["throws", "fine"], 2: ["fine", "cudnn"]}
for g in map(int, of("--groups")):
    entries = []
    for k in kernels[g]:
        if f"{g}:{k}" in of("--without"): continue
        say(group=g, kernel=k, doing="run")
        if k == "breaks":
            say(group=g, kernel=k, failed="E_CUDA: an illegal access", doing="run")
            say(group=g, kernel=k, broken="an illegal access")
            sys.exit(70)
        if k == "hangs": time.sleep(600)
        if k == "throws":
            say(group=g, kernel=k, failed="E_CUDNN: not supported", doing="run")
            continue
        entries.append(dict(group=g, net="unet", shape="s", op="conv2d", kernel=k, dtype="bf16", library=k == "cudnn", flops=2e9,
                            least_bytes=1000000, difference=0.0, seconds=[2e-5, 1e-5, 1e-5]))
    for e in entries: say(**e)
    say(group=g, done=True, declined=[])
"""


# In gpu_programs' place: its decoder fails.
PIPELINE = """#!{python}
import json, sys
words = sys.argv[1:]
assert words[0] == "program_timings", words
if "--list" in words:
    for name in ("denoise", "decode"): print(json.dumps(dict(program=name)))
elif words[-1] == "decode":
    sys.exit("E_CUDA: out of memory")
else:
    precision = words[words.index("--precision") + 1]
    print(json.dumps(dict(program=words[-1], precision=precision, batch=2, seconds=[3.0, 1.0, 2.0])))
"""


class Pipeline(unittest.TestCase):
    def test_a_program_that_fails_is_named_and_the_others_timed(self):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "gpu_programs"
            program.write_text(PIPELINE.format(python=sys.executable))
            program.chmod(0o755)
            there = types.SimpleNamespace(ours=program, scratch=pathlib.Path(folder), environment=dict(os.environ), python=None)
            s = session.Session(there, results.Results(pathlib.Path(folder) / "out"), 1)
            s.stage = pipeline.NAME
            pipeline.work(s)
            said = {(line["program"], line["precision"]): line for line in s.results.lines}
        self.assertEqual([said["denoise", p]["call_seconds"] for p in ("fp32", "bf16")], [2.0, 2.0])
        self.assertIn("out of memory", said["decode", "bf16"]["problem"])
        self.assertEqual(len(said), 4)


class Timings(unittest.TestCase):
    def follow(self, code, watch=5, order=(2, 0, 1)):
        with tempfile.TemporaryDirectory() as folder:
            s = types.SimpleNamespace(programs=types.SimpleNamespace(scratch=pathlib.Path(folder), environment=dict(os.environ)), left=lambda: 60)
            said = []
            whole = timings.follow(s, [sys.executable, "-c", code], list(order), said.append, watch)
            return whole, said

    def test_kernels_that_fail_or_hang_are_named_and_the_others_timed(self):
        whole, said = self.follow(TIMINGS)
        self.assertTrue(whole)
        timed = [(line["group"], line["kernel"]) for line in said if "seconds" in line]
        self.assertEqual(timed, [(2, "fine"), (2, "cudnn"), (0, "fine"), (1, "fine")])
        failed = {(line["group"], line["kernel"]): line["failed"] for line in said if "failed" in line}
        self.assertEqual(set(failed), {(0, "breaks"), (0, "hangs"), (1, "throws")})
        self.assertIn("nothing came for 5 s", failed[0, "hangs"])
        self.assertIn("not supported", failed[1, "throws"])

    def test_a_program_that_cannot_begin_is_given_up(self):
        whole, said = self.follow("import sys; sys.exit('no driver')")
        self.assertFalse(whole)
        self.assertEqual(len(said), 1)
        self.assertIn("no driver", said[0]["problem"])

    def test_large_nets_and_heavy_ops_first(self):
        found = [{"group": i, "op": op, "net": net} for i, (op, net) in enumerate(
            [("cast", "unet"), ("linear", "mnist"), ("conv2d", "mnist"), ("group_norm", "unet"), ("conv2d_weight_grad", "unet")])]  # fmt: skip
        self.assertEqual(timings.in_order(found), [4, 3, 2, 1, 0])

    def test_percent_of_the_card(self):
        entry = {"seconds": [3e-5, 1e-5, 2e-5], "dtype": "bf16", "flops": 8e9, "least_bytes": 40e6}
        timings.add_percent(entry, {"bf16": 800, "fp32": 50, "memory": 4})
        self.assertEqual((entry["median_seconds"], entry["percent_of_peak"], entry["percent_of_bandwidth"]), (2e-5, 50.0, 50.0))

    def test_ratio_is_of_the_best_of_each(self):
        def entry(kernel, library, seconds):
            return {"net": "unet", "op": "conv2d", "shape": "s", "dtype": "bf16", "kernel": kernel, "library": library,
                    "median_seconds": seconds}  # fmt: skip

        alone = {**entry("tiled", False, 1.0), "op": "linear"}
        found = timings.ratios([entry("direct", False, 9.0), entry("implicit_gemm", False, 4.0), entry("cudnn", True, 2.0), alone])
        self.assertEqual([(r["ours"], r["library"], r["ratio"]) for r in found], [("implicit_gemm", "cudnn", 0.5)])


class Training(unittest.TestCase):
    def test_steps_for_a_window(self):
        for seconds, warmup in ((1e-4, 200), (0.005, 30), (0.4, 20), (5, 20)):
            steps, log_every = training.steps_for(seconds, warmup)
            first = -(-warmup // log_every) * log_every
            last = steps // log_every * log_every
            self.assertGreaterEqual((last - first) * seconds, training.WINDOW)
            self.assertLessEqual((steps - warmup) * seconds, max(2 * training.WINDOW, 25 * seconds))

    def test_window_and_steps_of_a_run(self):
        with tempfile.TemporaryDirectory() as folder:
            lines = [{"split": "training", "step": n, "seconds": 10 + 0.5 * n if n < 4 else 12 + 0.1 * (n - 4)} for n in range(1, 13)]
            (pathlib.Path(folder) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            self.assertAlmostEqual(training.step_seconds(pathlib.Path(folder)), 0.1)
            self.assertAlmostEqual(training.window(pathlib.Path(folder), 8), 0.4)

    def test_peers_go_on_until_the_window_is_full(self):
        self.assertEqual(ranks.steps_after(105, 100, 3.1, 3.0), 105)
        self.assertEqual(ranks.steps_after(110, 100, 1.0, 3.0), 130)
        self.assertEqual(ranks.steps_after(110, 100, 2.99, 3.0), 111)
        self.assertEqual(ranks.steps_after(110, 100, 0.001, 3.0), 310)


def stage(name, work, share=1, missing=()):
    return types.SimpleNamespace(NAME=name, TITLE=name, SHARE=share, missing=lambda s: list(missing), rehearse=lambda s: "would work", work=work)


class Stages(unittest.TestCase):
    def session(self, folder, seconds, dry=False):
        programs_there = types.SimpleNamespace(ours=pathlib.Path("/bin/true"), python=None, python_says="no PyTorch", environment=dict(os.environ),
                                               library_folders=[], scratch=pathlib.Path(folder))  # fmt: skip
        return session.Session(programs_there, results.Results(folder), seconds / 60, dry)

    def run_stages(self, seconds, *stages, dry=False):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
            s = self.session(folder, seconds, dry)
            code = session.run_stages(s, stages)
            table = (s.results.folder / "table.md").read_text()
            self.assertIn(table, said.getvalue())
            return code, {line["stage"]: line["state"] for line in s.results.lines if "state" in line}, table, s

    def test_no_failure_takes_another_down(self):
        def fails(s):
            raise ValueError("what it is")

        def sleeps(s):
            s.run(["sleep", "600"], 600)

        code, states, table, _ = self.run_stages(4, stage("a", fails), stage("b", sleeps), stage("c", lambda s: None), stage("d", None, missing=["a tool"]))
        self.assertEqual(code, 1)
        self.assertEqual(states, {"a": "failed", "b": "over", "c": "done", "d": "missing"})
        self.assertIn("ValueError: what it is", table)
        self.assertIn("a tool", table)

    def test_a_stage_that_hangs_by_itself_is_ended(self):
        grace, session.GRACE = session.GRACE, 0
        try:
            began = time.monotonic()
            _, states, _, _ = self.run_stages(3, stage("a", lambda s: time.sleep(600)), stage("b", lambda s: None))
            self.assertLess(time.monotonic() - began, 60)
        finally:
            session.GRACE = grace
        self.assertEqual(states, {"a": "over", "b": "done"})

    def test_time_that_is_left_goes_to_those_that_follow(self):
        limits = []
        self.run_stages(100, stage("a", lambda s: limits.append(s.left()), 10), stage("b", lambda s: limits.append(s.left()), 40))
        self.assertAlmostEqual(limits[0], 20, delta=2)
        self.assertAlmostEqual(limits[1], 100, delta=5)

    def test_told_to_stop_it_still_says_what_it_has(self):
        def stops(s):
            s.say(passed=3, failed=[], skipped=0, test="x")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

        code, states, table, _ = self.run_stages(60, stage("cases", stops), stage("b", lambda s: None))
        self.assertEqual((code, states), (1, {"cases": "stopped"}))
        self.assertIn("3 passed, 0 failed", table)
        self.assertIn("| b | not begun |", table)

    def test_red_is_exit_1(self):
        self.assertEqual(self.run_stages(30, stage("cases", lambda s: s.say(test="x", passed=1, skipped=0, failed=[])))[0], 0)
        self.assertEqual(self.run_stages(30, stage("cases", lambda s: s.say(test="x", passed=1, skipped=0, failed=[{"test": "x", "says": ""}])))[0], 1)
        self.assertEqual(self.run_stages(30, stage("training", lambda s: s.say(net="mnist", precision="fp32", same_losses=False)))[0], 1)

    def test_names_are_those_of_the_help(self):
        for name in all_stages.NAMES:
            self.assertIn(name, gpu.__doc__)
            self.assertIn(name, run_gpu.__doc__)
        self.assertEqual([s.NAME for s in all_stages.chosen(["sanitizer"])], ["sanitizer"])


class Table(unittest.TestCase):
    def rows(self, stage_name, *lines):
        with tempfile.TemporaryDirectory() as folder:
            written = results.Results(folder)
            for line in lines:
                written.add(stage_name, **line)
            return summary.table(types.SimpleNamespace(results=written), [])

    def test_kernels_beside_the_library(self):
        entry = {"net": "unet", "shape": "s", "op": "conv2d", "dtype": "bf16", "difference": 0.0, "seconds": [1.0]}
        text = self.rows("timings", {**entry, "kernel": "tiled", "library": False, "median_seconds": 2.0, "percent_of_peak": 40.0},
                         {**entry, "kernel": "cudnn", "library": True, "median_seconds": 1.0, "difference": 0.3},
                         {"op": "conv2d", "kernel": "direct", "dtype": "bf16", "shape": "t", "failed": "exit 70", "doing": "run"})  # fmt: skip
        self.assertIn("| conv2d bf16, our best | 1 shapes; 40 % of the peak (40 to 40); 0.50x cudnn (0.50 to 0.50) |", text)
        self.assertIn("FAILED: conv2d direct bf16", text)
        self.assertIn("DIFFERS: conv2d cudnn bf16", text)

    def test_training_beside_pytorch(self):
        text = self.rows("training", {"net": "mnist", "precision": "fp32", "side": "lockstep", "samples_per_second": 3000.0},
                         {"net": "mnist", "precision": "fp32", "side": "pytorch", "samples_per_second": 1000.0},
                         {"net": "mnist", "precision": "fp32", "same_losses": True},
                         {"net": "resnet18", "precision": "bf16", "problem": "exit 70: a | b"})  # fmt: skip
        self.assertIn("lockstep 3,000, pytorch 1,000; 3.00x pytorch; losses as PyTorch's", text)
        self.assertIn("| training resnet18 bf16 | exit 70: a \\| b |", text)

    def test_a_pipeline_beside_diffusers(self):
        call = {"program": "denoise", "precision": "bf16"}
        text = self.rows("pipeline", {**call, "side": "lockstep", "call_seconds": 0.02, "seconds": [0.02]},
                         {**call, "side": "pytorch", "call_seconds": 0.03, "seconds": [0.03]},
                         {"program": "decode", "precision": "fp32", "side": "pytorch", "not_run": "no time left"})  # fmt: skip
        self.assertIn("| denoise bf16, ms a call | lockstep 20.0, pytorch 30.0; 1.50x pytorch |", text)
        self.assertIn("| pipeline decode fp32 pytorch | no time left |", text)


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
        /*0070*/               @P1 BRA 0x90 ;                         /* 0x0000000000000947 */
        /*0080*/              @!P0 BRA 0x40 ;
        /*0090*/               @P0 BRA 0x10 ;
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
        self.assertEqual(dict(kernels["_Z4gemmv"]), {"tensor_core": 1, "global_loads": 3, "global_loads_16": 2,
                                                     "loop": 5, "loop_tensor_core": 1, "loop_copies": 0})  # fmt: skip
        self.assertEqual(dict(kernels["_Z5spillv"]), {"local": 2})

    def test_steps(self):
        self.assertEqual(report.tensor_core_in_step("gemm_kernel<bf16, 128, 128, true, true, true, Rows<bf16> >"), 64)
        self.assertIsNone(report.tensor_core_in_step("gemm_kernel<float, 128, 128, true, true, true, Rows<float> >"))

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
