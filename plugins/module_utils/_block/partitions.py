# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The partitions of a held disk: those that the kernel has, and those of the table on the disk.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The kernel reads the table when a loop device is bound, and is told of later changes one partition at a time
(BLKPG), so that partitions that did not change stay, even in use. The kernel refuses to remove a partition
that somebody has open. Partitions that must not be used, such as overlapping ones, are neither added nor
removed.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import struct

from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy, DeviceGone, KernelError, WrongDevice
from .._base.record import Record
from . import detach, partition_table, sysfs
from . import device as _device
from . import node as _node

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .partition_table import Entry, Table

# include/uapi/linux/blkpg.h: struct blkpg_ioctl_arg, struct blkpg_partition (start, length, number)
_BLKPG, _ADD, _DELETE = 0x1269, 1, 2
_ARGUMENT, _PARTITION = struct.Struct("iiiP"), struct.Struct("qqi64s64s4x")
_SECTOR = 512  # the unit of sysfs
# Seconds to wait for brief users of a partition that is to be removed, such as udev's probers.
_BRIEF_SECONDS = 5


class Known(Record):
    """A partition that the kernel has. ``start`` and ``size`` in bytes; ``name``: the kernel's."""

    number: int
    start: int
    size: int
    name: str
    major: int
    minor: int

    @property
    def end(self) -> int:
        return self.start + self.size

    @property
    def row(self) -> dict[str, int]:
        return _row(self)


class Changes(Record):
    """What the kernel has to be told: ``remove``, its partitions; ``add``, those of the table."""

    remove: tuple[Known, ...]
    add: tuple[Entry, ...]


def known(device: _device.Device) -> list[Known]:
    """The partitions that the kernel has of a held disk, by number. Raises KernelError."""
    disk = device.name.replace("/", "!")
    found = []
    for name in gone.list_directory(device.sysfs, gone.SYSFS):
        base = f"{device.sysfs}/{name}"
        number = sysfs.read(f"{base}/partition") if name.startswith(disk) else None
        start, size, dev = (sysfs.read(f"{base}/{which}") for which in ("start", "size", "dev"))
        at = sysfs.parse_number(dev or "")
        if number is not None and start is not None and size is not None and at is not None:
            area = int(start) * _SECTOR, int(size) * _SECTOR
            found.append(Known(int(number), *area, name.replace("!", "/"), *at))
    return sorted(found)


def table_of(fd: int, what: str, size: int, block: int = 512, offset: int = 0) -> Table:
    """
    The ``_block.partition_table.Table`` of ``size`` bytes from ``offset`` on of an open disk or file, with
    logical blocks of ``block`` bytes. ``what`` is its name in errors. Raises KernelError.
    """

    def read(start: int, length: int) -> bytes:
        length = min(length, size - start)
        if length <= 0:
            return b""
        try:
            # Older pages of a loop device do not show what was written to its file since.
            os.posix_fadvise(fd, offset + start, length, os.POSIX_FADV_DONTNEED)
            return os.pread(fd, length, offset + start)
        except OSError as error:
            raise KernelError.from_oserror(error, "read the partition table", device=what) from error

    return partition_table.parse(read, size, block)


def read_table(device: _device.Device) -> Table:
    """The Table on a held disk. Raises KernelError."""
    return table_of(device.fd, device.path, device.size, device.logical_block)


def changes(there: Iterable[Known], table: Table) -> Changes:
    """What has changed in the table since the kernel has read it."""
    entries = {entry.number: entry for entry in table.entries}
    parts = {part.number: part for part in there}
    stale = tuple(part for part in parts.values() if not _is_current(part, entries, table))
    stays = {part.number for part in parts.values() if part not in stale}
    new = (entry for entry in table.entries if entry.number not in stays)
    return Changes(stale, tuple(entry for entry in new if entry.problem is None or entry.is_container))


def _is_current(part: Known, entries: dict[int, Entry], table: Table) -> bool:
    entry = entries.get(part.number)
    if entry is None:
        return any(start <= part.start and part.end <= end for start, end in table.others)
    # Of a partition that extends beyond the end of the disk, the kernel takes what is on the disk.
    is_odd = entry.problem is not None and not entry.is_container
    return part.start == entry.start and (is_odd or part.size == entry.size)


def expected(there: Iterable[Known], table: Table) -> list[dict[str, int]]:
    """The rows (``number``, ``start``, ``size``) of the kernel's partitions after :func:`update`."""
    there = list(there)
    todo = changes(there, table)
    rows = [part.row for part in there if part not in todo.remove] + [_row(entry) for entry in todo.add]
    return sorted(rows, key=lambda row: row["number"])


def _row(part: Known | Entry) -> dict[str, int]:
    return {"number": part.number, "start": part.start, "size": part.size}


def refuse_used(device: _device.Device, parts: Iterable[Known]) -> None:
    """Raise DeviceBusy if a partition is known to be in use, and names its users; KernelError."""
    for part in parts:
        try:
            with _device.open_number(part.major, part.minor, diskseq=device.id.diskseq) as opened:
                names = detach.users(opened)
                if names or _device.is_claimed(opened):
                    raise _in_the_way(device, part, names)
        except (DeviceGone, WrongDevice):
            continue


def _in_the_way(device: _device.Device, part: Known, names: list[str]) -> DeviceBusy:
    users = ", ".join(names) if names else "a program that has it open"
    return DeviceBusy(
        f"its partition table has changed, and the kernel cannot remove partition {part.number} "
        f"({part.name}), which is in use by {users}",
        device=device.path,
        hint="End that use first, and run the task again",
    )


def update(device: _device.Device, table: Table) -> bool:
    """
    Tell the kernel what has changed in the table; returns whether anything has. All stays as it was if a
    partition that is to be removed is in use: DeviceBusy. Raises KernelError.
    """
    todo = changes(known(device), table)
    removed: list[Known] = []
    limit = Deadline(_BRIEF_SECONDS)
    try:
        for part in todo.remove:
            _remove(device, part, limit)
            removed.append(part)
        for entry in todo.add:
            _tell(device, _ADD, entry)
    except BaseException:
        _bring_back(device, removed, table)
        raise
    left = changes(known(device), table)
    if left.remove or left.add:
        raise KernelError(
            "the kernel's partitions differ from the partition table: another program is changing them, too",
            device=device.path,
            hint="Run the task again when that program (such as parted or partx) has ended",
        )
    return bool(todo.remove or todo.add)


def _remove(device: _device.Device, part: Known, limit: Deadline) -> None:
    for pause in pauses(0.01, 0.2):
        try:
            _tell(device, _DELETE, part)
            return
        except KernelError as error:
            if error.errno != errno.EBUSY:
                raise
            if limit.expired:
                raise _in_the_way(device, part, []) from error
        limit.sleep(pause)


def _bring_back(device: _device.Device, removed: list[Known], table: Table) -> None:
    """Add the removed partitions again, and remove those that were added in their place."""
    before = {part.number: part for part in removed}
    for part in known(device):
        entry = next((entry for entry in table.entries if entry.number == part.number), None)
        if part.number in before and part not in before.values() and entry is not None:
            _tell(device, _DELETE, part)
    there = {part.number for part in known(device)}
    for number, part in before.items():
        if number not in there:
            _tell(device, _ADD, part)


def _tell(device: _device.Device, operation: int, part: Known | Entry) -> None:
    data = array.array("b", _PARTITION.pack(part.start, part.size, part.number, b"", b""))
    address, length = data.buffer_info()
    try:
        fcntl.ioctl(device.fd, _BLKPG, _ARGUMENT.pack(operation, 0, length, address))
    except OSError as error:
        if operation == _DELETE and error.errno == errno.ENXIO:
            # Somebody else has removed it.
            return
        tried = f"{'add' if operation == _ADD else 'remove'} partition {part.number}"
        raise KernelError.from_oserror(error, tried, device=device.path) from error


def describe(device: _device.Device) -> dict[str, Any]:
    """
    What modules return of a disk's partitions: ``partition_table`` (format), and ``partition_list``, those of
    the kernel and of the table. Raises KernelError.
    """
    table = read_table(device)
    entries = {entry.number: entry for entry in table.entries}
    parts = {part.number: part for part in known(device)}
    return {
        "partition_table": table.format,
        "partition_list": [
            _described(parts.get(number), entries.get(number)) for number in sorted({*entries, *parts})
        ],
    }


def _described(part: Known | None, entry: Entry | None) -> dict[str, Any]:
    if part is not None and entry is not None and part.start != entry.start:
        # The table has changed since the kernel has read it.
        entry = None
    shown = part or entry
    if shown is None:
        raise AssertionError
    return {
        "number": shown.number,
        "path": None if part is None else _path_of(part),
        "start": shown.start,
        "size": shown.size,
        "type": None if entry is None else entry.type,
        "uuid": None if entry is None else entry.uuid,
        "problem": None if entry is None else entry.problem,
    }


def _path_of(part: Known) -> str | None:
    path = f"/dev/{part.name}"
    return path if _node.is_node_of(path, os.makedev(part.major, part.minor)) else None
