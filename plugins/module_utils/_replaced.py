# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Loop devices over a file that had this path before: it was deleted, or another one was renamed over it, as
Ansible's copy and template do.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Such a device goes on with the old file, which nothing leads to any more. A path is no proof, so it is only
ever named, never touched.
"""

from __future__ import annotations

import os

from ._errors import KernelError, WrongDevice
from ._new_loop import is_going

# What the kernel puts behind the path of a file that has none any more (d_path in fs/d_path.c). A file can
# really be called so.
_DELETED = " (deleted)"


def refuse(path, file, area, loops, with_going=True):
    """
    Raise WrongDevice when a loop device over a part of ``area`` (``_new_loop.Area``) has another file that
    this path led to.

    ``file``: ``(st_dev, st_ino)`` of what is there now, None for nothing; ``loops``: a ``_loop.LoopIndex``;
    ``with_going``: whether that is said of devices too that go by themselves (``_new_loop.is_going``).
    """
    real = os.path.realpath(path)
    found = loops.named((real, real + _DELETED))
    try:
        for device, status in found:
            has = status.backing_device, status.backing_inode
            if has == file or not area.meets(status) or has == _identity_of(real + _DELETED):
                continue
            if with_going or not is_going(device, status):
                what = "deleted" if file is None else "replaced by another one"
                raise WrongDevice(
                    f"the file was {what} while it was bound to {device.path} (diskseq {device.id.diskseq}), "
                    "which still has the old one", device=path,
                    hint=f"To remove that device, say diskseq={device.id.diskseq} and state=absent without "
                    "backing_file",
                )
    finally:
        for device, dummy in found:
            device.close()


def _identity_of(path):
    try:
        there = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise KernelError.from_oserror(error, f"look at {path}", device=path) from error
    return there.st_dev, there.st_ino
