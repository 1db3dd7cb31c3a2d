#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What happens to ranks, many times over: kills (a killed job resumes and ends with the bits of one that was not), stops (a
rank that is stopped is named, by all) and starts (a rank or mpirun that is stopped while the job starts is named).

    tests/faults/ranks.py                        a few of each: what the gate runs
    tests/faults/ranks.py kills --trials 300     one part, of the long tier
    tests/faults/ranks.py stops --trials 100 --seed 7

LOCKSTEP names the program (default: build/release/lockstep). Exit code 1 where a trial failed; what it left is kept and named.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOCKSTEP = os.environ.get("LOCKSTEP", str(ROOT / "build/release/lockstep"))
PATIENCE = 300  # seconds, for what is to come
STEPS, EVERY = 120, 7
JOB = f"""job_name: faults
threads_per_rank: 1
deadline_seconds: 5
model: {{layers: [flatten, {{linear: {{out_features: 32}}}}, relu, {{dropout: 0.2}}, {{linear: {{out_features: 10}}}}]}}
inputs: {{training: {{dataset: mnist, path: {ROOT}/configs/data/mnist, limit: 640}}}}
hyperparameters: {{steps: {STEPS}, global_batch_size: 32, seed: 1, optimizer: {{name: adam, lr: 0.001}}}}
checkpoint: {{every_steps: {EVERY}, keep: 2}}
log_every: 1
"""
MARK = "LOCKSTEP_TEST_MARK"
RANK = "OMPI_COMM_WORLD_RANK"


class Failed(Exception):
    pass


def processes(mark):
    """pid -> environment of those that carry the mark."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        environment = dict(w.split("=", 1) for w in words if "=" in w)
        if environment.get(MARK) == mark:
            found[int(entry.name)] = environment
    return found


def name_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def eventually(condition, what):
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise Failed(f"waited in vain: {what}")
        time.sleep(0.002)


def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Run:
    """`lockstep fit` in a folder of a trial's own."""

    def __init__(self, folder, ranks, more=(), environment=None):
        self.mark = str(folder)
        self.path = folder / "run"
        self.words = folder / "words.txt"
        command = [LOCKSTEP, "fit", str(folder.parent / "job.yaml"), "--output", str(self.path), "--set",
                   f"instance_count={ranks}", *more]
        keep = {k: v for k, v in os.environ.items() if not re.match("OMPI_|PMIX_|PMI_|SLURM_", k)}
        keep.update({MARK: self.mark, "XDG_CACHE_HOME": str(folder.parent / "cache"), "OMP_WAIT_POLICY": "passive"})
        keep.update(environment or {})
        with self.words.open("ab") as out:
            self.process = subprocess.Popen(command, env=keep, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def output(self):
        return self.words.read_text(errors="replace")

    def wait(self):
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed("it hangs") from None

    def step(self):
        try:
            lines = (self.path / "metrics.jsonl").read_text().split("\n")
            return json.loads(lines[-2])["step"] if len(lines) > 1 else 0
        except (OSError, ValueError, KeyError):
            return 0

    def status(self):
        return json.loads((self.path / "status.json").read_text())

    def rank(self, number):
        for pid, environment in processes(self.mark).items():
            if environment.get(RANK) == str(number):
                return pid
        return None

    def mpirun(self):
        for pid, environment in processes(self.mark).items():
            if RANK not in environment and pid != self.process.pid and name_of(pid) in ("mpirun", "orterun", "prterun"):
                return pid
        return None

    def end(self):
        for pid in processes(self.mark):
            kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def expect(condition, what):
    if not condition:
        raise Failed(what)


def bits(run):
    last = run / "checkpoints" / f"step-{STEPS:08}"
    return [f.read_bytes() for f in (run / "model.safetensors", last / "model.safetensors", last / "state.safetensors")]


class Kills:
    """A rank, mpirun or the launcher is killed at any moment; the run then resumes to its end."""
    quick = 8
    at_once = 1

    def __init__(self, folder):
        self.folder = folder
        whole = folder / "whole"
        whole.mkdir()
        run = Run(whole, 2)
        expect(run.wait() == 0, run.output())
        self.expected = bits(run.path)
        started = time.monotonic()
        again = folder / "again"
        again.mkdir()
        expect(Run(again, 2).wait() == 0, "the second run")
        self.seconds = time.monotonic() - started

    def trial(self, folder, chance):
        run = Run(folder, 2)
        try:
            victim = chance.choice(["rank 0", "rank 1", "rank 1", "mpirun", "launcher", "all"])
            time.sleep(self.seconds * chance.uniform(0.1, 1.0))
            if victim.startswith("rank"):
                pids = [run.rank(victim[-1])]
            elif victim == "launcher":
                pids = [run.process.pid]
            else:
                pids = [p for p, e in processes(run.mark).items()
                        if victim == "all" or (RANK not in e and p != run.process.pid)]
            for pid in pids:
                if pid:
                    kill(pid, signal.SIGKILL)
            run.wait()
            eventually(lambda: not processes(run.mark), "the end of all its processes")
            resumed = Run(folder, 2, ["--resume=auto"])
            expect(resumed.wait() == 0, f"{victim} killed at step {run.step()}: the resumed run ended {resumed.process.returncode}")
            expect(bits(run.path) == self.expected, f"{victim} killed: other bits")
        finally:
            run.end()


def endless(folder, ranks, over_mpi, *more):
    """A run that ends by what is done to it alone."""
    return Run(folder, ranks, ["--set", "hyperparameters.steps=100000000", "--set", "checkpoint.every_steps=100000", *more],
               {"LOCKSTEP_RANKS_PER_HOST": "1"} if over_mpi else {})


class Stops:
    """A rank is stopped at any step: named by all, with its host, the step and what it is waited for in."""
    quick = 3
    at_once = 2

    def __init__(self, folder):
        self.folder = folder

    def trial(self, folder, chance):
        ranks = chance.choice([2, 3, 4])
        rank = chance.randrange(ranks)
        over_mpi = chance.random() < 0.5
        run = endless(folder, ranks, over_mpi)
        try:
            target = chance.randrange(1, 400)
            eventually(lambda: run.step() >= target or run.process.poll() is not None, f"step {target}")
            pid = run.rank(rank)
            expect(pid, "it ended: " + run.output())
            kill(pid, signal.SIGSTOP)
            expect(run.wait() == 75, f"it ended {run.process.returncode}")
            how = f"rank {rank} of {ranks}{' over MPI' if over_mpi else ''} stopped"
            expect(re.search(rf"error\[E_PEER_LOST\] rank={rank} host=\S+ op=.* step=\d+: ", run.output()), how)
            status = run.status()
            expect((status["state"], status["code"], status["rank"]) == ("failed", 75, rank), f"{how}: {status}")
            expect(status["op"], f"{how}: {status}")
            expect("E_PEER_LOST" in (run.path / "log.txt").read_text(), f"{how}: not in the log")
            expect(not processes(run.mark), f"{how}: processes are left")
        finally:
            run.end()


class Starts:
    """A rank or mpirun is stopped within the first second, most often before the ranks have met: it is named, and the job ends."""
    quick = 2
    at_once = 2

    def __init__(self, folder):
        self.folder = folder

    def trial(self, folder, chance):
        ranks = chance.choice([2, 3, 4])
        victim = chance.choice([*range(ranks), "mpirun"])
        over_mpi = chance.random() < 0.5
        run = endless(folder, ranks, over_mpi, "--set", "start_deadline_seconds=6")
        try:
            pid = None

            def is_there():
                nonlocal pid
                pid = run.mpirun() if victim == "mpirun" else run.rank(victim)
                return pid or run.process.poll() is not None

            eventually(is_there, f"{victim} to begin")
            time.sleep(chance.choice([0, 1]) * chance.uniform(0, 1))
            expect(pid, "it ended: " + run.output())
            kill(pid, signal.SIGSTOP)
            code = run.wait()
            name = "mpirun" if victim == "mpirun" else f"rank {victim}"
            how = f"{name} of {ranks} ranks{' over MPI' if over_mpi else ''} stopped"
            said = run.output()
            expect(not processes(run.mark), f"{how}: processes are left")
            if "E_START_DEADLINE" in said:
                expect(code == 75 and f"{name} (pid {pid}) is stopped" in said, f"{how}: {code}")
                return "before the ranks had met"
            lost = "E_MPIRUN_LOST" if victim == "mpirun" else rf"E_PEER_LOST\] rank={victim} "
            expect(re.search(lost, said), f"{how}: {code}")
            before = "no step was done" in said
            expect(code == (69 if before else 75), f"{how}: {code}")
            return "before the first step" if before else "after it"
        finally:
            run.end()


PARTS = {"kills": Kills, "stops": Stops, "starts": Starts}


def run_part(name, trials, seed):
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"lockstep-faults-{name}-"))
    (folder / "job.yaml").write_text(JOB)
    part = PARTS[name](folder)
    trials = trials or part.quick
    started, failures, words_of, lock = time.monotonic(), [], collections.Counter(), threading.Lock()
    numbers = iter(range(trials))

    def work():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            own = folder / f"trial-{number}"
            own.mkdir()
            try:
                word = part.trial(own, random.Random(f"{seed} {name} {number}"))
                shutil.rmtree(own)
                if word:
                    words_of[word] += 1
            except Failed as e:
                failures.append(number)
                words = (own / "words.txt").read_text(errors="replace") if (own / "words.txt").exists() else ""
                print(f"FAILED {name} {number} (seed {seed}, kept in {own}): {e}\n{words}", flush=True)

    workers = [threading.Thread(target=work) for _ in range(part.at_once)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    when = "".join(f", {n} {word}" for word, n in sorted(words_of.items()))
    print(f"{name}: {trials - len(failures)} of {trials} as they should{when}, {time.monotonic() - started:.0f} s", flush=True)
    if not failures:
        shutil.rmtree(folder)
    return not failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help=", ".join(PARTS) + "; none: all")
    parser.add_argument("--trials", type=int, default=0, help="of each part; left out: a few")
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    results = [run_part(name, a.trials, a.seed) for name in (a.part or PARTS)]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
