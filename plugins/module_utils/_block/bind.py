# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Bind a file to a free loop device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Behaviour noted here was observed on Linux 6.1, 6.12 and 6.18 (drivers/block/loop.c).
"""

from __future__ import annotations

import _struct as struct  # the module struct only adds a file to find and read
import errno
import fcntl
import os
import stat

from .._base import gone
from .._base.deadline import Deadline
from .._base.errors import KernelError, NotSupported, WrongDevice
from .._kernel import uapi_plain
from . import backing as _backing
from . import device as _device
from . import loop
from . import node as _node

CONTROL = "/dev/loop-control"
# Errors of LOOP_CONFIGURE if another process took the free device first, or if it is being removed.
_TAKEN = (errno.EBUSY, errno.EAGAIN, errno.ENXIO, errno.ENOENT, errno.ENODEV)
_ATTACH_SECONDS = 30
_CONFIG = struct.Struct(uapi_plain.LOOP_CONFIG)


def attach(
    backing: _backing.Backing,
    offset: int = 0,
    size: int = 0,
    sector_size: int | None = None,
    read_only: bool = False,
    direct_io: bool = False,
    partitions: bool = False,
    seconds: float | None = None,
) -> _device.Device:
    """
    Bind a free loop device to the open file and return it, held, with autoclear set.

    Until :func:`_block.loop.set_autoclear` clears the flag, the kernel detaches the device when its last user
    closes it, also if this process is killed. Offsets and sizes are in bytes. ``seconds`` limits the retries
    if other processes take each free device first.

    Raises InvalidValue, NotSupported (direct I/O, old kernel), DeadlineExceeded, KernelError.
    """
    _backing.check_geometry(backing, offset, size, sector_size)
    flags = (
        uapi_plain.LO_FLAGS_AUTOCLEAR
        | (uapi_plain.LO_FLAGS_PARTSCAN if partitions else 0)
        | (uapi_plain.LO_FLAGS_DIRECT_IO if direct_io else 0)
    )
    if read_only or backing.read_only:
        flags |= uapi_plain.LO_FLAGS_READ_ONLY
    config = _configuration(backing, offset, size, sector_size, flags)
    limit = Deadline(_ATTACH_SECONDS if seconds is None else seconds)
    device = _bind_free(config, backing, not flags & uapi_plain.LO_FLAGS_READ_ONLY, limit)
    try:
        _check_bound(device, backing, direct_io)
    except BaseException:
        device.close()
        raise
    return device


def _bind_free(config: bytes, backing: _backing.Backing, writable: bool, limit: Deadline) -> _device.Device:
    """Bind the first free loop device that can be bound, and return it, held; DeadlineExceeded."""
    last = None
    with _Control() as control:
        while True:
            number = control.free_number()
            device = _bind(number, config, backing, writable)
            if device is not None:
                return device
            if limit.expired:
                raise limit.exceeded("a free loop device", device=backing.path)
            if number == last:
                # The device is not bound, but somebody has it open exclusively for a moment.
                limit.sleep(0.001)
            last = number


class _Control:
    """/dev/loop-control, open."""

    def __init__(self) -> None:
        try:
            self.fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
                raise NotSupported(
                    "this host has no loop devices", device=CONTROL, hint="Load the kernel module loop"
                ) from error
            if error.errno in (errno.EACCES, errno.EPERM):
                raise KernelError(
                    "only root may make loop devices",
                    device=CONTROL,
                    errno=error.errno,
                    hint="Use become: true",
                ) from error
            raise KernelError.from_oserror(error, f"open {CONTROL}") from error

    def __enter__(self) -> _Control:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)

    def free_number(self) -> int:
        # This reserves nothing: another process may take the number before it is used.
        try:
            return fcntl.ioctl(self.fd, uapi_plain.LOOP_CTL_GET_FREE)
        except OSError as error:
            raise KernelError.from_oserror(error, "get a free loop device", device=CONTROL) from error


def _configuration(
    backing: _backing.Backing, offset: int, size: int, sector_size: int | None, flags: int
) -> bytes:
    """struct loop_config, packed."""
    empty = dict(zip(uapi_plain.LOOP_CONFIG_FIELDS, _CONFIG.unpack(bytes(_CONFIG.size))))
    return _CONFIG.pack(
        *dict(
            empty,
            fd=backing.fd,
            block_size=sector_size or 0,
            lo_offset=offset,
            lo_sizelimit=size,
            lo_flags=flags,
            lo_file_name=os.fsencode(backing.path)[: uapi_plain.LO_NAME_SIZE - 1],
        ).values()
    )


def _bind(number: int, config: bytes, backing: _backing.Backing, writable: bool) -> _device.Device | None:
    """Return the device, held, or None if another process took this number first."""
    path = f"/dev/loop{number}"
    try:
        fd = _open_free(number, os.O_RDWR if writable else os.O_RDONLY)
    except OSError as error:
        if error.errno in _TAKEN:
            return None
        raise KernelError.from_oserror(error, f"open {path}", device=path) from error
    try:
        _check_free_node(os.fstat(fd), number, path)
        # Checked before anything is bound: fails on a kernel without disk sequence numbers (before 5.15).
        _device.read_diskseq(fd, path)
        # Do not call LOOP_CLR_FD if this fails: a file that is bound then was bound by another process.
        fcntl.ioctl(fd, uapi_plain.LOOP_CONFIGURE, config)
    except OSError as error:
        os.close(fd)
        if error.errno in _TAKEN:
            return None
        raise KernelError.from_oserror(error, f"bind {backing.path}", device=path) from error
    except BaseException:
        os.close(fd)
        raise
    try:
        return _device.from_fd(fd, writable)
    except BaseException:
        os.close(fd)
        raise


def _open_free(number: int, flags: int) -> int:
    """
    Open a free loop device; returns the descriptor. A missing node is created, because the kernel creates
    nodes only in its own devtmpfs.
    """
    path, flags = f"/dev/loop{number}", flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        return _node.open_block(path, flags)
    except FileNotFoundError:
        known = loop.number_of(f"loop{number}")
        if known is None:
            # The device has just been removed, and so has its node.
            raise
    except OSError as error:
        if error.errno in gone.DISK:
            # If the node does not belong to the device, a retry would fail too.
            _check_free_node(os.lstat(path), number, path)
        raise
    was_missing = _node.make(f"loop{number}", *known)
    try:
        return _node.open_block(path, flags)
    except OSError as error:
        if was_missing and error.errno in gone.DISK:
            # The device was removed meanwhile, and the node leads nowhere.
            os.unlink(path)
        raise


def _check_free_node(there: os.stat_result, number: int, path: str) -> None:
    """
    Raise WrongDevice unless the node (``there``: its stat) belongs to this loop device, so that the returned
    path leads to it.
    """
    found = os.major(there.st_rdev), os.minor(there.st_rdev)
    # With max_part, partitions also use minor numbers, so the minor differs from the loop device's number.
    if stat.S_ISBLK(there.st_mode) and (
        found == (_device.LOOP_MAJOR, number) or found == loop.number_of(f"loop{number}")
    ):
        return
    raise WrongDevice(
        "the node there does not belong to the loop device",
        device=path,
        hint=_node.advice(f"loop{number}", _device.LOOP_MAJOR, number),
    )


def _check_bound(device: _device.Device, backing: _backing.Backing, direct_io: bool) -> None:
    status = loop.info(device)
    if (status.backing_device, status.backing_inode) != (backing.device, backing.inode):
        raise WrongDevice(f"it is bound to a file other than {backing.path}", device=device.path)
    if backing.block is not None:
        backing.block.prove()
    # The kernel silently clears the flag if the file is not aligned for direct I/O.
    if direct_io and not status.direct_io:
        raise loop.no_direct_io(backing.path)
