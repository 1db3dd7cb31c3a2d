# SPDX-License-Identifier: Apache-2.0
"""The peer of `lockstep serve`: FastAPI under uvicorn (uvloop, httptools), PyTorch, Pillow, for mnist_convnet_dropout.

    python bench/peers/serve_classifier.py --weights RUN/model.safetensors                       a picture at a time
    python bench/peers/serve_classifier.py --weights RUN/model.safetensors --workers 2           the same in two processes
    python bench/peers/serve_classifier.py --weights RUN/model.safetensors --batch 8 --delay 0.002    together, what comes together

Answers a PNG posted to /invocations as `lockstep serve` does. Says where it is served once it is ready; --port 0, which is the
default, takes any free one.
"""

import argparse
import asyncio
import contextlib
import io
import os
import pathlib
import signal
import socket
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "golden"))

import numpy  # noqa: E402
import torch  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI, Request  # noqa: E402
from fastapi.responses import JSONResponse  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch_nets import ConvNetDropout  # noqa: E402

CLASSES = [str(i) for i in range(10)]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--batch", type=int, default=1, help="pictures of an evaluation at most")
    parser.add_argument("--delay", type=float, default=0, help="seconds that a picture waits for others at most")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's, in each process")
    return parser.parse_args()


class Classifier:
    def __init__(self, weights):
        self.net = ConvNetDropout()
        self.net.load_state_dict(load_file(weights))
        self.net.eval()

    def __call__(self, bodies):
        """An answer for each PNG."""
        pixels = numpy.stack([numpy.asarray(Image.open(io.BytesIO(body)).convert("L"), dtype=numpy.float32) for body in bodies])
        with torch.inference_mode():
            images = torch.from_numpy((pixels / 255 - 0.1307) / 0.3081).unsqueeze(1)
            scores = self.net(images).exp().tolist()
        answers = []
        for row in scores:
            ordered = sorted(zip(CLASSES, row), key=lambda pair: -pair[1])
            answers.append({"class": ordered[0][0], "probabilities": dict(ordered)})
        return answers


class Batches:
    """Takes what comes together. It is computed in a thread, while others come."""

    def __init__(self, classify, most, delay):
        self.classify, self.most, self.delay = classify, most, delay
        self.waiting = asyncio.Queue()

    async def __call__(self, body):
        answer = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait((body, answer))
        return await answer

    async def run(self):
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self.waiting.get()]
            end = loop.time() + self.delay
            while len(batch) < self.most:
                if self.waiting.empty() and (left := end - loop.time()) > 0:
                    with contextlib.suppress(asyncio.TimeoutError):
                        batch.append(await asyncio.wait_for(self.waiting.get(), left))
                elif self.waiting.empty():
                    break
                else:
                    batch.append(self.waiting.get_nowait())
            answers = await loop.run_in_executor(None, self.classify, [body for body, _ in batch])
            for (_, future), answer in zip(batch, answers):
                if not future.done():  # its client may have gone
                    future.set_result(answer)


def application(a):
    torch.set_num_threads(a.threads)
    classify = Classifier(a.weights)
    classify([(ROOT / "tests/golden/digits/test-0.png").read_bytes()] * a.batch)
    batches = Batches(classify, a.batch, a.delay) if a.batch > 1 else None

    @contextlib.asynccontextmanager
    async def lifespan(_):
        task = asyncio.create_task(batches.run()) if batches else None
        yield
        if task:
            task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.get("/model")
    async def model():
        return {"model": "mnist_convnet_dropout by PyTorch", "task": "classify"}

    @app.post("/invocations")
    async def invocations(request: Request):
        body = await request.body()
        return JSONResponse(await batches(body) if batches else classify([body])[0])

    return app


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again when it has ended
    listening = socket.create_server(("127.0.0.1", a.port), backlog=1024)
    # Each process takes connections of the same socket, as uvicorn's own workers do.
    children = []
    for _ in range(a.workers - 1):
        if child := os.fork():
            children.append(child)
        else:
            children = None
            break
    app = application(a)
    if children is not None:
        print(f"{a.weights} is served on http://127.0.0.1:{listening.getsockname()[1]}/", flush=True)
    try:
        uvicorn.Server(uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False)).run(sockets=[listening])
    finally:
        for child in children or []:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
