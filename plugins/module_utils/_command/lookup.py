# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Find the program of a command before anything is done.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import errno
import os
import stat

from .._base import gone
from .._base.errors import BlockError, InvalidValue

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Mapping

# Most tools for disks are here, and the PATH of a login by ssh often is without these directories.
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_DEFAULT = "/usr/local/bin:/usr/bin:/bin"


class NoProgram(BlockError):
    """The program of a command is not installed, or is not a file that can be executed."""

    ERRNO = errno.ENOENT
    HINT = "Install it, or give its path"


def environment_of(given: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with the ``given`` variables, and a PATH with the directories of tools."""
    found = dict(os.environ, **given)
    if "PATH" not in given:
        there = found.get("PATH", _DEFAULT).split(":")
        found["PATH"] = ":".join([*there, *(place for place in _SYSTEM if place not in there)])
    return found


def find_program(word: str, path: str, directory: str | None = None) -> str:
    """
    The path of the program of a command: ``word`` with a slash is a path, relative to ``directory``; others
    are looked for in ``path`` (the variable PATH). NoProgram with ENOENT or EACCES, KernelError.
    """
    if "/" in word:
        places = [os.path.join(directory or ".", word)]
    else:
        places = [os.path.join(place or ".", word) for place in path.split(":")]
    is_there = False
    for place in places:
        mode = _mode_of(place)
        if mode is None:
            continue
        is_there = True
        if stat.S_ISREG(mode) and mode & 0o111:
            return os.path.abspath(place)
    if is_there:
        raise NoProgram("it cannot be executed", device=word, errno=errno.EACCES)
    if "/" in word:
        raise NoProgram("there is no such file", device=word, errno=errno.ENOENT)
    raise NoProgram(f"it is not installed in any directory of PATH ({path})", device=word, errno=errno.ENOENT)


def need_directory(path: str, option: str) -> None:
    """InvalidValue unless the path is a directory."""
    mode = _mode_of(path)
    if mode is None or not stat.S_ISDIR(mode):
        raise InvalidValue(option, path, "is not a directory")


def _mode_of(path: str) -> int | None:
    """The file's type and mode, or None if there is none, or none that this process can reach."""
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if error.errno in (*gone.PATH, errno.EACCES):
            return None
        raise gone.not_seen(error, path) from error
