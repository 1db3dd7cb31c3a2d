# SPDX-License-Identifier: Apache-2.0
"""The card: what nvidia-smi says of it, and what its kind can do at most."""

import re
import shutil
import subprocess

FIELDS = "name,compute_cap,driver_version,memory.total"
CLOCKS = "clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,temperature.gpu,power.draw,clocks_event_reasons.active"

# Of data sheets, dense: bf16 and fp32 (no tensor cores) in TFLOP/s, memory in TB/s. The first whose name is part of the card's.
# Where PyTorch is there, it is measured.
LIMITS = [
    ("GH200", {"bf16": 989, "fp32": 67, "memory": 4.0}),
    ("H200", {"bf16": 989, "fp32": 67, "memory": 4.8}),
    ("H100 NVL", {"bf16": 835, "fp32": 60, "memory": 3.9}),
    ("H100 PCIe", {"bf16": 756, "fp32": 51, "memory": 2.0}),
    ("H100", {"bf16": 989, "fp32": 67, "memory": 3.35}),
    ("B200", {"bf16": 2250, "fp32": 80, "memory": 8.0}),
    ("A100", {"bf16": 312, "fp32": 19.5, "memory": 2.0}),
]


class NoGpu(Exception):
    pass


def card_of(text):
    """Of nvidia-smi's first line: name, compute capability, driver, memory."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or lines[0].startswith("No devices"):
        raise NoGpu("nvidia-smi lists no GPU")
    fields = [field.strip() for field in lines[0].split(",")]
    if len(fields) != 4 or not re.fullmatch(r"\d+\.\d+", fields[1]):
        raise NoGpu(f"nvidia-smi says {lines[0]!r}, and no compute capability")
    return dict(zip(("name", "compute_capability", "driver", "memory"), fields))


def asked(what):
    if not shutil.which("nvidia-smi"):
        raise NoGpu("there is no nvidia-smi on the PATH, so no driver")
    try:
        done = subprocess.run(["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=30)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NoGpu("nvidia-smi does not answer within 30 s") from None
    if done.returncode != 0:
        raise NoGpu(f"nvidia-smi fails: {(done.stdout + done.stderr).strip()[-300:]}")
    return done.stdout


def find_card():
    return card_of(asked(FIELDS))


def clocks():
    """Of the first card; {} where it does not say."""
    try:
        lines = asked(CLOCKS).splitlines()
    except NoGpu:
        return {}
    return dict(zip(CLOCKS.split(","), (field.strip() for field in lines[0].split(",")))) if lines else {}


def architecture_of(compute_capability):
    """As nvcc has it; of 9.0 with the instructions that only it has."""
    architecture = compute_capability.replace(".", "")
    return "90a" if architecture == "90" else architecture


def file_name(card):
    return re.sub(r"[^a-z0-9]+", "_", card["name"].lower().removeprefix("nvidia ")).strip("_") + ".json"


def data_sheet(name):
    return next((limits for part, limits in LIMITS if part in name), None)
