# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Compare the files that a new table names with those of the live table: whether the same path leads to another
file by now.

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
    ``old``: describes the loop device in the live table and its file; ``file``: the path in the same slot of
    the new table.
    """

    old: str
    file: str


def exchanged(live: _dm_table.Table, wanted: _dm_table.Table) -> Exchange | None:
    """
    The first Exchange if ``wanted``, with its slots as they were written, replaces the live table; otherwise
    None.
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
    """A description of the loop device with this number and of its file; None if it is the source's file."""
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
