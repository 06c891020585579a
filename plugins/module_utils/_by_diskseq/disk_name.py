# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The names in /dev/disk/by-diskseq: ``N`` is a disk; ``NpM`` and ``N-partM`` are its partition M.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Each number has exactly one spelling: decimal, without leading zeros, 1 or more. N is less than 2^64.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = re.compile(r"([1-9][0-9]{0,19})(?:(?:p|-part)([1-9][0-9]{0,4}))?", re.ASCII)
_END = 2**64


class DiskName(NamedTuple):
    """
    What a name stands for: the disk with this sequence number, or one of its partitions if ``partition`` is
    not 0.
    """

    diskseq: int
    partition: int = 0

    def __str__(self) -> str:
        return f"{self.diskseq}-part{self.partition}" if self.partition else str(self.diskseq)

    @property
    def spellings(self) -> tuple[str, ...]:
        """All file names for it."""
        if not self.partition:
            return (str(self.diskseq),)
        return (f"{self.diskseq}-part{self.partition}", f"{self.diskseq}p{self.partition}")


def parse(text: str) -> DiskName | None:
    """Parse a file name. None if no disk can have such a name."""
    found = _NAME.fullmatch(text)
    if found is None or int(found.group(1)) >= _END:
        return None
    return DiskName(int(found.group(1)), int(found.group(2) or 0))
