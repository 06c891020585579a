# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The name in /dev/disk/by-diskseq of a held device, for programs that get it as a path.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import stat

from .._base.errors import KernelError, NotSupported, WrongDevice
from .._block.device import Device
from . import mount_point
from .disk_name import DiskName

BY_DISKSEQ = "/dev/disk/by-diskseq"
# What is mounted there, according to /proc/self/mountinfo.
SOURCE = "racefree-by-diskseq"
_INSTALL = "Install the service with the role racefree.block.block_names"


def need() -> None:
    """Raise NotSupported unless the service is mounted. Does not ask the service, which could block."""
    if mount_point.mounted(BY_DISKSEQ) != SOURCE:
        raise NotSupported(
            "the names by disk sequence number are not mounted here",
            device=BY_DISKSEQ,
            hint=_INSTALL,
        )


def name_of(device: Device) -> str:
    """
    The path of a held device, which leads to it now. NotSupported if the service is not mounted, KernelError
    if it does not answer, WrongDevice if the name is of another device.
    """
    need()
    path = f"{BY_DISKSEQ}/{DiskName(device.id.diskseq, device.partition or 0)}"
    try:
        there = os.stat(path)
    except OSError as error:
        raise KernelError.from_oserror(
            error,
            "find its name",
            device=path,
            hint="See whether the service runs: systemctl status racefree-by-diskseq",
        ) from error
    if not stat.S_ISBLK(there.st_mode) or there.st_rdev != device.id.rdev:
        raise WrongDevice(f"this name does not lead to {device.path}, which is held open", device=path)
    return path
