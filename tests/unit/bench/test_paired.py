# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ways to do the same are measured alternately, and removed after a failure."""

from __future__ import annotations

import pytest


def test_ways_take_turns_in_changing_order(bench):
    paired, seen = bench("paired"), []
    ways = [paired.Way(name, lambda step, name=name: seen.append((name, step))) for name in "ab"]
    found = paired.alternate(ways, 2)
    assert [name for name, step in seen if step == "create"] == ["a", "b", "b", "a"]
    assert {name: len(turns) for name, turns in found.items()} == {"a": 2, "b": 2}
    assert set(found["a"][0]) == set(paired.STEPS)


def test_a_slow_way_has_no_row_for_many_devices(bench):
    paired = bench("paired")
    ways = [paired.Way("fast", lambda step: None), paired.Way("slow", lambda step: None, most=8)]
    assert [row["way"] for row in paired.rows(8, ways, 1)] == ["fast", "slow"]
    assert [row["way"] for row in paired.rows(9, ways, 1)] == ["fast"]


def test_a_failed_step_removes_the_devices(bench):
    paired, seen = bench("paired"), []

    def do(step):
        seen.append(step)
        if step == "info":
            raise SystemExit("no answer")

    with pytest.raises(SystemExit, match="no answer"):
        paired.turn(paired.Way("way", do))
    assert seen == ["create", "unchanged", "info", "absent"]


def test_a_program_that_fails_ends_the_measurement(bench):
    with pytest.raises(SystemExit, match="sh -c failed: why"):
        bench("paired").program("sh", "-c", "echo why >&2; exit 3")
