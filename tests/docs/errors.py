# SPDX-License-Identifier: Apache-2.0
"""The error identifiers in the program's sources, each with the exit codes that it comes with."""

import re

FLOORS = ("kernels", "runtime", "models", "launch")
IDENTIFIER = re.compile(r"\bE_[A-Z0-9_]+\b")
# Whose code stands elsewhere: a lost peer is told before the process leaves; of a rank's failure the code is the rank's.
# The last three: ConfigCheck and the readers of nets take the identifier as a word; they throw Exit::config.
ELSEWHERE = {
    "E_PEER_LOST": {69, 75},
    "E_RANK_FAILED": set(),
    "E_UNET": {78},
    "E_VAE": {78},
    "E_TEXT_ENCODER": {78},
}


def exit_codes(root):
    """{"usage": 64, ...}, from kernels/core/error.h."""
    text = (root / "kernels/core/error.h").read_text()
    body = text[text.index("enum class Exit") :]
    return {name: int(code) for name, code in re.findall(r"^\s+(\w+) = (\d+),", body[: body.index("};")], re.M)}


def without_comments(text):
    return re.sub(r'("(?:\\.|[^"\\\n])*")|//[^\n]*', lambda m: m[1] or "", text)


def identifiers(root):
    """{"E_DATA_GZIP": {65}, ...}. ValueError where the code of a line cannot be told."""
    codes = exit_codes(root)
    found = {}
    for path in sorted(p for floor in FLOORS for p in (root / floor).rglob("*")):
        if path.suffix not in (".cpp", ".h", ".cu", ".cuh"):
            continue
        text = without_comments(path.read_text())
        for match in IDENTIFIER.finditer(text):
            if text[: match.start()].endswith('== "'):  # one that was thrown elsewhere
                continue
            of_file = found.setdefault(match[0], set())
            statement = text[max(text.rfind(c, 0, match.start()) for c in ";{}") + 1 : match.start()]
            names = re.findall(r"\bExit::(\w+)", statement)
            # cond ? Exit::io : Exit::internal, cond ? "E_MEMORY" : "E_CUDA": first to first, the others to the other.
            if len(names) > 1 and re.search(r'\? "$', statement):
                names = names[:1]
            elif len(names) > 1 and re.search(r'\? "E_\w+"\s*: "$', statement):
                names = names[1:]
            if match[0] in ELSEWHERE:
                of_file |= ELSEWHERE[match[0]]
            elif names:
                of_file |= {codes[name] for name in names}
            elif match[0].startswith("E_JOB_"):  # job_error(): what is wrong with the text of a job
                of_file.add(codes["config"])
            elif match[0] == "E_INTERNAL":
                of_file.add(codes["internal"])
            else:
                line = text.count("\n", 0, match.start()) + 1
                raise ValueError(f"{path}:{line}: no exit code beside {match[0]}")
    return found
