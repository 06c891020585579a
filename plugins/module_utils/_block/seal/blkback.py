# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Seals and blkback: let it open sealed devices, and see what it has open.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

blkback opens the device of every disk in the kernel thread "xenwatch", where XenStore's watches are called
(drivers/xen/xenbus/xenbus_xs.c, xen_vbd_create in drivers/block/xen-blkback/xenbus.c). The thread is in the
root cgroup, and the BPF program is run for it as for a process: with the thread's ID as both of its IDs, and
"xenwatch" as its name. So it can have a pass. A pass of this thread is left to expire, because other runs may
rely on it at the same time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from ..._base import gone, locks
from ..._base.deadline import Deadline
from ..._base.errors import KernelError
from . import attachment, entry, place

_BACKENDS = "/sys/bus/xen-backend"
_THREAD = b"xenwatch"
# The parent of all kernel threads.
_KTHREADD = 2
_SECONDS = 30.0
# Seconds for which blkback may open a device that is sealed now: an attachment that began before takes no
# longer (libxl's limit for a hotplug script is 40 s).
_LATE_SECONDS = 60
# So many passes may be there when the one for a late open is added. The rest is for those who need one.
_MOST_LATE = entry.MOST_PASSES // 2


def let_open(numbers: Iterable[tuple[int, int]], seconds: float) -> None:
    """
    Let blkback open the devices with these numbers for so many seconds, whether they are sealed or not. Does
    nothing if no device of this host is sealed. Raises KernelError or DeviceBusy.
    """
    if not place.in_use():
        return
    with locks.held([attachment.LOCK], Deadline(_SECONDS)), attachment.existing() as maps:
        thread = None if maps is None else _thread()
        if maps is not None and thread is not None:
            for number in numbers:
                _put(maps, thread, number, seconds)


def let_open_late(maps: attachment.Maps, number: tuple[int, int]) -> None:
    """
    Let blkback open a device that is sealed now, for an attachment that began when nothing was sealed. The
    caller holds attachment.LOCK. Raises KernelError.
    """
    if gone.exists(_BACKENDS, gone.SYSFS) and len(maps.passes.keys()) < _MOST_LATE:
        thread = _thread()
        if thread is not None:
            _put(maps, thread, number, _LATE_SECONDS)


def opened_for(domid: int, devid: int) -> tuple[int, int] | None:
    """The number of the device that blkback has open for a guest's disk, or None. Raises KernelError."""
    path = f"{_BACKENDS}/devices/vbd-{domid}-{devid}/physical_device"
    try:
        with open(path, encoding="ascii") as file:
            major, colon, minor = file.read().strip().partition(":")
    except OSError as error:
        if error.errno in gone.SYSFS:
            return None
        raise gone.not_seen(error, path) from error
    return (int(major, 16), int(minor, 16)) if colon else None


def _put(maps: attachment.Maps, thread: int, number: tuple[int, int], seconds: float) -> None:
    key = entry.pass_key(thread, thread, *number)
    end = time.monotonic_ns() + int(seconds * 10**9)
    there = maps.passes.get(key)
    if there is None or entry.end_of_pass(there) < end:
        try:
            maps.passes.put(key, entry.Pass(end, _THREAD).encoded())
        except OSError as error:
            raise KernelError.from_oserror(
                error, "let blkback open a sealed device", hint="Try again when fewer tasks run at once"
            ) from error


def _thread() -> int | None:
    """The ID of the kernel thread, None without Xen. It was started early, so its ID is a low one."""
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        words = _stat(pid)
        if words[:1] == [_THREAD] and int(words[1]) == _KTHREADD:
            return pid
    return None


def _stat(pid: int) -> list[bytes]:
    """``[name, parent's ID]`` of a process (proc(5), /proc/PID/stat); empty if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError as error:
        if error.errno in gone.PROC_FILE:
            return []
        raise gone.not_seen(error, f"/proc/{pid}/stat") from error
    name, dummy, rest = text.partition(b"(")[2].rpartition(b")")
    return [name, rest.split()[1]]
