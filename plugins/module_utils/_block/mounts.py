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


# Types of file systems with servers, which can end or not be reached. Their files have the st_dev of the
# mount.
_SERVED = ("9p", "ceph", "cifs", "fuse", "fuseblk", "nfs", "nfs4", "smb3")


def read() -> list[tuple[str, int, str]]:
    """
    ``[(mount point, st_dev, type)]`` of this process's mounts; later entries cover earlier ones
    (proc_pid_mountinfo(5)). Raises KernelError.
    """
    try:
        with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split(" ", 5) for line in file]
    except OSError as error:
        raise KernelError.from_oserror(error, "read what is mounted", device=_MOUNTINFO) from error
    return [
        (
            _unescaped(fields[4]),
            os.makedev(*map(int, fields[2].split(":"))),
            fields[5].partition(" - ")[2].partition(" ")[0],
        )
        for fields in lines
    ]


def is_elsewhere(path: str, devices: Collection[int], mounts: list[tuple[str, int, str]]) -> bool:
    """
    Whether the path, as the kernel reports it for an open file, is on none of the file systems ``devices``
    (st_dev).

    False if this cannot be known: for a file system whose files have another st_dev than its mounts (btrfs),
    and for a path that this process cannot reach.
    """
    if not path.startswith("/"):
        return False
    found, kind, length = None, "", -1
    for point, device, its_kind in mounts:
        if len(point) >= length and (point == "/" or path == point or path.startswith(point + "/")):
            found, kind, length = device, its_kind, len(point)
    if found is None or found in devices:
        return False
    if _is_served(kind):
        return True
    return set(devices) <= {device for dummy, device, dummy2 in mounts}


def servers_at(path: str, mounts: list[tuple[str, int, str]]) -> tuple[int, ...]:
    """
    The st_dev of each file system with a server that has the path, as the kernel reports it for an open file,
    or had it before something was mounted over it. Empty if there is none.

    The root does not count: the kernel reports the path of a file on a mount that was taken away (umount
    --lazy) as if that mount were the root.
    """
    return tuple(
        sorted(
            {
                device
                for point, device, kind in mounts
                if point != "/" and path.startswith(point + "/") and _is_served(kind)
            }
        )
    )


def _is_served(kind: str) -> bool:
    return kind in _SERVED or kind.startswith("fuse.")


def _unescaped(text: str) -> str:
    if "\\" in text:
        for escape, letter in _ESCAPES:
            text = text.replace(escape, letter)
    return text
