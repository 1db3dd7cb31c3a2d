# SPDX-License-Identifier: Apache-2.0
"""Makes timestep_embedding.inc: diffusers' get_timestep_embedding, for tests/kernels/embedding_test.cpp.

    ~/.cache/lockstep/peers/bin/python tests/golden/make_timestep_embedding.py   (needs diffusers beside PyTorch)
"""

import pathlib

import torch
from diffusers.models.embeddings import get_timestep_embedding

# dim, flip_sin_to_cos, freq_shift, scale, max_period
CASES = [
    (8, False, 1, 1, 10000),
    (12, True, 0, 1, 10000),
    (7, False, 0, 0.5, 500),
]


def main():
    steps = torch.tensor([0, 1, 500, 999])
    with open(pathlib.Path(__file__).parent / "timestep_embedding.inc", "w") as f:
        f.write("// Made by make_timestep_embedding.py.\n// clang-format off\n")
        for dim, flip, shift, scale, period in CASES:
            y = get_timestep_embedding(steps, dim, flip, shift, scale, period)
            f.write(f"{{{{{dim}, {str(flip).lower()}, {shift}, {scale}, {period}}},\n {{")
            f.write(",\n  ".join(", ".join(f"{v:.9g}f" if "." in f"{v:.9g}" or "e" in f"{v:.9g}" else f"{v:.9g}"
                                          for v in row) for row in y.tolist()))
            f.write("}},\n")
        f.write("// clang-format on\n")


if __name__ == "__main__":
    main()
