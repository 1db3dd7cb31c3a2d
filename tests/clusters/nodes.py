# SPDX-License-Identifier: Apache-2.0
"""Two hosts on one machine, for the tests here: each a network namespace of its own, joined by a bridge."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOCKSTEP = os.environ.get("LOCKSTEP", str(ROOT / "build/release/lockstep"))
PATIENCE = 240  # seconds, for what is to come
NEEDED = ("ip", "nsenter", "unshare")
NODES = ("node1", "node2")  # each in a network namespace of this name, with lockstep- before it


def eventually(condition, what):
    until = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.05)
    return found


def missing(*programs):
    """Why the tests cannot run here; "": they can."""
    lacking = [n for n in (*NEEDED, *programs) if shutil.which(n) is None]
    return f"no {', '.join(lacking)} here" if lacking else "" if os.geteuid() == 0 else "not root"


class Nodes:
    """All that the daemons on them write lies in a folder of their own, and goes with it."""

    def __init__(self, name):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"lockstep-{name}-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.daemons = []
        self.environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                            "HOME": str(self.folder)}  # fmt: skip
        for variable in [n for n in self.environment if n.startswith(("SLURM_JOB", "OMPI_COMM", "PMI"))]:
            del self.environment[variable]

    def network(self):
        """A bridge with an address of this machine's, and a cable from each node."""
        (self.folder / "hosts").write_text("127.0.0.1 localhost\n10.77.0.1 node1\n10.77.0.2 node2\n")
        commands = ["ip link add ls-bridge type bridge", "ip addr add 10.77.0.254/24 dev ls-bridge", "ip link set ls-bridge up"]
        for i, node in enumerate(NODES, 1):
            commands += [f"ip netns add lockstep-{node}", f"ip link add ls-{node} type veth peer name eth0 netns lockstep-{node}",
                         f"ip link set ls-{node} master ls-bridge up", f"ip -n lockstep-{node} addr add 10.77.0.{i}/24 dev eth0",
                         f"ip -n lockstep-{node} link set eth0 up", f"ip -n lockstep-{node} link set lo up"]  # fmt: skip
        self.remove_network()
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)

    def remove_network(self):
        subprocess.run(["ip", "link", "del", "ls-bridge"], capture_output=True)
        for node in NODES:
            subprocess.run(["ip", "link", "del", f"ls-{node}"], capture_output=True)
            subprocess.run(["ip", "netns", "del", f"lockstep-{node}"], capture_output=True)

    def inside(self, node, mounts=()):
        """The words before a command that runs on the node, under the node's name, with what a host has for itself. mounts: (what,
        where) that this host has in other places."""
        steps = [f"hostname {node}", 'mount --bind "$0" /etc/hosts', "mount -t tmpfs none /tmp", "mount -t tmpfs none /dev/shm",
                 *(f"mount --bind {what} {where}" for what, where in mounts), 'exec "$@"']  # fmt: skip
        return [f"--net=/run/netns/lockstep-{node}", "unshare", "--mount", "--uts", "sh", "-c", " && ".join(steps), self.folder / "hosts"]

    def start(self, *command):
        """A daemon, until the end."""
        with (self.folder / f"{command[0]}.out").open("ab") as log:
            words = [str(w) for w in command]
            self.daemons.append(subprocess.Popen(words, env=self.environment, stdout=log, stderr=log, cwd=self.folder))
        return self.daemons[-1]

    def start_on(self, node, command, mounts=()):
        """A shell's command."""
        return self.start("nsenter", *self.inside(node, mounts), "sh", "-c", f"exec {command}")

    def words_on(self, node, *command):
        return [str(w) for w in ["nsenter", *self.inside(node), *command]]

    def run(self, *command, **more):
        """On the first node."""
        return subprocess.run(self.words_on("node1", *command), env=self.environment, capture_output=True, text=True, timeout=PATIENCE,
                              stdin=subprocess.DEVNULL, **more)  # fmt: skip

    def close(self):
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        self.remove_network()
        shutil.rmtree(self.folder, ignore_errors=True)


def name_of(process):
    """Of the program that it runs; "" of one that has ended."""
    try:
        return pathlib.Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""


def rank(number, run_folder):
    """The process of a run's rank, by whichever launcher; None: there is none."""
    for entry in pathlib.Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            words = (entry / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if command.startswith(LOCKSTEP.encode()) and str(run_folder).encode() in command:
            if {f"OMPI_COMM_WORLD_RANK={number}".encode(), f"PMIX_RANK={number}".encode()} & set(words):
                return int(entry.name)
    return None
