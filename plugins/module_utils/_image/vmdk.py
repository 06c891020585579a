# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Parse VMDK images: a sparse file with its header, or a text (the descriptor) that names the files with the
data. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Sources: "Virtual Disk Format 5.0" by VMware, and block/vmdk.c of QEMU, which reads an extent line over
several lines and skips those that it does not know. So QEMU never gets the text itself, but
:func:`descriptor`, in which held descriptors replace the names.
"""

from __future__ import annotations

import re
import struct

from .._base.values import SECTOR
from . import header as _header
from .header import Header, Named, wrong

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .header import Reader


# magic, version, flags, capacity, grain size, descriptor's offset, its size; in sectors, little-endian.
_FIXED = struct.Struct("<4sIIQQQQ")
_MAGIC = b"KDMV"
# Where QEMU looks for the name of the parent, and how many bytes it reads.
_TEXT_AT, _TEXT_BYTES = SECTOR, 20 * SECTOR
# The largest descriptor of a text that QEMU reads.
_LONGEST = (1 << 20) - 1
_PARENT = re.compile(rb'parentFileNameHint[ \t]*=[ \t]*"([^"\r\n\0]*)"')
_PARENT_KEY = b"parentFileNameHint"
_VALUE = re.compile(r'[A-Za-z0-9_.:-]+[ \t]*=[ \t]*(?:"[^"]*"|[^"]*)\Z')
_CID = re.compile(r"(CID|parentCID)[ \t]*=[ \t]*([0-9a-fA-F]{1,8})\Z")
_EXTENT = re.compile(r'(RW|RDONLY) +([0-9]{1,18}) +(FLAT|VMFS|SPARSE) +"([^"]+)"(?: +([0-9]{1,18}))?\Z')
_EXTENT_LIKE = re.compile(r"(RW|RDONLY|NOACCESS)[ \t]+[0-9]+[ \t]+(\w+)")
_MOST_EXTENTS = 1000
_LAYOUT = "twoGbMaxExtentSparse"


def parse(read: Reader, path: str) -> Header:
    """The Header. InvalidValue for an image that is damaged or not understood."""
    start = read(0, _FIXED.size)
    return _of_sparse(start, read, path) if start.startswith(_MAGIC) else _of_text(read(0, _LONGEST), path)


def parse_extent(read: Reader, path: str) -> Header:
    """The Header of a file that is a SPARSE extent of an image."""
    start = read(0, _FIXED.size)
    if not start.startswith(_MAGIC):
        raise wrong(path, "the VMDK image names it as a sparse extent, but it is not one")
    return _of_sparse(start, read, path)._replace(named=())


def descriptor(header: Header, files: Sequence[str]) -> bytes:
    """
    A descriptor for QEMU with the same extents in ``files``, one for each. It does not name a parent, because
    QEMU gets that as an option.
    """
    extents = [each for each in header.named if each.role == "extent"]
    lines = ["# Disk DescriptorFile", "version=1", *(header.descriptor or ()), f'createType="{_LAYOUT}"']
    lines += [each.line.format(file) for each, file in zip(extents, files)]
    return ("\n".join(lines) + "\n").encode("ascii")


def _of_sparse(start: bytes, read: Reader, path: str) -> Header:
    _header.need(start, _FIXED.size, path, "its header")
    capacity, dummy, text_at = _FIXED.unpack_from(start)[3:6]
    # With a capacity of 0, QEMU takes the extents of the descriptor.
    if not capacity:
        raise wrong(path, "says that it has no data itself, and is not a descriptor either")
    if text_at not in (0, 1):
        raise wrong(path, f"has its descriptor in sector {text_at}, where no program expects it")
    named = _parent(read(_TEXT_AT, _TEXT_BYTES), path)
    return Header(_header.checked_size(capacity * SECTOR, path), named)


def _parent(text: bytes, path: str) -> tuple[Named, ...]:
    count = text.count(_PARENT_KEY)
    if not count:
        return ()
    found = _PARENT.search(text)
    if count > 1 or found is None:
        raise wrong(path, "names a parent image in a way that is not understood")
    return (Named("backing", _header.text_of(found.group(1), path, "its parent image"), _header.VMDK),)


def _of_text(data: bytes, path: str) -> Header:
    try:
        text = data.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError as error:
        raise wrong(
            path, f"is not a VMDK image, or its descriptor is not UTF-8 text ({error.reason})"
        ) from error
    extents: list[Named] = []
    ids: dict[str, str] = {}
    sectors = 0
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        extent, cid = _EXTENT.match(line), _CID.match(line)
        if extent is not None:
            sectors += int(extent.group(2))
            extents.append(_extent(extent, path, number))
        elif cid is not None:
            ids.setdefault(cid.group(1), cid.group(2))
        elif line and not line.startswith("#") and not _VALUE.match(line):
            raise wrong(path, _why(line, number))
    if not 0 < len(extents) <= _MOST_EXTENTS:
        raise wrong(path, f"names {len(extents)} files with data, and an image has 1 to {_MOST_EXTENTS}")
    given = tuple(f"{key}={ids.get(key, 'ffffffff')}" for key in ("CID", "parentCID"))
    named = (*_parent(data, path), *extents)
    return Header(_header.checked_size(sectors * SECTOR, path), named, given)


def _extent(found: re.Match[str], path: str, number: int) -> Named:
    sectors, kind, name, offset = found.group(2, 3, 4, 5)
    if (offset is None) != (kind != "FLAT") or not int(sectors):
        raise wrong(path, f"has an extent in line {number} that is not understood")
    _header.text_of(name.encode(), path, "a file with its data")
    # A VMFS extent is a flat one that begins at 0.
    line = f'RW {sectors} SPARSE "{{}}"' if kind == "SPARSE" else f'RW {sectors} FLAT "{{}}" {offset or 0}'
    return Named("extent", name, _header.VMDK if kind == "SPARSE" else _header.RAW, line)


def _why(line: str, number: int) -> str:
    found = _EXTENT_LIKE.match(line)
    if found is None:
        return f"has a descriptor whose line {number} is not understood"
    kind = " ".join(found.groups())
    return f"has an extent of the kind {kind} in line {number}, which is not supported"
