# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The table of tools (``_command.tools``) against the tools of this release, seen with strace: tool_paths.py.
"""

from __future__ import annotations

import pytest
import tool_paths
from ansible_collections.racefree.block.plugins.module_utils._command import tools

pytest.importorskip("pyfuse3")
# Rows from documentation: nothing here runs these.
NOT_RUN = {"virsh", "xl"}


@pytest.fixture(scope="module")
def place():
    with tool_paths.named() as directory:
        yield directory


@pytest.mark.rotated
@pytest.mark.parametrize("name", tool_paths.CASES)
def test_a_tool_does_what_its_row_says(name, place):
    case = tool_paths.CASES[name]
    assert tool_paths.is_there(case), f"{case.tool} is not installed here"
    row = tools.find(case.tool)
    found = {way: tool_paths.attempt(case, way, place, way == row.style) for way in tool_paths.WAYS}
    print(found)
    named, direct = found["by_diskseq"], found["descriptor"]
    # With the name by disk sequence number, each tool opens that.
    assert named["opens"] == ["given"]
    if row.needs_node:
        assert direct["ok"] and direct["opens"] == ["node"]
        assert named["ok"] or "No such file" in named["error"]
    else:
        opens_itself = direct["ok"] and direct["opens"] == ["given"] and not direct["closes"]
        assert named["ok"] and opens_itself == (row.style == tools.DESCRIPTOR)
    # Some commands of a tool may not claim the device.
    works = found[row.style]["with_claim"]
    assert works or row.claims
    if name in tool_paths.CLAIMING:
        assert not works


def test_each_row_has_a_run():
    ran = {case.tool for case in tool_paths.CASES.values()}
    for row in tools.TOOLS:
        assert ran & set(row.names) or NOT_RUN & set(row.names), row.names
    claiming = {tool_paths.CASES[name].tool for name in tool_paths.CLAIMING}
    for row in tools.TOOLS:
        assert row.claims == bool(claiming & set(row.names)), row.names
