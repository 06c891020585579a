# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Whether one table is the beginning of another one, so that a device in use can get the longer table.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .compare import compare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .table import Table

# Target types that map a sector in the same way whatever their length is. Others lay out their devices by
# their length (raid, integrity), or keep records of it (cache, era, mirror).
_STRETCH = frozenset(
    (
        "crypt",
        "delay",
        "dust",
        "error",
        "flakey",
        "linear",
        "snapshot",
        "snapshot-origin",
        "striped",
        "thin",
        "thin-pool",
        "zero",
    )
)


def begins_with(table: Table, start: Table) -> bool:
    """
    Whether the first sectors of ``table`` are mapped exactly as all sectors of ``start``. The devices of both
    must be written in the same way.

    The last target of ``start`` may be longer in ``table``, if its type allows that, and more targets may
    follow.
    """
    count = len(start)
    if not count or len(table) < count or table.length < start.length:
        return False
    head, last = list(table.targets[:count]), start.targets[-1]
    if head[-1].length != last.length:
        if head[-1].length < last.length or last.TYPE not in _STRETCH:
            return False
        head[-1] = head[-1].replace(length=last.length)
    return bool(compare(start.targets, head))
