#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""launch/python/lockstep.py beside the program, on small jobs.

LOCKSTEP=build/release/lockstep tests/launch/python_client_test.py [Fit | Deploy | Install]"""

import base64
import contextlib
import io
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
import urllib.parse
import zlib

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "launch/python"))

import lockstep  # noqa: E402
from lockstep import Estimator, LockstepError, Picture, Predictor, decode_base64_image  # noqa: E402

PROGRAM = pathlib.Path(os.environ.get("LOCKSTEP", ROOT / "build/release/lockstep")).resolve()
SIDE, COUNT = 8, 48
CLASSIFIER = """
job_name: small
model: {layers: [{conv2d: {out_channels: 4, kernel: 3}}, relu, flatten, {linear: {out_features: 10}}]}
inputs: {training: {dataset: mnist, path: nowhere}}
hyperparameters: {epochs: 3, global_batch_size: 12, optimizer: {name: sgd, lr: 0.01}}
"""
PAINTER = """
job_name: painter
model:
  name: unet2d
  config: {in_channels: 1, out_channels: 1, block_out_channels: [4, 8], down_block_types: [DownBlock2D, AttnDownBlock2D],
           up_block_types: [AttnUpBlock2D, UpBlock2D], layers_per_block: 1, attention_head_dim: 4, norm_num_groups: 2,
           num_class_embeds: 11}
objective: {name: diffusion, label_dropout: 0.1}
inputs: {training: {dataset: mnist, path: nowhere}}
sampling: {count: 1, steps: 4}
hyperparameters: {steps: 4, global_batch_size: 12, optimizer: {name: sgd, lr: 0.01}}
"""


def pixels(i):
    return bytes((i * 37 + k * 11) % 256 for k in range(SIDE * SIDE))


def write_mnist(folder):
    """MNIST's files, small: 48 images of 8x8, for training and test alike."""
    folder.mkdir()
    for prefix in ("train", "t10k"):
        images = struct.pack(">4I", 0x803, COUNT, SIDE, SIDE) + b"".join(map(pixels, range(COUNT)))
        labels = struct.pack(">2I", 0x801, COUNT) + bytes(i % 10 for i in range(COUNT))
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)


def png(i):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels(i)[y * SIDE : (y + 1) * SIDE] for y in range(SIDE))
    header = struct.pack(">2I5B", SIDE, SIDE, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Folder(unittest.TestCase):
    """A folder of the test's own, which is the current one, with data in `data`."""

    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.folder = pathlib.Path(cls.stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        before = os.getcwd()
        cls.stack.callback(os.chdir, before)
        os.chdir(cls.folder)
        os.environ["XDG_CACHE_HOME"] = str(cls.folder / "cache")
        write_mnist(cls.folder / "data")

    @classmethod
    def estimator(cls, job, **options):
        folder = cls.folder / "jobs"
        folder.mkdir(exist_ok=True)
        (folder / "job.yaml").write_text(job)
        return Estimator("jobs/job.yaml", program=PROGRAM, **options)

    def fails(self, code, identifier, call):
        said = io.StringIO()
        with self.assertRaises(LockstepError) as caught, contextlib.redirect_stdout(said):
            call()
        self.assertEqual((caught.exception.code, caught.exception.identifier), (code, identifier))
        return str(caught.exception)


class Fit(Folder):
    def test_settings_reach_the_run_and_output_is_streamed(self):
        estimator = self.estimator(
            CLASSIFIER,
            instance_count=2,
            hyperparameters={"epochs": 1, "backend": "gloo", "optimizer": {"lr": 0.125}, "optimizer.momentum": 0.5},
            settings={"log_every": 2},
        )
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            self.assertIs(estimator.fit({"training": "data"}), estimator)
        self.assertIn("Test loss", said.getvalue())
        self.assertRegex(estimator.run, r"^runs/job-\d{8}-\d{6}$")
        resolved = (self.folder / estimator.run / "job.yaml").read_text()
        for line in ("instance_count: 2", "backend: mpi", "epochs: 1", "lr: 0.125", "momentum: 0.5", "log_every: 2",
                     f"path: {self.folder / 'data'}"):
            self.assertIn(line, resolved)
        status = json.loads((self.folder / estimator.run / "status.json").read_text())
        self.assertEqual((status["state"], status["step"]), ("completed", 4))

    def test_odd_paths_and_file_urls(self):
        for number, name in enumerate(("a: b #c", 'quo"te\'s', "größe")):
            folder = self.folder / name
            folder.symlink_to("data")
            estimator = self.estimator(CLASSIFIER, hyperparameters={"epochs": 1}, output=f"odd-{number}")
            with contextlib.redirect_stdout(io.StringIO()):
                estimator.fit({"training": f"file://{folder}" if number else folder})
            self.assertEqual(estimator.run, f"odd-{number}")
            self.assertTrue((self.folder / estimator.run / "model.safetensors").exists())

    def test_failures_have_the_programs_message_and_code(self):
        message = self.fails(66, "E_DATA_MISSING", lambda: self.estimator(CLASSIFIER).fit({"training": "absent"}))
        self.assertIn(str(self.folder / "absent"), message)
        message = self.fails(78, "E_JOB_UNKNOWN_KEY", lambda: self.estimator(CLASSIFIER, hyperparameters={"epoch": 1}).fit())
        self.assertIn("nearest valid key: hyperparameters.epochs", message)
        self.fails(66, "E_JOB_MISSING", lambda: Estimator("none.yaml", program=PROGRAM).fit())
        (self.folder / "there").mkdir()
        (self.folder / "there/job.yaml").write_text("a: b")
        self.fails(73, "E_RUN_EXISTS", lambda: self.estimator(CLASSIFIER, output="there").fit({"training": "data"}))
        self.assertIn("program=", self.fails(None, None, lambda: Estimator("x.yaml", program="/none/lockstep")))
        self.assertIn("fit()", self.fails(None, None, self.estimator(CLASSIFIER).deploy))

    def test_an_interrupt_stops_the_program_with_a_checkpoint(self):
        job = self.estimator(CLASSIFIER).job
        script = (
            f"import lockstep; e = lockstep.Estimator({job!r}, instance_count=2, hyperparameters={{'epochs': 1000000}}, "
            f"output='stopped', program={str(PROGRAM)!r}); e.fit({{'training': 'data'}})"
        )
        # As a terminal does it: all processes of the group get the signal.
        process = subprocess.Popen(
            [sys.executable, "-B", "-u", "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT / "launch/python")},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )
        with process:
            said = next(line for line in process.stdout if "epoch" in line or "rror" in line)
            os.killpg(process.pid, signal.SIGINT)
            said += process.stdout.read()
        self.assertIn("KeyboardInterrupt", said)
        status = json.loads((self.folder / "stopped/status.json").read_text())
        self.assertEqual(status["state"], "interrupted")
        self.assertTrue(any((self.folder / "stopped/checkpoints").iterdir()))


class Deploy(Folder):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with contextlib.redirect_stdout(io.StringIO()):
            cls.classifier = cls.estimator(CLASSIFIER, output="classifier").fit({"training": "data"})
            cls.painter = cls.estimator(PAINTER, output="painter").fit({"training": "data"})

    def test_a_classifier_answers_as_predict_does(self):
        (self.folder / "a.png").write_bytes(png(3))
        line = subprocess.run([PROGRAM, "predict", "classifier", "a.png", "--json"], check=True, capture_output=True).stdout
        expected = json.loads(line)
        with self.classifier.deploy() as predictor:
            for data in ("a.png", self.folder / "a.png", png(3)):
                answer = predictor.predict(data)
                self.assertEqual(answer["class"], expected["class"])
                self.assertEqual(answer["probabilities"], expected["probabilities"])
            both = predictor.predict({"inputs": [base64.b64encode(png(i)).decode() for i in (3, 4)]})
            self.assertEqual(len(both["predictions"]), 2)
            self.assertEqual(both["predictions"][0]["probabilities"], expected["probabilities"])
            # What is wrong is said, and the server lives on.
            self.assertIn("inputs", self.fails(400, None, lambda: predictor.predict({"inputs": "no picture"})))
            self.assertRaises(ValueError, predictor.predict, b"GIF89a")
            self.assertRaises(FileNotFoundError, predictor.predict, "none.png")
            self.assertEqual(Predictor(predictor.url).predict(png(3))["class"], expected["class"])

    def test_a_painter_draws(self):
        with self.painter.deploy() as predictor:
            request = {"class": "3", "num_images_per_prompt": 2, "seed": 5, "height": SIDE, "width": SIDE}
            answer = predictor.predict(request)
            pictures = [decode_base64_image(image) for image in answer["generated_images"]]
            self.assertEqual(len(pictures), 2)
            self.assertNotEqual(pictures[0], pictures[1])
            pictures[0].save("three.png")
            self.assertEqual((self.folder / "three.png").read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
            self.assertEqual(pictures[0]._repr_mimebundle_(), {"image/png": answer["generated_images"][0]})
            one = predictor.predict({**request, "num_images_per_prompt": 1}, accept="image/png")
            self.assertIsInstance(one, Picture)
            self.assertEqual(one, pictures[0])
            self.assertIn("height", self.fails(400, None, lambda: predictor.predict({"class": "3", "height": 9})))

    def test_the_endpoint_ends(self):
        predictor = self.classifier.deploy()
        port = urllib.parse.urlsplit(predictor.url).port
        predictor.delete_endpoint()
        predictor.delete_endpoint()
        with socket.socket() as s:
            self.assertNotEqual(s.connect_ex(("127.0.0.1", port)), 0)
        self.assertIn("no answer", self.fails(None, None, lambda: predictor.predict(png(1))))
        # A forgotten one ends with Python.
        script = (
            "import sys; sys.dont_write_bytecode = True; import lockstep; "
            f"p = lockstep.deploy('classifier', program={str(PROGRAM)!r}); print(p.url)"
        )
        url = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "launch/python")},
        ).stdout
        with socket.socket() as s:
            self.assertNotEqual(s.connect_ex(("127.0.0.1", urllib.parse.urlsplit(url.strip()).port)), 0)

    def test_a_token_of_the_environment_is_the_servers_and_the_clients(self):
        with unittest.mock.patch.dict(os.environ, {"LOCKSTEP_SERVE_TOKEN": "secret"}), self.classifier.deploy() as predictor:
            self.assertIn("class", predictor.predict(png(1)))
            self.assertIn("class", Predictor(predictor.url, token="secret").predict(png(1)))
            self.fails(401, None, lambda: Predictor(predictor.url).predict(png(1)))

    def test_servers_that_do_not_start(self):
        message = self.fails(66, "E_RUN_NONE", lambda: lockstep.deploy("nowhere", program=PROGRAM))
        self.assertIn("nowhere", message)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            port = s.getsockname()[1]
            self.fails(69, "E_PORT_BUSY", lambda: lockstep.deploy("classifier", port=port, program=PROGRAM))
        # One that never says that it is ready.
        slow = self.folder / "slow"
        slow.write_text("#!/bin/sh\nexec sleep 600\n")
        slow.chmod(0o755)
        self.assertIn("not ready", self.fails(None, None, lambda: lockstep.deploy("classifier", seconds=0.2, program=slow)))


class Install(unittest.TestCase):
    def test_the_version_is_the_programs(self):
        release = re.search(r"project\(lockstep VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
        self.assertIn(f'\nversion = "{release}"\n', (ROOT / "launch/python/pyproject.toml").read_text())

    def test_pip_installs_it(self):
        needed = "import setuptools, pip, importlib.util as u; u.find_spec('wheel') or __import__('setuptools.command.bdist_wheel')"
        if subprocess.run([sys.executable, "-c", needed], capture_output=True).returncode != 0:
            self.skipTest("SKIP_NO_PIP: no pip, setuptools or wheel here")
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "python"
            source.mkdir()
            for name in ("lockstep.py", "pyproject.toml"):  # a build leaves files beside them
                (source / name).write_bytes((ROOT / "launch/python" / name).read_bytes())
            target = pathlib.Path(folder) / "installed"
            # Without isolation pip takes the setuptools that is here, and asks no network.
            done = subprocess.run(
                [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--target", target, source],
                capture_output=True, text=True,
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            script = "import lockstep; print(lockstep.__file__, lockstep.Estimator.__name__)"
            said = subprocess.run([sys.executable, "-c", script], cwd=folder, env={**os.environ, "PYTHONPATH": str(target)},
                                  check=True, capture_output=True, text=True).stdout
            self.assertEqual(said.split(), [str(target / "lockstep.py"), "Estimator"])


if __name__ == "__main__":
    unittest.main()
