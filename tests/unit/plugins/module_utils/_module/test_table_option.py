# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError, TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import parse_table
from ansible_collections.racefree.block.plugins.module_utils._module import loop_device
from ansible_collections.racefree.block.plugins.module_utils._module.table_option import table_lines

# A short one is not recognized by its form.
KEY = "c0ffee"
LINE = f"0 8 crypt aes-xts-plain64 {KEY} 0 /dev/a 0"


def test_lines():
    assert table_lines("a\nb") == ["a", "b"] and table_lines(["a\nb", {"c": 1}]) == ["a", "b", {"c": 1}]


@pytest.mark.parametrize("value", [[[LINE]], [LINE, [LINE]], [(LINE,)]])
def test_a_list_inside_the_list_is_not_shown(value):
    with pytest.raises(BlockError, match=r"table \(not shown\)") as caught:
        table_lines(value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("value", [[[LINE]], {LINE}, {"Table": LINE}])
def test_nor_by_the_table_itself(value):
    with pytest.raises(TableError) as caught:
        parse_table(value)
    assert KEY not in str(caught.value) + str(caught.value.as_dict())


def test_nor_in_the_title_of_a_loop_device():
    params = dict.fromkeys(loop_device.ARGUMENTS)
    item = loop_device.LoopItem(dict(params, backing={"Table": [LINE]}), None)
    assert KEY not in item.title() and item.key()[0] == "backing"
