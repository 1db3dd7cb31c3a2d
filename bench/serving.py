# SPDX-License-Identifier: Apache-2.0
"""`lockstep serve` under load: a classifier beside FastAPI's, and the painter of configs/painter_digits.yaml."""

import functools
import http.client
import json
import math
import os
import re
import subprocess
import time
import urllib.parse

import rows  # which names this family; each needs the other when it is called only
from harness import ROOT, Failed, run
from ours import CONFIGS, LOCKSTEP, overrides
from process_memory import pss

PEER = ROOT / "bench/peers/serve_classifier.py"
# One picture at a time in one process and in one a core; pictures that come together in one evaluation.
WAYS = ([], ["--workers", os.cpu_count() or 1], ["--batch", 8, "--delay", 0.002])
DIGIT = ROOT / "tests/golden/digits/test-0.png"
PATIENCE = 120  # seconds for a server to be ready; only a failure takes so long


class Server:
    """A process that says where it listens once it is ready; it ends with the block."""

    def __init__(self, command, log, **options):
        self.command, self.log, self.options = [str(c) for c in command], log, options

    def __enter__(self):
        started = time.perf_counter()
        with open(self.log, "w") as log:  # a pipe that nobody reads would stop it when full
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.options)
        while not (found := re.search(r"is served on (http://\S+)/\n", self.log.read_text())):
            if self.process.poll() is not None or time.perf_counter() > started + PATIENCE:
                self.__exit__()
                raise Failed(f"no server: {' '.join(self.command)}\n{self.log.read_text()[-2000:]}")
            time.sleep(0.001)
        self.seconds = time.perf_counter() - started  # until it was ready
        self.url = found.group(1)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()

    def pss(self):
        with open(f"/proc/{self.process.pid}/smaps_rollup") as rollup:
            return pss(rollup.read())


class Client:
    """A connection that is kept."""

    def __init__(self, url):
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=PATIENCE)

    def ask(self, method, path, body=None, kind="application/json"):
        self.connection.request(method, path, body, {"Content-Type": kind} if body else {})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise Failed(f"{method} {path}: {answer.status} {text[:200]}")
        return text


def of_load(text):
    """{"requests/s": ..., "p99": ms, "errors": ...} of what `lockstep bench serve` says; pictures/s where it says them."""
    found = {name: float(value) for name, value in re.findall(r"^(requests/s|pictures/s|errors) +([\d.]+)$", text, re.MULTILINE)}
    found["p99"] = float(re.search(r"^latency ms .* p99 ([\d.]+) ", text, re.MULTILINE)[1])
    if found["errors"]:
        raise Failed(f"the server refused some:\n{text}")
    return found


def quantile(values, share):
    """By nearest rank."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


class Serving:
    def __init__(self, ours, peer):
        self.ours, self.peer, self.scratch = ours, peer, ours.scratch
        self.seconds = 0.5 if ours.quick else 10  # of load
        self.steps = 2 if ours.quick else 20

    def fitted(self, job, **settings):
        folder = self.scratch / f"served-{job}"
        settings |= {"instance_count": 1, "threads_per_rank": 1, "hyperparameters.lr_schedule": "constant"}
        run([LOCKSTEP, "fit", CONFIGS / f"{job}.yaml", "--output", folder, *overrides(settings)])
        return folder

    @functools.cached_property
    def classifier(self):
        return self.fitted("mnist_cnn", **{"hyperparameters.epochs": 1, "inputs.training.limit": 12800})

    @functools.cached_property
    def painter(self):
        """Of few steps: what it draws is noise, and takes as long as a picture."""
        test = f"{{dataset: captioned_digits, path: {CONFIGS / 'data/mnist'}, limit: 8}}"
        return self.fitted("painter_digits", **{"hyperparameters.steps": 2, "inputs.test": test, "sample_every": 0, "sampling.count": 4})

    def server(self, folder, **options):
        return Server([LOCKSTEP, "serve", folder, "--port", 0], self.scratch / "serve.log", **options)

    def load(self, server, clients, *words):
        return of_load(run([LOCKSTEP, "bench", "serve", server.url, "--clients", clients, "--seconds", self.seconds, *words]))

    # The classifier

    def scores(self, server):
        return json.loads(Client(server.url).ask("POST", "/invocations", DIGIT.read_bytes(), "image/png"))

    def classified(self, what):
        with self.server(self.classifier) as server:
            self.expected = self.scores(server)
            return self.load(server, 8, "--body", DIGIT, "--type", "image/png")[what]

    def peer_classified(self, what):
        """The best of its ways, after ours: its answers must be ours."""
        found = []
        for way in WAYS:
            command = [self.peer.python, PEER, "--weights", self.classifier / "model.safetensors", *way]
            with Server(command, self.scratch / "peer.log") as server:
                scores = self.scores(server)
                # Probabilities of the same weights: rounding only.
                apart = max(abs(p - scores["probabilities"][c]) for c, p in self.expected["probabilities"].items())
                if scores["class"] != self.expected["class"] or apart > 1e-4:
                    raise Failed(f"the peer says {scores}, and we {self.expected}: not the same work")
                found.append(self.load(server, 8, "--body", DIGIT, "--type", "image/png")[what])
        return min(found) if what == "p99" else max(found)

    # The painter

    def drawn(self):
        """Pictures a second of four clients."""
        with self.server(self.painter) as server:
            return self.load(server, 4, "--steps", self.steps)["pictures/s"]

    def sampled(self):
        """The same of `lockstep sample`, whose model is open: four at once, for as many steps as ten of such batches take."""
        batches = 1 if self.ours.quick else 10
        out = run([LOCKSTEP, "sample", self.painter, "--prompt", "a picture", "--count", 4, "--steps", batches * self.steps,
                   "--out", self.scratch / "four.png"])  # fmt: skip
        return 4 * batches / float(re.search(r": ([\d.]+) s$", out, re.MULTILINE)[1])

    def ping(self):
        """Milliseconds in which 99 of 100 are answered while all cores draw."""
        with self.server(self.painter) as server:
            client, times = Client(server.url), []
            busy = subprocess.Popen([LOCKSTEP, "bench", "serve", server.url, "--clients", "4", "--seconds", str(self.seconds + 0.5),
                                     "--steps", str(self.steps)], stdout=subprocess.DEVNULL)  # fmt: skip
            with busy:
                time.sleep(0.5)
                end = time.perf_counter() + self.seconds
                while (asked := time.perf_counter()) < end:
                    client.ask("GET", "/ping")
                    times.append(1e3 * (time.perf_counter() - asked))
                    time.sleep(0.005)
            if busy.returncode != 0:
                raise Failed(f"nothing was drawn meanwhile: exit {busy.returncode}")
            return quantile(times, 0.99)

    def start(self, cold):
        """Seconds until it is ready. cold: no kernel choices are there."""
        cache = {"XDG_CACHE_HOME": str(self.ours.folder().parent)} if cold else {}
        with self.server(self.painter, env=os.environ | cache) as server:
            return server.seconds

    def memory(self):
        """MB after 100 requests."""
        with self.server(self.painter) as server:
            client, body = Client(server.url), json.dumps({"prompt": "a picture", "num_inference_steps": self.steps})
            for _ in range(100):
                client.ask("POST", "/invocations", body)
            return server.pss() / 1e6


def serve_rows(ours, peer, wanted):
    s = Serving(ours, peer)
    theirs = lambda what: peer and (lambda _: s.peer_classified(what))  # noqa: E731
    digits, painter = "serve mnist_convnet_dropout, 8 clients, a PNG a request", "serve configs/painter_digits.yaml's"
    for name, unit, mine, its, against in [
        (digits, "requests/s", lambda _: s.classified("requests/s"), theirs("requests/s"), "FastAPI, PyTorch"),
        (f"{digits}: 99 of 100 answers within", "ms", lambda _: s.classified("p99"), theirs("p99"), "FastAPI, PyTorch"),
        (f"{painter}, 4 clients, a picture a request", "pictures/s", lambda _: s.drawn(), lambda _: s.sampled(), "lockstep sample, four at once"),
        (f"{painter}, while it draws: 99 of 100 of /ping within", "ms", lambda _: s.ping(), None, ""),
        (f"{painter}, start to ready, warm caches", "s", lambda _: s.start(False), None, ""),
        (f"{painter}, start to ready, no caches of ours", "s", lambda _: s.start(True), None, ""),
        (f"{painter}, memory (PSS) after 100 requests", "MB", lambda _: s.memory(), None, ""),
    ]:  # fmt: skip
        if wanted(name):
            yield rows.Row(name, unit, mine, its, against)
