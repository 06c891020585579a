# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The files of /dev/disk/by-diskseq: answers to lookup, getattr and readdir.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Independent of the FUSE library. Raises only errors of the collection.
"""

from __future__ import annotations

import errno
import time
from typing import NamedTuple

from .._base.errors import DeadlineExceeded, DeviceGone, KernelError
from .._block import sysfs
from .._block.device import Device
from . import hold, node_id
from .attributes import Attributes, may_open, of_disk
from .disk_name import DiskName
from .disks import Disk, Disks, is_bound, partition_of
from .pins import Pin, Pins
from .workers import Job, Workers

# Seconds after which an open that has not returned is reported as timed out.
ANSWER = 2.0


class Caller(NamedTuple):
    """
    The process that sent the request: user, group, and thread ID (0 if it is not visible in this PID
    namespace).
    """

    uid: int
    gid: int
    pid: int


class Entry(NamedTuple):
    """A file: its inode number and attributes."""

    node: int
    attributes: Attributes


class DiskFiles:
    """The files. ``workers`` opens devices, ``closers`` closes them."""

    def __init__(self, pins: Pins, workers: Workers, closers: Workers) -> None:
        self.pins = pins
        self._workers = workers
        self._closers = closers
        self._disks = Disks()

    def look_up(self, name: DiskName, caller: Caller) -> Entry | Job:
        """
        Return the file of this name and count one lookup by the kernel, or return the job that opens the
        device: call ``held`` when it has ended.

        For a caller who may not open the device, the file is only shown: nothing is held. DeviceGone if there
        is no such device, DeadlineExceeded if it does not answer, KernelError.
        """
        if caller.uid:
            disk = self._seen(name)
            attributes = of_disk(disk)
            if not may_open(attributes, *caller):
                return Entry(node_id.shown(disk.diskseq, attributes.rdev), attributes)
        pin = self.pins.take(name)
        if pin is not None:
            return _entry(pin)
        self.pins.check_room()
        job = self._workers.job(name, lambda: self._open(name))
        if time.monotonic() - job.started > ANSWER and not job.done:
            raise silent(name)
        return job

    def held(self, name: DiskName, job: Job) -> Entry:
        """
        The file of this name, after the job of ``look_up`` has ended. Raises what the job raised, and
        DeviceGone.
        """
        if job.error is not None:
            raise job.error
        pin = self.pins.take(name)
        if pin is None:
            self.pins.check_room()
            raise DeviceGone("it is gone", device=f"diskseq:{name}")
        return _entry(pin)

    def look_at(self, node: int, caller: Caller) -> Entry:
        """
        The attributes of a file that the kernel knows. The kernel asks before each open, too, so the device
        is verified again.

        DeviceGone if the device is gone or has another medium. KernelError (ESTALE) for a file that is only
        shown, if the caller may open the device: nothing holds the device. The kernel then repeats the
        lookup, if it has the name.
        """
        if not node_id.is_shown(node):
            pin = self.pins.of_node(node)
            if pin is None or not hold.is_still(pin.device):
                raise DeviceGone("it is gone, or has another medium", device=node_id.text(node))
            return _entry(pin)
        disk = self._at(node)
        attributes = of_disk(disk)
        if may_open(attributes, *caller):
            raise KernelError("the device is only shown here, not held", device=disk.name, errno=errno.ESTALE)
        return Entry(node, attributes)

    def listed(self) -> list[tuple[str, Entry]]:
        """All names and their files. The files are only shown: listing holds nothing."""
        files = []
        for disk in self._disks.listed():
            attributes = of_disk(disk)
            entry = Entry(node_id.shown(disk.diskseq, attributes.rdev), attributes)
            files += [(text, entry) for text in DiskName(disk.diskseq, disk.partition).spellings]
        return files

    def expire(self) -> float | None:
        """
        Close devices that are no longer needed. Return when (monotonic clock) the next one expires, or None.
        """
        devices, until = self.pins.expire()
        for device in devices:
            self._close(device)
        return until

    def let_go(self, diskseq: int, seconds: float) -> int:
        """
        Close what is held of a disk, without the grace time, as soon as the kernel has forgotten it. Wait at
        most ``seconds`` for that, and as long for the closing. Return how many are still known to the kernel
        or not yet closed.
        """
        devices, known = self.pins.let_go(diskseq, seconds)
        jobs = [self._close(device) for device in devices]
        end = time.monotonic() + seconds
        closed = [job.wait(max(0.0, end - time.monotonic())) for job in jobs]
        return known + closed.count(False)

    def _seen(self, name: DiskName) -> Disk:
        """The disk or partition with this name, according to sysfs. Raises DeviceGone."""
        disk = self._disks.find(name.diskseq)
        if disk is not None and is_bound(disk.name):
            found = partition_of(disk, name.partition) if name.partition else disk
            if found is not None:
                return found
        raise DeviceGone("there is no such disk or partition", device=f"diskseq:{name}")

    def _at(self, node: int) -> Disk:
        """
        The disk or partition behind a file that is only shown, if the number still belongs to it. Raises
        DeviceGone.
        """
        major, minor = node_id.device_of(node)
        diskseq = sysfs.diskseq_of(major, minor)
        name = sysfs.kernel_name(major, minor)
        if diskseq is None or name is None or not node_id.is_of(node, diskseq):
            raise DeviceGone("it is gone, or has another medium", device=node_id.text(node))
        return Disk(diskseq, 0, name, major, minor)

    def _open(self, name: DiskName) -> None:
        device = hold.open_name(self._disks, name)
        spare = self.pins.put(name, device)
        if spare is not None:
            spare.close()

    def _close(self, device: Device) -> Job:
        return self._closers.job(id(device), device.close)


def silent(name: DiskName) -> DeadlineExceeded:
    """The error for a device that does not answer."""
    return DeadlineExceeded("the device to be opened", ANSWER, device=f"diskseq:{name}")


def _entry(pin: Pin) -> Entry:
    device = pin.device
    return Entry(
        pin.node,
        of_disk(Disk(pin.name.diskseq, pin.name.partition, device.name, device.id.major, device.id.minor)),
    )
