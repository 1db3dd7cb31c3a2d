#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The program on two hosts by ssh: two network namespaces with sshd. What is lost, what differs, which network joins them.

    tests/clusters/ssh.py [-v] [Ssh.test_...]

Needs root and sshd (sudo apt-get install openssh-server); exit code 77 where they are missing. LOCKSTEP names the program (default:
build/release/lockstep)."""

import gzip
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from nodes import LOCKSTEP, NODES, PATIENCE, ROOT, Nodes, eventually, missing, name_of, rank

DEADLINE = 5
SSHD = "/usr/sbin/sshd"
JOB = """job_name: ssh
instance_count: 2
hosts: [node1, node2]
threads_per_rank: 1
deadline_seconds: {deadline}
model: {{layers: [flatten, {{linear: {{out_features: 32}}}}, relu, {{dropout: 0.2}}, {{linear: {{out_features: 10}}}}]}}
inputs: {{training: {{dataset: mnist, path: {data}, limit: 640}}}}
hyperparameters: {{steps: 100000000, global_batch_size: 32, seed: 1, shards: 2, optimizer: {{name: sgd, lr: 0.01}}}}
checkpoint: {{every_steps: 100, keep: 2}}
log_every: 1000
"""


class Hosts(Nodes):
    """sshd on both, and an ssh that knows them."""

    def __init__(self):
        super().__init__("ssh")
        self.sshd_folder = pathlib.Path("/run/sshd")
        self.made_sshd_folder = not self.sshd_folder.exists()
        self.environment["PATH"] = f"{self.folder}/bin:{os.environ['PATH']}"

    def begin(self):
        self.sshd_folder.mkdir(mode=0o755, exist_ok=True)
        for key in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key], check=True)
        (self.folder / "sshd_config").write_text(
            f"HostKey {self.folder}/host_key\nAuthorizedKeysFile {self.folder}/key.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
            "PermitRootLogin yes\nPasswordAuthentication no\n")  # fmt: skip
        (self.folder / "bin").mkdir()
        (self.folder / "bin/ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self.folder}/ssh_config "$@"\n')
        (self.folder / "bin/ssh").chmod(0o755)
        (self.folder / "ssh_config").write_text(
            f"IdentityFile {self.folder}/key\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n")

    def up(self, mounts=()):
        """mounts: what lies elsewhere on the second host."""
        self.network()
        for node in NODES:
            self.start_on(node, f"{SSHD} -D -f {self.folder}/sshd_config", mounts if node == NODES[1] else ())
        for node in NODES:
            eventually(lambda n=node: self.run("ssh", n, "true").returncode == 0, f"sshd on {node}")

    def processes(self, node):
        said = subprocess.run(["ip", "netns", "pids", f"lockstep-{node}"], capture_output=True, text=True).stdout
        return [int(word) for word in said.split()]

    def down(self):
        for node in NODES:
            self.die(node)
        for daemon in self.daemons:
            daemon.wait()
        self.daemons.clear()
        self.remove_network()

    def die(self, node):
        for process in self.processes(node):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def link(self, node, state):
        subprocess.run(["ip", "link", "set", f"ls-{node}", state], check=True)

    def close(self):
        super().close()
        if self.made_sshd_folder:
            self.sshd_folder.rmdir()


class Ssh(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.hosts = Hosts()
        cls.addClassCleanup(cls.hosts.close)
        cls.hosts.begin()

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="trial-", dir=self.hosts.folder))
        self.run_folder = self.folder / "run"
        self.data = self.folder / "data"
        shutil.copytree(ROOT / "configs/data/mnist", self.data)
        (self.folder / "job.yaml").write_text(JOB.format(data=self.data, deadline=DEADLINE))
        self.job = None

    def tearDown(self):
        if self.job and self.job.poll() is None:
            self.job.kill()
        self.hosts.down()

    def start(self, *more, steps=None):
        words = [LOCKSTEP, "fit", self.folder / "job.yaml", "--output", self.run_folder, *more]
        words += ["--set", f"hyperparameters.steps={steps}"] if steps else []
        self.out = self.folder / "out"
        with self.out.open("wb") as out:
            self.job = subprocess.Popen(self.hosts.words_on("node1", *words), env=self.hosts.environment, stdin=subprocess.DEVNULL,
                                        stdout=out, stderr=subprocess.STDOUT)  # fmt: skip

    def ends(self, code):
        """What it said."""
        try:
            got = self.job.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            got = "nothing"
        said = self.out.read_text(errors="replace")
        self.assertEqual(got, code, said)
        return said

    def in_training(self):
        eventually(lambda: self.job.poll() is not None or any((self.run_folder / "checkpoints").glob("step-*")), "a checkpoint")
        self.assertIsNone(self.job.poll(), self.out.read_text())

    def status(self):
        return json.loads((self.run_folder / "status.json").read_text())

    def expect_nothing_left(self, node):
        """Of the launcher's on this host: mpirun, ssh, ranks."""
        def left():
            return [name_of(p) for p in self.hosts.processes(node)]

        eventually(lambda: not {"mpirun", "orterun", "prterun", "ssh", "lockstep"} & set(left()), "the end of all that was started")

    def test_ranks_on_both_train(self):
        self.hosts.up()
        self.start(steps=300)
        self.ends(0)
        self.assertEqual((self.status()["state"], self.status()["step"]), ("completed", 300))
        # The same bits as both ranks on one host.
        two = self.run_folder / "model.safetensors"
        words = [LOCKSTEP, "fit", self.folder / "job.yaml", "--output", self.folder / "alone", "--set", 'hosts=["node1:2"]']
        done = self.hosts.run(*words, "--set", "hyperparameters.steps=300")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(two.read_bytes(), (self.folder / "alone/model.safetensors").read_bytes())

    def test_a_link_that_goes_down(self):
        self.hosts.up()
        self.start()
        self.in_training()
        begun = time.monotonic()
        self.hosts.link("node2", "down")
        said = self.ends(75)
        self.assertLess(time.monotonic() - begun, DEADLINE + 20, said)
        self.assertRegex(said, r"error\[E_PEER_LOST\] host=node2")
        self.assertNotRegex(said, r"error\[E_PEER_LOST\].*host=node1")
        self.assertEqual(self.status()["state"], "failed", said)
        self.expect_nothing_left("node1")

    def test_a_host_that_dies(self):
        self.hosts.up()
        self.start()
        self.in_training()
        self.hosts.die("node2")
        said = self.ends(75)
        self.assertRegex(said, r"error\[E_PEER_LOST\] host=node2")
        self.assertEqual(self.status()["state"], "failed", said)
        self.expect_nothing_left("node1")

    def test_a_daemon_that_dies(self):
        self.hosts.up()
        self.start()
        self.in_training()
        for process in self.hosts.processes("node2"):
            if name_of(process) in ("orted", "prted"):
                os.kill(process, signal.SIGKILL)
        said = self.ends(75)
        # mpirun asks the ranks of the other host to stop, and they do.
        if self.status()["state"] != "interrupted":
            self.assertRegex(said, r"error\[E_PEER_LOST\] host=node2")

    def test_a_stopped_rank_elsewhere_is_named(self):
        self.hosts.up()
        self.start()
        self.in_training()
        os.kill(rank(1, self.run_folder), signal.SIGSTOP)
        said = self.ends(75)
        self.assertRegex(said, r"error\[E_PEER_LOST\] rank=1 host=node2")

    def test_a_host_that_is_not_there(self):
        self.hosts.up()
        self.hosts.die("node2")
        self.start(steps=30)
        said = self.ends(69)
        self.assertIn("node2", said)
        self.assertFalse(self.run_folder.exists(), said)

    def test_signals_are_heard_from_the_start(self):
        self.hosts.up()
        for wait in (0.3, 1, 3):
            with self.subTest(wait):
                shutil.rmtree(self.run_folder, ignore_errors=True)
                self.start()
                time.sleep(wait)
                begun = time.monotonic()
                launcher = [p for p in self.hosts.processes("node1") if name_of(p) == "lockstep"]
                self.assertTrue(launcher)
                os.kill(min(launcher), signal.SIGTERM)
                self.ends(75)
                self.assertLess(time.monotonic() - begun, 10)
                self.expect_nothing_left("node1")
                self.expect_nothing_left("node2")

    def test_a_stop_is_one_step_and_a_checkpoint(self):
        self.hosts.up()
        self.start()
        self.in_training()
        os.kill(rank(1, self.run_folder), signal.SIGTERM)
        said = self.ends(75)
        self.assertEqual(self.status()["state"], "interrupted", said)
        newest = max((self.run_folder / "checkpoints").glob("step-*"))
        self.assertEqual(int(newest.name[5:]), self.status()["step"])

    def test_other_data_on_one_host(self):
        other = self.folder / "other"
        shutil.copytree(self.data, other)
        images = other / "train-images-idx3-ubyte.gz"
        pixels = bytearray(gzip.decompress(images.read_bytes()))
        pixels[16 + 784 * 5 + 300] ^= 1
        images.write_bytes(gzip.compress(pixels, 1))
        self.hosts.up([(other, self.data)])
        self.start(steps=30)
        said = self.ends(76)
        self.assertRegex(said, r"error\[E_RANKS_DISAGREE\]: inputs.training .* differs: content \w+ on rank 1")

    def test_data_missing_on_one_host(self):
        (self.folder / "empty").mkdir()
        self.hosts.up([(self.folder / "empty", self.data)])
        self.start(steps=30)
        said = self.ends(66)
        self.assertRegex(said, r"error\[E_\w+\].*node2|error\[E_\w+\].*rank=1")

    def test_another_build_on_one_host(self):
        program = pathlib.Path(LOCKSTEP).read_bytes()
        # The note that the linker writes: GNU, type 3, a digest of 20 bytes.
        at = program.index(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0") + 16
        other = self.folder / "lockstep"
        other.write_bytes(program[:at] + bytes(b ^ 1 for b in program[at : at + 20]) + program[at + 20 :])
        other.chmod(0o755)
        self.hosts.up([(other, LOCKSTEP)])
        self.start(steps=30)
        said = self.ends(76)
        self.assertRegex(said, r"error\[E_RANKS_DISAGREE\]: build differs: .* on rank 1")

    def test_the_same_address_on_both(self):
        self.hosts.up()
        for node in NODES:  # as Docker's bridge has it
            for command in ("link add docker0 type bridge", "addr add 172.17.0.1/16 dev docker0", "link set docker0 up"):
                subprocess.run(["ip", "-n", f"lockstep-{node}", *command.split()], check=True)
        self.start(steps=300)
        self.ends(0)
        self.assertEqual(self.status()["state"], "completed")

    def test_hosts_that_do_not_reach_each_other(self):
        """Each has a network of the same subnet, which is chosen, and no cable joins them."""
        self.hosts.up()
        for i, node in enumerate(NODES, 1):
            for command in ("link add island type bridge", f"addr add 10.88.0.{i}/24 dev island", "link set island up"):
                subprocess.run(["ip", "-n", f"lockstep-{node}", *command.split()], check=True)
        # mpirun's daemons are joined, and then the ranks are not.
        self.hosts.environment |= {"OMPI_MCA_btl_tcp_if_include": "10.88.0.0/24", "OMPI_MCA_oob_tcp_if_include": "10.77.0.0/24"}
        self.addCleanup(lambda: [self.hosts.environment.pop(f"OMPI_MCA_{n}_tcp_if_include") for n in ("btl", "oob")])
        begun = time.monotonic()
        self.start("--set", "deadline_seconds=60", steps=30)
        said = self.ends(69)
        self.assertLess(time.monotonic() - begun, 45, said)
        self.assertRegex(said, r"error\[E_UNREACHABLE\].*: (rank [01] on \S+ has had no answer from rank [01].* within 10 s|"
                               r"node[12] cannot connect to 10\.88\.0)")  # fmt: skip
        self.assertIn("network_interface", said)
        self.assertFalse(self.run_folder.exists(), said)

    def test_a_name_of_its_own_that_nothing_resolves(self):
        """As in a bare container: the resolver answers nothing for 20 s, and nobody waits for it."""
        self.hosts.up()
        nowhere = self.folder / "resolv.conf"
        nowhere.write_text("nameserver 10.77.0.9\n")
        subprocess.run("ip -n lockstep-node1 neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev eth0".split(), check=True)
        inside = self.hosts.inside("node1", [(nowhere, "/etc/resolv.conf")])
        for hosts in ("", '["node1:2"]', "[node1, node2]"):
            with self.subTest(hosts):
                shutil.rmtree(self.run_folder, ignore_errors=True)
                job = self.folder / "named.yaml"
                job.write_text((self.folder / "job.yaml").read_text().replace("hosts: [node1, node2]", f"hosts: {hosts}" if hosts else ""))
                words = [LOCKSTEP, "fit", job, "--output", self.run_folder, "--set", "hyperparameters.steps=30"]
                begun = time.monotonic()
                done = subprocess.run(["nsenter", *inside, "sh", "-c", 'hostname nowhere && exec "$@"', "-", *words],
                                      env=self.hosts.environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
                                      stdin=subprocess.DEVNULL)  # fmt: skip
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertLess(time.monotonic() - begun, 12, done.stdout + done.stderr)

    def test_a_network_that_the_job_names(self):
        self.hosts.up()
        for name, code in (("10.77.0.0/24", 0), ("eth0", 0), ("10.99.0.0/24", 78)):
            with self.subTest(name):
                shutil.rmtree(self.run_folder, ignore_errors=True)
                self.start("--set", f"network_interface={name}", steps=30)
                self.ends(code)


if __name__ == "__main__":
    if why := missing("ssh", "ssh-keygen", SSHD):
        print("skipped:", why)
        sys.exit(77)
    unittest.main(verbosity=2)
