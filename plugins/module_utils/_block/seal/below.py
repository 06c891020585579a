# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The loop and mapped devices below a device, from sysfs. Only loop devices over block devices are opened.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Other devices below, such as disks and their partitions, are left out, and so is everything below a logical
volume of LVM: LVM itself must open its physical volumes, and the volumes of others are on them too.
"""

from __future__ import annotations

from ..._base import gone
from .. import loop, sysfs

# The UUID of a mapped device of LVM (lib/activate/dev_manager.c of lvm2).
_LVM = "LVM-"


def devices(major: int, minor: int) -> list[tuple[tuple[int, int], int]]:
    """
    ``(device number, diskseq)`` of the loop and mapped devices below a device, directly or not. A partition
    of a loop device counts as a loop device. The caller holds the device open, or checks again later. Raises
    KernelError.
    """
    found: dict[tuple[int, int], int] = {}
    todo = [(major, minor)]
    while todo:
        upper = todo.pop()
        if (sysfs.read("/sys/dev/block/{}:{}/dm/uuid".format(*upper)) or "").startswith(_LVM):
            continue
        for number in loop.directly_below(*upper):
            if number in found or not _is_stacked(number):
                continue
            diskseq = sysfs.diskseq_of(*number)
            if diskseq is not None:
                found[number] = diskseq
                todo.append(number)
    return list(found.items())


def _is_stacked(number: tuple[int, int]) -> bool:
    partition = sysfs.partition_of(*number)
    base = "/sys/dev/block/{}:{}".format(*(partition or number))
    return gone.exists(f"{base}/loop", gone.SYSFS) or gone.exists(f"{base}/dm", gone.SYSFS)
