# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Read the configuration of an xl guest from its file, and replace the file atomically.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The new file is complete before it gets the name of the old one, and has the same owner, mode and extended
attributes. If the old one was changed since it was read, it stays. The caller holds the lock of the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
from typing import NamedTuple

from .._base import locks
from .._base.errors import DeviceBusy, InvalidValue, KernelError
from .._base.files import open_regular
from .config import MOST_BYTES

DIRECTORY = "/etc/xen"
# A file system without extended attributes.
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.EOPNOTSUPP)
_HINT = "Run the task again"


class ConfigFile(NamedTuple):
    """``path``: of the file itself, with links resolved. ``there``: its status when ``text`` was read."""

    path: str
    text: bytes
    there: os.stat_result


def path_of(domain: str) -> str:
    """Where the configuration of a guest is by convention, see xl.cfg(5)."""
    return f"{DIRECTORY}/{domain}.cfg"


def lock_of(path: str) -> list[locks.Lock]:
    """
    A list with the lock of the file, whatever path leads to it; empty if its directory does not exist.
    KernelError if that cannot be determined. The file itself gets another inode when it is replaced, so the
    lock is that of its name in its directory.
    """
    return locks.of_name("xl", os.path.realpath(path), f"the configuration {path}")


def read(path: str, option: str) -> ConfigFile:
    """Read the file. KernelError if that fails, InvalidValue for ``option`` if it is no regular file."""
    real = os.path.realpath(path)
    try:
        handle = open_regular(real, option)
        try:
            there = os.fstat(handle)
            text = _read_all(handle)
        finally:
            os.close(handle)
    except OSError as error:
        hint = "Create the guest's configuration first, or say where it is with config_file"
        raise KernelError.from_oserror(
            error,
            f"read the configuration {path}",
            device=path,
            hint=hint if error.errno == errno.ENOENT else None,
        ) from error
    if there.st_nlink > 1:
        wrong = "has several hard links: replacing it would leave the others as they are. Use symbolic links"
        raise InvalidValue(option, path, wrong)
    return ConfigFile(real, text, there)


def write(old: ConfigFile, text: bytes, option: str) -> ConfigFile:
    """
    Replace the file, and return it as it is now. DeviceBusy if it was changed since it was read; KernelError.
    """
    temporary = _temporary(old.path)
    try:
        _remove_left_over(old.path)
        _create(temporary, old, text)
        try:
            _check_unchanged(old, option)
            os.rename(temporary, old.path)
        except BaseException:
            os.unlink(temporary)
            raise
        _sync(os.path.dirname(old.path))
    except OSError as error:
        raise KernelError.from_oserror(error, "write the configuration", device=old.path) from error
    now = read(old.path, option)
    if now.text != text:
        raise DeviceBusy("somebody changed the configuration again at once", device=old.path, hint=_HINT)
    return now


def _read_all(handle: int) -> bytes:
    # One byte more than allowed, so that the configuration is refused for its size.
    parts, left = [], MOST_BYTES + 1
    while left:
        part = os.read(handle, left)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _check_unchanged(old: ConfigFile, option: str) -> None:
    now = read(old.path, option)
    same = (now.there.st_dev, now.there.st_ino) == (old.there.st_dev, old.there.st_ino)
    if not same or now.text != old.text:
        raise DeviceBusy("somebody changed the configuration meanwhile", device=old.path, hint=_HINT)


def _temporary(path: str) -> str:
    """A name that xendomains, which starts what is in /etc/xen/auto, does not see: one with a dot first."""
    directory, dummy, name = path.rpartition("/")
    return f"{directory}/.{name}.racefree-{os.getpid()}-{random.getrandbits(32):08x}"


def _remove_left_over(path: str) -> None:
    """Remove what killed runs have left: nobody else writes this file now."""
    directory, dummy, name = path.rpartition("/")
    for other in os.listdir(directory or "/"):
        if other.startswith(f".{name}.racefree-"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{directory}/{other}")


def _create(path: str, old: ConfigFile, text: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            os.fchown(handle, old.there.st_uid, old.there.st_gid)
            while text:
                text = text[os.write(handle, text) :]
            _copy_attributes(old.path, handle)
            os.fchmod(handle, stat.S_IMODE(old.there.st_mode))
            os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException:
        os.unlink(path)
        raise


def _copy_attributes(path: str, handle: int) -> None:
    """Copy the extended attributes, such as ACLs and labels of security modules."""
    try:
        names = os.listxattr(path)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return
        raise
    for name in names:
        value = os.getxattr(path, name)
        # Setting a label that the new file has already may be forbidden.
        if name not in os.listxattr(handle) or os.getxattr(handle, name) != value:
            os.setxattr(handle, name, value)


def _sync(directory: str) -> None:
    handle = os.open(directory or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
