# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Directories in /run that runs of the collection share.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

mkdir(2) applies the umask to the mode, so the mode is set explicitly: with umask 0 any user could replace the
files, and with umask 0777 the caller could not create them.
"""

from __future__ import annotations

import errno
import os

from .errors import KernelError, WrongDevice, hint_of

ROOT = "/run/racefree-block"
# The file that contains all locks (``_base.locks``). A process that closes it loses its locks.
LOCK_FILE = f"{ROOT}/locks/bytes"
_PARENT, _LEAF = 0o755, 0o700


def make(path: str) -> None:
    """
    Create the directory with mode 0700 and missing parents with mode 0755, regardless of the umask.

    An existing ``path`` also gets its mode and, if it is below ROOT, so does its parent. Raises WrongDevice
    if one of them is a symbolic link, not a directory, or belongs to another user; KernelError otherwise.
    """
    _make(path, _LEAF)


def _make(path: str, mode: int) -> None:
    try:
        try:
            os.mkdir(path, 0o700)
        except FileNotFoundError:
            _make(os.path.dirname(path), _PARENT)
            os.mkdir(path, 0o700)
    except FileExistsError:
        if mode == _LEAF and path.startswith(ROOT + "/"):
            _make(os.path.dirname(path), _PARENT)
    except OSError as error:
        raise KernelError.from_oserror(error, "make the directory", device=path) from error
    _set_mode(path, mode)


def _set_mode(path: str, mode: int) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError as error:
        # Linux returns ENOTDIR for a symbolic link, too.
        raise WrongDevice(
            "this is not a directory",
            device=path,
            errno=error.errno,
            hint="Remove it, and find out who made it",
        ) from error
    except OSError as error:
        raise KernelError.from_oserror(error, "open the directory", device=path) from error
    try:
        there = os.fstat(handle)
        if there.st_uid == 0 and os.geteuid():
            raise KernelError(
                "only root may use this directory",
                device=path,
                errno=errno.EACCES,
                hint=hint_of(errno.EACCES),
            )
        if there.st_uid != os.geteuid():
            raise WrongDevice(
                f"this directory belongs to the user {there.st_uid}",
                device=path,
                hint="Remove it, and find out who made it",
            )
        if there.st_mode & 0o7777 != mode:
            os.fchmod(handle, mode)
    except OSError as error:
        raise KernelError.from_oserror(error, "set the mode of the directory", device=path) from error
    finally:
        os.close(handle)
