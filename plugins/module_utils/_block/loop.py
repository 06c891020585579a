# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
One loop device: its status, and the flags that can change while it is bound.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A loop device is identified by its backing file's device and inode, its offset and its size limit.
``lo_file_name`` is truncated to 63 bytes and may be wrong. Behaviour noted here was observed on Linux 6.1,
6.12 and 6.18 (drivers/block/loop.c).
"""

from __future__ import annotations

import _struct as struct  # the module struct only adds a file to find and read
import errno
import fcntl
import os
import stat

from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceGone, KernelError, NotSupported
from .._base.record import Record
from .._kernel import uapi_plain
from . import device as _device
from . import node as _node
from . import sysfs

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any, Protocol

    class HasIdentity(Protocol):
        """A file identified by device and inode, with its size in bytes: a ``_block.backing.Backing``."""

        device: int
        inode: int
        size: int


STATUS = struct.Struct(uapi_plain.LOOP_INFO64)
# Seconds for the kernel to empty the device's cache before its size limit changes.
_CACHED_SECONDS = 5
# In place of st_dev for a loop device over a block device, whose number (st_rdev) is in place of st_ino. The
# node that was opened identifies nothing: others can have the same number.
OVER_BLOCK = -1
# In place of st_dev for a file that cannot be asked which one it is.
UNKNOWN = -2


class NoAnswer(OSError):
    """The storage of a loop device's file has failed, so the status does not tell which file it is."""


class LoopInfo(Record):
    """
    LOOP_GET_STATUS64 of a bound loop device. ``backing_device`` and ``backing_inode``: :func:`file_of`, or
    UNKNOWN and 0 (only from :func:`settings_of`). ``offset`` and ``sizelimit`` are in bytes; ``sizelimit`` 0
    means to the end of the file.
    """

    number: int
    backing_device: int
    backing_inode: int
    offset: int
    sizelimit: int
    flags: int

    @property
    def read_only(self) -> bool:
        return bool(self.flags & uapi_plain.LO_FLAGS_READ_ONLY)

    @property
    def autoclear(self) -> bool:
        return bool(self.flags & uapi_plain.LO_FLAGS_AUTOCLEAR)

    @property
    def partitions(self) -> bool:
        return bool(self.flags & uapi_plain.LO_FLAGS_PARTSCAN)

    @property
    def direct_io(self) -> bool:
        return bool(self.flags & uapi_plain.LO_FLAGS_DIRECT_IO)


def info(device: _device.Device) -> LoopInfo:
    """The LoopInfo of a held loop device; DeviceGone if no file is bound to it, KernelError."""
    try:
        status = get_status(device.fd)
    except OSError as error:
        raise _no_status(error, device.path, device.id.diskseq) from error
    return _as_info(status, *file_of(status))


def settings_of(device: _device.Device) -> LoopInfo:
    """
    Like :func:`info`, also if the storage of the file has failed: the file is UNKNOWN then, and everything
    else is from sysfs.
    """
    try:
        status = get_status(device.fd)
    except NoAnswer:
        return _as_info(settings_in_sysfs(device), UNKNOWN, 0)
    except OSError as error:
        raise _no_status(error, device.path, device.id.diskseq) from error
    return _as_info(status, *file_of(status))


def _as_info(status: dict[str, Any], device: int, inode: int) -> LoopInfo:
    more = (status["lo_" + name] for name in ("offset", "sizelimit", "flags"))
    return LoopInfo(status["lo_number"], device, inode, *more)


def settings_in_sysfs(device: _device.Device) -> dict[str, Any]:
    """
    struct loop_info64 of a held loop device as a dictionary, from sysfs, which does not ask the storage.
    ``lo_device``, ``lo_inode`` and ``lo_rdevice`` are 0. DeviceGone if no file is bound to it, KernelError.
    """
    base = f"{device.sysfs}/loop"
    names = ("offset", "sizelimit", "autoclear", "partscan", "dio")
    offset, limit, *flags = (sysfs.read(f"{base}/{name}") for name in names)
    path = backing_path(device)
    if offset is None or limit is None or None in flags or path is None:
        raise DeviceGone("no file is bound to it", device=device.path, errno=errno.ENXIO)
    status = dict(zip(uapi_plain.LOOP_INFO64_FIELDS, STATUS.unpack(bytes(STATUS.size))))
    meanings = (
        uapi_plain.LO_FLAGS_AUTOCLEAR,
        uapi_plain.LO_FLAGS_PARTSCAN,
        uapi_plain.LO_FLAGS_DIRECT_IO,
    )
    status.update(
        lo_number=int(device.name[4:]),
        lo_offset=int(offset),
        lo_sizelimit=int(limit),
        lo_flags=sum(flag for flag, value in zip(meanings, flags) if value == "1"),
        lo_file_name=os.fsencode(path)[:63],
    )
    if device.read_only:
        status["lo_flags"] |= uapi_plain.LO_FLAGS_READ_ONLY
    return status


def _no_status(error: OSError, path: str, diskseq: object) -> DeviceGone | KernelError:
    """The error for a status that cannot be read. ``diskseq``: of the device, as far as it is known."""
    if isinstance(error, NoAnswer):
        return KernelError.from_oserror(
            error,
            "read the loop device's status, because the storage of its file has failed",
            device=path,
            hint="Mounting a file system again does not repair devices over its old mount. To remove this "
            f"one, set diskseq={'N' if diskseq is None else diskseq} and state=absent without backing_file",
        )
    if error.errno in gone.LOOP_FILE:
        return DeviceGone("no file is bound to it", device=path, errno=error.errno)
    return KernelError.from_oserror(error, "read the loop device's status", device=path)


def is_no_answer(error: KernelError) -> bool:
    """Whether an error of :func:`info` or :func:`read_status` is one of the file's storage."""
    return isinstance(error.__cause__, NoAnswer)


def file_of(status: dict[str, Any]) -> tuple[int, int]:
    """
    What identifies the backing file in a status: ``(st_dev, st_ino)``, or ``(OVER_BLOCK, st_rdev)`` of a
    block device. The loop device has it open, so the number cannot be given to another device.
    """
    if status["lo_rdevice"]:
        return OVER_BLOCK, status["lo_rdevice"]
    return status["lo_device"], status["lo_inode"]


def block_below(major: int, minor: int) -> tuple[int, int] | None:
    """
    ``(major, minor)`` of the block device that a loop device is over; None for a file, and for a device that
    is no bound loop device. A node outside of /dev counts as a file. Raises KernelError.
    """
    if major != _device.LOOP_MAJOR:
        return None
    name = sysfs.kernel_name(major, minor)
    if name is None or not is_name(name):
        return None
    # Most are over files. They are not opened, as their storage may be dead.
    is_node = (sysfs.read(f"/sys/block/{name}/loop/backing_file") or "").startswith("/dev/")
    status = read_status(name) if is_node else None
    file = (0, 0) if status is None else file_of(status)
    return (os.major(file[1]), os.minor(file[1])) if file[0] == OVER_BLOCK else None


def directly_below(major: int, minor: int) -> list[tuple[int, int]]:
    """The numbers of the devices directly below a device, also below a loop device. Raises KernelError."""
    partition = sysfs.partition_of(major, minor)
    below = block_below(*(partition[:2] if partition else (major, minor)))
    return sysfs.members_of(major, minor) if below is None else [below]


def stack_below(major: int, minor: int) -> set[tuple[int, int]]:
    """
    ``{(major, minor)}`` of everything below a device. The caller must hold the device. Raises KernelError.
    """
    below, todo = set(), [(major, minor)]
    while todo:
        for lower in directly_below(*todo.pop()):
            if lower not in below:
                below.add(lower)
                todo.append(lower)
    return below


def backing_path(device: _device.Device) -> str | None:
    """The path of the backing file from sysfs, or None. For a deleted file it ends in `` (deleted)``."""
    return sysfs.read(f"{device.sysfs}/loop/backing_file")


def is_loop(device: _device.Device) -> bool:
    """Whether a Device is a loop device. With max_part, its partitions have its major number."""
    return device.id.major == _device.LOOP_MAJOR and is_name(device.name)


def is_name(name: str) -> bool:
    """Whether this is the kernel's name of a loop device: not of a partition of one, and not loop-control."""
    return name.startswith("loop") and name[4:].isdigit()


def number_of(name: str) -> tuple[int, int] | None:
    """
    ``(major, minor)`` of the loop device with this kernel name, or None. With partitions (max_part), the
    minor differs from the number in the name.
    """
    return sysfs.parse_number(sysfs.read(f"/sys/block/{name}/dev") or "")


def read_status(name: str) -> dict[str, Any] | None:
    """
    LOOP_GET_STATUS64 of the loop device with this kernel name, as a dictionary that also contains its
    ``minor`` number. None if the device does not exist or has no file. Raises KernelError.

    The device is not held.
    """
    try:
        status = _status_at(f"/dev/{name}")
        if status is not None and status["lo_number"] == int(name[4:]):
            return status
        # The device is not bound, or its node is missing or belongs to another device.
        number = number_of(name)
        if number is None:
            return None
        fd = _node.open_node(name, *number, os.O_RDONLY)
        try:
            return dict(get_status(fd), minor=number[1])
        finally:
            os.close(fd)
    except NoAnswer as error:
        raise _no_status(error, f"/dev/{name}", sysfs.read(f"/sys/block/{name}/diskseq")) from error
    except OSError as error:
        if error.errno in gone.LOOP_FILE or error.errno in gone.DISK:
            return None
        raise _no_status(error, f"/dev/{name}", None) from error


def _status_at(path: str) -> dict[str, Any] | None:
    """
    The status of the loop device that the node belongs to; None if there is no such node or no file is bound.
    OSError for any other failure.
    """
    try:
        there = os.lstat(path)
        if not stat.S_ISBLK(there.st_mode) or os.major(there.st_rdev) != _device.LOOP_MAJOR:
            return None
        fd = _node.open_block(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            return dict(get_status(fd), minor=os.minor(there.st_rdev))
        finally:
            os.close(fd)
    except NoAnswer:
        raise
    except OSError as error:
        if error.errno in gone.PATH or error.errno in gone.LOOP_FILE or error.errno in gone.DISK:
            return None
        raise


def is_same(status: LoopInfo, backing: HasIdentity, offset: int = 0, size: int = 0) -> bool:
    """Whether the bound file, the offset and the size limit (bytes) are the given ones."""
    return (status.backing_device, status.backing_inode, status.offset) == (
        backing.device,
        backing.inode,
        offset,
    ) and status.sizelimit in _same_limits(backing, offset, size)


def set_autoclear(device: _device.Device, wanted: bool) -> None:
    """
    Set or clear autoclear. With autoclear, the kernel detaches the device on last close. LOOP_SET_STATUS64
    may change this flag, and does not change the diskseq.
    """
    _set_flags(device, uapi_plain.LO_FLAGS_AUTOCLEAR, wanted)


def set_partitions(device: _device.Device) -> None:
    """Let the kernel scan for partitions. On a bound device, this cannot be undone."""
    _set_flags(device, uapi_plain.LO_FLAGS_PARTSCAN, True)


def set_direct_io(device: _device.Device, wanted: bool) -> None:
    """
    Switch direct I/O on or off. NotSupported if the file or its file system is not aligned for it,
    KernelError.
    """
    try:
        fcntl.ioctl(device.fd, uapi_plain.LOOP_SET_DIRECT_IO, int(wanted))
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise no_direct_io(device.path) from error
        raise KernelError.from_oserror(error, "switch direct I/O", device=device.path) from error


def set_capacity(device: _device.Device) -> None:
    """Let the device take over the new size of its file. Raises KernelError."""
    try:
        fcntl.ioctl(device.fd, uapi_plain.LOOP_SET_CAPACITY, 0)
    except OSError as error:
        raise KernelError.from_oserror(error, "take over the file's new size", device=device.path) from error


def set_limit(device: _device.Device, limit: int) -> None:
    """
    Set the size limit (bytes; 0: to the end of the file) of a bound device, which then has the new size. Its
    offset, flags and diskseq stay. Raises KernelError.

    The kernel refuses this (EAGAIN in loop_set_status) while pages of the device are in its cache, which it
    tries to empty first. Another process that reads the device at that moment can be the reason.
    """
    patience = Deadline(_CACHED_SECONDS)
    for pause in pauses():
        try:
            status = dict(get_status(device.fd), lo_sizelimit=limit)
            fcntl.ioctl(device.fd, uapi_plain.LOOP_SET_STATUS64, STATUS.pack(*status.values()))
            return
        except OSError as error:
            if error.errno != errno.EAGAIN or patience.expired:
                raise KernelError.from_oserror(error, "change its size limit", device=device.path) from error
        patience.sleep(pause)


def _same_limits(backing: HasIdentity, offset: int, size: int) -> tuple[int, ...]:
    # If the caller wants everything to the end of the file, no limit and a limit at the current end are
    # equal.
    return (size,) if size else (0, backing.size - offset)


def get_status(fd: int) -> dict[str, Any]:
    """struct loop_info64 of an open loop device as a dictionary. NoAnswer, OSError."""
    buffer = bytearray(STATUS.size)
    try:
        fcntl.ioctl(fd, uapi_plain.LOOP_GET_STATUS64, buffer)
    except OSError as error:
        if error.errno in _device.LOOP_STORAGE:
            raise NoAnswer(error.errno, error.strerror) from error
        raise
    return dict(zip(uapi_plain.LOOP_INFO64_FIELDS, STATUS.unpack(buffer)))


def status_to_write(device: _device.Device) -> dict[str, Any]:
    """
    The status of a held loop device, for LOOP_SET_STATUS64, which does not ask the storage and ignores which
    file it is. OSError, DeviceGone, KernelError.
    """
    try:
        return get_status(device.fd)
    except NoAnswer:
        return settings_in_sysfs(device)


def no_direct_io(what: str) -> NotSupported:
    """The error for ``what``, a device or a file that does not support direct I/O."""
    return NotSupported(
        "direct I/O is not possible",
        device=what,
        errno=errno.EINVAL,
        hint="The file system must support it, and offset and sector_size must be multiples of its "
        "block size",
    )


def _set_flags(device: _device.Device, flag: int, wanted: bool) -> None:
    """
    Set or clear one flag. The device is held, so its offset and size limit are still correct when the status
    is written back.
    """
    try:
        status = status_to_write(device)
        flags = status["lo_flags"] | flag if wanted else status["lo_flags"] & ~flag
        if flags != status["lo_flags"]:
            fcntl.ioctl(
                device.fd, uapi_plain.LOOP_SET_STATUS64, STATUS.pack(*dict(status, lo_flags=flags).values())
            )
    except OSError as error:
        raise KernelError.from_oserror(error, "change the loop device's flags", device=device.path) from error
