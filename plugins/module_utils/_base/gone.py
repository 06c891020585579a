# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What "gone" means: for each kind of object the errnos that say so. Every other error means that it could not
be looked at.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

What could not be looked at (EMFILE, EACCES, EIO, ENOMEM ...) is an error that names it, never an answer.
os.path.exists and its kin make no such difference: they answer False to every error.
"""

from __future__ import annotations

import errno
import os

from .errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

# A path, by stat(2) or open(2); also a process's directory below /proc.
PATH = (errno.ENOENT, errno.ENOTDIR)
# An attribute of sysfs: it was not there, or was taken away after it was opened (fs/kernfs/file.c: ENODEV).
SYSFS = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV)
# The disk of a node with the right number, by open(2) (block/bdev.c; drivers answer ENODEV, too).
DISK = (errno.ENXIO, errno.ENODEV)
# The file of a loop device, by LOOP_GET_STATUS64 (drivers/block/loop.c).
LOOP_FILE = (errno.ENXIO,)
# A mapped device, by the ioctls of device-mapper (drivers/md/dm-ioctl.c).
MAPPED = (errno.ENXIO,)
# A process, by pidfd_open(2) or a signal; its files below /proc, when it ended after the open
# (fs/proc/base.c).
PROCESS = (errno.ESRCH,)
PROC_FILE = (errno.ENOENT, errno.ESRCH)
# A key, by keyctl(2).
KEY = (errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED)
# A node of XenStore.
XENSTORE = (errno.ENOENT,)

# Where it is looked up what devices there are, and an attribute that each sysfs has.
_SYSFS_BLOCK = ("/sys/dev/block", "/sys/block")
_SYSFS = "/sys/kernel/uevent_seqnum"


def exists(path: str, gone: Collection[int] = PATH, follow_symlinks: bool = True) -> bool:
    """Whether something is at the path; KernelError for any error but those of ``gone``."""
    try:
        os.stat(path, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno in gone:
            return False
        raise not_seen(error, path) from error
    return True


def list_directory(path: str, gone: Collection[int] = PATH) -> list[str]:
    """
    The sorted names in a directory, none when it is not there; KernelError for any error but those of
    ``gone``.
    """
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        if error.errno in gone:
            return []
        raise not_seen(error, path) from error


def need_sysfs() -> None:
    """
    KernelError when sysfs is not mounted, or something else is mounted over its directories of block devices:
    nothing is gone because of that.
    """
    sysfs = _file_system_of(_SYSFS)
    for path in _SYSFS_BLOCK:
        found = _file_system_of(path)
        if None in (found, sysfs):
            raise KernelError(
                "sysfs is not there, which tells what devices there are",
                device=path if found is None else _SYSFS,
                hint="Mount it: mount -t sysfs sysfs /sys",
            )
        if found != sysfs:
            raise KernelError(
                "sysfs tells here what devices there are, and something else is mounted over it",
                device=path,
                hint=f"Unmount that: umount {path}",
            )


def _file_system_of(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError as error:
        if error.errno in PATH:
            return None
        raise not_seen(error, path) from error


def not_seen(error: OSError, path: str) -> KernelError:
    """The KernelError for an OSError that says nothing about whether the path is there."""
    return KernelError.from_oserror(error, f"look at {path}", device=path)
