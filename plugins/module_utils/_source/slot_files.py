# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Compares device slots of a table that name files with those of the live table: whether another file is at the
path by now.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base.errors import DeviceGone
from .._base.record import Record
from .._block import device as _device
from .._block import loop
from . import files, spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .. import _dm_table


class Exchange(Record):
    """
    ``old``: the loop device of the live table and its file, in words; ``file``: the path that the new table
    has in the same slot.
    """

    old: str
    file: str


def exchanged(live: _dm_table.Table, wanted: _dm_table.Table) -> Exchange | None:
    """
    The first Exchange when ``wanted``, with its slots as they were written, replaces a live table; or None.
    """
    old = {(index, slot.field): spec.parse_slot(slot) for index, slot in live.devices()}
    for index, slot in wanted.devices():
        source = spec.parse_slot(slot)
        had = old.get((index, slot.field))
        if isinstance(source, spec.FileSource) and isinstance(had, spec.NumberSource):
            found = _other_file(had, source)
            if found is not None:
                return Exchange(found, source.file)
    return None


def _other_file(number: spec.NumberSource, source: spec.FileSource) -> str | None:
    """The loop device with the number, and its file, in words, unless it is the source's file; or None."""
    try:
        with _device.open_number(number.major, number.minor) as device:
            if not loop.is_loop(device):
                return None
            status, path = loop.info(device), loop.backing_path(device)
    except DeviceGone:
        return None
    with files.backing_of(source, read_only=True) as backing:
        if (status.backing_device, status.backing_inode) == (backing.device, backing.inode):
            return None
    return f"{device.path} (diskseq {device.id.diskseq}) with {path}"
