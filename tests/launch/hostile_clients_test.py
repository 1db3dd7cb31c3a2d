#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`lockstep serve` under clients that are too many, leave at any moment, or never read: it answers /ping throughout, and what
it holds for them it gives back. What single bytes may do is serve_test.cpp's and http_test.cpp's.

LOCKSTEP=build/release/lockstep tests/launch/hostile_clients_test.py [Seconds | Minutes]
"""

import contextlib
import json
import os
import pathlib
import socket
import struct
import sys
import threading
import time
import unittest
import urllib.parse
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from served import PATIENCE, Served, png  # noqa: E402

SANITIZED = bool(os.environ.get("LOCKSTEP_SANITIZE"))


def request(path, body=b"", kind="application/json", method=None):
    head = f"{method or ('POST' if body else 'GET')} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body:
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def drawing(**fields):
    return request("/invocations", json.dumps({"prompt": "a 3", "seed": 1} | fields).encode())


CLASSIFY = request("/models/digits/invoke", png(3), "image/png")
STREAM = drawing(num_inference_steps=2, stream=True, partial_images=1)
LONG = drawing(num_inference_steps=1000)
LINES = request("/invocations", b'{"prompt": "a 3", "num_inference_steps": 2}\n' * 2, "application/jsonlines")
CHUNKED = (b"POST /models/digits/invoke HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
           + b"".join(b"1\r\n%c\r\n" % byte for byte in png(3)) + b"0\r\n\r\n")  # fmt: skip


class Client:
    """One connection, whose answers are read in their order."""

    def __init__(self, url):
        self.socket = socket.create_connection(("127.0.0.1", urllib.parse.urlsplit(url).port), timeout=PATIENCE)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def receive(self):
        """Status and fields of the next answer, whose body is read; status 0: the server has closed the connection."""
        status, fields = self.file.readline().split(b" ", 2)[1:2], {}
        while line := self.file.readline().strip():
            name, value = line.split(b": ", 1)
            fields[name.lower()] = value
        if fields.get(b"transfer-encoding") == b"chunked":
            while size := int(self.file.readline(), 16):
                self.file.read(size + 2)
            self.file.readline()
        else:
            self.file.read(int(fields.get(b"content-length", 0)))
        return int(status[0]) if status else 0, fields

    def ask(self, bytes_):
        self.socket.sendall(bytes_)
        return self.receive()

    def reset(self):
        """Leaves without a goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.file.close()
        self.socket.close()


class Hostile(Served):
    def setUp(self):
        """Asks for /ping, on connections of its own, until the test is done."""
        self.pings, self.stop = [], threading.Event()

        def ping():
            while not self.stop.wait(0.01):
                with Client(self.url) as client:
                    self.pings.append(client.ask(request("/ping"))[0])

        self.pinging = threading.Thread(target=ping)
        self.pinging.start()

    def tearDown(self):
        self.stop.set()
        self.pinging.join()
        self.assertTrue(self.pings)
        self.assertEqual(set(self.pings), {200})
        self.assertIsNone(self.processes[self.url].poll())

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.processes[self.url].pid}/fd"))

    def resident(self):
        """KiB."""
        status = pathlib.Path(f"/proc/{self.processes[self.url].pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def evaluations(self):
        """Of all models so far."""
        with urllib.request.urlopen(self.url + "metrics", timeout=PATIENCE) as answer:
            return [line for line in answer.read().decode().splitlines() if line.startswith("lockstep_evaluations_total")]

    def expect_nothing_left(self, before):
        """Connections are closed, and nothing is computed any more: the server is as it was."""
        counts = []
        for _ in range(PATIENCE * 20):
            counts.append(self.evaluations())
            if self.descriptors() <= before + 2 and counts[-2:] == [counts[-1]] * 2:  # of /ping, and one that ends
                break
            time.sleep(0.05)
        else:
            self.fail(f"{self.descriptors() - before} connections are left; evaluations: {counts[-2:]}")
        with Client(self.url) as client:
            self.assertEqual(client.ask(drawing(num_inference_steps=2))[0], 200)

    def round(self, client):
        """Ten requests of all kinds, two of which nobody waits for."""
        for _ in range(3):
            self.assertEqual(client.ask(CLASSIFY)[0], 200)
        for ask, status in ((drawing(num_inference_steps=2), 200), (STREAM, 200), (LINES, 200), (drawing(colour=1), 400), (request("/metrics"), 200)):
            self.assertEqual(client.ask(ask)[0], status)
        with Client(self.url) as other:
            other.socket.sendall(CHUNKED[:400])
        other = Client(self.url)
        other.socket.sendall(STREAM)
        other.reset()

    def rounds(self, count):
        with Client(self.url) as client:
            for _ in range(count):
                self.round(client)

    def expect_flat(self, rounds):
        self.rounds(100)
        before = self.resident()
        self.rounds(rounds)
        grown = self.resident() - before
        # Fifty bytes a request would be as much in ten thousand. A sanitizer keeps for a while what is freed, and says itself
        # what is never.
        if not SANITIZED:
            self.assertLess(grown, 512, "KiB")


class Seconds(Hostile):
    def crowd(self, url, clients, ask):
        """What as many clients are answered that ask at once."""
        answers = []

        def one():
            with Client(url) as client:
                answers.append(client.ask(ask))

        threads = [threading.Thread(target=one) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), clients)
        return answers

    def test_64_clients_on_a_queue_of_16(self):
        for words, refusal in (([], 503), (["--per-client", "8"], 429)):
            self.url = self.serve("painter", "--queue", "16", "--batch", "4", "--seconds", "600", *words)
            answers = self.crowd(self.url, 64, drawing(num_inference_steps=400))
            statuses = [status for status, _ in answers]
            self.assertEqual(set(statuses), {200, refusal})
            self.assertGreaterEqual(statuses.count(200), 16 if refusal == 503 else 8)
            for status, fields in answers:
                if status == refusal:
                    self.assertGreaterEqual(int(fields[b"retry-after"]), 1)

    def test_whoever_leaves_at_whatever_moment(self):
        before = self.descriptors()
        for whole in (CLASSIFY, CHUNKED, STREAM, LINES, LONG):
            for cut in range(1, len(whole), max(1, len(whole) // 40)):
                for leave in (Client.__exit__, Client.reset):
                    client = Client(self.url)
                    client.socket.sendall(whole[:cut])
                    leave(client)
            # While it is answered: at once, after a moment, having said that nothing follows, after the first byte.
            moments = [lambda c: None, lambda c: time.sleep(0.01), lambda c: c.socket.shutdown(socket.SHUT_WR), lambda c: c.socket.recv(1)]
            for moment in moments[:3] if whole == LONG else moments:
                for leave in (Client.__exit__, Client.reset):
                    client = Client(self.url)
                    client.socket.sendall(whole)
                    moment(client)
                    leave(client)
        self.expect_nothing_left(before)

    def test_a_pipeline_is_answered_in_its_order(self):
        kinds = [(request("/ping"), 200), (CLASSIFY, 200), (request("/nothing"), 404), (drawing(num_inference_steps=2), 200), (STREAM, 200), (CHUNKED, 200)]
        with Client(self.url) as client:
            client.socket.sendall(b"".join(ask for ask, _ in kinds) * 20)
            self.assertEqual([client.receive()[0] for _ in range(20 * len(kinds))], [status for _, status in kinds] * 20)

    def test_whoever_never_reads_costs_nothing(self):
        before, memory = self.descriptors(), self.resident()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(self.url)) for _ in range(20)]
            for client in clients:
                client.socket.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    for _ in range(1000):
                        client.socket.sendall(request("/openapi.json") * 100)
            if not SANITIZED:
                # Of each connection one answer and 64 KiB of requests at most.
                self.assertLess(self.resident() - memory, 20 * 256, "KiB")
        self.expect_nothing_left(before)

    def test_memory_stays_over_ten_thousand_requests(self):
        self.expect_flat(100 if SANITIZED else 1000)


class Minutes(Hostile):
    """Of tests/run --long."""

    def test_memory_stays_over_a_hundred_thousand_requests(self):
        self.expect_flat(10_000)

    def test_slow_ones_are_closed_in_their_time(self):
        """A head has 10 s, a body 30, whatever comes of them; an answer is to be taken in 30 s, the next request to come in 60."""
        before = self.descriptors()
        for sent, more, seconds in (
            (b"GET /ping HTTP/1.1\r\n", b"X: 1\r\n", 10),
            (b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", b"x", 30),
            (b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 30),
        ):
            clients, started = [Client(self.url) for _ in range(100)], time.monotonic()
            for client in clients:
                client.socket.sendall(sent)
            open_ = set(clients)
            while open_:
                self.assertLess(time.monotonic() - started, seconds + PATIENCE)
                time.sleep(1)
                for client in list(open_):
                    try:
                        client.socket.sendall(more)
                    except OSError:
                        open_.discard(client)
            self.assertGreaterEqual(time.monotonic() - started, seconds - 1)
            for client in clients:
                client.__exit__()
        with Client(self.url) as silent, Client(self.url) as deaf:
            self.assertEqual(silent.ask(request("/ping"))[0], 200)
            deaf.socket.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                for _ in range(1000):
                    deaf.socket.sendall(request("/openapi.json") * 100)
            deaf.socket.settimeout(PATIENCE)
            self.assertEqual(silent.socket.recv(1), b"")  # closed
            with contextlib.suppress(ConnectionResetError):
                while deaf.socket.recv(1 << 16):
                    pass
        self.expect_nothing_left(before)


if __name__ == "__main__":
    unittest.main(verbosity=2)
