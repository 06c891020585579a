# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Detach loop devices from their files, and list their users.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import fcntl
import os

from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy, DeviceGone, KernelError
from .._kernel import uapi_plain
from . import bound, let_go, loop, sysfs
from . import device as _device

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any


# Seconds that an unused device may take until its file is released.
_GOING_SECONDS = 1.0


def detach(device: _device.Device, deferred: bool = False, timeout: float = 5.0) -> bool:
    """
    Detach a held loop device from its file, close it, and return whether it is already detached.

    Unless ``deferred``, a device that others still hold after ``timeout`` seconds is left unchanged:
    DeviceBusy. Autoclear is not left set while this function waits, so if this process is killed here, the
    device stays with its users.
    """
    identity, limit, asked = device.id, Deadline(timeout), False
    if not deferred and _device.is_claimed(device):
        raise busy(device)
    with device:
        if deferred:
            let_go.ask(identity.diskseq)
            loop.set_autoclear(device, True)
        else:
            # Wait for brief users, such as udev's probers after an event. Lasting users keep the device.
            for pause in pauses(0.01, 0.2):
                if _take_file(device):
                    break
                if not asked:
                    asked = let_go.ask(identity.diskseq)
                if limit.expired:
                    raise busy(device)
                limit.sleep(pause)
    limit = limit.sooner(_GOING_SECONDS) if deferred else Deadline(_GOING_SECONDS)
    for pause in pauses():
        if not _still_bound(identity):
            return True
        if limit.expired:
            return False
        limit.sleep(pause)
    return False


def _take_file(device: _device.Device) -> bool:
    """
    Let the kernel detach the file of a held loop device on close, unless others have the device open. Returns
    whether it will.

    LOOP_CLR_FD does that, or sets autoclear if others have the device open (drivers/block/loop.c,
    loop_clr_fd). LOOP_SET_STATUS64 then tells which of the two happened, and clears autoclear again: it fails
    if the file is being detached.

    Before Linux 6.11, LOOP_CLR_FD detaches the file at once if nobody else has the device open, and then
    another process can bind its own file although this one still has the device open. So the device is looked
    at again: if it is bound with the same disk sequence number, others have it open, and as long as this
    process has it open too, nobody can detach the file.
    """
    before = _get_bound_status(device)
    if before is None:
        return True
    status = loop.STATUS.pack(*before.values())
    try:
        fcntl.ioctl(device.fd, uapi_plain.LOOP_CLR_FD, 0)
        if not _is_bound_as_before(device):
            return True
        fcntl.ioctl(device.fd, uapi_plain.LOOP_SET_STATUS64, status)
    except OSError as error:
        if error.errno in gone.LOOP_FILE:
            return True
        raise KernelError.from_oserror(error, "detach its file", device=device.path) from error
    return False


def _is_bound_as_before(device: _device.Device) -> bool:
    """Whether a file is bound, and the disk sequence number is still the held device's."""
    bound = _get_bound_status(device) is not None
    # Read last: a file that was bound meanwhile has changed it before the status showed that file.
    return bound and _device.read_diskseq(device.fd, device.name) == device.id.diskseq


def _get_bound_status(device: _device.Device) -> dict[str, Any] | None:
    """struct loop_info64 of a held loop device as a dictionary; None if no file is bound."""
    try:
        return loop.status_to_write(device)
    except DeviceGone:
        return None
    except OSError as error:
        if error.errno in gone.LOOP_FILE:
            return None
        raise KernelError.from_oserror(error, "read the loop device's status", device=device.path) from error


def users(device: _device.Device, loops: dict[int, list[str]] | None = None) -> list[str]:
    """
    Known users of the device and its partitions: names of the devices stacked on them, and mount points.
    Raises KernelError. ``loops``: ``_block.bound.over_block``, if it is already known.
    """
    loops = bound.over_block() if loops is None else loops
    names, numbers = gone.list_directory(f"{device.sysfs}/holders"), {device.id.number: ""}
    names += loops.get(device.id.rdev, [])
    # The name of a partition begins with the name of its disk (block/partitions/core.c).
    disk = device.name.replace("/", "!")
    for name in gone.list_directory(device.sysfs):
        if not name.startswith(disk):
            continue
        number = (
            sysfs.read(f"{device.sysfs}/{name}/dev")
            if gone.exists(f"{device.sysfs}/{name}/partition")
            else None
        )
        if number is not None:
            numbers[number] = f" (partition {name})"
            names += [
                f"{holder} (partition {name})"
                for holder in (
                    *gone.list_directory(f"{device.sysfs}/{name}/holders"),
                    *loops.get(os.makedev(*map(int, number.split(":"))), []),
                )
            ]
    mountinfo = "/proc/self/mountinfo"
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields = line.split()
                if fields[2] in numbers:
                    names.append(f"mount {fields[4]}{numbers[fields[2]]}")
    except OSError as error:
        raise gone.not_seen(error, mountinfo) from error
    return names


def busy(device: _device.Device) -> DeviceBusy:
    """A DeviceBusy error that names the users of a held loop device."""
    names = users(device)
    return DeviceBusy(
        "it is in use" + (f" by {', '.join(names)}" if names else " by a program that has it open"),
        device=device.path,
        hint="End that use first, or set deferred=true to have it detached when its last user closes it",
    )


def _still_bound(identity: _device.DeviceId) -> bool:
    base = f"/sys/dev/block/{identity.number}"
    return sysfs.read(f"{base}/diskseq") == str(identity.diskseq) and gone.exists(f"{base}/loop")
