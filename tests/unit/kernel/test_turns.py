# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of the slow tests a run of make test has."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).resolve().parents[2]


@pytest.fixture
def turns(programs: Callable[[Path], Callable[[str], ModuleType]]) -> ModuleType:
    return programs(TESTS / "kernel")("turns")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_each_test_has_one_turn(turns: ModuleType, count: int) -> None:
    tests = [f"test {number}" for number in range(count)]
    parts = [turns.of_turn(tests, str(turn)) for turn in range(turns.TURNS)]
    assert sorted(sum(parts, [])) == sorted(tests)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("turn", ["3", "-1", "", "all", "1 "])
def test_a_wrong_turn_leaves_nothing_out(turns: ModuleType, turn: str) -> None:
    with pytest.raises(ValueError, match="must be a number from 0 to 2"):
        turns.of_turn(["test"], turn)


def test_the_program_prints_a_turn(turns: ModuleType) -> None:
    printed = subprocess.run([TESTS / "setup/turn"], capture_output=True, text=True, check=True).stdout
    assert turns.of_turn(range(turns.TURNS), printed.strip()) == [int(printed)]
