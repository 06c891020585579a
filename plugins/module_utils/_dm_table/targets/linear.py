# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``linear DEV OFFSET``: a range of a device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-linear.c``.
"""

from __future__ import annotations

import re

from ..grammar.fields import Device, Sectors
from ..grammar.limits import Limits
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..grammar.context import Facts

# By far the most common line of large tables, as written by dmsetup and the kernel.
FAST = re.compile(
    r"(0|[1-9][0-9]{0,16}) ([1-9][0-9]{0,16}) linear "
    r"([0-9]{1,4}:[0-9]{1,7}|/[!\"$-\[\]-~]*) (0|[1-9][0-9]{0,16})\Z",
    re.ASCII,
)


class Linear(Target):
    """Maps to ``length`` sectors of ``device``, starting at ``offset`` (sectors)."""

    TYPE = "linear"
    LAYOUT = (Device("device"), Sectors("offset"))

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"device": (self.offset, self.length)}


# Setters of the slots, which bypass __setattr__.
_slots: Any = Linear
_set_start = _slots.start.__set__
_set_length = _slots.length.__set__
_set_device = _slots.device.__set__
_set_offset = _slots.offset.__set__
_new = Linear.__new__


def read_fast(text: str) -> Linear | None:
    """Parse a plain linear line; None if the line needs the full parser."""
    found = FAST.match(text)
    if found is None:
        return None
    start, length, device, offset = found.groups()
    if device[0] != "/":
        major, minor = device.split(":")
        if (
            int(major) > Limits.MAJOR
            or int(minor) > Limits.MINOR
            or (device[0] == "0" and device[1] != ":")
            or (minor[0] == "0" and minor != "0")
        ):
            return None
    elif len(device) > Limits.PATH:
        return None
    target = _new(Linear)
    _set_start(target, int(start))
    _set_length(target, int(length))
    _set_device(target, device)
    _set_offset(target, int(offset))
    return target
