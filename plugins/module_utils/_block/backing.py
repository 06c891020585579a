# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Backing files of loop devices: open them, and check that an area of a file can be a disk.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import errno
import os

from .._base import files
from .._base.errors import DeviceBusy, InvalidValue, KernelError, hint_of
from .._base.files import open_regular
from .._base.record import Record
from . import loop
from . import node as _node

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from . import device as _device


# There is no file at such a path, and no loop device can have been created for one.
NO_SUCH_FILE = (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Backing:
    """
    An open backing file. ``path`` as given; ``fd``; ``device`` (st_dev) and ``inode`` (st_ino), which
    identify the file; ``size`` in bytes; ``mtime_ns`` in nanoseconds since the epoch.

    With ``block`` (a held ``_block.device.Device``), the backing file is that block device. ``device`` and
    ``inode`` are then as in ``_block.loop.file_of``.
    """

    def __init__(
        self,
        path: str,
        read_only: bool = False,
        option: str = "backing_file",
        block: _device.Device | None = None,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.block = block
        self.fd = (
            _open_backing(path, read_only, option) if block is None else _reopen(block, read_only, option)
        )
        there = os.fstat(self.fd)
        self.mtime_ns = there.st_mtime_ns
        if block is None:
            self.device, self.inode, self.size = there.st_dev, there.st_ino, there.st_size
        else:
            self.device, self.inode, self.size = loop.OVER_BLOCK, there.st_rdev, block.size

    @property
    def kind(self) -> str:
        """A word for messages."""
        return "file" if self.block is None else "device"

    def __enter__(self) -> Backing:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


class ToBe(Record):
    """A block device that is yet to be made, for :func:`check_geometry`. ``size`` in bytes."""

    path: str
    size: int
    block: bool = True
    kind: str = "device"


def check_geometry(
    backing: Backing | ToBe, offset: int = 0, size: int = 0, sector_size: int | None = None
) -> None:
    """
    Raise InvalidValue unless the area lies within the file and consists of whole sectors. All numbers are in
    bytes; ``size`` 0 means to the end of the file.

    This is checked before the ioctl, because the kernel announces a media change before it rejects a block
    size.
    """
    block = 512 if sector_size is None else sector_size
    option = "backing_file" if backing.block is None else "backing"
    if not 512 <= block <= _PAGE or block & (block - 1):
        raise InvalidValue(
            "sector_size", sector_size, f"must be a power of 2 from 512 to {_PAGE} bytes", device=backing.path
        )
    if offset < 0 or offset % 512:
        raise InvalidValue(
            "offset", offset, "must be a multiple of 512 bytes, 0 or more", device=backing.path
        )
    if size < 0 or size % block:
        raise InvalidValue(
            "size", size, f"must be a multiple of the sector size, {block} bytes", device=backing.path
        )
    if not backing.size:
        raise InvalidValue(option, backing.path, "is empty: give it the size that the disk is to have")
    if offset + size > backing.size or offset >= backing.size:
        what, value = ("size", size) if size and offset < backing.size else ("offset", offset)
        raise InvalidValue(
            what,
            value,
            f"must lie inside the {backing.kind}, which has {backing.size} bytes",
            device=backing.path,
        )
    rest = backing.size - offset
    if not size and rest % block:
        raise InvalidValue(
            option,
            backing.path,
            f"has {rest} bytes there, not a multiple of the sector size {block}: "
            f"the last {rest % block} bytes would be cut off; "
            f"pad the file, or set size={rest - rest % block}",
        )


def check_direct_io(backing: Backing) -> None:
    """
    Raise NotSupported if the file system has no direct I/O at all, KernelError. Whether the alignment is
    sufficient is known only after the file is bound.
    """
    try:
        os.close(os.open(f"/proc/self/fd/{backing.fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
    except OSError as error:
        # EINVAL: FMODE_CAN_ODIRECT in fs/open.c. Some file systems return EOPNOTSUPP.
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            raise loop.no_direct_io(backing.path) from error
        raise KernelError.from_oserror(error, "open it for direct I/O", device=backing.path) from error


def cut(device: _device.Device, has: int, left: int, otherwise: str) -> DeviceBusy:
    """
    The error for a device that is larger than what is left of its truncated file (both in bytes): I/O beyond
    the file's new end fails. ``otherwise`` completes the hint.
    """
    return DeviceBusy(
        f"the file was truncated while it was bound: the device has {has} bytes, "
        f"but only {left} are left in the file",
        device=device.path,
        hint=f"Restore the file's size (truncate --size), or {otherwise}",
    )


def _reopen(block: _device.Device, read_only: bool, option: str) -> int:
    """
    Open a held block device again, to be bound. InvalidValue if it is read-only, KernelError; WrongDevice or
    DeviceGone if it has another medium by now.
    """
    if block.read_only and not read_only:
        # Some drivers let it be opened for writing, and then refuse each write.
        raise _not_opened(OSError(errno.EROFS, "it is read-only"), block.path, read_only, option)
    flags = (os.O_RDONLY if read_only else os.O_RDWR) | _node.OPEN_FLAGS
    try:
        fd = _node.open_block(f"/proc/self/fd/{block.fd}", flags)
    except OSError as error:
        raise _not_opened(error, block.path, read_only, option) from error
    try:
        block.prove()
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_backing(path: str, read_only: bool, option: str) -> int:
    files.check_path(path, option, "an absolute path of a regular file")
    try:
        return open_regular(path, option, os.O_RDONLY if read_only else os.O_RDWR)
    except OSError as error:
        raise _not_opened(error, path, read_only, option) from error


def _not_opened(error: OSError, path: str, read_only: bool, option: str) -> InvalidValue | KernelError:
    """The error for a backing file that cannot be opened."""
    number = error.errno
    if number == errno.ENOENT and os.path.islink(path):
        return InvalidValue(
            option,
            path,
            f"is a symbolic link to {os.path.realpath(path)}, which does not exist",
            errno=number,
        )
    if number == errno.ENOENT:
        return InvalidValue(option, path, "does not exist", errno=number)
    if number in NO_SUCH_FILE:
        return InvalidValue(
            option,
            path,
            f"cannot be the path of a file: {error.strerror}",
            errno=number,
            hint=hint_of(number),
        )
    if number in (errno.EACCES, errno.EPERM) and os.geteuid():
        return InvalidValue(
            option, path, "may not be opened by this user", errno=number, hint=hint_of(number)
        )
    if number in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ETXTBSY) and not read_only:
        return InvalidValue(
            option,
            path,
            "cannot be opened for writing",
            errno=number,
            hint="Set read_only=true to use it read-only",
        )
    return KernelError.from_oserror(error, f"open {path}", device=path)
