# SPDX-License-Identifier: Apache-2.0
"""Makes resize.json: Pillow's resizing and torchvision's Resize and CenterCrop, for tests/runtime/data/fit_test.cpp.

    ~/.cache/lockstep/peers/bin/python tests/golden/make_resize.py      (environment: bench/peers/install)

Byte i of a picture ([channels, height, width]) is (i * 2654435761 mod 2^32) >> 24, which the test computes too.
"""

import json
import pathlib

import numpy
import PIL
import torchvision
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

# Picture, `resize` and `crop` of the job file.
CASES = [
    ((1, 17, 23), [8, 8], None),
    ((1, 5, 7), [12, 9], None),
    ((1, 30, 20), [7, 20], None),
    ((1, 9, 31), [9, 10], None),
    ((3, 13, 11), [6, 5], None),
    ((1, 64, 48), [1, 1], None),
    ((1, 19, 27), 8, [7, 8]),
    ((1, 27, 19), 8, [8, 7]),
    ((3, 12, 15), 9, 6),
    ((1, 15, 10), None, [8, 7]),
    ((1, 11, 12), None, 8),
]


def picture(shape):
    i = numpy.arange(numpy.prod(shape), dtype=numpy.uint32) * numpy.uint32(2654435761)
    planes = (i >> 24).astype(numpy.uint8).reshape(shape)
    return Image.fromarray(planes[0] if shape[0] == 1 else planes.transpose(1, 2, 0))


def main():
    cases = []
    for shape, resize, crop in CASES:
        steps = [Resize(resize, InterpolationMode.BILINEAR)] if resize else []
        steps += [CenterCrop(crop)] if crop else []
        out = numpy.asarray(Compose(steps)(picture(shape)))
        planes = out[None] if out.ndim == 2 else out.transpose(2, 0, 1)
        cases.append({"shape": shape, "resize": resize, "crop": crop, "size": planes.shape, "bytes": planes.flatten().tolist()})
    versions = json.dumps({"pillow": PIL.__version__, "torchvision": torchvision.__version__})
    text = ",\n".join(json.dumps(case) for case in cases)
    (pathlib.Path(__file__).parent / "resize.json").write_text(f'{{"versions": {versions}, "cases": [\n{text}]}}\n')


if __name__ == "__main__":
    main()
