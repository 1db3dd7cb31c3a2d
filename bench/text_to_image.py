# SPDX-License-Identifier: Apache-2.0
"""Text to image, ours and diffusers': a pipeline of Stable Diffusion 1.5's size, and the training of configs/painter_digits.yaml.

The peer makes the pipeline's weights and the inputs: without it nothing of the pipeline is measured.
"""

import array
import functools
import json
import os
import random
import re
import statistics
import struct
import subprocess
import time

from harness import ROOT, Failed, run
from ours import CONFIGS, LOCKSTEP, Training, images_per_second, seconds_until
from process_memory import peak_pss
from pytorch import said, same_losses

PROGRAM_BENCH = ROOT / "build/release/bench/program_bench"
PIPELINE, PAINTER = ROOT / "bench/peers/text_to_image.py", ROOT / "bench/peers/train_painter.py"
PROMPT, NEGATIVE = "a photo of an astronaut riding a horse", "blurry"  # the peer's
ALIKE = {"denoise": 1e-4, "decode": 1e-4}  # of the largest number, on the same inputs: rounding only


def write_normals(path, **shapes):
    """A safetensors file of normal numbers, of timesteps where they are called so."""
    draw, header, data = random.Random(1), {}, b""
    for name, shape in shapes.items():
        count = functools.reduce(lambda a, b: a * b, shape, 1)
        values = array.array("f", (999.0 * i / count for i in range(count)) if name == "timesteps" else (draw.gauss(0, 1) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(values.tobytes())]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def seconds_to_first_step(command):
    """From starting `lockstep sample` until it shows its progress, which it does on a terminal."""
    ours, its = os.openpty()
    started = time.perf_counter()
    process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=its, stderr=its)
    os.close(its)
    shown = b""
    try:
        while b"step 0/" not in shown:
            shown += os.read(ours, 4096)
        return time.perf_counter() - started
    except OSError:  # it has ended
        raise Failed(f"{' '.join(map(str, command))}\n{shown.decode()[-2000:]}") from None
    finally:
        process.kill()
        process.wait()
        os.close(ours)


class Pipeline:
    """A folder of random weights that both sides open."""

    def __init__(self, ours, peer):
        self.ours, self.peer, self.scratch = ours, peer, ours.scratch
        self.size, self.steps = (64, 3) if ours.quick else (512, 20)
        self.answer, self.noise, self.raw = (self.scratch / f"{n}.safetensors" for n in ("answer", "latents", "pictures"))

    @functools.cached_property
    def folder(self):
        folder = self.scratch / "pipeline"
        run([self.peer.python, PIPELINE, "--make", folder, *(["--small"] if self.ours.quick else [])])
        write_normals(self.noise, noise=(1, 4, self.size // 8, self.size // 8))
        return folder

    @functools.cache
    def inputs(self, program):
        side, width = self.size // 8, 32 if self.ours.quick else 768
        path = self.scratch / f"{program}.safetensors"
        if program == "denoise":
            write_normals(path, images=(2, 4, side, side), timesteps=(2,), text=(2, 77, width))
        else:
            write_normals(path, images=(1, 4, side, side))
        return path

    def ours_asked(self, program):
        """Seconds of a call, behind one that is not counted."""
        command = [PROGRAM_BENCH, self.folder, program, "--inputs", self.inputs(program), "--outputs", self.answer, "--calls", 3]
        return statistics.median(json.loads(run(command))["seconds"][1:])

    def of_peer(self, *words):
        return self.peer.json_of(PIPELINE, "--from", self.folder, *words)

    def peer_asked(self, program):
        words = ["--program", program, "--inputs", self.inputs(program), "--calls", 3, "--compare", self.answer]

        def measure(layout):
            result = self.of_peer(*words, *layout)
            if result["difference"] > ALIKE[program]:
                raise Failed(f"{program}: differs by {result['difference']:.2g} of the largest number: not the same work")
            return statistics.median(result["seconds"][1:])

        return self.peer.best(("pipeline", program), measure, min)

    def sample(self, size, steps):
        return [LOCKSTEP, "sample", self.folder, "--prompt", PROMPT, "--negative-prompt", NEGATIVE, "--guidance", 7.5, "--steps", steps,
                "--sampler", "dpm_solver", "--height", size, "--width", size, "--out", self.scratch / "picture.png"]  # fmt: skip

    def ours_drawn(self):
        out = run([*self.sample(self.size, self.steps), "--init-noise", self.noise, "--raw", self.raw])
        return float(re.search(r": ([\d.]+) s$", out, re.MULTILINE)[1])

    def draw(self, size, steps):
        return ["--draw", steps, "--size", size]

    def peer_drawn(self):
        words = [*self.draw(self.size, self.steps), "--init-noise", self.noise, "--compare", self.raw]

        def measure(layout):
            result = self.of_peer(*words, *layout)
            if result["difference"] > 1 / 255:  # the root mean square of pixels, 0 to 1
                raise Failed(f"pictures differ by {result['difference']:.4f} from ours: not the same work")
            return result["seconds"]

        return self.peer.best(("pipeline", "draw"), measure, min)

    # Memory is the same for any number of steps, and opening for any size.

    def ours_memory(self):
        return peak_pss(self.sample(self.size, 1)) / 1e6

    def peer_memory(self):
        command = [self.peer.python, PIPELINE, "--from", self.folder, *self.draw(self.size, 1)]
        return self.peer.best(("pipeline", "memory"), lambda layout: peak_pss([*command, *layout]) / 1e6, min)

    def ours_opened(self):
        return seconds_to_first_step(self.sample(64, 1))

    def peer_opened(self):
        return seconds_until([self.peer.python, PIPELINE, "--from", self.folder, *self.draw(64, 1)], lambda p: said(p, "first step"))


class Painter:
    def __init__(self, ours, peer, batch):
        self.ours, self.peer, self.batch = ours, peer, batch
        self.pictures, self.start = ours.scratch / f"captioned-{batch}", ours.scratch / f"painter-{batch}"
        self.steps = 3 if ours.quick else 20

    @functools.cached_property
    def training(self):
        """Of pictures that are there, as the peer's; both start from the same weights."""
        run([LOCKSTEP, "data", "make", "captioned_digits", self.pictures, "--count", 64, "--from", CONFIGS / "data/mnist"])
        settings = {"inputs": f"{{training: {{dataset: image_folder, path: {self.pictures}, captions: {{column: text}}}}}}",
                    "instance_count": 2, "threads_per_rank": 1, "log_every": 1, "checkpoint": "{keep: 1}",
                    "hyperparameters.global_batch_size": self.batch, "hyperparameters.shuffle": "false", "hyperparameters.lr_schedule": "constant",
                    "hyperparameters.seed": 1,  # the peer's, whose noise is ours
                    "sample_every": 0, "sampling": "{count: 1, steps: 1}"}  # fmt: skip
        job = lambda **more: Training(CONFIGS / "painter_digits.yaml", self.batch, settings | more, program=self.ours.program)  # noqa: E731
        run(job(**{"hyperparameters.steps": 1}).command("fit", "--output", self.start))
        return job(**{"hyperparameters.steps": self.steps, "model": f"{{name: text_to_image, init_from: {self.start}}}"})

    def peer_rate(self):
        result = self.peer.json_of(PAINTER, "--from", self.start, "--pictures", self.pictures, "--batch", self.batch, "--steps", self.steps)
        same_losses("painter_digits", self.training.losses[:1], result["losses"])
        return images_per_second(self.batch, result["seconds"])
