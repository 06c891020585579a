# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Medians, ratios, the growth with the number of devices, and the stored figures."""

from __future__ import annotations

import json

import pytest


def test_the_exponent_of_a_power_is_found(bench):
    figures = bench("figures")
    for power in (0.5, 1, 1.05, 2):
        points = [(count, 0.003 * count**power) for count in (8, 64, 256, 4000)]
        assert figures.exponent(points) == pytest.approx(power)


def test_fewer_devices_than_eight_do_not_count(bench):
    figures = bench("figures")
    assert figures.exponent([(1, 100.0), (8, 1.0), (64, 8.0)]) == pytest.approx(1)
    assert figures.exponent([(1, 1.0), (8, 1.0)]) is None


def test_medians_of_both_times(bench):
    assert bench("figures").medians([(3.0, 0.1), (1.0, 0.3), (2.0, 0.2)]) == [2.0, 0.2]


def test_a_ratio_is_that_of_the_pairs(bench):
    # A machine that becomes slower changes both values of a pair.
    assert bench("figures").paired_ratio([(1.2, 1.0), (2.4, 2.0), (120.0, 100.0)]) == pytest.approx(1.2)


def test_figures_are_kept_with_a_row_on_each_line(bench, tmp_path):
    figures = bench("figures")
    known = {"machine": {"load": 0.1}, "rows": [{"devices": 1, "create": [0.5, 0.4]}, {"devices": 8}]}
    figures.keep(tmp_path / "new" / "loops.json", known)
    text = (tmp_path / "new" / "loops.json").read_text(encoding="utf-8")
    assert '  {"devices": 1, "create": [0.5, 0.4]},\n  {"devices": 8}\n' in text
    assert figures.kept(tmp_path / "new" / "loops.json") == json.loads(text) == known
    assert figures.kept(tmp_path / "none.json") is None
    assert json.loads(figures.text_of({"machine": {}, "rows": []})) == {"machine": {}, "rows": []}
