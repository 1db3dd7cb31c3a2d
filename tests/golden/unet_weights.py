# SPDX-License-Identifier: Apache-2.0
"""Weights and inputs of the UNet golden files by formula, so that they need not be stored (tests/models/unet_formula.h)."""

import zlib

import numpy as np


def uniform(count, seed):
    """float32 in [-0.5, 0.5), exact on both sides: an integer hash's upper 24 bits (splitmix32)."""
    x = (np.arange(count, dtype=np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B9)) & np.uint64(0xFFFFFFFF)
    mask = np.uint64(0xFFFFFFFF)
    x = (x + np.uint64(0x9E3779B9)) & mask
    x = ((x ^ (x >> np.uint64(16))) * np.uint64(0x85EBCA6B)) & mask
    x = ((x ^ (x >> np.uint64(13))) * np.uint64(0xC2B2AE35)) & mask
    x = x ^ (x >> np.uint64(16))
    return ((x >> np.uint64(8)).astype(np.float64) * 2.0**-24 - 0.5).astype(np.float32)


def weight(name, shape):
    """Of a tensor, by its name: as large as keeps activations near one."""
    count = int(np.prod(shape))
    u = uniform(count, zlib.crc32(name.encode()) % 65536).reshape(shape)
    if len(shape) == 1:
        base = np.float32(1 if "norm" in name and name.endswith("weight") else 0)
        return base + np.float32(0.25) * u
    fan_in = int(np.prod(shape[1:]))
    scale = np.float32(3.0 / np.sqrt(np.float64(fan_in)))
    return scale * u
