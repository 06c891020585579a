# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stacked bars of shares, as SVG."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

KINDS = {"right": 0, "wrong": 1, "left": 3}
SVG = "{http://www.w3.org/2000/svg}"


def bars(text):
    """[(class, x, width)] of all bars, which are 16 high."""
    found = ElementTree.fromstring(text).iter(f"{SVG}rect")
    return [
        (each.get("class"), float(each.get("x")), float(each.get("width")))
        for each in found
        if each.get("height") == "16"
    ]


@pytest.mark.parametrize("counts", [[5, 5, 0], [1, 0, 0], [0, 0, 7], [99999, 1, 0], [1, 99998, 1], [3, 3, 3]])
def test_bars_stand_side_by_side_and_fill_the_width(bench, counts):
    plot = bench("plot")
    full = bars(plot.shares("t", "d", KINDS, {"all": [1, 0, 0]}))[0][2]
    found = bars(plot.shares("t", "d", KINDS, {"row": counts}))
    assert [each[0] for each in found] == [f"f{colour}" for colour, count in zip((0, 1, 3), counts) if count]
    assert found[-1][1] + found[-1][2] == pytest.approx(found[0][1] + full, abs=0.5)
    for left, right in zip(found, found[1:]):
        assert left[1] + left[2] == pytest.approx(right[1], abs=0.2)


def test_a_single_wrong_try_can_be_seen(bench):
    plot = bench("plot")
    found = bars(plot.shares("t", "d", KINDS, {"row": [99999, 1, 0]}))
    assert found[1][0] == "f1" and found[1][2] >= 3


def test_the_total_and_the_counts_can_be_read(bench):
    text = bench("plot").shares("t", "d", KINDS, {"row": [1200, 34, 0]})
    assert ">1,234<" in text and "right: 1,200" in text and "wrong: 34" in text
