# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The header of a persistent snapshot, at the start of its COW device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``struct disk_header`` in ``drivers/md/dm-snap-persistent.c``.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .._block.device import Device


_HEADER = struct.Struct("<4I")
_MAGIC = 0x70416E53


def chunk_size(device: Device) -> int | None:
    """
    The chunk size in sectors from the header on a held Device; None if there is no such header. Raises
    OSError.
    """
    # Snapshots bypass the page cache, which may contain an older header.
    os.posix_fadvise(device.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    data = os.pread(device.fd, _HEADER.size, 0)
    if len(data) < _HEADER.size:
        return None
    magic, _valid, _version, sectors = _HEADER.unpack(data)
    return sectors if magic == _MAGIC else None
