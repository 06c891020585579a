# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of stacked devices in a list. Tests with a kernel: tests/kernel/test_dm_stack.py."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._module import dm_order


def made(name, *below):
    """An entry for a device that is stacked on those with these names."""
    lines = [f"{8 * place} 8 linear /dev/mapper/{other} 0" for place, other in enumerate(below)] or [
        "0 8 zero"
    ]
    return name, lines, False, None


def gone(minor, *below):
    """An entry for a device to remove, which is stacked on those with these minor numbers."""
    return None, None, False, ((254, minor), {(254, other) for other in below})


@pytest.mark.parametrize(
    "entries, order",
    [
        ([], []),
        ([made("a"), made("b"), made("c")], [0, 1, 2]),
        ([made("a"), made("b", "a")], [0, 1]),
        ([made("b", "a"), made("a")], [1, 0]),
        ([made("c", "b"), made("b", "a"), made("x"), made("a")], [3, 1, 0, 2]),
        ([made("d", "b", "c"), made("c", "a"), made("b", "a"), made("a")], [3, 2, 1, 0]),
        ([made("a", "elsewhere")], [0]),
        # Impossible to create. The plan of the first one reports that.
        ([made("a", "b"), made("b", "a")], [1, 0]),
        ([made("a", "a"), made("b")], [0, 1]),
        ([gone(1), gone(2)], [0, 1]),
        ([gone(2, 1), gone(1)], [0, 1]),
        ([gone(1), gone(2, 1)], [1, 0]),
        ([gone(1), gone(3, 2, 1), gone(2, 1)], [1, 2, 0]),
        ([made("b", "a"), gone(1), made("a"), gone(2, 1)], [2, 0, 3, 1]),
        # Nothing is known of a device that does not exist.
        ([("a", None, False, (None, set())), ("b", None, False, (None, set()))], [0, 1]),
    ],
)
def test_the_order(entries, order):
    assert dm_order.in_order(entries) == order


def test_a_long_stack():
    count = 3000
    entries = [made(f"d{number}", f"d{number + 1}") for number in range(count)]
    assert dm_order.in_order(entries) == list(reversed(range(count)))


@pytest.mark.parametrize(
    "slot, name",
    [
        ("/dev/mapper/a", "a"),
        ("path:/dev/mapper/a", "a"),
        ("dm:a,U-1", "a"),
        ({"path": "/dev/mapper/a"}, "a"),
        ({"path": "/dev/mapper/a", "uuid": "U"}, "a"),
        ({"table": "0 8 linear /dev/mapper/a 0"}, "a"),
        ("/dev/vg/a", None),
        ("diskseq:4", None),
        ("file:/dev/mapper/a", None),
        ("7:0", None),
        # This device already exists.
        ({"path": "/dev/mapper/a", "diskseq": 4}, None),
    ],
)
def test_slots_that_name_a_mapped_device(slot, name):
    table = [{"start": 0, "length": 8, "target": "linear", "device": slot, "offset": 0}]
    assert dm_order.mapped_names(table) == ([name] if name else [])


def test_an_invalid_table_is_reported_by_its_plan():
    assert dm_order.mapped_names("0 8 linear /dev/mapper/a") == []
