# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Parse the header of a qcow2 image. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: docs/interop/qcow2.rst of QEMU. Numbers are big-endian.
"""

from __future__ import annotations

import struct

from . import header as _header
from .header import Header, Named, wrong

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .header import Reader


# magic, version, backing file's offset and length, cluster bits, size in bytes, encryption
_FIXED = struct.Struct(">4sIQIIQI")
_MAGIC = b"QFI\xfb"
# Of version 3: the incompatible features, and the length of the header.
_FEATURES_AT, _LENGTH_AT, _LENGTH_2, _LEAST_3 = 72, 100, 72, 104
_CORRUPT, _EXTERNAL = 1 << 1, 1 << 2
# Dirty, corrupt, external data file, compression type, extended L2 entries.
_KNOWN = 0b11111
_LONGEST_NAME = 1023
_EXTENSION = struct.Struct(">II")
_END, _BACKING_FORMAT, _DATA_FILE = 0, 0xE2792ACA, 0x44415441
_LEAST_CLUSTER, _MOST_CLUSTER = 9, 21


def parse(read: Reader, path: str) -> Header:
    """The Header. InvalidValue for an image that is damaged, encrypted, or not understood."""
    fixed = _header.need(read(0, _LEAST_3), _LENGTH_2, path, "its header")
    magic, version, name_at, name_length, bits, size, encryption = _FIXED.unpack_from(fixed)
    if magic != _MAGIC or version not in (2, 3):
        raise wrong(path, f"is a qcow image of version {version}: only versions 2 and 3 are converted")
    if encryption:
        raise wrong(path, "is encrypted, and there is no key for it", "Decrypt it first (qemu-img convert)")
    if not _LEAST_CLUSTER <= bits <= _MOST_CLUSTER:
        raise wrong(path, f"has clusters of 2^{bits} bytes, which no qcow2 image has")
    features, length = (0, _LENGTH_2) if version == 2 else _of_version_3(fixed, path)
    if features & ~_KNOWN:
        raise wrong(path, f"has unknown features ({features & ~_KNOWN:#x})")
    if features & _CORRUPT:
        raise wrong(path, "is marked as corrupt", "Repair it (qemu-img check -r all), and look at its data")
    start = read(0, 1 << bits)
    extensions = _extensions(start[: name_at or None], length, path)
    named = []
    if name_at:
        named.append(_backing(start, name_at, name_length, extensions.get(_BACKING_FORMAT), path))
    if features & _EXTERNAL:
        data = extensions.get(_DATA_FILE)
        if data is None:
            raise wrong(path, "has its data in another file, and does not name it")
        named.append(Named("data", _header.text_of(data, path, "its data file"), _header.RAW))
    return Header(_header.checked_size(size, path), tuple(named))


def _of_version_3(fixed: bytes, path: str) -> tuple[int, int]:
    """``(incompatible features, bytes of the header)``"""
    _header.need(fixed, _LEAST_3, path, "its header")
    (features,) = struct.unpack_from(">Q", fixed, _FEATURES_AT)
    (length,) = struct.unpack_from(">I", fixed, _LENGTH_AT)
    if length < _LEAST_3 or length % 8:
        raise wrong(path, f"has a header of {length} bytes, which no qcow2 image has")
    return features, length


def _extensions(start: bytes, at: int, path: str) -> dict[int, bytes]:
    """``{type: bytes}`` of the header's extensions, which follow the header from ``at`` on."""
    found: dict[int, bytes] = {}
    while at + _EXTENSION.size <= len(start):
        kind, length = _EXTENSION.unpack_from(start, at)
        if kind == _END:
            break
        at += _EXTENSION.size
        data = _header.need(start[at : at + length], length, path, "the extensions of its header")
        if kind in found and kind in (_BACKING_FORMAT, _DATA_FILE):
            raise wrong(path, "names another file twice")
        found[kind] = data
        at += (length + 7) // 8 * 8
    return found


def _backing(start: bytes, at: int, length: int, said: bytes | None, path: str) -> Named:
    if not 0 < length <= _LONGEST_NAME:
        raise wrong(
            path, f"names its backing file with {length} bytes; the name must have 1 to {_LONGEST_NAME}"
        )
    name = _header.need(start[at : at + length], length, path, "the name of its backing file")
    text = _header.text_of(name, path, "its backing file")
    return Named("backing", text, "" if said is None else _header.text_of(said, path, "a format"))
