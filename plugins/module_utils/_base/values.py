# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Sizes and numbers as people write them. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import re

from .errors import InvalidValue

SECTOR = 512
_SIZE = re.compile(r"([0-9]{1,15})\s*([KMGT]?)(?:i?B)?\Z", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_WHOLE = re.compile(r"[0-9]{1,15}\Z")


def bytes_of(value, option="size"):
    """``10G`` and the like in bytes."""
    match = _SIZE.match(str(value))
    if isinstance(value, bool) or match is None or not int(match.group(1)):
        raise InvalidValue(option, value, "must be bytes, or a number with K, M, G or T (of 1024)")
    size = int(match.group(1)) * _UNITS[match.group(2).upper()]
    if size % SECTOR:
        raise InvalidValue(option, value, f"must be whole sectors of {SECTOR} bytes")
    return size


def whole(value, option, most=None):
    """A whole number, 0 or more, also as text."""
    if isinstance(value, bool) or not _WHOLE.match(str(value)) or (most is not None and int(value) > most):
        raise InvalidValue(
            option,
            value,
            "must be a whole number, 0 or more" if most is None else f"a number from 0 to {most}",
        )
    return int(value)
