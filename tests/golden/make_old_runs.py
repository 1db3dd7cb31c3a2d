#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs that version 0.1.0 left, and what it said of them, for tests/distributed/old_run_test.cpp.

  tests/golden/make_old_runs.py PROGRAM     PROGRAM: `lockstep` built from version 0.1.0's last commit

Writes tests/golden/old_runs/: of a classifier and a diffusion model of coloured pictures the files of their run folders that
hold job, plan and weights, and said.json, what predict, evaluate and sample gave. Plans lose all but what a node reads.
"""

import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

HERE = pathlib.Path(__file__).resolve().parent / "old_runs"

CLASSIFIER = """job_name: colours
device: cpu
threads_per_rank: 1
model: {layers: [{conv2d: {out_channels: 4, kernel: 3, padding: 1}}, batch_norm2d, relu, flatten, {linear: {out_features: 3}}]}
inputs:
  training: {dataset: image_folder, path: data, normalize: {mean: 0.4, std: 0.3}}
  test: {dataset: image_folder, path: data, normalize: {mean: 0.4, std: 0.3}}
hyperparameters: {epochs: 10, global_batch_size: 6, optimizer: {name: adam, lr: 0.01}, seed: 1}
"""
DIFFUSION = """job_name: colours
device: cpu
threads_per_rank: 1
model:
  name: unet2d
  config:
    in_channels: 3
    out_channels: 3
    block_out_channels: [4]
    down_block_types: [DownBlock2D]
    up_block_types: [UpBlock2D]
    layers_per_block: 1
    attention_head_dim: 4
    norm_num_groups: 2
    num_class_embeds: 4
objective: {name: diffusion, prediction_type: v_prediction, label_dropout: 0.2}
inputs:
  training: {dataset: image_folder, path: data}
hyperparameters: {steps: 20, global_batch_size: 6, optimizer: {name: adam, lr: 0.01}, ema: {decay: 0.9}, seed: 1}
sampling: {sampler: ddim, steps: 4, guidance: 1.5, count: 4, timestep_spacing: trailing}
"""


def png(path, colour, side=4):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(colour) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def tensor(path, name):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + length])[name]
    begin, end = (8 + length + at for at in entry["data_offsets"])
    return list(struct.unpack(f"<{(end - begin) // 4}f", data[begin:end]))


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)

        def lockstep(*words):
            done = subprocess.run([program, *words], cwd=work, env={"XDG_CACHE_HOME": name}, check=True, capture_output=True)
            return done.stdout.decode()

        assert "0.1.0" in lockstep("--version")
        for half in ("train", "test"):
            for number, kind in enumerate(("blue", "green", "red")):
                for i in range(2):
                    colour = [200 + 10 * i if channel == number else 20 for channel in range(3)]
                    png(work / "data" / half / kind / f"{i}.png", colour)
        said = {}
        for kind, job in (("classifier", CLASSIFIER), ("diffusion", DIFFUSION)):
            (work / "job.yaml").write_text(job)
            lockstep("fit", "job.yaml", "--output", kind)
        pictures = [f"data/test/{kind}/1.png" for kind in ("blue", "green", "red")]
        said["predict"] = [json.loads(line) for line in lockstep("predict", "classifier", *pictures, "--json").splitlines()]
        said["evaluate"] = json.loads(lockstep("evaluate", "classifier", "--json"))
        said["diffusion"] = json.loads(lockstep("evaluate", "diffusion", "--split", "training", "--json"))
        lockstep("sample", "diffusion", "--seed", "3", "--raw", "raw", "--save-noise", "noise")
        said["noise"] = tensor(work / "noise", "noise")
        said["images"] = tensor(work / "raw", "images")

        shutil.rmtree(HERE, ignore_errors=True)
        for kind in ("classifier", "diffusion"):
            run = work / kind
            kept = [run / "job.yaml", run / "plan.json", *run.glob("*.safetensors"), *run.glob("unet/*"), *run.glob("scheduler/*"),
                    *run.glob("model_index.json")]
            for file in kept:
                to = HERE / kind / file.relative_to(run)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to)
            job = HERE / kind / "job.yaml"
            job.write_text(job.read_text().replace(str(work.resolve()), "/colours"))
            plan = json.loads((run / "plan.json").read_text())
            nodes = [{"op": n["op"], "in": [{k: v[k] for k in ("name", "tensor")} for v in n["in"]]} for n in plan["nodes"]
                     if n["pass"] == "forward"]
            (HERE / kind / "plan.json").write_text(json.dumps({"nodes": nodes}) + "\n")
        (HERE / "said.json").write_text(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
