# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Nodes of block devices in /dev: open a device by its number even if its node is missing or belongs to another
device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

In that case, a private node is used. It is created in a separate directory below /dev, because other file
systems that are writable early, such as /run, are mounted nodev. It is removed as soon as it is open.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from .._base import gone
from .._base.errors import KernelError

_DIRECTORY = "/dev/.racefree-"
# Seconds after which a directory counts as orphaned by a killed process: it is needed only for microseconds.
_STALE = 60


def open_block(path: str, flags: int) -> int:
    """
    os.open of a path that leads to a block device, also if the device is sealed (``seal``). OSError of the
    open, KernelError.
    """
    try:
        return os.open(path, flags)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        from .seal import way_in  # rarely needed, and it imports many more files

        return way_in.open_refused(path, flags, error)


def _open_own(name: str, major: int, minor: int, flags: int) -> int:
    """
    Open the device ``major:minor``, with the kernel name ``name``, through a private node; returns the
    descriptor.

    OSError of the open itself; KernelError that names the missing node if no node can be created.
    """
    directory = _DIRECTORY + os.urandom(8).hex()
    node = f"{directory}/node"
    try:
        _reap()
        os.mkdir(directory, 0o700)
        os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(major, minor))
    except OSError as error:
        _remove(directory)
        raise _no_node(error, name, major, minor) from error
    try:
        return open_block(node, flags)
    except PermissionError as error:
        if os.statvfs(directory).f_flag & os.ST_NODEV:
            raise _no_node(error, name, major, minor) from error
        raise
    finally:
        _remove(directory)


def make(name: str, major: int, minor: int) -> bool:
    """
    Create a missing node; returns whether it was missing. KernelError that names the node if it cannot be
    created.
    """
    try:
        os.mknod(f"/dev/{name}", stat.S_IFBLK | 0o660, os.makedev(major, minor))
    except FileExistsError:
        return False
    except OSError as error:
        raise _no_node(error, name, major, minor) from error
    return True


def _no_node(error: OSError, name: str, major: int, minor: int) -> KernelError:
    return KernelError(
        f"its node in /dev is missing or belongs to another device, and none can be made: {error.strerror}",
        device=f"/dev/{name}",
        errno=error.errno,
        hint=advice(name, major, minor),
    )


def _remove(directory: str) -> None:
    for remove, path in ((os.unlink, f"{directory}/node"), (os.rmdir, directory)):
        try:
            remove(path)
        except FileNotFoundError:
            pass


def _reap() -> None:
    """Remove private nodes orphaned by killed processes."""
    for entry in os.scandir("/dev"):
        if entry.name.startswith(os.path.basename(_DIRECTORY)):
            try:
                if entry.stat(follow_symlinks=False).st_mtime < time.time() - _STALE:
                    _remove(entry.path)
            except OSError as error:
                # Another process is removing it, too.
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                    raise


# O_NONBLOCK: otherwise, opening a removable-media drive waits for a medium (drivers/cdrom/cdrom.c).
OPEN_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


def open_node(name: str, major: int, minor: int, flags: int) -> int:
    """
    Open the device ``major:minor``, with the kernel name ``name``, through its own node or else a private
    one. Returns the descriptor, which the caller must close. OSError of the open, KernelError.
    """
    path, rdev, flags = f"/dev/{name}", os.makedev(major, minor), flags | OPEN_FLAGS | os.O_NOFOLLOW
    if is_node_of(path, rdev):
        try:
            fd = open_block(path, flags)
        except FileNotFoundError:
            # The node was removed meanwhile.
            fd = -1
        if fd >= 0:
            if os.fstat(fd).st_rdev == rdev:
                return fd
            os.close(fd)
    return _open_own(name, major, minor, flags)


def is_node_of(path: str, rdev: int) -> bool:
    """
    Whether the path itself, not the target of a link, is a node of this block device. Raises KernelError.
    """
    try:
        there = os.lstat(path)
    except OSError as error:
        if error.errno in gone.PATH:
            return False
        raise gone.not_seen(error, path) from error
    return stat.S_ISBLK(there.st_mode) and there.st_rdev == rdev


def advice(name: str, major: int, minor: int) -> str:
    """The hint for a missing or wrong node."""
    return f"Make the right node: mknod /dev/{name} b {major} {minor}"
