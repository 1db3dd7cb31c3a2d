# SPDX-License-Identifier: Apache-2.0
"""Every kernel on the card against the CPU reference: a process an op, several at a time; the collectives last and alone."""

from gpu_stages import gtest

NAME, TITLE, SHARE = "cases", "kernel cases on the card", 110
LIMIT = 60  # seconds of one process


def missing(s):
    return s.need()


def wanted(tests):
    """(filters to run side by side, those of the collectives)"""
    rest = [t for t in tests if not gtest.WORDS.search(t[0])]
    alone = [t for t in rest if gtest.COLLECTIVES.search(t[0])]
    return gtest.filters([t for t in rest if t not in alone]), gtest.filters(alone)


def rehearse(s):
    together, alone = wanted(gtest.tests_of(s))
    return f"{len(together)} processes of tests, {gtest.at_once()} at a time, and {len(alone)} of collectives"


def one(s, test_filter):
    if s.left() <= 0:
        s.say(test=test_filter, not_run="no time left")
        return
    counts, _ = gtest.run(s, test_filter, LIMIT)
    s.say(test=test_filter, **counts)


def work(s):
    together, alone = wanted(gtest.tests_of(s))
    gtest.side_by_side(lambda f: one(s, f), together, gtest.at_once())
    for test_filter in alone:
        one(s, test_filter)
