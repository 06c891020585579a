# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Regular files: opened without waiting and without touching anything that is no regular file; written whole or
not at all.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

open(2) of a FIFO waits for its other end; of a tape, it winds; of a watchdog, it starts the countdown. O_PATH
does none of that, and what it has found is what is opened then, through /proc.
"""

from __future__ import annotations

import os
import stat

from . import run_directory
from .errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def open_regular(path: str, option: str, flags: int = os.O_RDONLY) -> int:
    """
    The descriptor of the regular file at a path, opened with ``flags`` (O_RDONLY or O_RDWR).

    OSError when it cannot be opened, InvalidValue of ``option`` when it is no regular file.
    """
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        there = os.fstat(handle)
        mode = there.st_mode
        if not stat.S_ISREG(mode):
            raise InvalidValue(option, path, f"is a {kind_of_file(mode)}, and must be a regular file")
        # It is always empty: only then it is worth a look.
        if not there.st_size and _is_lock_file(there):
            wrong = "is the file of this collection's locks, and nothing else may open it"
            raise InvalidValue(option, path, wrong)
        return os.open(f"/proc/self/fd/{handle}", flags | _FLAGS)
    finally:
        os.close(handle)


def write_whole(path: str, text: str, temporary: str | None = None, sync: bool = False) -> None:
    """
    Put ``text`` (UTF-8) into the file at ``path``, mode 0600, in place of what is there: whole or not at all.
    OSError.

    It is written to ``temporary``, in the same directory, and renamed; what a killed run left there is
    replaced. ``sync``: the text is on the disk before the rename.
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
    By any path: all record locks of a process on a file end when it closes any descriptor of it (fcntl(2)).
    """
    try:
        own = os.lstat(run_directory.LOCK_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)


def kind_of_file(mode: int) -> str:
    """A word for what a file is, for messages."""
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
    """An absolute path that the kernel can be asked for, or InvalidValue: no NUL, no lone surrogates."""
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise InvalidValue(option, path, f"must be {allowed}")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InvalidValue(
            option, path, f"must be {allowed}, of characters that file names here can have ({error.reason})"
        ) from error
    return path
