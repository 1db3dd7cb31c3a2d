# SPDX-License-Identifier: Apache-2.0
"""Medians, ratios and how the tables show them."""

import statistics


def shown_one(value, unit):
    digits = {"samples/s": 0, "images/s": 2, "requests/s": 0, "s": 3, "MB": 0}.get(unit, 2)
    return f"{value:,.{digits}f}"


def shown(values, unit):
    if not values:
        return "–"
    middle, low, high = (shown_one(v, unit) for v in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def ratios(mine, theirs, unit):
    """Of the medians, and the least and greatest of the pairs measured one after the other; of rates and memory ours over
    theirs, of times theirs over ours."""
    if not mine or not theirs:
        return None
    over = (lambda a, b: b / a) if unit in ("s", "ms") else (lambda a, b: a / b)
    pairs = [over(a, b) for a, b in zip(mine, theirs)]
    return over(statistics.median(mine), statistics.median(theirs)), min(pairs), max(pairs)


def ratio_text(found, unit, against):
    if found is None or unit == "%":
        return "–"
    digits = 1 if found[0] >= 10 else 2
    middle, low, high = (f"{v:.{digits}f}" for v in found)
    what = f"of {against}'s" if unit == "MB" else "times as fast"
    return f"{middle} ({low} to {high}) {what}"
