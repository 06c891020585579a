# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The attributes shown for a disk's node, and the check whether a caller may open it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from .._base import gone
from .disks import Disk

_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2  # linux/capability.h
_READ, _WRITE = 4, 2


class Attributes(NamedTuple):
    """
    Attributes of a block special file: mode including its type, owner, group, and device number (dev_t).
    """

    mode: int
    uid: int
    gid: int
    rdev: int


def of_disk(disk: Disk) -> Attributes:
    """
    The attributes of the disk's own node in /dev. If that is missing or belongs to another device: mode 0600,
    root.
    """
    rdev, path = os.makedev(disk.major, disk.minor), f"/dev/{disk.name}"
    try:
        there = os.lstat(path)
    except OSError as error:
        if error.errno not in gone.PATH:
            raise gone.not_seen(error, path) from error
    else:
        if stat.S_ISBLK(there.st_mode) and there.st_rdev == rdev:
            return Attributes(there.st_mode, there.st_uid, there.st_gid, rdev)
    return Attributes(stat.S_IFBLK | 0o600, 0, 0, rdev)


def may_open(node: Attributes, uid: int, gid: int, pid: int) -> bool:
    """
    Whether the kernel might let this caller open the node, for reading or writing (fs/namei.c,
    generic_permission).

    May be True for a caller whom the kernel refuses, but never False for one whom it lets open the node, also
    by a capability. Exception: a process that is not visible in /proc gets False.
    """
    if uid == 0:
        return True
    status = _status(pid)
    if status is None:
        return False
    if uid == node.uid:
        allowed = node.mode >> 6
    elif node.gid == gid or str(node.gid) in status.get("Groups", "").split():
        allowed = node.mode >> 3
    else:
        allowed = node.mode
    if allowed & (_READ | _WRITE):
        return True
    capable = int(status.get("CapEff", "0"), 16) & (1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    return bool(capable) and _is_of_this_user_namespace(pid)


def _status(pid: int) -> dict[str, str] | None:
    """
    The fields of /proc/PID/status of the calling thread, which waits for the answer. None if it cannot be
    seen.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return dict(line.rstrip("\n").split(":", 1) for line in file if ":" in line)
    except OSError as error:
        if error.errno in gone.PATH + gone.PROC_FILE:
            return None
        raise gone.not_seen(error, f"/proc/{pid}/status") from error


def _is_of_this_user_namespace(pid: int) -> bool:
    """
    Whether capabilities of the process apply to files of the host. In its own user namespace, any user has
    all capabilities. Such a namespace has another uid_map: it maps one user, not all.
    """
    maps = []
    for process in (str(pid), "self"):
        try:
            with open(f"/proc/{process}/uid_map", encoding="ascii") as file:
                maps.append(file.read().split())
        except OSError as error:
            if error.errno in gone.PATH + gone.PROC_FILE:
                return False
            raise gone.not_seen(error, f"/proc/{process}/uid_map") from error
    return maps[0] == maps[1]
