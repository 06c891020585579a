# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Tell "does not exist" from other errors: for each kind of object, the errnos that mean that it is gone.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Any other errno (EMFILE, EACCES, EIO, ENOMEM ...) means that the object could not be examined, and raises an
error that names it. os.path.exists and similar functions do not distinguish these: they return False for any
OSError.
"""

from __future__ import annotations

import errno
import os

from .errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

# A path, for stat(2) or open(2); also a process's directory in /proc.
PATH = (errno.ENOENT, errno.ENOTDIR)
# A sysfs attribute: missing, or removed after it was opened (ENODEV, fs/kernfs/file.c).
SYSFS = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV)
# The disk with a device node's number, for open(2) (block/bdev.c; drivers also return ENODEV).
DISK = (errno.ENXIO, errno.ENODEV)
# The file of a loop device, for LOOP_GET_STATUS64 (drivers/block/loop.c).
LOOP_FILE = (errno.ENXIO,)
# A mapped device, for the device-mapper ioctls (drivers/md/dm-ioctl.c).
MAPPED = (errno.ENXIO,)
# A process, for pidfd_open(2) or a signal; a file in its /proc directory if the process ended after the open
# (fs/proc/base.c).
PROCESS = (errno.ESRCH,)
PROC_FILE = (errno.ENOENT, errno.ESRCH)
# A key, for keyctl(2).
KEY = (errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED)
# A XenStore node.
XENSTORE = (errno.ENOENT,)

# The sysfs directories that list block devices, and an attribute that every sysfs has.
_SYSFS_BLOCK = ("/sys/dev/block", "/sys/block")
_SYSFS = "/sys/kernel/uevent_seqnum"


def exists(path: str, gone: Collection[int] = PATH, follow_symlinks: bool = True) -> bool:
    """Whether the path exists. Raises KernelError for any errno not in ``gone``."""
    try:
        os.stat(path, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno in gone:
            return False
        raise not_seen(error, path) from error
    return True


def list_directory(path: str, gone: Collection[int] = PATH) -> list[str]:
    """
    The sorted names in a directory, an empty list if it does not exist. Raises KernelError for any errno not
    in ``gone``.
    """
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        if error.errno in gone:
            return []
        raise not_seen(error, path) from error


def need_sysfs() -> None:
    """
    Raise KernelError if sysfs is not mounted, or if another file system is mounted over its block device
    directories. A device missing there would not be gone.
    """
    sysfs = _file_system_of(_SYSFS)
    for path in _SYSFS_BLOCK:
        found = _file_system_of(path)
        if None in (found, sysfs):
            raise KernelError(
                "sysfs, which lists the devices, is not mounted",
                device=path if found is None else _SYSFS,
                hint="Mount it: mount -t sysfs sysfs /sys",
            )
        if found != sysfs:
            raise KernelError(
                "something else is mounted over sysfs, which lists the devices",
                device=path,
                hint=f"Unmount it: umount {path}",
            )


def _file_system_of(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError as error:
        if error.errno in PATH:
            return None
        raise not_seen(error, path) from error


def not_seen(error: OSError, path: str) -> KernelError:
    """The KernelError for an OSError that does not tell whether the path exists."""
    return KernelError.from_oserror(error, f"look at {path}", device=path)
