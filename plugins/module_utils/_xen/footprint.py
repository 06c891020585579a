# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Which devices two guests may have at once: what of the storage below each of them is read and written, and
whether that meets.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A footprint is the set of byte ranges of leaves that a device stands on: linear, crypt, delay and flakey
targets map a range of theirs onto a range below, a loop device onto a range of its file, a partition onto a
range of its disk. Everything else counts as the whole of what it is made of. Two users conflict where one
writes what the other reads or writes. Pure: what it has to ask is given as functions.
"""

from __future__ import annotations

from .._base.errors import NotSupported
from .._base.record import Record
from .._block import sysfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Number = tuple[int, int]

SECTOR = 512
_DEPTH = 64  # more than any stack the kernel lets one build


class Extent(Record):
    """
    Bytes ``start`` to ``end`` (exclusive; None: to the end, whatever it is) of a leaf, which is ``("disk",
    major, minor)``, ``("file", st_dev, st_ino)`` or ``("thin", major, minor, id)`` with the pool's number.
    """

    leaf: tuple[Any, ...]
    start: int
    end: int | None
    writes: bool

    def meets(self, other: Extent) -> bool:
        """Whether both touch a byte that one of them writes."""
        return (
            self.leaf == other.leaf
            and (self.writes or other.writes)
            and (self.end is None or other.start < self.end)
            and (other.end is None or self.start < other.end)
            and self.start != self.end
            and other.start != other.end
        )


class Questions(Record):
    """
    What the footprint has to ask about a device, each a function of ``(major, minor)``.

    ``table_of``: the active device-mapper table as a list of ``(start, length, type, params)`` in sectors, or
    None for another kind of device. ``loop_of``: ``(st_dev, st_ino, offset, size)`` in bytes, size 0 for all,
    or None. ``partition_of``: ``(major, minor, start, size)`` of the disk it is on, in bytes, or None.
    ``members_of``: a list of the numbers of the devices that another stacked driver (md, bcache) is made of,
    or None.
    """

    table_of: Callable[[int, int], list[tuple[int, int, str, str]] | None]
    loop_of: Callable[[int, int], tuple[int, int, int, int] | None]
    partition_of: Callable[[int, int], tuple[int, int, int, int] | None]
    members_of: Callable[[int, int], list[Number] | None]


def conflict(one: Iterable[Extent], other: Iterable[Extent]) -> tuple[Extent, Extent] | None:
    """The first pair of extents of two footprints that must not be shared, or None."""
    by_leaf: dict[Any, list[Extent]] = {}
    for extent in other:
        by_leaf.setdefault(extent.leaf, []).append(extent)
    for extent in one:
        for opposite in by_leaf.get(extent.leaf, ()):
            if extent.meets(opposite):
                return extent, opposite
    return None


def footprint(major: int, minor: int, writes: bool, questions: Questions) -> list[Extent]:
    """
    The Extents below a device, for a user who reads it, and writes it when ``writes``.

    NotSupported when the stack is deeper than any real one.
    """
    found: list[Extent] = []
    _descend((major, minor), 0, None, writes, questions, found, 0)
    return sorted(
        set(found),
        key=lambda extent: (extent.leaf, extent.start, extent.end is None, extent.end or 0, extent.writes),
    )


def _descend(
    number: tuple[int, int],
    start: int,
    end: int | None,
    writes: bool,
    questions: Questions,
    found: list[Extent],
    depth: int,
) -> None:
    """Add what bytes ``start`` to ``end`` of a device stand on."""
    if depth > _DEPTH:
        raise NotSupported("the device stack is too deep", device=f"{number[0]}:{number[1]}")
    partition = questions.partition_of(*number)
    if partition is not None:
        major, minor, offset, size = partition
        _descend(
            (major, minor),
            offset + start,
            offset + (size if end is None else min(end, size)),
            writes,
            questions,
            found,
            depth + 1,
        )
        return
    loop = questions.loop_of(*number)
    if loop is not None:
        device, inode, offset, size = loop
        if end is None:
            end = size or None
        found.append(
            Extent(("file", device, inode), offset + start, None if end is None else offset + end, writes)
        )
        return
    table = questions.table_of(*number)
    if table is not None:
        for first, length, kind, params in table:
            low, high = first * SECTOR, (first + length) * SECTOR
            if high > start and (end is None or low < end):
                part = (max(low, start) - low, min(high, high if end is None else end) - low)
                _target(number, kind, params, part, writes, questions, found, depth + 1)
        return
    members = questions.members_of(*number)
    if members:
        for member in members:
            _descend(member, 0, None, writes, questions, found, depth + 1)
        return
    found.append(Extent(("disk",) + number, start, end, writes))


def _target(
    number: tuple[int, int],
    kind: str,
    params: str,
    part: tuple[int, int],
    writes: bool,
    questions: Questions,
    found: list[Extent],
    depth: int,
) -> None:
    """
    Add what the bytes ``part`` of one target stand on; ``params`` are the kernel's own (DM_TABLE_STATUS).
    """
    words = params.split()

    def below(device: tuple[int, int], low: int, high: int | None, written: bool) -> None:
        _descend(device, low, high, written, questions, found, depth)

    def whole(word: str, written: bool = writes) -> None:
        device = sysfs.parse_number(word)
        if device:
            below(device, 0, None, written)

    shifted = _shifted(kind, words)
    pool = sysfs.parse_number(words[0]) if kind == "thin" and len(words) >= 2 else None
    if shifted is not None:
        for device, offset, written in shifted:
            below(device, offset + part[0], offset + part[1], writes and written)
    elif kind in ("zero", "error"):
        pass
    elif pool is not None:
        # Other volumes of the pool are other storage, though on the same disks; snapshots share blocks, but
        # never written ones.
        found.append(Extent(("thin", *pool, int(words[1])), part[0], part[1], writes))
        if len(words) > 2:
            whole(words[2], False)
    elif kind == "snapshot" and len(words) >= 2:
        whole(words[0], False)
        # The store keeps what was changed, and is written by changes of the origin too, whatever the user
        # does.
        whole(words[1], True)
    elif kind == "snapshot-merge" and len(words) >= 2:
        # A merge writes by itself.
        whole(words[0], True)
        whole(words[1], True)
    else:
        # striped, raid, mirror, cache, thin-pool, multipath and those to come: all devices they name. A
        # device that is only read may still write its metadata, and a multipath's paths lead to one disk:
        # both are the whole device's affair.
        for word in words:
            whole(word)


def _shifted(kind: str, words: list[str]) -> list[tuple[tuple[int, int], int, bool]] | None:
    """
    ``[(device, offset in bytes, whether writes go there)]`` of a target that maps its range onto equal
    ranges, or None.
    """
    if kind in ("linear", "snapshot-origin", "flakey", "dust", "unstriped"):
        fields = {"linear": (0, 1), "flakey": (0, 1), "dust": (0, 1), "snapshot-origin": (0, None)}.get(kind)
        if fields is None or len(words) <= max(field for field in fields if field is not None):
            return None
        device = sysfs.parse_number(words[fields[0]])
        offset = 0 if fields[1] is None else int(words[fields[1]])
        return None if device is None else [(device, offset * SECTOR, True)]
    if kind == "crypt" and len(words) >= 5:
        # cipher key iv_offset device offset
        device = sysfs.parse_number(words[3])
        return None if device is None else [(device, int(words[4]) * SECTOR, True)]
    if kind == "delay" and len(words) in (3, 6, 9):
        # device offset delay, for reads, then for writes, then for flushes: those after the first only get
        # writes.
        devices = [
            (device, int(words[at + 1]) * SECTOR, at > 0 or len(words) == 3)
            for at in range(0, len(words), 3)
            for device in [sysfs.parse_number(words[at])]
            if device is not None
        ]
        return devices if len(devices) == len(words) // 3 else None
    return None
