#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The program on a Slurm of its own: srun with and without PMIx, sbatch and salloc, scancel, time limits, requeue with
--resume=auto, --pty; and two nodes, each in a network namespace.

    tests/clusters/slurm.py [-v] [Slurm.test_...]

Needs root and Slurm (sudo apt-get install slurmctld slurmd slurm-client munge libpmix2); exit code 77 where they are missing. LOCKSTEP
names the program (default: build/release/lockstep)."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from nodes import LOCKSTEP, NODES, ROOT, Nodes, eventually, missing, rank

JOB = f"""job_name: slurm
instance_count: 2
threads_per_rank: 1
deadline_seconds: 10
model: {{layers: [flatten, {{linear: {{out_features: 32}}}}, relu, {{dropout: 0.2}}, {{linear: {{out_features: 10}}}}]}}
inputs: {{training: {{dataset: mnist, path: {ROOT}/configs/data/mnist, limit: 640}}}}
hyperparameters: {{steps: 100000000, global_batch_size: 32, seed: 1, shards: 2, optimizer: {{name: sgd, lr: 0.01}}}}
checkpoint: {{every_steps: 100, keep: 2}}
log_every: 1000
"""
CONF = """ClusterName=lockstep
SlurmctldHost={host}(10.77.0.254)
MailProg=/bin/true
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
PropagatePrioProcess=1
InactiveLimit=0
KillWait=30
SchedulerParameters=sched_interval=1
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmdLogFile={folder}/slurmd-%n.log
{nodes}
PartitionName=all Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


class Cluster(Nodes):
    """A controller and two nodes of two CPUs, all on this machine."""

    def __init__(self):
        super().__init__("slurm")
        self.environment["SLURM_CONF"] = str(self.folder / "slurm.conf")

    def begin(self):
        for name in ("munge", "state"):
            (self.folder / name).mkdir(mode=0o700)
        (self.folder / "munge/key").write_bytes(os.urandom(128))
        (self.folder / "munge/key").chmod(0o400)
        self.network()
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 // 2
        nodes = "\n".join(f"NodeName={n} NodeHostname={n} NodeAddr=10.77.0.{i} CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 "
                          f"ThreadsPerCore=1 RealMemory={memory} State=UNKNOWN" for i, n in enumerate(NODES, 1))  # fmt: skip
        (self.folder / "slurm.conf").write_text(CONF.format(folder=self.folder, nodes=nodes, host=os.uname().nodename))
        munge = self.folder / "munge"
        self.start("munged", "--force", "--foreground", "--key-file", munge / "key", "--socket", munge / "munge.sock", "--pid-file",
                   munge / "pid", "--log-file", munge / "log", "--seed-file", munge / "seed")  # fmt: skip
        eventually((munge / "munge.sock").exists, "munged")
        self.start("slurmctld", "-D", "-f", self.folder / "slurm.conf")
        for node in NODES:
            self.start_on(node, f"slurmd -D -N {node} -f {self.folder}/slurm.conf")
        eventually(lambda: self.run("sinfo", "-h", "-o", "%D %t").stdout.split() == ["2", "idle"], "two idle nodes")

    def close(self):
        self.run("scancel", "--signal=KILL", "--state=RUNNING", "-u", "root")
        time.sleep(0.5)
        super().close()


class Slurm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.begin()

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="trial-", dir=self.cluster.folder))
        self.run_folder = self.folder / "run"
        (self.folder / "job.yaml").write_text(JOB)

    def tearDown(self):
        self.cluster.run("scancel", "-u", "root")
        eventually(lambda: not self.cluster.run("squeue", "-h").stdout.strip(), "an empty queue")

    def fit(self, *more, steps=None):
        words = [LOCKSTEP, "fit", self.folder / "job.yaml", "--output", self.run_folder, *more]
        return [str(w) for w in words + (["--set", f"hyperparameters.steps={steps}"] if steps else [])]

    def sbatch(self, options, text):
        script = self.folder / "script"
        script.write_text("#!/bin/sh\n" + text)
        done = self.cluster.run("sbatch", "--parsable", "--output", self.folder / "out", "--open-mode=append", *options, script)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def out(self):
        return (self.folder / "out").read_text() if (self.folder / "out").exists() else ""

    def status(self):
        try:
            return json.loads((self.run_folder / "status.json").read_text())
        except (OSError, ValueError):
            return {"state": "none", "step": -1}

    def state(self, job):
        return dict(re.findall(r"(\w+)=(\S+)", self.cluster.run("scontrol", "show", "job", job).stdout))

    def in_training(self):
        eventually(lambda: any((self.run_folder / "checkpoints").glob("step-*")), f"a checkpoint\n{self.out()}")

    def ended(self, job):
        # A controller under load does not answer at once, and a job is CONFIGURING before it runs.
        ends = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "PREEMPTED", "NODE_FAIL", "OUT_OF_MEMORY")
        return eventually(lambda: (s := self.state(job)).get("JobState") in ends and s, f"job {job}'s end")

    def expect_stopped_in_order(self):
        s = eventually(lambda: (s := self.status())["state"] != "running" and s, "a status")
        self.assertEqual(s["state"], "interrupted", self.out())
        newest = max((self.run_folder / "checkpoints").glob("step-*"))
        self.assertEqual(int(newest.name[5:]), s["step"])

    def expect_completed(self, step):
        s = self.status()
        self.assertEqual((s["state"], s["step"]), ("completed", step), self.out())

    def test_srun_with_pmix(self):
        for where in (["-N1", "-n2"], ["-N2", "-n2"]):
            with self.subTest(where):
                shutil.rmtree(self.run_folder, ignore_errors=True)
                done = self.cluster.run("srun", *where, "--mpi=pmix", *self.fit(steps=30))
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.expect_completed(30)

    def test_srun_without_pmix_is_69(self):
        for kind in ("none", "pmi2"):
            with self.subTest(kind):
                done = self.cluster.run("srun", "-n2", f"--mpi={kind}", *self.fit(steps=30))
                self.assertEqual(done.returncode, 69, done.stdout + done.stderr)
                self.assertIn("--mpi=pmix", done.stderr)
                self.assertFalse(self.run_folder.exists())

    def test_a_step_of_one_task_starts_its_own_ranks(self):
        for words in (["srun", "-n1", "-c2"], ["srun", "-n1", "-c2", "--pty"], ["salloc", "-n2"]):
            with self.subTest(words):
                shutil.rmtree(self.run_folder, ignore_errors=True)
                done = self.cluster.run(*words, *self.fit(steps=30))
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.expect_completed(30)

    def test_a_bare_mpirun_of_one_is_76(self):
        done = self.cluster.run("salloc", "-n2", "mpirun", "-n", "1", *self.fit(steps=30))
        self.assertEqual(done.returncode, 76, done.stdout + done.stderr)

    def test_a_batch_job_uses_all_nodes(self):
        for options in (["-N2", "--ntasks-per-node=1"], ["-N2", "-n2"]):
            with self.subTest(options):
                shutil.rmtree(self.run_folder, ignore_errors=True)
                self.sbatch(options, f"exec {' '.join(self.fit())}\n")
                self.in_training()
                hosts = {os.readlink(f"/proc/{self.rank(number)}/ns/net") for number in range(2)}
                self.assertEqual(len(hosts), 2)
                self.tearDown()

    def test_scancel(self):
        kinds = {
            "its own ranks": (["-N1", "-n2"], f"exec {' '.join(self.fit())}\n"),
            "on two nodes": (["-N2", "-n2"], f"exec {' '.join(self.fit())}\n"),
            "srun": (["-N2", "-n2"], f"exec srun --mpi=pmix {' '.join(self.fit())}\n"),
            "a shell before srun": (["-N2", "-n2"], f"srun --mpi=pmix {' '.join(self.fit())}\n"),
        }
        for name, (options, text) in kinds.items():
            with self.subTest(name):
                shutil.rmtree(self.run_folder, ignore_errors=True)
                job = self.sbatch(options, text)
                self.in_training()
                self.cluster.run("scancel", job)
                self.ended(job)
                self.expect_stopped_in_order()

    def test_signals_to_the_steps(self):
        for number in ("USR1", "TERM", "HUP", "INT"):
            with self.subTest(number):
                shutil.rmtree(self.run_folder, ignore_errors=True)
                job = self.sbatch(["-N2", "-n2"], f"exec srun --mpi=pmix {' '.join(self.fit())}\n")
                self.in_training()
                self.cluster.run("scancel", f"--signal={number}", job)
                self.assertEqual(self.ended(job)["ExitCode"].split(":")[0], "75", self.out())
                self.expect_stopped_in_order()

    def test_time_limits(self):
        kinds = {
            "B": (["-N1", "-n2", "--signal=B:USR1@50"], f"exec {' '.join(self.fit())}\n"),
            "steps": (["-N2", "-n2", "--signal=USR1@50"], f"exec srun --mpi=pmix {' '.join(self.fit())}\n"),
        }
        for name, (options, text) in kinds.items():
            with self.subTest(name):
                shutil.rmtree(self.run_folder, ignore_errors=True)
                job = self.sbatch(["--time=1", *options], text)
                self.assertEqual(self.ended(job)["ExitCode"].split(":")[0], "75", self.out())
                self.expect_stopped_in_order()

    def test_a_job_that_is_requeued_goes_on(self):
        # One that nobody disturbs, to compare with.
        self.assertEqual(self.cluster.run("srun", "-n2", "--mpi=pmix", *self.fit(steps=4000)).returncode, 0)
        weights = max((self.run_folder / "checkpoints").glob("step-*")) / "model.safetensors"
        expected = weights.read_bytes()
        shutil.rmtree(self.run_folder)
        job = self.sbatch(["-N2", "-n2", "--requeue"], f"exec {' '.join(self.fit('--resume=auto', steps=4000))}\n")
        self.in_training()
        self.cluster.run("scontrol", "requeue", job)
        eventually(lambda: self.state(job).get("Restarts") == "1", "an end of the first start")
        stopped = self.status()
        self.assertEqual(stopped["state"], "interrupted", self.out())
        self.assertLess(stopped["step"], 4000)
        # Slurm would wait for two minutes.
        eventually(lambda: self.cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now").returncode == 0, "a second start")
        self.assertEqual(self.ended(job)["ExitCode"], "0:0", self.out())
        self.assertRegex(self.out(), r"resum\w+ .*step")
        self.expect_completed(4000)
        self.assertEqual(weights.read_bytes(), expected)

    def test_a_killed_rank_ends_the_job(self):
        job = self.sbatch(["-N2", "-n2"], f"exec srun --mpi=pmix --kill-on-bad-exit=1 {' '.join(self.fit())}\n")
        self.in_training()
        rank = self.rank(1)
        begun = time.monotonic()
        os.kill(rank, signal.SIGKILL)
        self.ended(job)
        self.assertLess(time.monotonic() - begun, 20)
        self.assertEqual(self.status()["state"], "failed", self.out())

    def test_a_stopped_rank_elsewhere_is_named(self):
        job = self.sbatch(["-N2", "-n2"], f"exec {' '.join(self.fit())}\n")
        self.in_training()
        os.kill(self.rank(1), signal.SIGSTOP)
        self.assertEqual(self.ended(job)["ExitCode"].split(":")[0], "75", self.out())
        s = self.status()
        self.assertEqual((s["state"], s["rank"]), ("failed", 1), self.out())
        self.assertRegex(self.out(), r"error\[E_PEER_LOST\] rank=1 host=node2")

    def rank(self, number):
        found = rank(number, self.run_folder)
        self.assertIsNotNone(found, f"rank {number}")
        return found


if __name__ == "__main__":
    if why := missing("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "scontrol", "squeue"):
        print("skipped:", why)
        sys.exit(77)
    unittest.main(verbosity=2)
