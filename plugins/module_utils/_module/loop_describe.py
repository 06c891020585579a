# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
How the modules show a loop device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
from typing import Any

from .._block import loop, sysfs
from .._block.device import Device
from . import sealing


def describe(device: Device, status: loop.LoopInfo) -> dict[str, Any]:
    """What the modules return of a loop device: its identity and its settings."""
    over_block = status.backing_device == loop.OVER_BLOCK
    return dict(
        device.as_dict(),
        backing_file=None if over_block else loop.backing_path(device),
        backing=_backing(status.backing_inode) if over_block else None,
        offset=status.offset,
        size_limit=status.sizelimit,
        direct_io=status.direct_io,
        partitions=status.partitions,
        persist=not status.autoclear,
        sealed=sealing.described(device) is not None,
    )


def _backing(number: int) -> dict[str, Any]:
    """
    The block device below a held loop device, by its st_rdev. It is not opened: the loop device has it open,
    so its number cannot be given to another device. ``name`` is None for a disk that was unplugged.
    """
    major, minor = os.major(number), os.minor(number)
    partition = sysfs.read(f"/sys/dev/block/{major}:{minor}/partition")
    return {
        "name": sysfs.kernel_name(major, minor),
        "major": major,
        "minor": minor,
        "diskseq": sysfs.diskseq_of(major, minor),
        "partition": None if partition is None else int(partition),
    }
