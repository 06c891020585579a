# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Open regular files without blocking and without touching other file types, and write files atomically.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Opening a file can have side effects: open(2) waits for the other end of a FIFO, winds a tape, and starts a
watchdog's countdown. O_PATH has none, and the file that it found is then opened through /proc.
"""

from __future__ import annotations

import os
import stat

from . import run_directory
from .errors import InvalidValue, one_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def open_regular(path: str, option: str, flags: int = os.O_RDONLY, follow_symlinks: bool = True) -> int:
    """
    Open the regular file at a path with ``flags`` (O_RDONLY or O_RDWR); the file descriptor.

    Raises OSError if it cannot be opened, and InvalidValue for ``option`` if it is not a regular file. The
    path itself may be a symbolic link only with ``follow_symlinks``.
    """
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow_symlinks else os.O_NOFOLLOW))
    try:
        there = os.fstat(handle)
        mode = there.st_mode
        if not stat.S_ISREG(mode):
            raise InvalidValue(option, path, f"is a {kind_of_file(mode)}, and must be a regular file")
        # The lock file is always empty, so other files need no check.
        if not there.st_size and _is_lock_file(there):
            wrong = "is the lock file of this collection, which nothing else may open"
            raise InvalidValue(option, path, wrong)
        return os.open(f"/proc/self/fd/{handle}", flags | _FLAGS)
    finally:
        os.close(handle)


def write_whole(path: str, text: str, temporary: str | None = None, sync: bool = False) -> None:
    """
    Atomically replace the file at ``path`` with ``text`` (UTF-8), mode 0600. Raises OSError.

    The text is written to ``temporary``, in the same directory, which is then renamed. A temporary file of a
    killed run is replaced. With ``sync``, the text is flushed to disk before the rename.
    """
    temporary = temporary or f"{path}.new"
    handle = _create(temporary)
    try:
        try:
            data = text.encode("utf-8", "surrogateescape")
            while data:
                data = data[os.write(handle, data) :]
            if sync:
                os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def _create(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        _remove(path)
        return os.open(path, flags, 0o600)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _is_lock_file(there: os.stat_result) -> bool:
    """
    Whether this is the collection's lock file, by whatever path. When a process closes any file descriptor of
    a file, it loses all its record locks on that file (fcntl(2)).
    """
    try:
        own = os.lstat(run_directory.LOCK_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)


def kind_of_file(mode: int) -> str:
    """The name of the file type, for messages."""
    for test, name in (
        (stat.S_ISREG, "regular file"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISCHR, "character device"),
        (stat.S_ISFIFO, "FIFO"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISLNK, "symbolic link"),
        (stat.S_ISBLK, "block device"),
    ):
        if test(mode):
            return name
    return "file of an unknown kind"


def check_path(path: Any, option: str, allowed: str = "an absolute path") -> str:
    """
    Return a valid absolute path unchanged. Raises InvalidValue for a relative path, a NUL or characters that
    cannot be encoded.
    """
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise InvalidValue(option, one_value(path), f"must be {allowed}")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InvalidValue(
            option,
            path,
            f"must be {allowed}, in characters that file names on this host can have ({error.reason})",
        ) from error
    return path
