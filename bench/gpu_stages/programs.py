# SPDX-License-Identifier: Apache-2.0
"""What the stages start: our program and the peers' Python, of a build or of an unpacked bundle, with what they find where."""

import dataclasses
import glob
import os
import pathlib
import shutil
import site
import sys

from harness import ROOT, peers_folder

from gpu_stages import processes

# A peer's script with the bundle's wheels last on its path: what the machine has goes before.
WITH_WHEELS = """import os, runpy, sys
sys.path.append(sys.argv[1])
sys.argv = sys.argv[2:]
sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")"""


def pip_folders(python_paths):
    """Where pip's nvidia/* packages have their libraries: those of cuDNN, cuBLAS, NCCL and nvrtc."""
    found = []
    for path in python_paths:
        for folder in sorted(glob.glob(f"{glob.escape(path)}/nvidia/*/lib") + glob.glob(f"{glob.escape(path)}/nvidia/lib")):
            if folder not in found:
                found.append(folder)
    return found


def find_library(name, folders):
    """A file, or None: in those folders, or in the toolkit's."""
    for folder in [*folders, *sorted(glob.glob("/usr/local/cuda*/lib64")), *sorted(glob.glob("/usr/local/cuda*/lib")),
                   "/usr/lib/x86_64-linux-gnu", "/usr/local/nvidia/lib64", "/usr/lib/wsl/lib", "/usr/lib64"]:  # fmt: skip
        if found := sorted(glob.glob(f"{glob.escape(folder)}/{name}*")):
            return found[0]
    return None


@dataclasses.dataclass
class Programs:
    ours: pathlib.Path
    scratch: pathlib.Path  # what is made on the way: caches, runs, reports
    bundle: pathlib.Path | None = None  # whose libraries and Open MPI are taken
    wheels: pathlib.Path | None = None
    python: str | None = None  # one whose PyTorch loads
    python_says: str = ""  # what it is, or why there is none

    def __post_init__(self):
        self.library_folders = pip_folders([*sys.path, *site.getsitepackages(), *glob.glob(f"{peers_folder()}/lib/python3*/site-packages")])

    def environment_with(self, *folders):
        e = dict(os.environ)
        e["LD_LIBRARY_PATH"] = ":".join([*map(str, folders), *self.library_folders, *filter(None, [e.get("LD_LIBRARY_PATH")])])
        e["XDG_CACHE_HOME"] = str(self.scratch / "cache")
        e["TORCHINDUCTOR_CACHE_DIR"] = str(self.scratch / "inductor")
        e["PYTHONDONTWRITEBYTECODE"] = "1"
        return e

    @property
    def environment(self):
        """Of our program. A bundle's libraries come first: some have search paths of their own in them."""
        if not self.bundle:
            return self.environment_with()
        openmpi = self.bundle / "openmpi"
        e = self.environment_with(self.bundle / "lib")
        return e | {"OPAL_PREFIX": str(openmpi), "PMIX_PREFIX": str(self.bundle / "pmix"), "PATH": f"{openmpi}/bin:{e.get('PATH', '')}"}

    @property
    def peer_environment(self):
        """Of the machine's Python, which has the machine's libraries."""
        return self.environment_with()

    def peer(self, script, *words):
        """The command of bench/peers/SCRIPT."""
        command = [ROOT / "bench/peers" / script, *words]
        return [self.python, "-c", WITH_WHEELS, self.wheels, *command] if self.wheels else [self.python, *command]

    def find_python(self):
        asked = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"
        why = []
        for python in dict.fromkeys([str(peers_folder() / "bin/python"), sys.executable, shutil.which("python3")]):
            if not python or not os.path.exists(python):
                continue
            done = processes.run([python, "-c", asked], 60, self.peer_environment)
            if done.fine:
                version, cuda, sees = done.said.split()[-3:]
                self.python, self.python_says = python, f"PyTorch {version} for CUDA {cuda}, {'sees the GPU' if sees == 'True' else 'sees no GPU'}"
                return
            why.append(f"{python}: {(done.said.strip().splitlines() or ['?'])[-1]}")
        self.python_says = "no PyTorch: " + "; ".join(why)


def of_build(build, scratch):
    return Programs(pathlib.Path(build) / "bench/gpu_programs", scratch)


def of_bundle(root, scratch):
    root = pathlib.Path(root)
    wheels = root / "wheels"
    return Programs(root / "bin/gpu_programs", scratch, root, wheels if wheels.exists() else None)
