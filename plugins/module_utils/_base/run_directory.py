# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Directories below /run for what runs of the collection tell each other.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

mkdir(2) takes the umask off the mode: with umask 0 everybody could exchange the files, with umask 0777 the
caller could not write them.
"""

from __future__ import annotations

import errno
import os

from .errors import KernelError, WrongDevice, hint_of

ROOT = "/run/racefree-block"
# Where the file is that has all locks (``_base.locks``): whoever closes it loses those of the process.
LOCK_FILE = f"{ROOT}/locks/bytes"
_PARENT, _LEAF = 0o755, 0o700


def make(path: str) -> None:
    """
    Have the directory, with mode 0700, and those on the way to it that are missing, with 0755, whatever the
    umask is.

    One that is there already gets that mode too if it is below ROOT, or the last one. WrongDevice when it is
    a symbolic link, no directory, or another user's; KernelError.
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
        # Linux says so of a symbolic link, too.
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
