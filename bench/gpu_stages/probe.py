# SPDX-License-Identifier: Apache-2.0
"""What is here: the card, driver, libraries, versions and clocks; what the card can do at most, which warms it up."""

import json
import os
import platform

from gpu_stages import card
from gpu_stages.programs import find_library
from harness import machine

NAME, TITLE, SHARE = "probe", "what is here", 35

LIBRARIES = ("libcuda.so.1", "libnccl.so.2", "libcudnn.so.", "libcublasLt.so.", "libnvrtc.so.")


def libraries(s):
    return {name: find_library(name, s.programs.library_folders) for name in LIBRARIES}


def missing(s):
    return s.need()


def here(s):
    found = libraries(s)
    s.say(card=s.card, libraries=found, machine=machine(), kernel=platform.release(), glibc=" ".join(platform.libc_ver()),
          python=platform.python_version(), peer=s.programs.python_says, cores=os.cpu_count())  # fmt: skip
    return [name for name, file in found.items() if not file]


def version(s):
    done = s.ours("--version", limit=20)
    text = done.said.strip() if done.fine else done.why()
    s.say(version=text)
    return text


def rehearse(s):
    absent = here(s)
    return f"{version(s)}; {s.programs.python_says}" + (f"; not found: {', '.join(absent)}" if absent else "")


def work(s):
    here(s)
    version(s)
    s.say(clocks=card.clocks(), when="at first")
    done = s.ours("kernels", limit=40)
    s.say(gpu_libraries=[line for line in done.said.splitlines() if "cu" in line.lower() and "  " not in line] if done.fine else done.why())
    sheet = card.data_sheet(s.card["name"])
    s.say(limits=sheet, source="data sheet")
    if s.programs.python:
        done = s.run_peer(s.programs.peer("card_limits.py"), 60)
        if done.fine:
            s.say(limits=json.loads(done.said.splitlines()[-1]), source="measured, by PyTorch")
        else:
            s.say(problem=f"limits: {done.why()}")
    s.say(clocks=card.clocks(), when="warm")


def limits(results):
    """As measured, else of the data sheet: TFLOP/s of bf16 and fp32, TB/s of memory; None where neither is known."""
    found = [line["limits"] for line in results.of(NAME, "limits") if line["limits"]]
    return {**found[0], **found[-1]} if found else None
