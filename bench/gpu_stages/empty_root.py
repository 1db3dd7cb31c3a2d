# SPDX-License-Identifier: Apache-2.0
"""A root with a minimal Debian in it and nothing else: what starts there brings along what it needs."""

import os
import pathlib
import shlex
import shutil
import tempfile

from harness import Failed, run

SUITE = "bookworm"


class NoRoot(Exception):
    """What this machine lacks to make one."""


def root(packages=()):
    """The folder; made once, which takes a minute, and kept in the user's cache."""
    if os.geteuid() != 0:
        raise NoRoot("an empty root is made and entered by root")
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "lockstep/roots"
    folder = cache / "-".join([SUITE, *packages])
    if not folder.exists():
        if not shutil.which("mmdebstrap"):
            raise NoRoot("there is no mmdebstrap (apt-get install mmdebstrap)")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as made:
            include = [f"--include={','.join(packages)}"] if packages else []
            run(["mmdebstrap", "--variant=minbase", "--quiet", *include, SUITE, f"{made}/root"], timeout=900)
            try:
                os.rename(f"{made}/root", folder)
            except OSError:  # another process has made it meanwhile
                if not folder.exists():
                    raise
    return folder


def run_in(root, command, environment, timeout=300):
    """What it says; Failed with that where it ends otherwise than with 0. Its mounts and processes end with it."""
    e = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8", **environment}
    inside = shlex.join(["chroot", str(root), "/usr/bin/env", "-i", *(f"{key}={value}" for key, value in e.items()), *map(str, command)])
    mounts = f"mount -t proc proc '{root}/proc' && mount --rbind /dev '{root}/dev' && mount --rbind /sys '{root}/sys'"
    enter = f"{mounts} && exec {inside}"
    return run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter], timeout=timeout)


class Unpacked:
    """A bundle in a root, below /bundle-...; gone afterwards."""

    def __init__(self, root, file):
        self.root = root
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bundle-", dir=root))
        os.chmod(self.folder, 0o755)
        self.file = file

    def __enter__(self):
        try:
            shutil.unpack_archive(self.file, self.folder, "xztar")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def inside(self, path):
        """A path of the bundle as it is called in the root."""
        return f"/{self.folder.name}/{path}".rstrip("/")
