# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Recognize a table that was loaded in what the kernel prints.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The kernel has one inactive table for each mapped device, and every program can drop or replace it until the
device is resumed. No ioctl tells whose table it is, so only its content can be compared.
"""

from __future__ import annotations

from .. import _dm_table
from .._base.errors import TableError
from . import codec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Sequence

    # ``(start, length, type, params)`` in sectors and bytes.
    Targets = tuple[tuple[int, int, bytes, bytes], ...]


# Parameters of these targets change while they run: when disks are rebuilt or added, or a recalculation ends.
_CHANGING = ("raid", "integrity")
# These alone change of other targets. Of multipath: when a path fails or is initialized (dm-mpath.c:
# multipath_status and setup_scsi_dh), or by a message of multipathd. Of a snapshot: the header in its store
# counts (dm-snap-persistent.c: read_header).
_CHANGING_FIELDS = {
    "multipath": ("first_group", "handler", "queue_if_no_path"),
    "snapshot": ("chunk_size",),
    "snapshot-merge": ("chunk_size",),
}


def targets_of(lines: Sequence[codec.TargetLine]) -> Targets:
    return tuple((line.start, line.length, line.type, line.params) for line in lines)


def prepare(targets: Targets) -> None:
    """After this, :func:`is_table` reads no files for a table with these targets."""
    for length, kind, params in {target[2]: target[1:] for target in targets}.values():
        _parsed(((0, length, kind, params),))


def is_table(lines: Sequence[codec.TargetLine], targets: Targets) -> bool:
    """
    Whether lines that the kernel prints of a live or inactive table are of the table that was loaded from
    ``targets``. The kernel adds what is implied, and prints some parameters differently.
    """
    found = targets_of(lines)
    if found == targets:
        return True
    if [target[:3] for target in found] != [target[:3] for target in targets]:
        return False
    loaded, printed = _parsed(targets), _parsed(found)
    if loaded is None or printed is None:
        # It is unknown how the kernel prints their parameters.
        return True
    return all(
        row["target"] in _CHANGING or row["field"] in _CHANGING_FIELDS.get(row["target"], ())
        for row in loaded.same_as(printed).differences
    )


def _parsed(targets: Targets) -> _dm_table.Table | None:
    """The parsed table; None if it cannot be parsed."""
    try:
        return _dm_table.parse_table([codec.line_text(codec.TargetLine(*target)) for target in targets])
    except TableError:
        return None
