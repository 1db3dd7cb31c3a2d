# SPDX-License-Identifier: Apache-2.0
"""What scripts that repeat our diffusion training in PyTorch share: our draws, and the DDPM paper's CIFAR-10 net."""

import numpy as np

MASK = np.uint64(0xFFFFFFFF)

# google/ddpm-cifar10-32 as published: 328 tensors, 35,746,307 parameters.
CIFAR10_CONFIG = dict(
    sample_size=32, block_out_channels=(128, 256, 256, 256), layers_per_block=2,
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6, attention_head_dim=None)  # fmt: skip


def philox(counter, seed):
    """Philox4x32-10 of counters [4][...], as kernels/random/philox.h has it."""
    x = [np.asarray(c, dtype=np.uint64) for c in counter]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        x = [(p1 >> np.uint64(32)) ^ x[1] ^ np.uint64(k0), p1 & MASK, (p0 >> np.uint64(32)) ^ x[3] ^ np.uint64(k1), p0 & MASK]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return x


def draw_normals(seed, stream, step, sample, elements):
    quads = (elements + 3) // 4
    words = philox([np.arange(quads), np.full(quads, sample), np.full(quads, step), np.full(quads, stream)], seed)
    return normals(words).reshape(-1)[:elements].astype(np.float32)


def draw_noise(seed, step, sample, elements):
    return draw_normals(seed, 0x6000, step, sample, elements)


def draw_posterior(seed, step, sample, elements):
    """What posterior_sample adds to the means (kernels/diffusion/posterior.h)."""
    return draw_normals(seed, 0xB000, step, sample, elements)


def normals(words):
    """kernels/random/normal.h: Box-Muller on pairs of words, in double."""
    def pair(a, b):
        u = (a.astype(np.float64) + 0.5) * 2.0**-32
        angle = b.astype(np.float64) * 2.0**-32 * 2 * np.pi
        r = np.sqrt(-2 * np.log(u))
        return r * np.cos(angle), r * np.sin(angle)
    x, y = pair(words[0], words[1])
    z, w = pair(words[2], words[3])
    return np.stack([x, y, z, w], axis=-1)


def draw_timestep(seed, step, sample, timesteps):
    return int(philox([0, sample, step, 0x7000], seed)[0]) * timesteps >> 32


def draw_mirrored(seed, step, sample):
    """Whether augment.flip mirrors the sample (kernels/image_augment/)."""
    return bool(int(philox([0, sample, step, 0x5000], seed)[2]) >> 31)


def draw_hidden(seed, step, sample, label_dropout):
    """Whether objective.label_dropout hides the sample's class (kernels/diffusion/label_dropout.h)."""
    return (int(philox([0, sample, step, 0x8000], seed)[0]) >> 8) * 2.0**-24 < np.float32(label_dropout)


def permute(count, seed, stream, number, position):
    """runtime/data/permutation.h: a Feistel network with cycle walking."""
    keys = [int(k) for i in range(2) for k in philox([i, 0, number, stream], seed)]
    word = (1 << 64) - 1

    def mix(x):
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & word
        x = (x ^ x >> 27) * 0x94D049BB133111EB & word
        return x ^ x >> 31

    bits = max(8, (count - 1).bit_length())
    low_bits = bits // 2
    low_mask, high_mask = (1 << low_bits) - 1, (1 << bits - low_bits) - 1
    while True:
        low, high = position & low_mask, position >> low_bits
        for i in range(0, 8, 2):
            high ^= mix(keys[i] << 32 ^ low) & high_mask
            low ^= mix(keys[i + 1] << 32 ^ high) & low_mask
        position = high << low_bits | low
        if position < count:
            return position


def batch_order(count, seed, batch, step, shuffle=True, drop_last=False):
    """Which samples a step takes, in order."""
    steps = count // batch if drop_last else -(-count // batch)
    epoch, begin = step // steps, step % steps * batch
    positions = range(begin, min(begin + batch, count))
    return [permute(count, seed, 0x2000, epoch, p) if shuffle else p for p in positions]
