# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The reasons for a seal as text: the option of the device itself, a guest's disk, or a sealed device above.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure, and a file of its own: modules need these texts in each run, and the rest of this package rarely.
"""

from __future__ import annotations

import re

# The reason of the option ``sealed`` of the device's own module.
OWN = "own"
# (domid, devid), and (major, minor, diskseq, reason of the upper device)
VBD = re.compile(r"vbd ([0-9]+) ([0-9]+)")
BELOW = re.compile(r"below ([0-9]+):([0-9]+) ([0-9]+) (.+)")


def of_vbd(domid: int, devid: int) -> str:
    """The reason of a guest's disk. It ends when blkback no longer has the device open for this disk."""
    return f"vbd {domid} {devid}"


def of_upper(number: tuple[int, int], diskseq: int, reason: str) -> str:
    """
    The reason of a device that is sealed with one stacked on it. It ends with the upper device's ``reason``,
    or when the upper device no longer stands on this one.
    """
    return f"below {number[0]}:{number[1]} {diskseq} {reason}"
