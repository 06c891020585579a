# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Who uses a device or a file that an area is to be on.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The kernel refuses only openers that want a device for themselves, and all mapped devices count as one such
opener. So two areas on one device, and a guest whose disk it is, must be found here.
"""

from __future__ import annotations

import os

from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy
from .._block import bound, detach, loop, new_loop, sysfs
from .._block import device as _device
from .._block.seal import blkback
from .._process import open_files
from . import area

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Collection

    from .._block.device import Device
    from .._source.resources import Resources

# Seconds for a loop device to go whose last user was just killed.
_GOING_SECONDS = 5
_BACKENDS = "/sys/bus/xen-backend/devices"
_HINT = (
    "Look at who uses it (racefree.block.device_info, lsblk, losetup --list, swapon --show), and end that "
    "use; or give the area another device or file. Two areas need two"
)


def refuse_device(device: Device, name: str, ours: Collection[str] = ()) -> None:
    """
    Raise DeviceBusy if somebody uses the held device. ``name``: for messages; ``ours``: the kernel's names of
    mapped devices that do not count. Raises KernelError.
    """
    above = detach.users(device)
    names = [user for user in above if user not in ours] + _without_holders(device)
    if not names and not set(above) & set(ours) and _device.is_claimed(device):
        names = ["somebody who has it open exclusively"]
    if names:
        raise _busy(name, names)


def refuse_other_holders(device: Device, own: Device) -> None:
    """Raise DeviceBusy if another mapped device than ``own`` is on the held device. Raises KernelError."""
    others = [
        sysfs.kernel_name(*number) or ":".join(map(str, number))
        for number in sysfs.holders_of(device.id.major, device.id.minor)
        if number != (own.id.major, own.id.minor)
    ]
    if others:
        raise _busy(device.path, others)


def refuse_file(
    resources: Resources,
    file: tuple[int, int],
    path: str,
    part: new_loop.Area,
    ours: Collection[str] = (),
    allowed: Collection[_device.DeviceId] = (),
) -> None:
    """
    Raise DeviceBusy if somebody uses a part of the file ``(st_dev, st_ino)``, also if it is only read.

    ``ours``: as in :func:`refuse_device`; ``allowed``: loop devices that do not count. Waits for a loop
    device that is about to go.
    """
    names = [f"{name} (swapoff {name})" for name in area.files_in_use(file)]
    names += _qemus(("file", *file))
    if names:
        raise _busy(path, names)
    limit = Deadline(_GOING_SECONDS)
    for pause in pauses():
        resources.loops.forget()
        found, is_going = _loop_over(resources, file, part, ours, allowed)
        if found is None:
            return
        if not is_going or limit.expired:
            raise _busy(path, [found])
        limit.sleep(pause)


def _loop_over(
    resources: Resources,
    file: tuple[int, int],
    part: new_loop.Area,
    ours: Collection[str],
    allowed: Collection[_device.DeviceId],
) -> tuple[str | None, bool]:
    """The first loop device over the part of the file, as text, and whether it is about to go."""
    found = resources.loops.over(file)
    try:
        for device, status in found:
            holders = gone.list_directory(f"{device.sysfs}/holders")
            if device.id in allowed or not part.meets(status) or holders and set(holders) <= set(ours):
                continue
            above = f", which is used by {', '.join(map(_with_name, holders))}" if holders else ""
            is_going = new_loop.is_going(device, status)
            return f"{device.path} (losetup --list {device.path}){above}", is_going
    finally:
        for device, dummy in found:
            device.close()
    return None, False


def _without_holders(device: Device) -> list[str]:
    """Users that sysfs does not list above the held device: swap, guests, and programs of QEMU."""
    number = device.id.major, device.id.minor
    names = [] if area.priority_of(*number) is None else [f"the kernel, for swap (swapoff {device.path})"]
    disk = sysfs.partition_of(*number)
    if disk is not None:
        # A loop device does not claim the disk below it, and has the bytes of its partitions, too.
        names += bound.over_block().get(os.makedev(*disk[:2]), [])
    for one in [number, *sysfs.partitions_of(*number), *([disk[:2]] if disk else [])]:
        names += _guests(one) + _qemus(("block", *one))
    return names


def _guests(number: tuple[int, int]) -> list[str]:
    """Guests whose disk blkback has open on the device with this number."""
    names = []
    for name in gone.list_directory(_BACKENDS, gone.SYSFS):
        kind, *parts = name.split("-")
        if kind != "vbd" or len(parts) != 2:
            continue
        domid, devid = map(int, parts)
        if blkback.opened_for(domid, devid) == number:
            names.append(f"the guest with the domain ID {domid}")
    return names


def _qemus(what: open_files.What) -> list[str]:
    qemus = open_files.qemus_with({what})
    return [f"the guest or program {qemu.name} (process {qemu.pid})" for dummy, qemu in qemus]


def _busy(path: str, names: list[str]) -> DeviceBusy:
    return DeviceBusy(f"it is in use by {', '.join(map(_with_name, names))}", device=path, hint=_HINT)


def _with_name(user: str) -> str:
    """A mapped device with its name: ``dm-3 (racefree-swap-main)``."""
    name = sysfs.read(f"/sys/class/block/{user}/dm/name") if user.startswith("dm-") else None
    return f"{user} ({name})" if name else user


def shown(device: Device) -> str:
    """The held device for messages: a loop device with its file."""
    path = loop.backing_path(device) if loop.is_loop(device) else None
    return f"{device.path} ({path})" if path else device.path
