# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Determine which byte ranges of the underlying storage a device reads and writes, and whether those of two
devices conflict.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A footprint is a set of byte ranges of leaves: disks, files and thin volumes. Targets such as linear, crypt,
delay and flakey map a range to a range below, a loop device maps to a range of its file, and a partition to a
range of its disk. Any other device counts as the whole of each device below it. A thin volume also has what
is below its pool, which only other volumes of the same pool may have, too. Two users conflict if one writes
bytes that the other reads or writes. This module is pure: the caller passes functions that answer its
questions about the host.
"""

from __future__ import annotations

import os

from .._base.errors import NotSupported
from .._base.record import Record
from .._block import sysfs
from .._block.loop import OVER_BLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Number = tuple[int, int]
    # A device, and bytes of it from a start to an end (exclusive; None: up to the end).
    Part = tuple[Number, int, "int | None"]

SECTOR = 512
# In place of st_ino for a file that cannot be asked which one of its file system it is.
SOME_FILE = -1
_DEPTH = 64  # more than any stack that the kernel supports


class Extent(Record):
    """
    Bytes ``start`` to ``end`` (exclusive; None: up to the end) of a leaf. A leaf is ``("disk", major,
    minor)``, ``("file", st_dev, st_ino)`` or ``("thin", major, minor, id)`` with the number of the pool.
    ``st_ino`` may be SOME_FILE, for a file of somebody else.
    ``pools``: the thin pools through which it is reached, each by a volume. A pool keeps its volumes apart.
    ``through``: the devices through which it is reached and which spread their bytes over others, with the
    bytes of them. Such a device (a RAID, multipath, a striped volume) keeps its own bytes apart.
    """

    leaf: tuple[Any, ...]
    start: int
    end: int | None
    writes: bool
    pools: tuple[Number, ...] = ()
    through: tuple[Part, ...] = ()

    def meets(self, other: Extent) -> bool:
        """Whether the extents have a byte in common and at least one of the two writes."""
        return (
            _may_be_same(self.leaf, other.leaf)
            and (self.writes or other.writes)
            and (self.end is None or other.start < self.end)
            and (other.end is None or self.start < other.end)
            and self.start != self.end
            and other.start != other.end
            and not any(pool in other.pools for pool in self.pools)
            and not any(_are_apart(mine, theirs) for mine in self.through for theirs in other.through)
        )


def _are_apart(one: Part, other: Part) -> bool:
    """Whether these are different bytes of one device."""
    return one[0] == other[0] and (
        (one[2] is not None and one[2] <= other[1]) or (other[2] is not None and other[2] <= one[1])
    )


def _may_be_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    if SOME_FILE in (one[-1], other[-1]) and one[0] == other[0] == "file":
        return bool(one[1] == other[1])
    return one == other


class SomeFile(Record):
    """
    In place of the file of a loop device whose storage has failed or does not answer: it is on one of the
    file systems ``devices`` (st_dev).
    """

    devices: tuple[int, ...]


class Questions(Record):
    """
    Functions of ``(major, minor)`` that describe a device.

    ``table_of``: the active device-mapper table as a list of ``(start, length, type, params)``, in sectors of
    512 bytes, or None for other devices. ``loop_of``: ``(st_dev, st_ino, offset, size)`` of a loop device, in
    bytes, size 0 for no limit, or None; the first two as ``_block.loop.file_of`` has them. ``partition_of``:
    ``(major, minor, start, size)`` with the number of a partition's disk, in bytes, or None. ``members_of``:
    the numbers of the devices below another stacking driver (md, bcache), or None. ``others_loop_of``: like
    ``loop_of``, for the devices of somebody else, whose storage may be dead: perhaps SomeFile. If it is None,
    ``loop_of`` is asked.
    """

    table_of: Callable[[int, int], list[tuple[int, int, str, str]] | None]
    loop_of: Callable[[int, int], tuple[int, int, int, int] | None]
    partition_of: Callable[[int, int], tuple[int, int, int, int] | None]
    members_of: Callable[[int, int], list[Number] | None]
    others_loop_of: Callable[[int, int], tuple[int, int, int, int] | SomeFile | None] | None = None


def conflict(one: Iterable[Extent], other: Iterable[Extent]) -> tuple[Extent, Extent] | None:
    """The first pair of conflicting extents of two footprints, or None."""
    # Files by their file system, as one may be SOME_FILE of it.
    by_leaf: dict[Any, list[Extent]] = {}
    for extent in other:
        by_leaf.setdefault(_group(extent.leaf), []).append(extent)
    for extent in one:
        for opposite in by_leaf.get(_group(extent.leaf), ()):
            if extent.meets(opposite):
                return extent, opposite
    return None


def _group(leaf: tuple[Any, ...]) -> tuple[Any, ...]:
    return leaf[:2] if leaf[0] == "file" else leaf


def footprint(
    major: int, minor: int, writes: bool, questions: Questions, is_others: bool = False
) -> list[Extent]:
    """
    The Extents below a device for a user who reads it and, if ``writes``, also writes it.

    ``is_others``: it is the device of somebody else, which may be over storage that does not answer. Then
    files may be SOME_FILE. The device that is asked about must tell what it is over.

    Raises NotSupported if the stack is deeper than _DEPTH.
    """
    walk = _Walk(questions, is_others)
    walk.device((major, minor), 0, None, writes, 0)
    return sorted(
        set(walk.found),
        key=lambda extent: (
            extent.leaf,
            extent.start,
            extent.end is None,
            extent.end or 0,
            extent.writes,
            extent.pools,
            str(extent.through),
        ),
    )


class _Walk:
    """A walk down a device stack, which adds the Extents that it reaches to ``found``."""

    def __init__(self, questions: Questions, is_others: bool) -> None:
        self.questions = questions
        self.loop_of = (questions.others_loop_of if is_others else None) or questions.loop_of
        self.found: list[Extent] = []
        # Those above the place that is walked.
        self.pools: tuple[Number, ...] = ()
        self.through: tuple[Part, ...] = ()

    def device(self, number: Number, start: int, end: int | None, writes: bool, depth: int) -> None:
        """Add the Extents below bytes ``start`` to ``end`` of a device."""
        if depth > _DEPTH:
            raise NotSupported("the device stack is too deep", device=f"{number[0]}:{number[1]}")
        partition = self.questions.partition_of(*number)
        if partition is not None:
            major, minor, offset, size = partition
            last = offset + (size if end is None else min(end, size))
            self.device((major, minor), offset + start, last, writes, depth + 1)
            return
        loop = self.loop_of(*number)
        if isinstance(loop, SomeFile):
            # Where in the file it begins is not known either.
            for file_system in loop.devices:
                self._add(("file", file_system, SOME_FILE), 0, None, writes)
            return
        if loop is not None:
            self._loop(loop, start, end, writes, depth)
            return
        table = self.questions.table_of(*number)
        if table is not None:
            self._table(number, table, start, end, writes, depth)
            return
        members = self.questions.members_of(*number)
        if members:
            self._spread((number, start, end), [(member, 0, None, writes) for member in members], depth + 1)
            return
        self._add(("disk",) + number, start, end, writes)

    def _add(self, leaf: tuple[Any, ...], start: int, end: int | None, writes: bool) -> None:
        self.found.append(Extent(leaf, start, end, writes, self.pools, self.through))

    def _spread(self, part: Part, below: list[tuple[Number, int, int | None, bool]], depth: int) -> None:
        """
        Add the Extents below this part of a device, which spreads it over ``below``: arguments of
        :meth:`device`.
        """
        before, self.through = self.through, (*self.through, part)
        for device, start, end, writes in below:
            self.device(device, start, end, writes, depth)
        self.through = before

    def _loop(
        self, loop: tuple[int, int, int, int], start: int, end: int | None, writes: bool, depth: int
    ) -> None:
        """
        Add the part of a loop device's file, or what is below the part of its block device. ``loop`` is what
        Questions.loop_of returns.
        """
        device, inode, offset, size = loop
        if end is None:
            end = size or None
        last = None if end is None else offset + end
        if device == OVER_BLOCK:
            number = os.major(inode), os.minor(inode)
            self.device(number, offset + start, last, writes, depth + 1)
            return
        self._add(("file", device, inode), offset + start, last, writes)

    def _table(
        self,
        number: Number,
        table: list[tuple[int, int, str, str]],
        start: int,
        end: int | None,
        writes: bool,
        depth: int,
    ) -> None:
        """Add the Extents below the targets that bytes ``start`` to ``end`` of a mapped device reach."""
        for first, length, kind, params in table:
            low, high = first * SECTOR, (first + length) * SECTOR
            if high > start and (end is None or low < end):
                part = (max(low, start) - low, min(high, high if end is None else end) - low)
                above = number, low + part[0], low + part[1]
                self._target(kind, params.split(), part, above, writes, depth + 1)

    def _target(
        self, kind: str, words: list[str], part: tuple[int, int], above: Part, writes: bool, depth: int
    ) -> None:
        """
        Add the Extents below the bytes ``part`` of one target, which are ``above`` in its mapped device.
        ``words`` are the parameters that the kernel returns (DM_TABLE_STATUS).
        """
        pool = sysfs.parse_number(words[0]) if kind == "thin" and len(words) >= 2 else None
        if pool is not None:
            self._add(("thin", *pool, int(words[1])), part[0], part[1], writes)
            self._pool(pool, writes, depth)
            whole = [(word, False) for word in words[2:3]]
        else:
            shifted = _shifted(kind, words)
            if shifted is not None:
                for device, offset, written in shifted:
                    self.device(device, offset + part[0], offset + part[1], writes and written, depth)
                return
            legs = _striped(words, part) if kind == "striped" else None
            if legs is not None:
                self._spread(above, [(*leg, writes) for leg in legs], depth)
                return
            whole = _whole(kind, words, writes)
        numbers = [(sysfs.parse_number(word), written) for word, written in whole]
        self._spread(above, [(number, 0, None, written) for number, written in numbers if number], depth)

    def _pool(self, pool: Number, writes: bool, depth: int) -> None:
        """
        Add the Extents below the pool of a volume. Volumes of one pool share its disks but not their data,
        and blocks shared with a snapshot are never written in place.
        """
        before, self.pools = self.pools, tuple(sorted({*self.pools, pool}))
        self.device(pool, 0, None, writes, depth)
        self.pools = before


def _whole(kind: str, words: list[str], writes: bool) -> list[tuple[str, bool]]:
    """
    ``[(parameter, whether writes go there)]``: the parameters of a target that count as whole devices, if
    they are device numbers.
    """
    if kind in ("zero", "error"):
        return []
    if kind == "snapshot" and len(words) >= 2:
        # The COW store holds the changed chunks. Writes to the origin also write to it, whatever this user
        # does.
        return [(words[0], False), (words[1], True)]
    if kind == "snapshot-merge" and len(words) >= 2:
        # The merge itself writes to both devices.
        return [(words[0], True), (words[1], True)]
    # raid, mirror, cache, thin-pool, multipath and unknown targets: every device in the parameters
    # counts as a whole. A member that is only read from may still get metadata writes, and the paths of a
    # multipath device lead to one disk.
    return [(word, writes) for word in words]


def _striped(words: list[str], part: tuple[int, int]) -> list[tuple[Number, int, int]] | None:
    """
    ``[(device, start, end)]``, in bytes, below the bytes ``part`` of a striped target: whole rows of chunks.
    None for parameters of another shape.
    """
    count = int(words[0])
    devices = [sysfs.parse_number(word) for word in words[2::2]]
    if len(devices) != count or len(words) != 2 + 2 * count:
        return None
    chunk = int(words[1]) * SECTOR
    first, end = part[0] // (count * chunk), -(-part[1] // (count * chunk))
    offsets = [int(word) * SECTOR for word in words[3::2]]
    return [
        (device, offset + first * chunk, offset + end * chunk)
        for device, offset in zip(devices, offsets)
        if device is not None
    ]


def _shifted(kind: str, words: list[str]) -> list[tuple[tuple[int, int], int, bool]] | None:
    """
    ``[(device, offset in bytes, whether writes go there)]`` of a target that maps its range linearly to each
    of these devices, or None for other targets.
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
        # device offset delay, for reads, then for writes, then for flushes. If there are several, writes do
        # not go to the first.
        devices = [
            (device, int(words[at + 1]) * SECTOR, at > 0 or len(words) == 3)
            for at in range(0, len(words), 3)
            for device in [sysfs.parse_number(words[at])]
            if device is not None
        ]
        return devices if len(devices) == len(words) // 3 else None
    return None
