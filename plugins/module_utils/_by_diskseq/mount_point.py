# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The place where a file system of this room is mounted: one service for each, and nothing left of a killed one.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os

from .._base.errors import DeviceBusy, KernelError, NotSupported, WrongDevice

_MOUNTINFO = "/proc/self/mountinfo"
_FUSE = "/dev/fuse"
_MNT_FORCE, _MNT_DETACH = 1, 2  # umount(2)
# As many mounts as are taken off one place: those of services that were killed.
_MOST_DEAD = 100


def lock(path: str) -> int:
    """
    The descriptor of the lock that a running service has; DeviceBusy when another process has it,
    KernelError.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise KernelError.from_oserror(error, f"open {path}", device=path) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise DeviceBusy(
            "the service runs already",
            device=path,
            hint="Stop that one first, or give this one another --mount and --state",
        ) from error
    return fd


def prepare(path: str, source: str) -> None:
    """
    Have an empty directory there to mount on, without what killed services of the same ``source`` have left.

    For who has the lock. WrongDevice when something else is mounted there; NotSupported without FUSE;
    KernelError.
    """
    if not path.startswith("/") or os.path.normpath(path) != path:
        raise WrongDevice("must be an absolute path without . and ..", device=path, hint="Correct --mount")
    _need_fuse()
    _clear(path, source)
    try:
        os.makedirs(path, 0o755, exist_ok=True)
    except OSError as error:
        raise KernelError.from_oserror(error, "make the directory", device=path) from error
    _empty(path)


def _empty(path: str) -> None:
    """
    Take away links of udev's that were made there before: under the mount they would get old, and lead to
    other devices when it ends. WrongDevice when there is anything else.
    """
    try:
        with os.scandir(path) as entries:
            found = [(entry.path, entry.is_symlink()) for entry in entries]
        for inside, is_link in found:
            if not is_link:
                raise WrongDevice("is not empty", device=path, hint=f"Remove what is in it: {inside}")
        for inside, dummy in found:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(inside)
    except OSError as error:
        raise KernelError.from_oserror(error, "empty the directory", device=path) from error


def _need_fuse() -> None:
    try:
        os.close(os.open(_FUSE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise NotSupported(
                "FUSE is not there", device=_FUSE, errno=error.errno, hint="Load its module: modprobe fuse"
            ) from error
        raise KernelError.from_oserror(error, f"open {_FUSE}", device=_FUSE) from error


def _clear(path: str, source: str) -> None:
    for dummy in range(_MOST_DEAD):
        found = mounted(path)
        if found is None:
            return
        if found != source:
            raise WrongDevice(
                f"something else is mounted here: {found}", device=path, hint=f"Unmount it: umount {path}"
            )
        unmount(path)
    raise KernelError(f"{_MOST_DEAD} mounts were taken off it, and there are more", device=path)


def mounted(path: str) -> str | None:
    """
    The source of what is mounted there, topmost; None when nothing is. The file system itself is not asked.
    """
    found = None
    try:
        with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, dummy, after = line.partition(" - ")
                if before.split(" ")[4].replace("\\040", " ") == path:
                    found = after.split(" ")[1]
    except OSError as error:
        raise KernelError.from_oserror(error, "read what is mounted", device=_MOUNTINFO) from error
    return found


def unmount(path: str) -> None:
    """Take the topmost mount off, in use or not: requests that wait there get ENOTCONN."""
    # Force ends the connection, where a process is left that cannot end; then the place is given up.
    for flags in (_MNT_FORCE, _MNT_DETACH):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(path), flags) == 0:
            return
        number = ctypes.get_errno()
        if flags == _MNT_DETACH:
            error = OSError(number, os.strerror(number))
            raise KernelError.from_oserror(error, "unmount it", device=path)
