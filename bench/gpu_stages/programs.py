# SPDX-License-Identifier: Apache-2.0
"""What the stages start: our program and the peers' Python, of a build or of an unpacked bundle, with what they find where."""

import dataclasses
import glob
import json
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

ABOUT_PYTORCH = """import json, sys, torch
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": torch.cuda.is_available(), "path": sys.path}))"""


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


def openmpi_environment(bundle):
    """Where Open MPI and the PMIx below it look for their plugins and texts."""
    pmix = f"{bundle}/pmix"
    return {"OPAL_PREFIX": f"{bundle}/openmpi", "PMIX_LIBDIR": f"{pmix}/lib", "PMIX_PKGLIBDIR": f"{pmix}/lib/pmix",
            "PMIX_PKGDATADIR": f"{pmix}/share/pmix"}  # fmt: skip


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

    @property
    def peer_environment(self):
        """Of the machine's Python, which finds its libraries itself."""
        return {**os.environ, "XDG_CACHE_HOME": f"{self.scratch}/cache", "TORCHINDUCTOR_CACHE_DIR": f"{self.scratch}/inductor",
                "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip

    @property
    def environment(self):
        """Of our program. A bundle's libraries come first: some have search paths of their own in them."""
        e = self.peer_environment
        folders = [f"{self.bundle}/lib"] if self.bundle else []
        e["LD_LIBRARY_PATH"] = ":".join([*folders, *self.library_folders, *filter(None, [e.get("LD_LIBRARY_PATH")])])
        if self.bundle:
            e |= openmpi_environment(self.bundle) | {"PATH": f"{self.bundle}/openmpi/bin:{e.get('PATH', '')}"}
        return e

    def peer(self, script, *words):
        """The command of bench/peers/SCRIPT."""
        command = [ROOT / "bench/peers" / script, *words]
        return [self.python, "-c", WITH_WHEELS, self.wheels, *command] if self.wheels else [self.python, *command]

    def find_python(self):
        """One whose PyTorch loads; its libraries are then found too."""
        why = []
        for python in dict.fromkeys([str(peers_folder() / "bin/python"), sys.executable, shutil.which("python3")]):
            if not python or not os.path.exists(python):
                continue
            done = processes.run([python, "-c", ABOUT_PYTORCH], 60, self.peer_environment)
            if done.fine:
                about = json.loads(done.said.splitlines()[-1])
                self.library_folders += [f for f in pip_folders(about["path"]) if f not in self.library_folders]
                self.python = python
                self.python_says = f"PyTorch {about['torch']} for CUDA {about['cuda']}, sees {'the GPU' if about['gpu'] else 'no GPU'} ({python})"
                return
            why.append(f"{python}: {(done.said.strip().splitlines() or ['?'])[-1]}")
        self.python_says = "no PyTorch: " + "; ".join(why)


def of_build(build, scratch):
    return Programs(pathlib.Path(build) / "bench/gpu_programs", scratch)


def of_bundle(root, scratch):
    root = pathlib.Path(root)
    wheels = root / "wheels"
    return Programs(root / "bin/gpu_programs", scratch, root, wheels if wheels.exists() else None)
