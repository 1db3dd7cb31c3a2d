# SPDX-License-Identifier: Apache-2.0
"""`lockstep serve` with small models, for tests that ask it in Python."""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

sys.dont_write_bytecode = True

from python_client_test import CLASSIFIER, PROGRAM, ROOT, png, write_mnist  # noqa: E402

PATIENCE = 120  # seconds; only a failure takes so long
PAINTER = f"""
job_name: painter
model:
  name: text_to_image
  tokenizer: {ROOT}/configs/data/clip_small
  text_encoder: {{vocab_size: 681, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2,
    max_position_embeddings: 24}}
  unet: {{in_channels: 1, out_channels: 1, block_out_channels: [8], layers_per_block: 1,
    down_block_types: [CrossAttnDownBlock2D], up_block_types: [CrossAttnUpBlock2D], norm_num_groups: 4,
    attention_head_dim: 2, cross_attention_dim: 8}}
objective: diffusion
inputs: {{training: {{dataset: mnist, path: data, captions: {{template: 'a {{}}', dropout: 0.1}}}}}}
hyperparameters: {{steps: 10, global_batch_size: 12, optimizer: {{name: adamw, lr: 0.01}}}}
sampling: {{steps: 2, count: 2, guidance: 3}}
"""


class Served(unittest.TestCase):
    """A painter that reads text and a classifier of digits, trained for a moment: at `url`, a slash at its end."""

    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.folder = pathlib.Path(cls.stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        cls.environment = dict(os.environ, XDG_CACHE_HOME=str(cls.folder / "cache"))
        write_mnist(cls.folder / "data")
        (cls.folder / "digit.png").write_bytes(png(3))
        for name, job in (("digits", CLASSIFIER.replace("nowhere", "data")), ("painter", PAINTER)):
            (cls.folder / f"{name}.yaml").write_text(job)
            subprocess.run([PROGRAM, "fit", f"{name}.yaml", "--output", name], cwd=cls.folder, env=cls.environment, check=True,
                           stdout=subprocess.DEVNULL)
        cls.processes = {}  # of servers, by their URLs
        cls.url = cls.serve("--model", "painter=painter", "--model", "digits=digits")

    @classmethod
    def serve(cls, *words, **variables):
        """Another server, until the class's tests are done. Returns its URL."""
        said = cls.folder / f"log-{len(list(cls.folder.glob('log-*')))}"
        log = cls.stack.enter_context(open(said, "w+"))
        server = subprocess.Popen([PROGRAM, "serve", *words, "--port", "0"], cwd=cls.folder, env=cls.environment | variables,
                                  stdout=log, stderr=log)
        cls.stack.callback(cls.end, server, said)
        for _ in range(PATIENCE * 20):
            found = re.search(r"is served on (http://\S+)", said.read_text())
            if found:
                cls.processes[found.group(1)] = server
                return found.group(1)
            if server.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the server did not start: {said.read_text()}")

    @staticmethod
    def end(server, said):
        server.terminate()
        try:
            code = server.wait(PATIENCE)
        finally:
            server.kill()
        if code != 0:
            raise AssertionError(f"the server ended with {code}: {said.read_text()[-2000:]}")

    def ask(self, body, content_type="application/json"):
        """What /invocations answers to bytes, or to what becomes JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + "invocations", data=data, headers={"Content-Type": content_type})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read())
