#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trials of a run's files: calls that fail, disks that fill, kills, slow disks, limits, damage.

A tiny job of one rank runs under fault.cpp's library, once for each call that changes its folder. After each trial every
checkpoint that can be seen is the undisturbed run's to the bit, and the run goes on to the undisturbed run's weights.

    tests/faults/files.py BUILD            a selection, below a minute
    tests/faults/files.py BUILD --all      every call, and 2,000 damaged checkpoints
    tests/faults/files.py BUILD PART...    some of: eio full kill cache slow limit damage
"""

import argparse
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

PARTS = ("eio", "full", "kill", "cache", "slow", "limit", "damage")
STEPS, LONGER = 4, 6  # of the run, and of one that goes on
JOB = f"""\
job_name: trial
model:
  layers: [{{conv2d: {{out_channels: 4, kernel: 3}}}}, relu, flatten, {{linear: {{out_features: 10}}}}]
inputs: {{training: {{dataset: mnist, path: data}}, test: {{dataset: mnist, path: data}}}}
hyperparameters: {{steps: {STEPS}, global_batch_size: 12, optimizer: {{name: sgd, lr: 0.01, momentum: 0.9}}}}
checkpoint: {{every_steps: 1, keep: 2}}
log_every: 1
threads_per_rank: 1
"""


def write_data(folder, images, side=8):
    folder.mkdir()
    for name in ("train", "t10k"):
        pixels = bytes((i * 37 + k * 11) % 256 for i in range(images) for k in range(side * side))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, images, side, side) + pixels)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 0x801, images) + bytes(i % 10 for i in range(images)))


class Trials:
    def __init__(self, build, folder):
        self.program, self.library = build / "lockstep", build / "tests" / "libfault.so"
        self.folder = folder
        self.run_folder = folder / "run"
        self.cache = folder / "cache"
        self.log = folder / "calls"
        self.count, self.failures = 0, []
        write_data(folder / "data", 48)
        (folder / "job.yaml").write_text(JOB)
        self.fit()  # fills the cache of kernels: a run's bits depend on which were chosen
        shutil.rmtree(self.run_folder)

    def fit(self, *options, fault=None, at=0, below=None, more=None, limit=None, cache=None):
        """Its exit code, and what it said."""
        def in_child():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "SLURM_", "FAULT_"))}
        environment |= {"XDG_CACHE_HOME": str(cache or self.cache), "OMP_NUM_THREADS": "1"}
        if fault or below:
            environment |= {"LD_PRELOAD": str(self.library), "FAULT_FOLDER": str(below or self.run_folder),
                            "FAULT_DO": fault or "", "FAULT_AT": str(at), "FAULT_LOG": str(self.log)} | (more or {})
            self.log.unlink(missing_ok=True)
        done = subprocess.run([self.program, "fit", "job.yaml", "--output", self.run_folder, "--resume=auto", *options],
                              cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=300, preexec_fn=in_child if limit is not None else None)
        return done.returncode, done.stdout.decode(errors="replace")

    def calls(self):
        """(what happened, name, path) of each that counted."""
        return [line.split(" ", 2) for line in self.log.read_text().splitlines()]

    def expect(self, trial, condition, words):
        if not condition:
            self.failures.append(f"{trial}: {words}")
            print(f"FAILED {trial}: {words}", flush=True)
        return condition

    def weights(self):
        return (self.run_folder / "model.safetensors").read_bytes()

    def checkpoints(self):
        """Name of the folder -> the tensors' files' bytes; None where one is missing."""
        found = {}
        for folder in sorted((self.run_folder / "checkpoints").glob("step-*")):
            names = ("manifest.json", "meta.json", "model.json", "model.safetensors", "state.safetensors")
            whole = all((folder / name).is_file() for name in names)
            found[folder.name] = tuple((folder / name).read_bytes() for name in names[3:]) if whole else None
        return found

    def undisturbed(self):
        """The calls, the checkpoints and the weights of a run without faults."""
        code, said = self.fit("--set", "checkpoint.keep=0", below=self.run_folder)
        if code != 0:
            sys.exit(f"the run without faults ends with {code}:\n{said}")
        self.good = self.checkpoints()
        shutil.rmtree(self.run_folder)
        code, said = self.fit(below=self.run_folder)
        self.good_weights = self.weights()
        calls = self.calls()
        shutil.rmtree(self.run_folder)
        return calls

    def check_left(self, trial):
        """What a fault leaves: whole checkpoints, whole small files; then what a start makes of it."""
        for name, files in self.checkpoints().items():
            self.expect(trial, files is not None and files == self.good.get(name), f"{name} is not the undisturbed run's")
        for name in ("status.json", "plan.json", "model.json"):
            path = self.run_folder / name
            try:
                path.exists() and json.loads(path.read_text())
            except ValueError as error:
                self.expect(trial, False, f"{name} is not whole: {error}")
        code, said = self.fit()
        if not self.expect(trial, code == 0, f"going on ends with {code}:\n{said}"):
            return
        self.expect(trial, self.weights() == self.good_weights, "going on gives other weights")
        left = [str(p.relative_to(self.run_folder)) for p in self.run_folder.rglob(".tmp-*")]
        self.expect(trial, not left, f"left: {left}")
        lines = [json.loads(line) for line in (self.run_folder / "metrics.jsonl").read_text().splitlines()]
        trained = [line["step"] for line in lines if line["split"] == "training"]
        self.expect(trial, trained == list(range(1, STEPS + 1)), f"metrics.jsonl has the steps {trained}")

    def start(self):
        self.count += 1
        shutil.rmtree(self.run_folder, ignore_errors=True)

    def failing(self, fault, numbers):
        for at in numbers:
            self.start()
            trial = f"{fault} at call {at}"
            code, said = self.fit(fault=fault, at=at)
            hit = [call for call in self.calls() if call[0] == fault]
            if not hit and fault == "full" and code == 0:
                continue  # nothing behind that call needs room
            if not self.expect(trial, hit, "the call never came"):
                continue
            trial += f", {hit[0][1]} {hit[0][2].removeprefix(str(self.folder))}"
            if code == 0:  # what is not lost: a line of the log; a leftover that the next start sweeps
                fine = "warning" in said or hit[0][1] == "unlink"
                self.expect(trial, fine, f"ends with 0 and without a word:\n{said}")
            else:
                self.expect(trial, code == 74 and "error[E_" in said and str(self.run_folder) in said,
                            f"ends with {code}:\n{said}")
            self.check_left(trial)

    def killing(self, numbers):
        for at in numbers:
            self.start()
            code, said = self.fit(fault="kill", at=at)
            trial = f"kill at call {at}"
            if self.expect(trial, code == -signal.SIGKILL, f"ends with {code}:\n{said}"):
                trial += " " + " ".join(self.calls()[-1][1:]).replace(str(self.folder), "")
            self.check_left(trial)

    def caching(self, stride):
        """A cache costs time, never a run; and half of one is never taken for whole."""
        write_data(self.folder / "large", 20_000)  # smaller sets are not kept
        options = ("--set", "inputs.training.path=large", "--set", "inputs.test.path=large")
        cache = self.folder / "own cache"
        self.start()
        time.sleep(0.2)  # younger sources are not kept
        code, said = self.fit(*options, below=cache, cache=cache)
        self.expect("cache", code == 0, said)
        kept = {p.name: p.stat().st_size for p in (cache / "lockstep").glob("*.images")}
        count = len(self.calls())
        self.expect("cache", len(kept) == 2 and count > 10, f"{kept}, {count} calls: nothing was tested")
        for fault in ("eio", "full", "kill"):
            for at in range(1, count + 1, stride):
                trial = f"cache, {fault} at call {at}"
                shutil.rmtree(cache)
                self.start()
                code, said = self.fit(*options, fault=fault, at=at, below=cache, cache=cache)
                if fault == "kill":
                    self.expect(trial, code == -signal.SIGKILL, f"ends with {code}:\n{said}")
                else:
                    self.expect(trial, code == 0, f"ends with {code}:\n{said}")
                for path in (cache / "lockstep").glob("*.images"):
                    self.expect(trial, path.stat().st_size == kept.get(path.name), f"half of {path.name} is there")
                kernels = cache / "lockstep" / "kernels.json"
                self.expect(trial, not kernels.exists() or json.loads(kernels.read_text()), "half of kernels.json is there")
                code, said = self.fit(*options, cache=cache)
                self.expect(trial, code == 0, f"going on ends with {code}:\n{said}")

    def slow(self):
        self.start()
        code, said = self.fit(fault="slow", more={"FAULT_MS": "20"})
        self.expect("slow disk", code == 0 and self.weights() == self.good_weights, f"ends with {code}:\n{said}")

    def limits(self, sizes):
        for limit in sizes:
            self.start()
            trial = f"files of at most {limit} bytes"
            code, said = self.fit(limit=limit)
            self.expect(trial, code == 74 and "error[E_IO]" in said and str(self.run_folder) in said,
                        f"ends with {code}:\n{said}")
            self.check_left(trial)

    def damage(self, count):
        """A changed, lost or added piece of the newest checkpoint: it is refused, or passed over for the one before."""
        self.start()
        self.fit()
        kept = self.folder / "kept"
        shutil.copytree(self.run_folder, kept)
        longer = ("--set", f"hyperparameters.steps={LONGER}")
        code, said = self.fit(*longer)
        self.expect("damage", code == 0, said)
        good = self.weights()
        chance = random.Random(4)
        newest = f"checkpoints/step-{STEPS:08}"
        files = sorted(p.relative_to(kept) for p in (kept / newest).rglob("*") if p.is_file())
        refused = passed_over = 0
        for n in range(count):
            self.start()
            shutil.copytree(kept, self.run_folder)
            path = self.run_folder / files[n % len(files)]
            data = bytearray(path.read_bytes())
            place, how = chance.randrange(len(data)), chance.choice(("bit", "bit", "zeros", "cut", "more", "gone"))
            if how == "bit":
                data[place] ^= 1 << chance.randrange(8)
            elif how == "zeros":
                data[place:place + 512] = bytes(len(data[place:place + 512]))
            elif how == "cut":
                del data[place:]
            elif how == "more":
                data[place:place] = b"x"
            path.unlink() if how == "gone" else path.write_bytes(data)
            trial = f"damage {n}, {how} at {place} of {path.name}"
            code, said = self.fit(*longer)
            refused += code == 65
            passed_over += "passed over a damaged checkpoint" in said
            self.expect(trial, code == 65 or (code == 0 and self.weights() == good), f"ends with {code}:\n{said}")
        self.expect("damage", refused + passed_over > count // 2, f"{refused} refused, {passed_over} passed over")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("build", type=pathlib.Path)
    arguments.add_argument("parts", nargs="*", metavar="PART", default=[])
    arguments.add_argument("--all", action="store_true")
    given = arguments.parse_intermixed_args()
    parts = given.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        arguments.error(f"no part {unknown}: {PARTS}")
    with tempfile.TemporaryDirectory(prefix="lockstep-faults-") as folder:
        trials = Trials(given.build.resolve(), pathlib.Path(folder).resolve())
        calls = trials.undisturbed()
        print(f"{len(calls)} calls", flush=True)
        for number, part in enumerate(PARTS):
            if part not in parts:
                continue
            started, before = time.monotonic(), trials.count
            # Others each time that a call is added before them.
            some = range(1, len(calls) + 1) if given.all else range(1 + number, len(calls) + 1, len(calls) // 9)
            if part in ("eio", "full"):
                trials.failing(part, some)
            elif part == "kill":
                trials.killing(some)
            elif part == "cache":
                trials.caching(1 if given.all else 11)
            elif part == "slow":
                trials.slow()
            elif part == "limit":
                trials.limits((0, 100, 500, 1000, 2000, 4000, 8000) if given.all else (0, 1000))
            elif part == "damage":
                trials.damage(2000 if given.all else 40)
            print(f"{part}: {trials.count - before} trials, {time.monotonic() - started:.1f} s", flush=True)
        print(f"{trials.count} trials, {len(trials.failures)} failed")
        return 1 if trials.failures else 0


if __name__ == "__main__":
    sys.exit(main())
