# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
/dev as udev makes it, without anything that is mounted below it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A service whose own file system is mounted below /dev must never look at that file system: its only thread
would wait for its own answer. It must not wait for the services of other file systems there either. So it
uses a copy of the mount of /dev (open_tree(2), Linux 5.2) that nothing is mounted on, and follows no links.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .._base import gone
from .._base.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# Numbers of system calls, the same on all architectures with systemd (include/uapi/asm-generic/unistd.h).
_OPEN_TREE, _MOUNT_SETATTR = 428, 442
_AT_FDCWD, _AT_EMPTY_PATH, _OPEN_TREE_CLONE = -100, 0x1000, 1
# struct mount_attr of linux/mount.h: set, clear, propagation, user namespace.
_MOUNT_ATTR = struct.Struct("=QQQQ")
_MS_PRIVATE = 1 << 18
_INSIDE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Of the name of something that is no directory, for open(2) with these flags.
_NO_DIRECTORY = (*gone.PATH, errno.ELOOP)


class DevTree:
    """
    A context manager. Paths are relative to ``root``, without a leading slash, and ``""`` is the root itself.
    A symbolic link on the way leads nowhere.
    """

    def __init__(self, root: str = "/dev") -> None:
        self.root = root
        self._fd = _copy_of(root)

    def __enter__(self) -> DevTree:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def is_directory(self, path: str) -> bool:
        """Whether this is a directory. Raises KernelError if that cannot be seen."""
        fd = self._directory(path)
        if fd is None:
            return False
        os.close(fd)
        return True

    def target(self, path: str) -> str | None:
        """The text of the symbolic link, or None if there is no such link. Raises KernelError."""
        parent, dummy, name = path.rpartition("/")
        fd = self._directory(parent)
        if fd is None or not name:
            return None
        try:
            return os.readlink(name, dir_fd=fd)
        except OSError as error:
            if error.errno in (*gone.PATH, errno.EINVAL):
                return None
            raise gone.not_seen(error, f"{self.root}/{path}") from error
        finally:
            os.close(fd)

    def listed(self, path: str) -> tuple[list[str], list[str]]:
        """
        The names of the directories and of the symbolic links in a directory, sorted; nothing if there is no
        such directory. Raises KernelError.
        """
        directories, links = [], []
        fd = self._directory(path)
        if fd is None:
            return [], []
        try:
            inside = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            try:
                with os.scandir(inside) as entries:
                    for entry in entries:
                        if entry.is_symlink():
                            links.append(entry.name)
                        elif entry.is_dir(follow_symlinks=False):
                            directories.append(entry.name)
            finally:
                os.close(inside)
        except OSError as error:
            if error.errno in gone.PATH:
                return [], []
            raise gone.not_seen(error, f"{self.root}/{path}") from error
        finally:
            os.close(fd)
        return sorted(directories), sorted(links)

    def _directory(self, path: str) -> int | None:
        """A descriptor (O_PATH) of the directory, to be closed by the caller; None if there is none."""
        fd = os.dup(self._fd)
        for name in filter(None, path.split("/")):
            try:
                inside = os.open(name, _INSIDE, dir_fd=fd)
            except OSError as error:
                if error.errno in _NO_DIRECTORY:
                    return None
                raise gone.not_seen(error, f"{self.root}/{path}") from error
            finally:
                os.close(fd)
            fd = inside
        return fd


def _copy_of(root: str) -> int:
    """
    A descriptor of a copy of the mount, from that directory on. Nothing is mounted on it, now or later: it is
    private. Raises KernelError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(root), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    if fd == -1:
        raise _error("copy the mount", root)
    private = _MOUNT_ATTR.pack(0, 0, _MS_PRIVATE, 0)
    if libc.syscall(_MOUNT_SETATTR, fd, b"", _AT_EMPTY_PATH, private, len(private)) == -1:
        error = _error("make the copy of the mount private", root)
        os.close(fd)
        raise error
    return int(fd)


def _error(what: str, root: str) -> KernelError:
    number = ctypes.get_errno()
    return KernelError.from_oserror(OSError(number, os.strerror(number)), what, device=root)
