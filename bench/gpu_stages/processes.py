# SPDX-License-Identifier: Apache-2.0
"""Programs with a limit: at it they end with all that they have started, and what they said is kept."""

import dataclasses
import os
import signal
import subprocess
import tempfile
import time

from process_memory import descendants, parents

MOST_SAID = 1 << 20  # bytes of a program's output that are read, its end


@dataclasses.dataclass
class Ended:
    code: int | None  # None: ended at the limit
    said: str
    seconds: float

    @property
    def fine(self):
        return self.code == 0

    def why(self):
        """One line for a table, and the end of what was said."""
        how = f"no end after {self.seconds:.0f} s" if self.code is None else f"exit {self.code}"
        return f"{how}: {self.said.strip()[-1500:]}"


live = set()  # started and not yet ended, of all threads


def kill(process):
    """With what it has started, in process groups of their own too; of one that has ended what is left of its group."""
    if process.poll() is None:
        for pid in descendants(process.pid, parents()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()
    live.discard(process)


def kill_all():
    for process in list(live):
        kill(process)


def start(command, **options):
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, start_new_session=True, **options)
    live.add(process)
    return process


def run(command, limit, env=None, cwd=None):
    """Ended; OSError where it cannot be started. Its output goes to a file: a pipe would stay open with what it left running."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = start(command, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd)
        try:
            code = process.wait(timeout=max(limit, 0.1))
        except subprocess.TimeoutExpired:
            code = None
        finally:  # also when this process itself is told to stop
            kill(process)
        output.seek(max(0, output.seek(0, os.SEEK_END) - MOST_SAID))
        said = output.read().decode(errors="replace")
    return Ended(code, said, time.monotonic() - began)
