# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Read a file that decides which of the host's disks are used. Whoever can change it can choose them, so a file
that anybody but root can change or redirect is refused.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import errno
import os
import stat

from .._base.errors import DefinitionError
from .._base.files import kind_of_file
from . import trusted_path


def read(path: str, most_bytes: int, hint: str) -> str:
    """
    The text of the file. DefinitionError with ``hint`` (what to do) if somebody other than root can change
    it, or if it is longer than ``most_bytes``; OSError.
    """
    place = trusted_path.weak_place(path)
    if place is not None:
        raise _refused(path, f"somebody other than root can replace it, through {place}", hint)
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        there = os.fstat(handle)
        if not stat.S_ISREG(there.st_mode):
            raise _refused(path, f"it is a {kind_of_file(there.st_mode)}, and must be a regular file", hint)
        if there.st_uid not in (0, os.geteuid()):
            raise _refused(path, f"it belongs to the user {there.st_uid}, who can change it", hint)
        if there.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            mode = f"{stat.S_IMODE(there.st_mode):04o}"
            raise _refused(path, f"others can change it: its mode is {mode}, and must be 0600", hint)
        if there.st_size > most_bytes:
            raise _refused(path, f"it has {there.st_size} bytes, more than {most_bytes}", hint)
        with open(f"/proc/self/fd/{handle}", encoding="utf-8", errors="surrogateescape") as file:
            return file.read(most_bytes)
    finally:
        os.close(handle)


def _refused(path: str, wrong: str, hint: str) -> DefinitionError:
    return DefinitionError(wrong, device=path, errno=errno.EPERM, hint=hint)
