#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/embedding against an installed Lockstep: its programs are built by find_package(lockstep), ask small trained models, and
answer as the program does.

tests/packaging/embedding_test.py BUILD      a folder with the program and its libraries"""

import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/launch"))
import served  # noqa: E402

BUILD = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ROOT / "build/release").resolve()
DIGITS = [ROOT / f"tests/golden/digits/test-{i}.png" for i in range(4)]
ONE_RANK = "--set instance_count=1 --set threads_per_rank=1".split()
CLASSIFIER = "--set hyperparameters.epochs=1 --set inputs.training.limit=1280 --set inputs.test.limit=100".split()
PAINTER = served.PAINTER.replace("path: data", f"path: {ROOT}/configs/data/mnist, limit: 48")


class Embedding(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.prefix = cls.folder / "prefix"
        cls.environment = {**os.environ, "XDG_CACHE_HOME": str(cls.folder / "cache")}
        cls.run_program("cmake", "--install", BUILD, "--prefix", cls.prefix, "--component", "development")
        cls.run_program("cmake", "-S", ROOT / "docs/embedding", "-B", cls.folder / "build", "-G", "Ninja",
                        "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_PREFIX_PATH={cls.prefix}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra",
                        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")  # fmt: skip
        cls.run_program("cmake", "--build", cls.folder / "build", "-j", "1")  # other tests run beside

    @classmethod
    def run_program(cls, *command):
        done = subprocess.run([str(word) for word in command], cwd=cls.folder, env=cls.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def lockstep(self, *words):
        return self.run_program(BUILD / "lockstep", *words)

    def example(self, name, *words):
        return self.run_program(self.folder / "build" / name, *words)

    def test_a_classifier_names_what_predict_names(self):
        run = self.folder / "classifier"
        self.lockstep("fit", ROOT / "configs/mnist_cnn.yaml", "--output", run, *ONE_RANK, *CLASSIFIER)
        said = [json.loads(line) for line in self.lockstep("predict", run, *DIGITS, "--json").splitlines()]
        expected = [f"{d}: {s['class']}, {100 * s['probabilities'][s['class']]:.1f} %" for d, s in zip(DIGITS, said)]
        self.assertEqual(self.example("classify", run, *DIGITS).splitlines(), expected)

    def test_a_painter_draws_what_sample_draws(self):
        (self.folder / "painter.yaml").write_text(PAINTER)
        run = self.folder / "painter"
        self.lockstep("fit", "painter.yaml", "--output", run, *ONE_RANK)
        self.lockstep("sample", run, "--prompt", "a seven", "--steps", "3", "--seed", "1", "--each", "expected")
        self.example("draw", run, "a seven", "3", "drawn.png")
        self.assertEqual((self.folder / "drawn.png").read_bytes(), (self.folder / "expected/000000.png").read_bytes())

    def test_a_graph_of_ones_own(self):
        # A square of nines, zeros around it: the mean of nine, of six at an edge, of four in a corner.
        rows = [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]
        self.assertEqual([[int(word) for word in line.split()] for line in self.example("blur").splitlines()], rows)

    def test_what_is_wrong_is_said(self):
        done = subprocess.run([self.folder / "build/classify", "nowhere", DIGITS[0]], capture_output=True, text=True)
        self.assertEqual(done.returncode, 66)
        self.assertIn("error[E_RUN_NONE]", done.stderr)

    def test_headers_need_no_more_than_the_package_brings(self):
        headers = sorted(p.relative_to(self.prefix / "include") for p in (self.prefix / "include").rglob("*.h"))
        self.assertIn(pathlib.Path("lockstep/models/inference_session.h"), headers)
        for header in headers:
            self.assertNotRegex((self.prefix / "include" / header).read_text(), '#include "', header)
        (self.folder / "headers.cpp").write_text("".join(f"#include <{header}>\n" for header in headers))
        commands = json.loads((self.folder / "build/compile_commands.json").read_text())
        blur = next(c for c in commands if c["file"].endswith("/blur.cpp"))
        self.assertNotIn(f"-I{ROOT}", blur["command"])
        self.run_program(*shlex.split(blur["command"].replace(blur["file"], "headers.cpp")), "-fsyntax-only")


if __name__ == "__main__":
    unittest.main(verbosity=2)
