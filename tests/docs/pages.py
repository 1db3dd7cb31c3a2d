# SPDX-License-Identifier: Apache-2.0
"""What stands in a Markdown page: links, headings, commands."""

import dataclasses
import re

FENCE = re.compile(r"^( *)```(.*)$")
# Languages of fences that hold no commands.
PROSE = {"text", "yaml"}


@dataclasses.dataclass
class Block:
    language: str
    line: int
    text: str


def blocks(text):
    """The fenced blocks. ValueError where one is not closed."""
    found, opened = [], None
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if fence and opened is None:
            opened = Block(fence[2].strip(), number, "")
        elif fence:
            found.append(opened)
            opened = None
        elif opened is not None:
            opened.text += line + "\n"
    if opened is not None:
        raise ValueError(f"line {opened.line}: a fence is not closed")
    return found


def without_blocks(text):
    kept, inside = [], False
    for line in text.splitlines():
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def commands(text):
    """Each command of the page's sh and console blocks, without its comment; of a Python or C++ block its first line."""
    found = []
    for block in blocks(text):
        lines = block.text.replace("\\\n", " ").splitlines()
        if block.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        elif block.language in ("python", "cpp"):
            lines = lines[:1]
        elif block.language in PROSE:
            continue
        elif block.language != "sh":
            raise ValueError(f"line {block.line}: a fence says its language: sh, console, python, cpp, {', '.join(sorted(PROSE))}")
        for line in lines:
            command = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
            if command:
                found.append(command)
    return found


def links(text):
    """The targets of [text](target), ![text](target) and [name]: target."""
    prose = re.sub(r"`[^`\n]*`", "", without_blocks(text))
    return re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r"^\[[^\]]+\]: +(\S+)", prose, re.M)


def anchors(text):
    """What #anchors the page has, as GitHub makes them of headings."""
    found = set()
    for title in re.findall(r"^#+ +(.+)$", without_blocks(text), re.M):
        title = re.sub(r"[`*]|\]\([^)]*\)|\[", "", title)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        n = 0
        while (slug if n == 0 else f"{slug}-{n}") in found:
            n += 1
        found.add(slug if n == 0 else f"{slug}-{n}")
    return found


def broken_links(root, page):
    """Targets of a page's links that are not there: files of the repository, and headings in them."""
    broken = []
    text = page.read_text()
    for target in links(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or not file.is_relative_to(root):
            broken.append(target)
        elif anchor and anchor not in anchors(file.read_text()):
            broken.append(target)
    return broken
