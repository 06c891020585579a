# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same table is parsed once; what only looks the same is parsed by itself."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.racefree.block.plugins.module_utils import _dm_table
from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import table as _table

LINE = {"start": 0, "length": 8, "target": "linear", "device": "/dev/vg/a", "offset": 0}


def test_the_same_table():
    value = [dict(LINE)]
    found = _dm_table.parse_table(value)
    assert _dm_table.parse_table(copy.deepcopy(value)) is found
    # A list that is changed afterwards is another table.
    value[0]["length"] = 16
    assert _dm_table.parse_table(value).length == 16 and found.length == 8


def test_values_that_are_equal_but_not_the_same():
    assert _dm_table.parse_table([dict(LINE, offset=1)])
    with pytest.raises(TableError):
        _dm_table.parse_table([dict(LINE, offset=True)])


def test_errors_and_many_tables():
    for dummy in range(2):
        with pytest.raises(TableError):
            _dm_table.parse_table([dict(LINE, length=0)])
    for length in range(8, 8 * 100, 8):
        assert _dm_table.parse_table([dict(LINE, length=length)]).length == length
    assert len(_table._parsed) <= _table._MOST_PARSED
