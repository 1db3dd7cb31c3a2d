# SPDX-License-Identifier: Apache-2.0
"""Train with lockstep and ask what was trained, from Python: the program does the work.

    from lockstep import Estimator

    estimator = Estimator("configs/mnist_cnn.yaml", instance_count=2, hyperparameters={"epochs": 1, "backend": "gloo"})
    estimator.fit({"training": "configs/data/mnist"})
    with estimator.deploy() as predictor:
        print(predictor.predict("digit.png")["class"])

Needs the program `lockstep` on the PATH, or its path as `program`, and nothing but Python's standard library.
"""

import base64
import collections
import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import weakref

__all__ = ["Estimator", "LockstepError", "Picture", "Predictor", "decode_base64_image", "deploy"]

_ERROR = re.compile(r"^error\[(E_\w+)\]")
_TOKEN = "LOCKSTEP_SERVE_TOKEN"  # the server reads it too
_SERVED = re.compile(r" is served on (http://\S+)")


class LockstepError(Exception):
    """What the program, or the server that it runs, says is wrong. `code`: the exit code, or the HTTP status; `identifier`: its
    "E_..." where it has one; both are explained in docs/reference.md and docs/serving.md."""

    def __init__(self, message, code=None, identifier=None):
        super().__init__(message)
        self.code = code
        self.identifier = identifier


class Picture(bytes):
    """The bytes of a PNG or JPEG file. `PIL.Image.open(io.BytesIO(picture))` opens it; notebooks show it."""

    @property
    def content_type(self):
        if self.startswith(b"\x89PNG\r\n\x1a\n"):
            return "image/png"
        if self.startswith(b"\xff\xd8\xff"):
            return "image/jpeg"
        raise ValueError("neither a PNG nor a JPEG file")

    def save(self, path):
        pathlib.Path(path).write_bytes(self)

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {self.content_type: base64.b64encode(self).decode()}


def decode_base64_image(text):
    """A Picture from its base64, as answers have it."""
    return Picture(base64.b64decode(text, validate=True))


class Estimator:
    """A job, and what it trains.

    job: path of the job file. instance_count: ranks; hyperparameters: a dict, nested as in the job, or with dots in its keys;
    settings: other keys of the job ({"model.name": "mnist_convnet"}); each takes the place of what the file says. output: the run's
    folder; left out: runs/JOB-DATE-TIME. program: the program's path; left out: `lockstep` on the PATH."""

    def __init__(self, job, instance_count=None, hyperparameters=None, settings=None, output=None, program=None):
        self.job = os.fspath(job)
        self.settings = dict(settings or {})
        if instance_count is not None:
            self.settings["instance_count"] = instance_count
        self.settings.update({f"hyperparameters.{k}": v for k, v in (hyperparameters or {}).items()})
        self.output = output
        self.program = _program(program)
        self.run = None  # the run's folder, once fit() was called

    def fit(self, inputs=None):
        """Trains, and prints what the program prints. inputs: {"training": path}, also "validation" and "test". Returns the estimator.
        Raises LockstepError with the program's message and exit code."""
        settings = dict(self.settings)
        for channel, path in (inputs or {}).items():
            settings[f"inputs.{channel}.path"] = _Path(path)
        self.run = os.fspath(self.output or f"runs/{pathlib.Path(self.job).stem}-{time.strftime('%Y%m%d-%H%M%S')}")
        command = [self.program, "fit", self.job, "--output", self.run]
        for key, value in _flat(settings):
            command += ["--set", f"{key}={_yaml(value)}"]
        last = collections.deque(maxlen=200)
        process = _start(command)
        try:
            for line in process.stdout:
                last.append(line)
                sys.stdout.write(line)
                sys.stdout.flush()
            code = process.wait()
        except BaseException:  # an interrupt too: the program writes a checkpoint and leaves
            process.terminate()
            for _ in process.stdout:
                pass
            process.wait()
            raise
        finally:
            process.stdout.close()
        if code != 0:
            raise _failure(last, code)
        return self

    def deploy(self, **options):
        """A Predictor of what fit() has trained; options: those of deploy()."""
        if self.run is None:
            raise LockstepError("nothing is trained yet: call fit() first")
        return deploy(self.run, program=self.program, **options)


def deploy(run, port=0, seconds=60, program=None):
    """Starts `lockstep serve` of a run, or of an exported folder, on this machine and waits until it is ready. port 0: a free one.
    Raises LockstepError where the server ends, or is not ready after so many seconds."""
    command = [_program(program), "serve", os.fspath(run), "--port", str(port)]
    process = _start(command)
    lines, last, ready = queue.Queue(), collections.deque(maxlen=200), threading.Event()

    def read():  # to the end, so that the server never waits for a reader
        with process.stdout:
            for line in process.stdout:
                last.append(line)
                if not ready.is_set():
                    lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    until = time.monotonic() + seconds
    try:
        while True:
            try:
                line = lines.get(timeout=max(0, until - time.monotonic()))
            except queue.Empty:
                raise LockstepError(f"the server of {run} is not ready after {seconds} s") from None
            if line is None:
                raise _failure(last, process.wait())
            if served := _SERVED.search(line):
                ready.set()
                return Predictor(served[1], token=os.environ.get(_TOKEN), process=process)
    except BaseException:
        _stop(process)
        raise


class Predictor:
    """A server of a trained model: that of deploy(), or one that runs already, Predictor("http://host:8080/", token=...)."""

    def __init__(self, url, token=None, timeout=60, process=None):
        self.url = url if url.endswith("/") else url + "/"
        self.timeout = timeout
        self._token = token
        # A proxy of the environment does not know this machine's ports.
        local = urllib.parse.urlsplit(self.url).hostname in ("127.0.0.1", "::1", "localhost")
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
        # At the latest when Python ends.
        self._finish = weakref.finalize(self, _stop, process) if process is not None else None

    def predict(self, data, accept="application/json"):
        """The answer to a request. data: a dict, which goes as JSON; the path of a picture, or its bytes. The answer is what the JSON
        says, or a Picture where `accept` asks for one. Raises LockstepError with the server's message and the HTTP status."""
        if isinstance(data, dict):
            body, kind = json.dumps(data).encode(), "application/json"
        elif isinstance(data, (bytes, bytearray)):
            body, kind = bytes(data), Picture(data).content_type
        else:
            body = pathlib.Path(data).read_bytes()
            kind = Picture(body).content_type
        headers = {"Content-Type": kind, "Accept": accept}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.url + "invocations", body, headers)
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                answer = response.read()
                is_json = response.headers.get_content_type() == "application/json"
        except urllib.error.HTTPError as error:
            raise LockstepError(_server_message(error.read(), error.reason), error.code) from None
        except OSError as error:  # urllib's URLError too
            raise LockstepError(f"no answer from {self.url}: {getattr(error, 'reason', error)}") from None
        return json.loads(answer) if is_json else Picture(answer)

    def delete_endpoint(self):
        """Ends the server that deploy() has started: requests that are there are answered first. Of others: nothing."""
        if self._finish is not None:
            self._finish()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.delete_endpoint()


class _Path(os.PathLike):
    """A folder of data, as SageMaker's local mode has it too: file:///data. Relative ones are the caller's, not the job file's."""

    def __init__(self, path):
        text = os.fspath(path)
        self.path = os.path.abspath(os.path.expanduser(text.removeprefix("file://")))

    def __fspath__(self):
        return self.path


def _flat(settings, prefix=""):
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _yaml(value):
    """As behind --set: strings go as they are, as on the command line; all else as JSON, which YAML reads too."""
    if isinstance(value, os.PathLike):
        return json.dumps(os.fspath(value), ensure_ascii=False)
    return value if isinstance(value, str) else json.dumps(value)


def _program(path):
    found = shutil.which(os.fspath(path or "lockstep"))
    if found is None:
        raise LockstepError(f"no program {path or 'lockstep on the PATH'}: build it, or say where it is with program=")
    return os.path.abspath(found)


def _start(command):
    """In a session of its own: a terminal's Ctrl-C reaches Python alone, which then ends the program in its own way, once."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            encoding="utf-8", errors="replace", start_new_session=True)


def _failure(lines, code):
    """From what a program has said last."""
    said = [line.rstrip() for line in lines if line.strip()]
    for line in reversed(said):
        if error := _ERROR.match(line):
            return LockstepError(f"{line} (exit code {code})", code, error[1])
    return LockstepError(f"{said[-1] if said else 'no message'} (exit code {code})", code)


def _server_message(body, otherwise):
    try:
        error = json.loads(body)["error"]
        return f"{error['field']}: {error['message']}" if "field" in error else error["message"]
    except (ValueError, KeyError, TypeError):
        return otherwise


def _stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(40)  # it drains for 30 seconds at most
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
