# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Names of disks while an adversary replaces the disk: a small run of names_adversary.py.
"""

from __future__ import annotations

import os

import names_adversary
import pytest
from names_tools import TOOLS

pytest.importorskip("pyfuse3")
TRIES = int(os.environ.get("RACEFREE_TRIES", "20"))


@pytest.mark.rotated
@pytest.mark.parametrize(
    ("kind", "tool"),
    [
        *(("loop", tool) for tool in TOOLS),
        ("mapped", "open"),
        ("mapped", "realpath, open"),
        ("mapped", "mount"),
    ],
)
def test_a_name_never_leads_to_the_other_disk(kind, tool):
    """RACEFREE_TRIES is the number of tries with each name; a third of it for tools that take long."""
    tries = max(1, TRIES // 3) if TOOLS[tool].costly else TRIES
    rows = list(names_adversary.play(kind, tool, tries, tries, seed=1))
    print(rows)
    assert [row for row in rows if row["wrong"] and row["name"] in names_adversary.OURS] == []
    # The adversary works: other names do lead to the other disk.
    assert sum(row["wrong"] for row in rows if row["name"] not in names_adversary.OURS)


def test_cryptsetup_close_takes_whatever_has_the_name():
    rows = list(
        names_adversary.play("mapping of cryptsetup", "cryptsetup close", 0, max(1, TRIES // 3), seed=1)
    )
    assert sum(row["wrong"] for row in rows), rows
