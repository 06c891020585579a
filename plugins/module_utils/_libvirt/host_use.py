# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Refuse storage that the host itself uses as the source of a guest's disk.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A disk's device is a mapped device over its source. The kernel does not tell it from the host's own mapped
devices over the same source: all of them share one claim, so none gets EBUSY. So the devices above the source
are looked at. Those that were made for guests' disks are left to the check of other guests.
"""

from __future__ import annotations

import re

from .._base.errors import DeviceBusy
from .._block import device as _device
from .._block import loop, sysfs
from .._block.device import Device
from .._source.resources import Resources
from .._xen import host_use, stack
from .._xen.footprint import Extent, Questions, conflict
from .._xen.sharing import refuse_mounted
from . import domain_xml

Number = tuple[int, int]
_HINT = (
    "Unmount it, or remove the devices on top of it, or use the topmost one as the source instead. Set "
    "shared=true only if all users coordinate their writes (a cluster file system)"
)


def refuse(resources: Resources, below: Device, mine: list[Extent], title: str) -> None:
    """
    DeviceBusy if the host uses ``below``, the held device of a disk's source, or what it consists of.
    ``mine``: its Extents; ``title``: of the disk. A device that is read-only may have other readers.
    """
    questions = stack.questions(resources)
    if not below.read_only:
        _refuse_stacked(below, mine, questions, title)
    refuse_mounted(mine, f"{below.path} for {title}", below, questions)


def _refuse_stacked(below: Device, mine: list[Extent], questions: Questions, title: str) -> None:
    """DeviceBusy if the host itself has claimed the device, or has devices on it or beside it."""
    number = (below.id.major, below.id.minor)
    above = sysfs.holders_of(*number)
    if not above and _device.is_claimed(below):
        raise DeviceBusy(
            "this host itself uses it: it is mounted, swapped to, or has a partition that is",
            device=f"{below.path} for {title}",
            hint=_HINT,
        )
    for upper in above:
        if not (_is_for_guests(upper) or _is_idle_partition(upper)):
            raise _used(upper, number, below, title)
    _refuse_beside(below, mine, questions, title)


def _refuse_beside(below: Device, mine: list[Extent], questions: Questions, title: str) -> None:
    """
    DeviceBusy if the host has another device that writes the same bytes of what ``below`` consists of. Its
    other devices there (other volumes of one disk, snapshots of one origin) write other bytes.
    """
    written = [extent for extent in mine if extent.writes]
    number = (below.id.major, below.id.minor)
    parts = loop.stack_below(*number) if written else set()
    for part in sorted(parts):
        for upper in sysfs.holders_of(*part):
            if upper == number or upper in parts or _is_for_guests(upper):
                continue
            if _is_idle_partition(upper) or (_is_pool(part, questions) and not _is_used(upper)):
                # LVM has such a device over each pool.
                continue
            if conflict(written, host_use.writes_of(upper, questions)):
                raise _used(upper, part, below, title)


def _is_for_guests(number: Number) -> bool:
    """Whether the device was made for guests' disks, or is only part of such devices."""
    uuid = sysfs.read(f"/sys/dev/block/{number[0]}:{number[1]}/dm/uuid")
    if uuid is not None and uuid.startswith(domain_xml.UUID_PREFIX):
        return True
    above = sysfs.holders_of(*number)
    return bool(above) and all(map(_is_for_guests, above))


def _is_idle_partition(number: Number) -> bool:
    """
    Whether it is a mapped device for a partition that nobody uses. kpartx makes them for each partition that
    it finds on a multipath device, and so for those of the guest.
    """
    uuid = sysfs.read(f"/sys/dev/block/{number[0]}:{number[1]}/dm/uuid") or ""
    return re.match(r"part\d+-", uuid) is not None and not _is_used(number)


def _is_pool(number: Number, questions: Questions) -> bool:
    return any(row[2] == "thin-pool" for row in questions.table_of(*number) or ())


def _is_used(number: Number) -> bool:
    """Whether something is stacked on the device, or has claimed it."""
    return bool(sysfs.holders_of(*number)) or host_use.is_claimed(number)


def _used(upper: Number, part: Number, below: Device, title: str) -> DeviceBusy:
    lower = sysfs.kernel_name(*part) or f"{part[0]}:{part[1]}"
    return DeviceBusy(
        f"this host itself uses it: /dev/{lower} is part of {host_use.words(upper)}",
        device=f"{below.path} for {title}",
        hint=_HINT,
    )
