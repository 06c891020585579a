# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._dm_table import longer, parse_table

LIVE = "0 16 linear 7:1 0\n16 16 linear 7:2 8"


@pytest.mark.parametrize(
    "live, wanted, expected",
    [
        (LIVE, LIVE, True),
        (LIVE, "0 16 linear 7:1 0\n16 64 linear 7:2 8", True),
        (LIVE, LIVE + "\n32 8 zero", True),
        (LIVE, "0 16 linear 7:1 0\n16 32 linear 7:2 8\n48 8 linear 7:3 0", True),
        # Another order of options and devices that are written in full mean the same.
        ("0 16 crypt aes-xts-plain64 :64:logon:a:b 0 7:1 0 1 allow_discards",) * 2 + (True,),
        ("0 64 striped 2 8 7:1 0 7:2 0", "0 128 striped 2 8 7:1 0 7:2 0", True),
        ("0 64 thin 253:1 5", "0 128 thin 253:1 5", True),
        # Shorter, or another mapping of the same sectors.
        (LIVE, "0 16 linear 7:1 0", False),
        (LIVE, "0 16 linear 7:1 0\n16 8 linear 7:2 8", False),
        (LIVE, "0 16 linear 7:1 0\n16 8 linear 7:2 8\n24 64 zero", False),
        (LIVE, "0 16 linear 7:1 0\n16 64 linear 7:2 16", False),
        (LIVE, "0 16 linear 7:1 0\n16 64 linear 7:3 8", False),
        (LIVE, "0 32 linear 7:1 0\n32 16 linear 7:2 8", False),
        (LIVE, "0 64 linear 7:1 0", False),
        ("0 64 thin 253:1 5", "0 128 thin 253:1 6", False),
        ("0 64 zero", "0 128 error", False),
        # The length decides where the data is.
        (
            "0 1024 raid raid1 3 0 region_size 1024 2 - 7:1 - 7:2",
            "0 2048 raid raid1 3 0 region_size 1024 2 - 7:1 - 7:2",
            False,
        ),
    ],
)
def test_begins_with(live, wanted, expected):
    assert longer.begins_with(parse_table(wanted), parse_table(live)) is expected


def test_more_targets_after_one_that_cannot_be_stretched():
    raid = "0 1024 raid raid1 3 0 region_size 1024 2 - 7:1 - 7:2"
    assert longer.begins_with(parse_table(f"{raid}\n1024 8 zero"), parse_table(raid))
