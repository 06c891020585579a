# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Detect loop devices bound to a file that had this path before it was deleted or replaced. Ansible's copy and
template replace files.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Such a device keeps using the old file, which has no path any more. A path proves nothing, so such devices are
only reported, and never changed.

sysfs shows the path of a file in the mount namespace where it was opened, and ignores later mounts on top of
it. So a device with this path can belong to a container, to a service with a private /tmp, or to a file below
a mount. Only a deleted file counts as the earlier file, and only on the file system that the path leads to
now: rename(2) and unlink(2) both leave the old file on its file system, without a path. (In another mount
namespace, a directory of the same file system can have this path. A file there also counts as the earlier one
once it is deleted.)
"""

from __future__ import annotations

import os

from .._base.errors import KernelError, WrongDevice
from . import loop
from .new_loop import is_going

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable

    from .device import Device
    from .loop_index import LoopIndex
    from .new_loop import Area


# The kernel appends this to the path of a deleted file (d_path in fs/d_path.c). A file name can also end in
# it.
_DELETED = " (deleted)"


def refuse(
    path: str,
    file: tuple[int, int] | None,
    area: Area,
    loops: LoopIndex,
    warn: Callable[[str], None],
    with_going: bool = True,
) -> None:
    """
    Raise WrongDevice if a loop device for a part of ``area`` (``_block.new_loop.Area``) has another file that
    was at this path before. Call ``warn(text)`` for a device whose file may only have the same path.

    ``file``: ``(st_dev, st_ino)`` of the current file, None if there is none. ``with_going``: whether devices
    that are about to be detached (``_block.new_loop.is_going``) count too. Raises KernelError.
    """
    real = loops.real(path)
    found = loops.named((real, real + _DELETED))
    try:
        for device, status in found:
            has = status.backing_device, status.backing_inode
            if has == file or not area.meets(status) or has == _identity_of(real + _DELETED):
                continue
            if not with_going and is_going(device, status):
                continue
            if not _was_here(device, status, real, file):
                warn(
                    f"{path}: {device.path} (diskseq {device.id.diskseq}) uses another file of the same "
                    "path, which is in another mount namespace or hidden by a mount; the "
                    "device was left unchanged"
                )
                continue
            raise _replaced(path, file, device)
    finally:
        for device, dummy in found:
            device.close()


def _was_here(device: Device, status: loop.LoopInfo, real: str, file: tuple[int, int] | None) -> bool:
    """Whether the device's file was at the path ``real``, as far as this can be known."""
    if loop.backing_path(device) != real + _DELETED:
        return False
    # On overlayfs, a file can have another st_dev than its directory.
    return status.backing_device in (
        _file_system_of(os.path.dirname(real)),
        None if file is None else file[0],
    )


def _replaced(path: str, file: tuple[int, int] | None, device: Device) -> WrongDevice:
    what = "deleted" if file is None else "replaced by another one"
    return WrongDevice(
        f"the file was {what} while it was bound to {device.path} (diskseq {device.id.diskseq}), "
        "which still uses the old file",
        device=path,
        hint=f"To remove that device, set diskseq={device.id.diskseq} and state=absent without backing_file",
    )


def _file_system_of(directory: str) -> int:
    """The st_dev of the directory, or of the nearest existing directory above it."""
    found = _identity_of(directory)
    while found is None:
        directory = os.path.dirname(directory)
        found = _identity_of(directory)
    return found[0]


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        there = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise KernelError.from_oserror(error, f"look at {path}", device=path) from error
    return there.st_dev, there.st_ino
