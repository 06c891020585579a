# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
How full a persistent snapshot store is, from its file, whether a snapshot is active or not.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: drivers/md/dm-snap-persistent.c. Chunk 0 has the header. Areas of metadata follow, each before the
chunks that it lists: as many as 16-byte pairs (old chunk, new chunk) fit into one chunk. Chunk 0 is never a
new one, so a pair with it ends the list.
"""

from __future__ import annotations

import os
import struct

from .._base.errors import KernelError
from .._base.files import open_regular
from .._dm.space import Room

_HEADER, _PAIR = struct.Struct("<4I"), struct.Struct("<QQ")
_MAGIC = 0x70416E53
_SECTOR = 512
_LARGEST = 2**15  # sectors in a chunk


def of_file(path: str) -> Room | None:
    """
    The Room of a store; None if it is empty or does not exist. Bytes are counted as the kernel does, with
    the metadata. InvalidValue if it is not a regular file, KernelError.
    """
    try:
        with open(open_regular(path, "path"), "rb", buffering=0) as file:
            return _room(file.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError.from_oserror(error, "read how full the store is", device=path) from error


def _room(fd: int) -> Room | None:
    size = os.fstat(fd).st_size
    head = os.pread(fd, _HEADER.size, 0)
    magic, _valid, _version, sectors = _HEADER.unpack(head.ljust(_HEADER.size, b"\0"))
    if magic != _MAGIC or not 0 < sectors <= _LARGEST or sectors & (sectors - 1):
        return None
    chunk = sectors * _SECTOR
    stride = chunk // _PAIR.size + 1
    last = area = 0
    # The last chunk in use, or the area of metadata after it.
    while (1 + area * stride) * chunk < size:
        pairs = os.pread(fd, chunk, (1 + area * stride) * chunk)
        new = [to for _old, to in _PAIR.iter_unpack(pairs[: len(pairs) // _PAIR.size * _PAIR.size])]
        used = new.index(0) if 0 in new else len(new)
        last = max([last, 1 + area * stride, *new[:used]])
        if used < len(new):
            break
        area += 1
    return Room(min((last + 1) * chunk, size), size)
