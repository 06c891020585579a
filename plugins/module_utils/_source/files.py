# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Sources that are files: the open backing file, and the loop device bound to it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import time

from .._base import locks
from .._base.errors import WrongDevice
from .._block import backing as _backing
from .._block import bind, loop, new_loop, replaced, trusted_path
from . import area, spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .._base.deadline import Deadline
    from .._block.device import Device
    from .resources import Resources
    from .spec import Source


def size_to_be(source: Source, device: Device) -> int:
    """
    The size in bytes that the device found for a source will have. A loop device without a size limit follows
    its file, which may have grown.
    """
    if not isinstance(source, spec.FileSource) or source.size or source.partition:
        return device.size
    with backing_of(source, read_only=True) as backing:
        return max(device.size, (backing.size - source.offset) // 512 * 512)


def follow(source: Source, device: Device) -> bool:
    """Grow the device found for a source to :func:`size_to_be`. Returns whether it has grown."""
    grows = size_to_be(source, device) > device.size
    if grows:
        loop.set_capacity(device)
    return grows


def backing_of(
    source: spec.FileSource, read_only: bool | None = None, option: str = "source.file"
) -> _backing.Backing:
    """
    Open the file of a FileSource (a ``_block.backing.Backing``). WrongDevice if its modification time is not
    the one that the source requires; InvalidValue and KernelError if it cannot be opened.
    """
    backing = _backing.Backing(
        source.file, source.read_only if read_only is None else read_only, option=option
    )
    if source.mtime_ns not in (None, backing.mtime_ns):
        backing.close()
        raise WrongDevice(
            f"it was changed at {_time_of(backing.mtime_ns)}, "
            f"but must be unchanged since {_time_of(source.mtime_ns)}",
            device=source.file,
            hint="A snapshot's store over a changed image shows a mixture of both. Restore the image. "
            "If only its time differs, the role guest_disks detects that by its checksum",
        )
    return backing


def _time_of(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{rest:09} UTC"


def find(source: spec.FileSource, resources: Resources) -> Device | None:
    """
    The loop device of a FileSource, held, or None if none exists yet and one may be created. Raises what
    :func:`check_new` raises.
    """
    trusted_path.check(source.file, source.trusted_path, resources.warn, "source.file")
    with backing_of(source) as backing:
        source = area.of_source(source, backing)
        chosen = None
        for device, status in resources.loops.find(backing, source.offset, source.size):
            if chosen is None and fits(source, device, status):
                chosen = device
            else:
                device.close()
        try:
            if chosen is None:
                check_new(source, backing, resources)
            else:
                _check_found(source, backing, chosen)
        except BaseException:
            if chosen is not None:
                chosen.close()
            raise
        return chosen


def find_or_make(
    source: spec.FileSource, resources: Resources, limit: Deadline | None = None
) -> tuple[Device, bool]:
    """
    ``(device, whether it is new)``: the loop device of a FileSource, held by the resources. A new one goes
    with its last user. ``limit``: how long to wait for other runs. Raises what :func:`find` and
    ``_block.bind.attach`` raise.
    """
    with backing_of(source) as backing:
        lock = locks.of_inode(backing.device, backing.inode, source.file)
        if not resources.locks.has(lock):
            # Somebody may have made it before the lock was free.
            resources.locks.take([lock], limit)
            resources.loops.forget()
            device = find(source, resources)
            if device is not None:
                return resources.enter_context(device), False
        source = area.of_source(source, backing)
        check_new(source, backing, resources)
        device = bind.attach(
            backing,
            source.offset,
            source.size,
            source.sector_size,
            source.read_only,
            source.direct_io,
        )
    resources.enter_context(device)
    resources.loops.add(device, loop.info(device))
    return device, True


def check_new(
    source: spec.FileSource, backing: _backing.Backing, resources: Resources, option: str = "source.file"
) -> None:
    """
    Raise InvalidValue, DeviceBusy or WrongDevice if no loop device can, or may, be created for the open file
    of a FileSource (:func:`backing_of`).
    """
    source = area.of_source(source, backing)
    part = new_loop.Area(source.offset, source.size, not source.read_only)
    if not resources.for_guests:
        file = backing.device, backing.inode
        replaced.refuse(source.file, file, part, resources.loops, resources.warn, with_going=False)
    new_loop.check(backing, part, source, resources.loops, resources.for_guests, option)
    _backing.check_geometry(backing, source.offset, source.size, source.sector_size)


def _check_found(source: spec.FileSource, backing: _backing.Backing, device: Device) -> None:
    _backing.check_geometry(backing, source.offset, source.size, source.sector_size)
    left = (backing.size - source.offset) // device.logical_block * device.logical_block
    if not source.size and left < device.size:
        raise _backing.cut(
            device, device.size, left, "give the device its new size (loop_device with allow_shrink=true)"
        )


def fits(source: spec.FileSource, device: Device, status: loop.LoopInfo) -> bool:
    """Whether an existing loop device over the source's file has the settings of the source."""
    return (
        status.read_only == source.read_only
        and source.sector_size in (None, device.logical_block)
        and (status.direct_io or not source.direct_io)
    )
