# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Names of disks while an adversary exchanges the disk: a small run of names_adversary.py.
"""

from __future__ import annotations

import os

import names_adversary
import pytest

pytest.importorskip("pyfuse3")
TRIES = int(os.environ.get("RACEFREE_TRIES", "1"))
# RACEFREE_TOOLS=all also runs the tools that take seconds per try.
SHORT = ["realpath, open", "mount", "mkfs.ext4", "dmsetup create"]
TOOLS = list(names_adversary.TOOLS) if os.environ.get("RACEFREE_TOOLS") == "all" else SHORT


@pytest.mark.parametrize(("kind", "tools"), [("loop", TOOLS), ("mapped", TOOLS[:1])])
def test_a_name_never_leads_to_the_other_disk(kind, tools):
    """RACEFREE_TRIES is the number of tries of each tool with each name."""
    rows = list(names_adversary.play([kind], tools, TRIES, seed=1, patience=0.0, grace_ms=200))
    print(rows)
    assert [row for row in rows if row["wrong"] and row["name"] in names_adversary.OURS] == []
    # The adversary works: other names do lead to the other disk.
    assert sum(row["wrong"] for row in rows if row["name"] not in names_adversary.OURS)
