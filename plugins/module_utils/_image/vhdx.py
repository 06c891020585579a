# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Parse the header of a VHDX image. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: "VHDX Format Specification" (MS-VHDX), and block/vhdx.c and block/vhdx.h of QEMU. Numbers are
little-endian. Checksums are left to qemu-img, which refuses images where they do not fit.
"""

from __future__ import annotations

import struct
import uuid

from . import header as _header
from .header import Header, wrong

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .header import Reader


_MAGIC = b"vhdxfile"
# The two copies of the region table.
_REGIONS_AT, _REGIONS_SIGNATURE, _REGIONS_BYTES = (192 * 1024, 256 * 1024), b"regi", 64 * 1024
_METADATA_SIGNATURE, _METADATA_BYTES = b"metadata", 64 * 1024
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
# signature, checksum, number of entries; GUID, offset in the file, length, required
_REGION_HEADER, _REGION = struct.Struct("<4sII"), struct.Struct("<16sQII")
# signature, number of entries; GUID, offset in the region, length, flags
_TABLE_HEADER, _ITEM = struct.Struct("<8s2xH"), struct.Struct("<16sIII")
_ENTRIES_AT, _ITEMS_AT = 16, 32
_MOST_ENTRIES = 2047
_HAS_PARENT = 1 << 1


def parse(read: Reader, path: str) -> Header:
    """The Header. InvalidValue for a damaged image, and for one that needs a parent, which QEMU cannot."""
    if read(0, len(_MAGIC)) != _MAGIC:
        raise wrong(path, "does not begin like a VHDX image")
    at = _metadata_at(read, path)
    items = _items(_header.need(read(at, _METADATA_BYTES), _ITEMS_AT, path, "its metadata"), path)
    (flags,) = struct.unpack_from("<I", _item(read, at, items, _PARAMETERS, 8, path), 4)
    if flags & _HAS_PARENT:
        raise wrong(
            path,
            "contains only what differs from a parent image, which qemu-img cannot read in this format",
            "Merge it with its parent first (Merge-VHD on Windows)",
        )
    (size,) = struct.unpack("<Q", _item(read, at, items, _SIZE, 8, path))
    return Header(_header.checked_size(size, path))


def _metadata_at(read: Reader, path: str) -> int:
    """
    The offset of the metadata in bytes. Both copies of the table must be the same if both are readable,
    because it is QEMU that chooses one.
    """
    found: set[int] = set()
    for copy in _REGIONS_AT:
        table = read(copy, _REGIONS_BYTES)
        if len(table) < _ENTRIES_AT or not table.startswith(_REGIONS_SIGNATURE):
            continue
        count = _REGION_HEADER.unpack_from(table)[2]
        for number in range(min(count, _MOST_ENTRIES)):
            where = _ENTRIES_AT + number * _REGION.size
            _header.need(table, where + _REGION.size, path, "its region table")
            guid, at, dummy, dummy = _REGION.unpack_from(table, where)
            if guid == _METADATA.bytes_le:
                found.add(at)
    if len(found) != 1 or max(found) >= 2**63 - _METADATA_BYTES:
        raise wrong(path, "has no region table, or two that differ")
    return found.pop()


def _items(table: bytes, path: str) -> dict[bytes, tuple[int, int]]:
    """``{GUID: (offset in the metadata, length)}``"""
    signature, count = _TABLE_HEADER.unpack_from(table)
    if signature != _METADATA_SIGNATURE:
        raise wrong(path, "has no metadata")
    found = {}
    for number in range(min(count, _MOST_ENTRIES)):
        where = _ITEMS_AT + number * 32
        _header.need(table, where + 32, path, "the table of its metadata")
        guid, at, length, dummy = _ITEM.unpack_from(table, where)
        if guid in found:
            raise wrong(path, "has an item twice in its metadata")
        found[guid] = at, length
    return found


def _item(
    read: Reader, start: int, items: dict[bytes, tuple[int, int]], guid: uuid.UUID, length: int, path: str
) -> bytes:
    at, has = items.get(guid.bytes_le, (0, 0))
    if has != length:
        raise wrong(path, f"has no item {guid} of {length} bytes in its metadata")
    return _header.need(read(start + at, length), length, path, "its metadata")
