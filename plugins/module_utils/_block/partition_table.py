# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Read the partition table of a disk or an image: GPT, or MBR ("dos"). Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A guest writes these bytes, so nothing in them is trusted: every place lies on the disk before it is read, at
most 4 MiB are read, and at most 255 partitions are returned. A partition that must not be used has a
``problem``. What a table means is what Linux takes it for (block/partitions/efi.c and msdos.c): only the
primary GPT counts, only with its checksums, and only behind a protective MBR.
"""

from __future__ import annotations

import _struct as struct  # the module struct only adds a file to find and read
import zlib

from .._base.record import Record

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable

    # read(offset, length) returns the bytes there, fewer at the end of the disk.
    Read = Callable[[int, int], bytes]

GPT, DOS = "gpt", "dos"
MOST = 255  # DISK_MAX_PARTS - 1 in include/linux/blkdev.h
_SECTOR = 512
_MAGIC = b"\x55\xaa"
_MOST_BYTES = 4 * 2**20  # what the kernel can allocate for the entries (KMALLOC_MAX_SIZE)
# struct _gpt_header and _gpt_entry in block/partitions/efi.h
_HEADER, _ENTRY = struct.Struct("<8sIIIIQQQQ16sQIII"), struct.Struct("<16s16sQQQ72s")
# struct msdos_partition in include/linux/msdos_partition.h: indicator, type, first sector, number of sectors
_SLOT = struct.Struct("<B3xB3xII")
_SLOTS, _SIGNATURE = 446, 440
_PROTECTIVE, _LDM = 0xEE, 0x42
_CONTAINER = "it is an extended partition, which only contains others"
_EXTENDED = (0x05, 0x0F, 0x85)
# Types whose content the kernel searches for more partitions: UnixWare, Minix, Solaris, BSDs.
_NESTING = (0x63, 0x81, 0x82, 0xA5, 0xA6, 0xA9, 0xBF)
_MOST_EMPTY = 100  # extended tables without a partition; more are a loop (msdos.c)
# Other tables that the kernel may know, by their first bytes: AIX, Mac, SGI, Sun, OSF, Karma, SysV68.
_OTHERS = (
    (0, b"\xc9\xc2\xd4\xc1"),
    (0, b"ER"),
    (0, b"\x0b\xe5\xa9\x41"),
    (508, b"\xda\xbe"),
    (64, b"\x57\x45\x56\x82"),
    (510, b"\x56\xab"),
    (248, b"MOTOROLA"),
)
_AMIGA, _AMIGA_SECTORS = b"RDSK", 16


class Entry(Record):
    """
    A partition as the table has it. ``start`` and ``size`` in bytes; ``type``: a GUID, or such as ``0x83``;
    ``uuid``: as in /dev/disk/by-partuuid. ``problem``: why the partition must not be used, or None.
    """

    number: int
    start: int
    size: int
    type: str
    uuid: str
    problem: str | None = None

    @property
    def end(self) -> int:
        return self.start + self.size

    @property
    def is_container(self) -> bool:
        """Whether it is an extended partition. The kernel has one of at most 1 KiB for it."""
        return self.problem == _CONTAINER


class Table(Record):
    """
    ``format``: ``gpt``, ``dos`` or None. ``uuid``: of the disk. ``others``: the areas ``(start, end)`` in
    bytes in which the kernel may find partitions that are not among the entries.
    """

    format: str | None = None
    uuid: str | None = None
    entries: tuple[Entry, ...] = ()
    others: tuple[tuple[int, int], ...] = ()


def parse(read: Read, size: int, block: int = 512) -> Table:
    """The Table of a disk of ``size`` bytes with logical blocks of ``block`` bytes."""
    first = read(0, min(size, _AMIGA_SECTORS * _SECTOR))
    if len(first) < _SECTOR:
        return Table()
    if _is_other(first):
        return Table(others=((0, size),))
    if first[510:512] != _MAGIC:
        return Table()
    slots = _slots_of(first)
    if any(slot[1] == _PROTECTIVE for slot in slots):
        # The kernel takes such a disk for a GPT or for nothing.
        is_protected = any(slot[1:3] == (_PROTECTIVE, 1) for slot in slots)
        return _gpt(read, size, block) if is_protected else Table()
    if any(slot[0] not in (0, 0x80) for slot in slots):
        # The boot sector of a file system ends with the same two bytes.
        return Table()
    return _dos(read, size, block, first)


def _is_other(first: bytes) -> bool:
    return any(first[where : where + len(magic)] == magic for where, magic in _OTHERS) or any(
        first[at : at + len(_AMIGA)] == _AMIGA for at in range(0, len(first), _SECTOR)
    )


def _gpt(read: Read, size: int, block: int) -> Table:
    header = read(block, block)
    if len(header) < _HEADER.size:
        return Table()
    (
        magic,
        _revision,
        length,
        checksum,
        _reserved,
        own,
        _alternate,
        first,
        last,
        guid,
        at,
        count,
        width,
        sums,
    ) = _HEADER.unpack_from(header)
    last_block = size // block - 1
    if (
        magic != b"EFI PART"
        or not _HEADER.size <= length <= block
        or zlib.crc32(header[:16] + bytes(4) + header[20:length]) != checksum
        or own != 1
        or first > last_block
        or last > last_block
        or width != _ENTRY.size
        or count * width > _MOST_BYTES
        or at > last_block
    ):
        return Table()
    rows = read(at * block, count * width)
    if len(rows) != count * width or zlib.crc32(rows) != sums:
        return Table()
    found = []
    for number in range(1, min(count, MOST) + 1):
        kind, uuid, begin, end, _attributes, _name = _ENTRY.unpack_from(rows, (number - 1) * width)
        if kind != bytes(16):
            area = begin * block, max(0, end + 1 - begin) * block
            found.append(Entry(number, *area, _guid(kind), _guid(uuid)))
    return Table(GPT, _guid(guid), _checked(found, size, 2 * block))


def _guid(raw: bytes) -> str:
    one, two, three = struct.unpack_from("<IHH", raw)
    return f"{one:08x}-{two:04x}-{three:04x}-{raw[8:10].hex()}-{raw[10:].hex()}"


def _slots_of(sector: bytes) -> list[tuple[int, int, int, int]]:
    """The four entries of a sector: indicator, type, first sector, number of sectors."""
    return [_SLOT.unpack_from(sector, _SLOTS + 16 * index) for index in range(4)]


def _dos(read: Read, size: int, block: int, first: bytes) -> Table:
    (signature,) = struct.unpack_from("<I", first, _SIGNATURE)
    found: list[Entry] = []
    containers: list[Entry] = []
    logical: list[tuple[int, int, int]] = []
    others = []
    for number, (_flag, kind, begin, count) in enumerate(_slots_of(first), 1):
        if not count:
            continue
        entry = Entry(number, begin * block, count * block, f"0x{kind:02x}", f"{signature:08x}-{number:02x}")
        if kind in _EXTENDED:
            containers.append(entry)
            logical += _logical(read, block, entry, MOST - 4 - len(logical))
            entry = entry._replace(size=min(entry.size, max(block, 2 * _SECTOR)), problem=_CONTAINER)
        found.append(entry)
        if kind in _NESTING or kind == _LDM:
            others.append((0, size) if kind == _LDM else (entry.start, entry.end))
    for number, (kind, start, length) in enumerate(logical, 5):
        found.append(Entry(number, start, length, f"0x{kind:02x}", f"{signature:08x}-{number:02x}"))
    return Table(DOS, f"{signature:08x}", _checked(found, size, block), tuple(others))


def _logical(read: Read, block: int, extended: Entry, most: int) -> list[tuple[int, int, int]]:
    """
    ``[(type, start, size)]`` of the partitions inside an extended one, in bytes. The tables form a chain, of
    which a hostile one can be a loop.
    """
    found: list[tuple[int, int, int]] = []
    at, room, empty = extended.start, extended.size, 0
    while empty < _MOST_EMPTY and len(found) < most:
        sector = read(at, _SECTOR)
        if len(sector) < _SECTOR or sector[510:512] != _MAGIC:
            break
        empty += 1
        slots = [(kind, begin * block, count * block) for _flag, kind, begin, count in _slots_of(sector)]
        for index, (kind, offset, length) in enumerate(slots):
            if not length or kind in _EXTENDED or len(found) == most:
                continue
            start = at + offset
            is_outside = offset + length > room or start < extended.start or start + length > extended.end
            if index < 2 or not is_outside:
                found.append((kind, start, length))
                empty = 0
        following = [(offset, length) for kind, offset, length in slots if length and kind in _EXTENDED]
        if not following:
            break
        at, room = extended.start + following[0][0], following[0][1]
    return found


def _checked(entries: list[Entry], size: int, least: int) -> tuple[Entry, ...]:
    """The entries, with the problem of each. No partition may begin before ``least`` bytes."""
    found: list[Entry] = []
    reach = Entry(0, 0, 0, "", "")
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.number)):
        problem = _problem(entry, size, least) or entry.problem
        if entry.problem is None and entry.size:
            if problem is None and entry.start < reach.end:
                problem = f"it overlaps partition {reach.number}"
                found = [_overlapped(other, entry) for other in found]
            if entry.end > reach.end:
                reach = entry
        found.append(entry._replace(problem=problem))
    return tuple(sorted(found, key=lambda entry: entry.number))


def _overlapped(earlier: Entry, later: Entry) -> Entry:
    """The first one, with a problem if it has bytes of the second one."""
    if earlier.problem is None and earlier.start < later.end and later.start < earlier.end:
        return earlier._replace(problem=f"it overlaps partition {later.number}")
    return earlier


def _problem(entry: Entry, size: int, least: int) -> str | None:
    if not entry.size:
        return "it is empty: it ends before it begins"
    if entry.end > size:
        return f"it ends at byte {entry.end}, beyond the end of the disk, which has {size} bytes"
    if entry.start < least:
        return f"it begins at byte {entry.start}, inside the partition table"
    return None
