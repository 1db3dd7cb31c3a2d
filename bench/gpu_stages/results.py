# SPDX-License-Identifier: Apache-2.0
"""The folder of results: results.jsonl, a line a finding as it comes; table.md, the summary, last."""

import json
import pathlib
import threading

MOST_BYTES = 16_000_000  # of one file


class Results:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "results.jsonl"
        self.file.write_text("")
        self.lines = []
        self.bytes = 0
        self.lock = threading.Lock()

    def add(self, stage, **found):
        line = {"stage": stage, **found}
        with self.lock:
            self.lines.append(line)
            text = json.dumps(line) + "\n"
            if self.bytes + len(text) <= MOST_BYTES:
                self.bytes += len(text)
                with self.file.open("a") as f:
                    f.write(text)

    def of(self, stage, key=None):
        """Those of a stage, that have `key`."""
        with self.lock:
            return [line for line in self.lines if line["stage"] == stage and (key is None or key in line)]

    def write_table(self, text):
        (self.folder / "table.md").write_text(text[:MOST_BYTES])
