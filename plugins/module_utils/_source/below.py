# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The block device below a loop device, given as a source.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A device that is made for the source goes with its last user, and the loop device above it is one: it has the
device open.
"""

from __future__ import annotations

from .._base import gone
from .._base import locks as _locks
from .._base.errors import DeviceGone, InvalidValue, WrongDevice
from .._block import loop, new_loop, replaced, trusted_path
from .._dm import health
from . import area, files, named, spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Union

    from .._block.device import Device
    from .resources import Resources

    Lower = Union[spec.DiskseqSource, spec.PathSource, spec.FileSource]


def parse(value: object, option: str = "backing") -> Lower:
    """
    The source from plain data or text. InvalidValue, also for a table: the code that makes mapped devices is
    not sent to hosts for loop devices.
    """
    source = spec.parse(value, option=option)
    if isinstance(source, (spec.DiskseqSource, spec.PathSource, spec.FileSource)):
        return source
    wrong = (
        "must name a file or a device that exists: make the mapped device with dm_device first, and give its "
        "path and uuid"
    )
    raise InvalidValue(option, str(source), wrong)


def existing(source: Lower, resources: Resources) -> list[Device]:
    """
    The devices that the source names now, held by the resources, whatever their settings are and whether they
    may be made or not. WrongDevice if one has a file that was deleted or replaced since, or if only the path
    is missing. KernelError.
    """
    if not isinstance(source, spec.FileSource):
        try:
            found = _find(source, resources)
        except DeviceGone:
            _refuse_moved(source, resources)
            return []
        return [] if found is None else [resources.enter_context(found)]
    if source.trusted_path:
        trusted_path.check(source.file, True, resources.warn, "backing.file", resources.walked)
    if not gone.exists(source.file):
        _refuse_replaced(source, None, resources)
        return []
    with files.backing_of(source, read_only=True, option="backing.file") as backing:
        source = area.of_source(source, backing, "backing")
        _refuse_replaced(source, (backing.device, backing.inode), resources)
        rows = resources.loops.find(backing, source.offset, source.size)
    return [resources.enter_context(device) for device, dummy in rows]


def _refuse_moved(source: Lower, resources: Resources) -> None:
    """A device whose link is missing is not gone, and neither is the one over it."""
    where = named.moved_to(source, resources) if isinstance(source, spec.PathSource) else None
    if where is not None:
        raise WrongDevice(
            f"there is no such path, but its device is {where}",
            device=str(source),
            hint="Give a path that leads to it, or have udev make the link again (udevadm trigger)",
        )


def _refuse_replaced(source: spec.FileSource, file: tuple[int, int] | None, resources: Resources) -> None:
    """Without its file, a device cannot be found, so the one over it cannot be called gone."""
    wanted = new_loop.Area(source.offset, source.size, not source.read_only)
    try:
        replaced.refuse(source.file, file, wanted, resources.loops, resources.warn, with_going=False)
    except WrongDevice as error:
        error.hint = "To remove the device over that one, set its diskseq and state=absent without backing"
        raise


def locks(source: Lower, resources: Resources, to_remove: bool = False) -> list[_locks.Lock]:
    """
    The locks for making a loop device over the source's device, or for removing one. Raises an error if it
    cannot be examined.
    """
    if to_remove:
        found = existing(source, resources)
        own = _locks.of_file(source.file) if isinstance(source, spec.FileSource) else []
        return own + [lock_of(device) for device in found]
    wanted = _locks.of_file(source.file) if isinstance(source, spec.FileSource) else []
    try:
        device = _find(source, resources)
    except (DeviceGone, InvalidValue, WrongDevice):  # the plan reports it
        return wanted
    if device is not None:
        with device:
            wanted.append(lock_of(device))
    return wanted


def lock_of(device: Device) -> _locks.Lock:
    """The lock of loop devices over a held block device."""
    return _locks.of_inode(loop.OVER_BLOCK, device.id.rdev, device.path)


def _find(source: Lower, resources: Resources) -> Device | None:
    if isinstance(source, spec.DiskseqSource):
        return named.open_diskseq(source)
    if isinstance(source, spec.PathSource):
        return named.open_path(source, resources)
    return files.find(source, resources)


def look(source: Lower, resources: Resources) -> tuple[Device | None, int]:
    """
    ``(device, size in bytes)``: the source's device, held by the resources; None if it is yet to be made for
    a file, and its size then. Raises DeviceGone, WrongDevice, DeviceBusy, InvalidValue or KernelError.
    """
    device = _find(source, resources)
    if device is not None:
        resources.enter_context(device)
        if _is_on_mapped(device):
            health.refuse_broken(resources.dm, device)
        return device, files.size_to_be(source, device)
    if not isinstance(source, spec.FileSource):
        raise AssertionError
    with files.backing_of(source, read_only=True, option="backing.file") as backing:
        source = area.of_source(source, backing, "backing")
        return None, source.size or backing.size - source.offset


def _is_on_mapped(device: Device) -> bool:
    """Whether it, or a device below it, is a mapped device. A host may have no device-mapper to ask."""
    number = device.id.major, device.id.minor
    numbers = {number, *loop.stack_below(*number)}
    return any(gone.exists(f"/sys/dev/block/{major}:{minor}/dm", gone.SYSFS) for major, minor in numbers)


def make(source: Lower, resources: Resources) -> tuple[Device, bool]:
    """
    ``(device, whether it is new)``: the loop device of a file, held by the resources, made if it does not
    exist; a new one goes with its last user. Raises what ``files.find_or_make`` raises.
    """
    if not isinstance(source, spec.FileSource):
        raise AssertionError
    device, is_new = files.find_or_make(source, resources)
    resources.locks.take([lock_of(device)])
    return device, is_new
