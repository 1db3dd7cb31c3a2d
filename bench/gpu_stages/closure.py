# SPDX-License-Identifier: Apache-2.0
"""The shared libraries that programs load, as ldd tells; which of them another machine has itself; the glibc they need."""

import pathlib
import re
import subprocess

from harness import Failed, run

# The driver's, and pip's: too large to carry, and there.
TARGET_HAS = re.compile(r"^lib(cuda|nvidia-\w+|nccl|cudnn\w*|cublas\w*|nvrtc|cudart)\.so")
# The loader and its libraries belong together, so a bundle takes the machine's: needed_glibc() says how old they may be.
LIBC = re.compile(r"^(ld-linux|libc|libm|libmvec|libpthread|libdl|librt|libresolv|libutil|libanl|libnsl)\b.*\.so")


def parse_ldd(text):
    """{name: path, None where it is not found}"""
    found = {}
    for line in text.splitlines():
        if match := re.match(r"\s+(\S+) => (not found|/\S+)", line):
            found[match[1]] = None if match[2] == "not found" else pathlib.Path(match[2])
    return found


def libraries(files):
    """({name: path} to carry, {name: path or None} that the target has) of programs and plugins together."""
    carried, there = {}, {}
    for file in files:
        done = subprocess.run(["ldd", str(file)], text=True, capture_output=True)
        for name, path in parse_ldd(done.stdout).items():
            if TARGET_HAS.match(name):
                there[name] = path
            elif not LIBC.match(name):
                if path is None:
                    raise Failed(f"{file} needs {name}, which is not found here")
                carried[name] = path
    return carried, there


def needed_glibc(files):
    """The newest version of its symbols that any of them names: (2, 34)."""
    versions = {(2, 0)}
    for file in files:
        text = run(["readelf", "--version-info", "--wide", file])
        versions |= {(int(a), int(b)) for a, b in re.findall(r"Name: GLIBC_(\d+)\.(\d+)", text)}
    return max(versions)
