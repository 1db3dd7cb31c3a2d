# SPDX-License-Identifier: Apache-2.0
"""The words and tiles that kernels are made of, as the card computes them, bit for bit beside the host's."""

from gpu_stages import cases, gtest

NAME, TITLE, SHARE = "words", "words and tiles, natively", 20


def missing(s):
    return s.need()


def wanted(s):
    return gtest.filters([t for t in gtest.tests_of(s) if gtest.WORDS.search(t[0])])


def rehearse(s):
    return f"{len(wanted(s))} processes of tests"


def work(s):
    gtest.side_by_side(lambda f: cases.one(s, f), wanted(s), gtest.at_once())
