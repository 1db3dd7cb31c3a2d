#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a command in a terminal of 80 columns, and draws what it leaves on the screen as an SVG:

    PATH=$PWD/build/release:$PATH docs/pictures/terminal.py docs/pictures/fit.svg lockstep fit configs/mnist_cnn.yaml
"""

import html
import os
import pty
import re
import sys
import unicodedata

COLUMNS = 80
COLOURS = {None: "#d8dee9", 1: "#ffffff", 2: "#7b8794", 31: "#f47067", 32: "#6bc46d", 33: "#daaa3f", 34: "#6cb6ff", 36: "#56d4dd"}
CELL, LINE, MARGIN = 8.4, 19, 16


def output_of(command):
    """All that the command writes to a terminal. Exits with the command's code where that is not 0."""
    chunks = []
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LC_ALL="C.UTF-8")
        os.execvp(command[0], command)
    import fcntl, struct, termios  # noqa: E401

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # the last writer is gone
            break
        if not chunk:
            break
        chunks.append(chunk)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        sys.stdout.write(b"".join(chunks).decode(errors="replace"))
        sys.exit(code)
    return b"".join(chunks).decode()


def screen_of(output):
    """Lines of (character, style), as a terminal would show them. Style: the SGR numbers in force."""
    lines, row, column, style = [[]], 0, 0, ()
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\s\S]", output):
        if token == "\n":
            row += 1
            if row == len(lines):
                lines.append([])
        elif token == "\r":
            column = 0
        elif token.startswith("\x1b["):
            numbers = [int(n) for n in token[2:-1].strip("?").split(";") if n]
            if token[-1] == "m":
                style = () if not numbers or numbers == [0] else tuple(n for n in (*style, *numbers) if n)
            elif token[-1] == "K":
                del lines[row][column:]
            elif token[-1] == "A":
                row = max(0, row - (numbers[0] if numbers else 1))
            elif token[-1] == "J":
                del lines[row + 1 :], lines[row][column:]
        elif unicodedata.category(token) != "Cc":
            line = lines[row]
            line.extend([(" ", ())] * (column + 1 - len(line)))
            line[column] = (token, style)
            column += 1
    while lines and not any(c.strip() for c, _ in lines[-1]):
        lines.pop()
    return lines


def colour_of(style):
    return next((COLOURS[n] for n in reversed(style) if n in COLOURS), COLOURS[None])


def svg(lines, title):
    width = max(60, max(len(line) for line in lines)) * CELL + 2 * MARGIN
    height = len(lines) * LINE + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#1c2128"/>',
        '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">',
    ]
    for row, line in enumerate(lines):
        y = MARGIN + row * LINE + 14
        start = 0
        while start < len(line):
            end = start
            while end < len(line) and colour_of(line[end][1]) == colour_of(line[start][1]):
                end += 1
            text = "".join(c for c, _ in line[start:end])
            if text.strip():
                # The width is given, so that columns stay where they are in any font.
                out.append(
                    f'<text x="{MARGIN + start * CELL:.1f}" y="{y}" textLength="{len(text) * CELL:.1f}" '
                    f'fill="{colour_of(line[start][1])}">{html.escape(text)}</text>'
                )
            start = end
    return "\n".join([*out, "</g>", "</svg>", ""])


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    picture, command = sys.argv[1], sys.argv[2:]
    prompt = [(c, ()) for c in "$ " + " ".join(command)]
    text = svg([prompt, *screen_of(output_of(command))], " ".join(command))
    with open(picture, "w", encoding="utf-8") as file:
        file.write(text)


main()
