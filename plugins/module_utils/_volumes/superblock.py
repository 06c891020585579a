# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Parse the first block of a thin pool's metadata, to learn the size of a pool that is not active. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``struct thin_disk_superblock`` in ``drivers/md/dm-thin-metadata.c``; the data space map's root begins with
its number of blocks (``struct disk_sm_root`` in ``drivers/md/persistent-data/dm-space-map-common.h``).
"""

from __future__ import annotations

import struct

from .._base.errors import InvalidValue
from .._base.record import Record

BYTES = 4096
_MAGIC = 27022010
_MAGIC_AT, _BLOCKS_AT, _BLOCK_SIZE_AT = 32, 64, 336


class Superblock(Record):
    """A pool's data: ``blocks`` of ``block_size`` sectors."""

    blocks: int
    block_size: int

    @property
    def length(self) -> int:
        """The pool's length in sectors."""
        return self.blocks * self.block_size


def parse(data: bytes, device: str) -> Superblock | None:
    """
    The Superblock in the first block (bytes). None for a block of zeros, which the kernel formats as a new
    pool. InvalidValue for anything else.
    """
    if not data.strip(b"\0"):
        return None
    if len(data) < BYTES or struct.unpack_from("<Q", data, _MAGIC_AT)[0] != _MAGIC:
        raise InvalidValue(
            "metadata",
            device,
            "must be a thin pool's metadata, or zeros for a new pool, but it contains something else",
        )
    return Superblock(
        struct.unpack_from("<Q", data, _BLOCKS_AT)[0], struct.unpack_from("<I", data, _BLOCK_SIZE_AT)[0]
    )
