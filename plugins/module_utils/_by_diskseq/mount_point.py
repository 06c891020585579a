# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The mount point of a file system of this package: one service at a time, and cleanup after a killed one.

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
# The most mounts of killed services that are removed from one mount point.
_MOST_DEAD = 100


def lock(path: str) -> int:
    """
    Take the lock that a running service holds, and return its descriptor. DeviceBusy if another process has
    it. Raises KernelError.
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
            "the service is already running",
            device=path,
            hint="Stop that one first, or give this one another --mount and --state",
        ) from error
    return fd


def prepare(path: str, source: str) -> None:
    """
    Make an empty directory to mount on, and unmount what killed services with the same ``source`` left there.

    The caller holds the lock. WrongDevice if ``path`` is not normalized, something else is mounted there or
    the directory is not empty; NotSupported without FUSE; KernelError.
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
    Remove udev's links from the directory. Under the mount they would become stale, and lead to other devices
    once it is unmounted. WrongDevice if the directory contains anything else.
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
                "FUSE is not available",
                device=_FUSE,
                errno=error.errno,
                hint="Load its module: modprobe fuse",
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
    raise KernelError(f"{_MOST_DEAD} dead mounts were removed from it, and there are more", device=path)


def mounted(path: str) -> str | None:
    """
    The source of the topmost mount at the path, or None. Does not access the file system itself, which could
    block.
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
    """Remove the topmost mount, even if it is in use. Pending requests fail with ENOTCONN."""
    # MNT_FORCE aborts the FUSE connection, even if its process hangs. If that fails, MNT_DETACH frees the
    # mount point.
    for flags in (_MNT_FORCE, _MNT_DETACH):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(path), flags) == 0:
            return
        number = ctypes.get_errno()
        if flags == _MNT_DETACH:
            error = OSError(number, os.strerror(number))
            raise KernelError.from_oserror(error, "unmount it", device=path)
