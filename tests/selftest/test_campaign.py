# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The campaign's results: which code they are of, and how parts of them are put together."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "campaign"))

import expected
import hosts
import pieces
import results

CODE = '''
"""About."""
from .a import b


def one(x):
    """What it does."""
    return b(x)


class Two:
    y = 1
'''


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("About", "Else").replace("What it does", "Anything"),
        CODE.replace("from .a", "from ..room.a"),
        CODE.replace("one(x)", "one(x: int) -> str"),
        CODE.replace("    return b(x)", "    # Why.\n\n    return b(\n        x\n    )"),
    ],
)
def test_what_changes_nothing_keeps_results(other):
    assert other != CODE and pieces.meaning(other) == pieces.meaning(CODE)


@pytest.mark.parametrize("other", [CODE.replace("b(x)", "b(x, 1)"), CODE.replace("y = 1", "y = 2")])
def test_what_changes_something_does_not(other):
    assert pieces.meaning(other) != pieces.meaning(CODE)


def test_a_definition_may_stand_in_another_file():
    first, second = CODE.split("class", 1)
    assert pieces.meaning(first) | pieces.meaning("class" + second) == pieces.meaning(CODE)


def _result(rounds, **counts):
    row = dict(dict.fromkeys(results.COUNTS, 0), tries=rounds, **counts)
    return {
        "family": "swaps",
        "kernel": "7",
        "seconds": 1,
        "rounds": rounds,
        "rows": {"a": row},
        "examples": {},
    }


def test_parts_are_added_up():
    whole = results.add(_result(3, right=3), dict(_result(2, wrong=2), examples={"a: wrong": ["x"]}))
    assert whole["rounds"] == 5 and whole["seconds"] == 2 and whole["examples"] == {"a: wrong": ["x"]}
    assert (whole["rows"]["a"]["tries"], whole["rows"]["a"]["right"], whole["rows"]["a"]["wrong"]) == (
        5,
        3,
        2,
    )
    assert results.add(None, whole) == whole


def test_what_is_not_listed_fails_and_what_is_listed_and_gone_too():
    assert not expected.judge([_result(3, right=3)], {})
    assert "3 of 3 tries: lies" in expected.judge([_result(3, lies=3)], {})[0]
    assert not expected.judge([_result(3, lies=3)], {("swaps", "a", "lies"): 3})
    assert "mended" in expected.judge([_result(3, right=3)], {("swaps", "a", "lies"): 3})[0]


@pytest.mark.parametrize(
    "text, row, counts",
    [
        (
            "served  path          20 right       1 refused       2 gone       1 wrong\n12 s\n",
            "hotplug script, served, by path, exchanged",
            {"tries": 24, "right": 20, "refused": 3, "wrong": 1},
        ),
        (
            "plain            1 right       2 refused       3 wrong  of 6 tries, 1 with a guest, 9 s",
            "today: libvirt, a path in the definition, exchanged",
            {"tries": 6, "right": 1, "refused": 2, "wrong": 3},
        ),
        (
            "work: 7 kills of add, 5 kills of remove; 2 left something, 80 s",
            "hotplug script, work, killed",
            {"tries": 12, "refused": 10, "left": 2},
        ),
        ("9 kills, 0 left something, 3 s", "libvirt's hook, killed", {"tries": 9, "refused": 9, "left": 0}),
    ],
)
def test_what_programs_of_hosts_print_is_counted(text, row, counts):
    assert hosts.read(text) == {row: counts}
