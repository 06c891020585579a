# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Open a block device whose node in /dev is missing or is another device's: through a node of our own.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The node is made in a private directory below /dev, as other file systems that are writable early, such as
/run, are mounted nodev. It is removed as soon as it is open.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from .._base.errors import KernelError
from .device import node_advice, open_block

_DIRECTORY = "/dev/.racefree-"
# Seconds after which a directory is a killed process's: it is needed for a few microseconds.
_STALE = 60


def open_own(name, major, minor, flags):
    """
    A descriptor of the device ``major:minor``, called ``name`` by the kernel, whose own node cannot be used.

    OSError of the open itself; KernelError that names the missing node when no node can be made.
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


def make(name, major, minor):
    """
    Put a missing node in its place; whether it was missing. KernelError that names it when it cannot be made.
    """
    try:
        os.mknod(f"/dev/{name}", stat.S_IFBLK | 0o660, os.makedev(major, minor))
    except FileExistsError:
        return False
    except OSError as error:
        raise _no_node(error, name, major, minor) from error
    return True


def _no_node(error, name, major, minor):
    return KernelError(
        f"its node in /dev is missing or is another device's, and none can be made: {error.strerror}",
        device=f"/dev/{name}",
        errno=error.errno,
        hint=node_advice(name, major, minor),
    )


def _remove(directory):
    for remove, path in ((os.unlink, f"{directory}/node"), (os.rmdir, directory)):
        try:
            remove(path)
        except FileNotFoundError:
            pass


def _reap():
    """Remove what processes have left that were killed in the middle."""
    for entry in os.scandir("/dev"):
        if entry.name.startswith(os.path.basename(_DIRECTORY)):
            try:
                if entry.stat(follow_symlinks=False).st_mtime < time.time() - _STALE:
                    _remove(entry.path)
            except OSError as error:
                # Another process is at it, too.
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                    raise
