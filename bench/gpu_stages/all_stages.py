# SPDX-License-Identifier: Apache-2.0
"""The stages, in order."""

from gpu_stages import cases, pipeline, probe, pytorch_rows, sanitizer, timings, training, words

STAGES = (probe, cases, words, timings, training, pytorch_rows, pipeline, sanitizer)
NAMES = tuple(stage.NAME for stage in STAGES)


def chosen(only):
    return [stage for stage in STAGES if not only or stage.NAME in only]
