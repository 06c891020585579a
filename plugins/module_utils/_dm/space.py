# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
How full snapshot stores and thin pools are. Pure, except for :func:`of_device`.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Status formats: snapshot_status in drivers/md/dm-snap.c (ALLOCATED/TOTAL METADATA, in sectors), and
pool_status in dm-thin.c (TRANSACTION METADATA_USED/METADATA_TOTAL DATA_USED/DATA_TOTAL ..., in blocks).
"""

from __future__ import annotations

from .._base.record import Record
from . import control as _control

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any

    from .._block.device import Device

_SECTOR = 512
_METADATA_BLOCK = 4096  # THIN_METADATA_BLOCK_SIZE in dm-thin-metadata.h, in bytes
_SNAPSHOTS = ("snapshot", "snapshot-merge")


class Room(Record):
    """Bytes ``used`` of ``size``."""

    used: int
    size: int

    @property
    def percent(self) -> float:
        """With one decimal, rounded down, so that only what is full has 100."""
        return self.used * 1000 // self.size / 10 if self.size else 0.0

    def as_dict(self) -> dict[str, Any]:
        return {"used": self.used, "size": self.size, "percent": self.percent}


class Space(Record):
    """
    ``kind``: ``store`` or ``pool``. ``data``: of a store all that is allocated, with its own metadata.
    ``metadata``: of a pool.
    """

    kind: str
    data: Room
    metadata: Room | None = None

    def as_dict(self) -> dict[str, Any]:
        metadata = None if self.metadata is None else self.metadata.as_dict()
        return dict(self.data.as_dict(), kind=self.kind, metadata=metadata)

    def warnings(self, name: str, percent: int) -> list[str]:
        """What is ``percent`` full or more, as texts."""
        parts = [
            (f"the snapshot store of {name}" if self.kind == "store" else f"the data of {name}", self.data)
        ]
        if self.metadata is not None:
            parts.append((f"the metadata of {name}", self.metadata))
        return [
            f"{what} is {room.percent:g} % full: {room.used} of {room.size} bytes"
            for what, room in parts
            if room.percent >= percent
        ]


def of_device(control: _control.Control, device: Device) -> Space | None:
    """
    The Space of a held mapped device that is one snapshot or one thin pool; others: None. Raises KernelError.
    """
    address = _control.by_device(device)
    lines, tables = control.target_status(address)[1], control.table(address, secure=True)[1]
    if len(lines) != 1 or len(tables) != 1:
        return None
    kind, table, status = (
        text.decode("ascii", "replace") for text in (lines[0].type, tables[0].params, lines[0].params)
    )
    return of_target(kind, table, status)


def of_target(kind: str, table: str, status: str) -> Space | None:
    """
    The Space of a target from its table's parameters and its status; None for other targets, and for a status
    without numbers, such as ``Invalid``.
    """
    words = status.split()
    if kind in _SNAPSHOTS and words:
        room = _room(words[0], _SECTOR)
        return None if room is None else Space("store", room)
    fields = table.split()
    if kind == "thin-pool" and len(words) >= 3 and len(fields) >= 3 and _is_number(fields[2]):
        metadata, data = _room(words[1], _METADATA_BLOCK), _room(words[2], int(fields[2]) * _SECTOR)
        return None if data is None else Space("pool", data, metadata)
    return None


def _room(text: str, unit: int) -> Room | None:
    used, slash, size = text.partition("/")
    if not slash or not _is_number(used) or not _is_number(size):
        return None
    return Room(int(used) * unit, int(size) * unit)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
