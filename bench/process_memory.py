# SPDX-License-Identifier: Apache-2.0
"""What processes take of memory while they run, as Linux counts it."""

import pathlib
import subprocess
import tempfile
import time

from harness import Failed


def parents(proc="/proc"):
    """{process: its parent}"""
    found = {}
    for entry in pathlib.Path(proc).iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:  # it has ended
            continue
        found[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])  # the name before it may hold anything
    return found


def descendants(of, parent_of):
    """The process and all below it."""
    found = [of]
    for pid in found:
        found += [child for child, parent in parent_of.items() if parent == pid]
    return found


def pss(smaps_rollup):
    """Bytes: a page that n processes share counts as a n-th."""
    for line in smaps_rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("smaps_rollup without Pss")


def peak_pss(command, interval=0.02):
    """Bytes of the largest process below a command at its largest: one rank of a job whose ranks are alike."""
    command = [str(c) for c in command]
    peaks = {}
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115: a pipe that nobody reads would stop the process when full
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
    try:
        while process.poll() is None:
            for pid in descendants(process.pid, parents()):
                try:
                    now = pss(pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text())
                except (OSError, ValueError):  # it has ended, or is about to
                    continue
                peaks[pid] = max(peaks.get(pid, 0), now)
            time.sleep(interval)
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0 or not peaks:
        said.seek(0)
        raise Failed(f"exit {process.returncode}: {' '.join(command)}\n{said.read()[-2000:]}")
    return max(peaks.values())
