# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The file system that a path is on, found by comparing texts: the file system itself is not accessed, because
it may not respond.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os

from .._base.errors import KernelError

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Collection


_MOUNTINFO = "/proc/self/mountinfo"
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def read() -> list[tuple[str, int]]:
    """
    ``[(mount point, st_dev)]`` of this process's mounts; later entries cover earlier ones
    (proc_pid_mountinfo(5)). Raises KernelError.
    """
    try:
        with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split(" ", 5) for line in file]
    except OSError as error:
        raise KernelError.from_oserror(error, "read what is mounted", device=_MOUNTINFO) from error
    return [(_unescaped(fields[4]), os.makedev(*map(int, fields[2].split(":")))) for fields in lines]


def is_elsewhere(path: str, devices: Collection[int], mounts: list[tuple[str, int]]) -> bool:
    """
    Whether the path, as the kernel reports it for an open file, is on none of the file systems ``devices``
    (st_dev).

    False if this cannot be known: for a file system whose files have another st_dev than its mounts (btrfs),
    and for a path that this process cannot reach.
    """
    if not path.startswith("/") or not set(devices) <= {device for dummy, device in mounts}:
        return False
    found, length = None, -1
    for point, device in mounts:
        if len(point) >= length and (point == "/" or path == point or path.startswith(point + "/")):
            found, length = device, len(point)
    return found is not None and found not in devices


def _unescaped(text: str) -> str:
    if "\\" in text:
        for escape, letter in _ESCAPES:
            text = text.replace(escape, letter)
    return text
