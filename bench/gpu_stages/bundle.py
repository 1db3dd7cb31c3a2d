# SPDX-License-Identifier: Apache-2.0
"""Packs one file for a machine with a GPU where nothing can be installed: run-gpu and all that it starts, but for the driver
and what pip's nvidia/* packages hold."""

import json
import pathlib
import re
import shlex
import shutil
import sys
import tarfile
import tempfile
import time
import zipfile

from gpu_stages import closure, empty_root, programs
from harness import ROOT, Failed, commit, run

MOST_BYTES = 45_000_000
NEEDED = ("nccl", "cudnn", "cublaslt")
CONFIGS = ("mnist_article.yaml", "resnet18_cifar10.yaml", "ddpm_cifar10.yaml", "painter_digits.yaml", "data/mnist", "data/clip_small")
SCRIPTS = ("bench/run-gpu", "bench/harness.py", "bench/ours.py", "bench/pytorch.py", "bench/process_memory.py", "bench/gpu_stages",
           "bench/peers", "tests/golden/diffusion_peer.py", "tests/golden/torch_nets.py", "LICENSE", "NOTICE")  # fmt: skip
PACKAGES = ("diffusers==0.42.1", "safetensors")  # what the peers import beside PyTorch and torchvision
LEFT_OUT = ("hf_xet", "numpy", "pillow")  # of what those ask for: transfers, which nobody makes there; what torchvision has brought
# For networks and other launchers: libraries of theirs would come along.
OTHER_PLUGINS = re.compile(r"ucx|ofi|openib|psm|spml|scoll|sshmem|memheap|atomic_|monitoring|romio|slurm|flux|jsm|gridengine")

class Lacking(Exception):
    """What this build or this machine lacks for a bundle."""


def build(architecture):
    """A build folder with the program, for this architecture alone: no PTX, no line information."""
    folder = ROOT / "build/bundle"
    run(["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DLOCKSTEP_CUDA=ON",
         f"-DLOCKSTEP_CUDA_ARCHITECTURES={architecture}-real", "-DLOCKSTEP_CUDA_LINES=OFF"])  # fmt: skip
    run(["cmake", "--build", folder, "--target", "gpu_programs"])
    return folder


def features(folder):
    """What the build has; Lacking where that is not enough."""
    file = folder / "gpu_build.json"
    program = folder / "bench/gpu_programs"
    if not file.exists() or not program.exists():
        raise Lacking(f"{folder} holds no gpu_programs (ninja -C {folder} gpu_programs)")
    found = json.loads(file.read_text())
    if not found["cuda"]:
        raise Lacking(f"{folder} was built without CUDA (nvcc)")
    absent = [name for name in NEEDED if not found[name]]
    if absent:
        raise Lacking(f"{folder} was built without the headers of {', '.join(absent)}")
    return found


class Stage:
    """The folder that becomes the bundle."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def copy(self, source, name):
        if pathlib.Path(source).is_dir():
            shutil.copytree(source, self.path(name), ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, self.path(name), follow_symlinks=True)

    def strip(self, name):
        run(["strip", "--strip-unneeded", self.folder / name])


def openmpi():
    """{path below its prefix: file}: mpirun, plugins and help texts of the Open MPI that is installed."""
    paths = dict(re.findall(r"^\s*(\w+): (\S+)$", run(["ompi_info", "--path", "all"]), re.MULTILINE))
    prefix = pathlib.Path(paths["Prefix"])
    files = {"bin/mpirun": pathlib.Path(paths["Bindir"]) / "mpirun", "bin/orted": pathlib.Path(paths["Bindir"]) / "orted"}
    for plugin in sorted(pathlib.Path(paths["Pkglibdir"]).glob("mca_*.so")):
        if not OTHER_PLUGINS.search(plugin.name):
            files[str(plugin.relative_to(prefix))] = plugin
    for text in sorted(pathlib.Path(paths["Pkgdatadir"]).glob("*.txt")):
        files[str(text.relative_to(prefix))] = text
    return files


def pmix():
    """{path below its prefix: file}: plugins and help texts of the PMIx that mpirun and the ranks meet over."""
    prefix = next((p for p in pathlib.Path("/usr/lib").glob("*/pmix2") if (p / "share/pmix").is_dir()), None)
    if not prefix:  # Open MPI has one of its own in it
        return {}
    found = [*sorted(prefix.glob("lib/pmix/*.so")), *sorted(prefix.glob("share/pmix/*.txt"))]
    return {str(file.relative_to(prefix)): file for file in found if not OTHER_PLUGINS.search(file.name)}


def add_programs(stage, program):
    """The program, Open MPI and their libraries; what of these the target must have, and the glibc."""
    stage.copy(program, "bin/gpu_programs")
    binaries = [program]
    for name, file in [*((f"openmpi/{n}", f) for n, f in openmpi().items()), *((f"pmix/{n}", f) for n, f in pmix().items())]:
        stage.copy(file, name)
        if not name.endswith(".txt"):
            binaries.append(file)
    carried, there = closure.libraries(binaries)
    for name, file in carried.items():
        stage.copy(file, f"lib/{name}")
        stage.strip(f"lib/{name}")
    stage.strip("bin/gpu_programs")
    glibc = closure.needed_glibc([*binaries, *carried.values()])
    return there, ".".join(map(str, glibc))


def add_wheels(stage, python, scratch):
    """Unpacked, for that Python; without tests and what nobody imports."""
    platforms = [word for p in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
                 for word in ("--platform", f"{p}_x86_64")]  # fmt: skip
    run([sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", python, "--implementation", "cp",
         *platforms, "--dest", scratch, *PACKAGES], timeout=600)  # fmt: skip
    names = []
    for wheel in sorted(pathlib.Path(scratch).glob("*.whl")):
        if wheel.name.startswith(LEFT_OUT):
            continue
        names.append("-".join(wheel.name.split("-")[:2]))
        with zipfile.ZipFile(wheel) as z:
            wanted = [n for n in z.namelist() if "/tests/" not in n and not n.endswith((".pyi", ".h", ".a", ".exe"))]
            z.extractall(stage.folder / "wheels", wanted)
    return names


def pack(folder, file, quick):
    """In the least space, which takes minutes, or quick. Names sorted, owners and times the same each time."""
    def plain(info):
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    with tarfile.open(file, "w:xz", preset=0 if quick else 9) as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)


def make(file, folder, quick, python):
    """What went into it. Lacking, Failed."""
    has = features(folder)
    about = {"commit": commit(), "made": time.strftime("%Y-%m-%d"), **has}
    with tempfile.TemporaryDirectory(prefix="lockstep-bundle-") as scratch:
        stage = Stage(pathlib.Path(scratch) / "bundle")
        for script in SCRIPTS:
            stage.copy(ROOT / script, script.removeprefix("bench/") if script == "bench/run-gpu" else script)
        for config in CONFIGS:
            stage.copy(ROOT / "configs" / config, f"configs/{config}")
        there, about["glibc"] = add_programs(stage, folder / "bench/gpu_programs")
        about["target_has"] = sorted(there)
        about["wheels"] = [] if quick else add_wheels(stage, python, pathlib.Path(scratch) / "wheels")
        about["python"] = python
        (stage.folder / "bundle.json").write_text(json.dumps(about, indent=1) + "\n")
        about["parts"] = {part.name: size_of(part) for part in sorted(stage.folder.iterdir())}
        pack(stage.folder, file, quick)
    about["bytes"] = file.stat().st_size
    if about["bytes"] > MOST_BYTES and not quick:
        raise Failed(f"{file}: {about['bytes']:,} bytes, more than {MOST_BYTES:,}; parts unpacked: {about['parts']}")
    return about, there


def size_of(path):
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size


# --- an empty root ---


def of_the_target(unpacked, there):
    """A folder, as it is called in the root, with what a target has itself and the program does not start without."""
    folder = unpacked.folder / "of-the-target"
    folder.mkdir()
    for name, path in there.items():
        if path:
            shutil.copy2(path, folder / name)
    return unpacked.inside(folder.name)


def start_each(file, there, say):
    """Every program, in a root with nothing but a minimal Debian."""
    with empty_root.Unpacked(empty_root.root(), file) as unpacked:
        folder = unpacked.inside("")
        e = {"LD_LIBRARY_PATH": f"{folder}/lib:{of_the_target(unpacked, there)}", "PATH": f"{folder}/openmpi/bin:/usr/bin:/bin",
             **programs.openmpi_environment(folder)}  # fmt: skip
        for what, words in {
            "version": ["--version"],
            "list of tests": ["kernel_tests", "--gtest_list_tests"],
            "list of timings": ["kernel_timings", "--list"],
            "list of kernels": ["kernels"],
            "two ranks on the CPU": ["fit", f"{folder}/configs/mnist_article.yaml", "--set", "hyperparameters.steps=3", "--output", f"{folder}/run"],
        }.items():
            said = empty_root.run_in(unpacked.root, ["sh", "-c", shlex.join([f"{folder}/bin/gpu_programs", *words]) + " 2>&1"], e)
            if not said.strip() or "Sorry!" in said:  # Open MPI's word where it lacks a file
                raise Failed(f"{what}: {said or 'nothing was said'}")
            say(f"in an empty root, {what}: {len(said.splitlines())} lines, the last: {said.strip().splitlines()[-1][:100]}")


def rehearse(file, there, say):
    """run-gpu --dry, in a root that has Python too."""
    with empty_root.Unpacked(empty_root.root(("python3",)), file) as unpacked:
        began = time.monotonic()
        command = ["python3", unpacked.inside("run-gpu"), "--dry", "--out", unpacked.inside("results")]
        said = empty_root.run_in(unpacked.root, command, {"LD_LIBRARY_PATH": of_the_target(unpacked, there)})
        say(f"in a root with Python, run-gpu --dry: {time.monotonic() - began:.0f} s")
        say(said)
