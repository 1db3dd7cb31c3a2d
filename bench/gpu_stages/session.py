# SPDX-License-Identifier: Apache-2.0
"""Runs stages, each within a limit of its own, and ends with a table whatever becomes of them.

A stage is a module: NAME, TITLE, SHARE (of nine minutes, in seconds), missing(s) (what it cannot do without and does not find;
an empty list where all is there), rehearse(s) (starts its programs without their work and says what they would do), work(s).
"""

import signal
import sys
import time
import traceback

from gpu_stages import card, processes, summary

GRACE = 5  # seconds after a stage's limit in which it ends by itself


class StageOver(BaseException):
    """Not an Exception: what a stage catches is not this."""


class Stopped(BaseException):
    pass


def raise_it(kind):
    def handler(_signal, _frame):
        raise kind

    return handler


class Session:
    def __init__(self, programs, results, minutes, dry=False, quick=False):
        self.programs, self.results = programs, results
        self.dry, self.quick = dry, quick
        self.end = time.monotonic() + 60 * minutes
        self.stage_end = self.end
        self.stage = ""
        try:
            self.card, self.no_card = card.find_card(), ""
        except card.NoGpu as e:
            self.card, self.no_card = None, str(e)

    def left(self):
        return self.stage_end - time.monotonic()

    def say(self, **found):
        self.results.add(self.stage, **found)

    def run(self, command, limit):
        return processes.run(command, min(limit, self.left()), self.programs.environment)

    def run_peer(self, command, limit):
        return processes.run(command, min(limit, self.left()), self.programs.peer_environment)

    def ours(self, *words, limit):
        return self.run([self.programs.ours, *words], limit)

    def need(self, gpu=True, program=True, pytorch=False):
        """What a stage misses of these."""
        missing = []
        if gpu and not self.card:
            missing.append(f"a GPU: {self.no_card}")
        if program and not self.programs.ours.exists():
            missing.append(f"{self.programs.ours}")
        if pytorch and not self.programs.python:
            missing.append(self.programs.python_says)
        return missing


def run_stage(s, stage):
    """'done', 'missing', 'over' or 'failed', and a line on it."""
    missing = stage.missing(s)
    if s.dry:
        said = stage.rehearse(s)
        s.say(rehearsed=said, missing=missing)
        return "rehearsed", said + ("; missing: " + "; ".join(missing) if missing else "")
    if missing:
        s.say(missing=missing)
        return "missing", "; ".join(missing)
    stage.work(s)
    return ("over", "its time was over") if s.left() <= 0 else ("done", "")


def attempt(s, stage):
    try:
        signal.setitimer(signal.ITIMER_REAL, max(s.left(), 1) + GRACE)
        try:
            return run_stage(s, stage)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except StageOver:
        processes.kill_all()
        return "over", "its time was over"
    except Exception as e:  # noqa: BLE001: whatever it is, the other stages go on
        s.say(problem=traceback.format_exc()[-4000:])
        return "failed", f"{type(e).__name__}: {e}"


def run_stages(s, stages):
    """The exit code: 0, or 1 where a stage failed or found something red."""
    signal.signal(signal.SIGALRM, raise_it(StageOver))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, raise_it(Stopped))
    states = []
    try:
        for i, stage in enumerate(stages):
            now = time.monotonic()
            # What others leave goes to those that follow. A rehearsal takes a second or two, of whichever stage.
            share = 1 if s.dry else stage.SHARE / sum(other.SHARE for other in stages[i:])
            s.stage, s.stage_end = stage.NAME, now + share * (s.end - now)
            print(f"{stage.NAME}: begins, at most {s.left():.0f} s", flush=True)
            state, why = attempt(s, stage)
            seconds = round(time.monotonic() - now, 1)
            s.say(state=state, why=why[-1500:], seconds=seconds)
            states.append(state)
            print(f"{stage.NAME}: {state}, {seconds} s{': ' + why.strip().splitlines()[-1][-400:] if why.strip() else ''}", flush=True)
    except Stopped:
        processes.kill_all()
        s.say(state="stopped", why="this run was told to stop", seconds=0)
        states.append("stopped")
    finally:
        text = summary.table(s, stages)
        s.results.write_table(text)
        print("\n" + text, flush=True)
        sys.stdout.flush()
    return 1 if {"failed", "stopped"} & set(states) or summary.red(s.results) else 0
