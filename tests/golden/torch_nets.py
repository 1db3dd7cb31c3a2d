# SPDX-License-Identifier: Apache-2.0
"""The nets and schedules of the golden files in PyTorch, written to be read beside the job files that repeat them."""

import gzip
import math
import pathlib
import struct

import torch
import torch.nn.functional as F
from torch import nn

ROOT = pathlib.Path(__file__).resolve().parents[2]
MNIST = ROOT / "configs" / "data" / "mnist"


class ConvNet(nn.Module):
    """mnist_convnet"""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.fc = nn.Linear(320, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.fc(x.flatten(1))


class ConvNetDropout(nn.Module):
    """mnist_convnet_dropout: the net of PyTorch's MNIST example. p = 0 leaves dropout out."""

    def __init__(self, p=0.5):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d(p)
        self.fc1 = nn.Linear(320, 50)
        self.drop = nn.Dropout(p)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = F.relu(self.fc1(x.flatten(1)))
        return F.log_softmax(self.fc2(self.drop(x)), dim=1)


class Residual(nn.Module):
    """`residual:` of a job file"""

    def __init__(self, layers, shortcut=()):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x):
        return self.layers(x) + self.shortcut(x)


class SelfAttention2d(nn.Module):
    """`self_attention2d:` of a job file, with diffusers' names: its Attention as UNet2DModel makes it (residual connection,
    output scale 1)"""

    def __init__(self, channels, heads=1, groups=32, eps=1e-5):
        super().__init__()
        self.heads = heads
        self.group_norm = nn.GroupNorm(groups, channels, eps)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Dropout(0)])

    def forward(self, x):
        n, c, h, w = x.shape
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (
            to(tokens).view(n, h * w, self.heads, c // self.heads).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v)
        )
        o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        for layer in self.to_out:
            o = layer(o)
        return x + o.transpose(1, 2).view(n, c, h, w)


class LayersNet(nn.Sequential):
    """The `layers:` of training/layers.yaml: groups, dilation, batch and group norm, average pooling, a residual."""

    def __init__(self):
        super().__init__()
        named = [
            ("0", nn.Conv2d(1, 8, 3, padding=1)),
            ("1", nn.BatchNorm2d(8)),
            ("2", nn.SiLU()),
            ("3", nn.AvgPool2d(2)),
            (
                "4",
                Residual(
                    [
                        nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4),
                        nn.GroupNorm(4, 16),
                        nn.ReLU(),
                        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
                    ],
                    [nn.Conv2d(8, 16, 1, stride=2, bias=False)],
                ),
            ),
            ("5", nn.GELU()),
            ("6", nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)),
            ("7", nn.Flatten()),
            ("classifier", nn.Linear(256, 10)),
        ]
        for name, module in named:
            self.add_module(name, module)


def read_idx(path):
    """An IDX file of bytes, plain or gzipped, as a uint8 tensor."""
    path = pathlib.Path(path)
    if not path.exists():
        path = path.with_name(path.name + ".gz")
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as f:
        data = f.read()
    dims = data[3]
    shape = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims])
    assert data[:3] == b"\0\0\x08" and len(data) == 4 + 4 * dims + math.prod(shape), path
    return torch.frombuffer(bytearray(data[4 + 4 * dims :]), dtype=torch.uint8).reshape(shape)


def mnist(split, folder=MNIST):
    """Images [N, 1, 28, 28], normalised, and labels [N]; split: train or t10k."""
    folder = pathlib.Path(folder)
    images = read_idx(folder / f"{split}-images-idx3-ubyte").float().div_(255).sub_(0.1307).div_(0.3081)
    return images.unsqueeze(1), read_idx(folder / f"{split}-labels-idx1-ubyte").long()
