# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Look up the existing device that a source names.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .. import _dm_table
from .._base.errors import DeviceBusy, DeviceGone
from .._block import device as _device
from .._block import loop, sysfs
from .._dm import control, live_table, names
from .._dm import mapped as _mapped
from . import area, files, named, spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .resources import Resources
    from .spec import Source


def find(source: Source, resources: Resources) -> _device.Device | None:
    """
    The existing device that the source names, held; None if a file or a table has no device yet. Raises
    DeviceGone, WrongDevice, DeviceBusy, InvalidValue, KernelError.
    """
    if isinstance(source, spec.DiskseqSource):
        return named.open_diskseq(source)
    if isinstance(source, spec.NumberSource):
        return _device.open_number(source.major, source.minor)
    if isinstance(source, spec.PathSource):
        return named.open_path(source, resources)
    if isinstance(source, spec.FileSource):
        return files.find(source, resources)
    return find_table(source, resources)


def is_device(source: Source, device: _device.Device, resources: Resources) -> bool:
    """
    Whether the source names this held device. Also True if several devices match and :func:`find` would
    return another one.
    """
    if isinstance(source, spec.FileSource):
        if not loop.is_loop(device):
            return False
        with files.backing_of(source, read_only=True) as backing:
            status, source = loop.info(device), area.of_source(source, backing)
            return loop.is_same(status, backing, source.offset, source.size) and files.fits(
                source, device, status
            )
    if isinstance(source, spec.TableSource) and not source.name and not source.uuid:
        return _has_table(source, device, resources)
    try:
        found = find(source, resources)
    except DeviceGone:
        return False
    if found is None:
        return False
    with found:
        return found.id == device.id


def is_device_in_any_mode(source: Source, device: _device.Device, resources: Resources) -> bool:
    """
    As :func:`is_device`, for a disk that is removed: whether a file's loop device is read-only does not
    matter then. The mode of a new disk decides that, and need not be given again to remove it.
    """
    if isinstance(source, spec.FileSource) and loop.is_loop(device):
        source = source._replace(read_only=loop.info(device).read_only)
    return is_device(source, device, resources)


def find_table(source: spec.TableSource, resources: Resources) -> _device.Device | None:
    """
    The mapped device of a TableSource, held; None if it does not exist yet. DeviceBusy if another device has
    its name or UUID.
    """
    if not source.name and not source.uuid:
        return None
    mapped = _mapped.find(resources.dm, source.name or "", source.uuid or "")
    if mapped is None:
        return None
    if _is_unfinished(source, mapped.status):
        # Another run is creating it, or has left it unfinished. The opener waits for it.
        if mapped.device is not None:
            mapped.device.close()
        return None
    try:
        _check_same_table(source, resources, mapped)
    except BaseException:
        if mapped.device is not None:
            mapped.device.close()
        raise
    return mapped.device


def _is_unfinished(source: spec.TableSource, status: control.MappedStatus) -> bool:
    """Whether the device has the name and the UUID of the source, but no live table yet."""
    is_named = source.name in (None, "", status.name) or names.holder_of(status.name) is not None
    return not status.has_live_table and status.uuid == (source.uuid or status.uuid) and is_named


def _has_table(source: spec.TableSource, device: _device.Device, resources: Resources) -> bool:
    """
    Whether a held mapped device has the table of the source. Each device in the live table must be one that
    the slot names, even if the slot would now resolve to another one.
    """

    if (
        not _mapped.is_mapped(device)
        or resources.dm.status(control.by_device(device)).read_only != source.read_only
    ):
        return False
    live = live_table.live_table(resources.dm, device)
    wanted = _dm_table.parse_table(source.table)
    there = {(index, slot.field): slot.value for index, slot in live.devices()} if live is not None else {}
    numbers = {}
    for index, slot in wanted.devices():
        number = sysfs.parse_number(there.get((index, slot.field), ""))
        if number is None:
            return False
        # The table has the device open, so its number is pinned.
        with _device.open_number(*number) as below:
            if not is_device(spec.parse_slot(slot), below, resources):
                return False
        numbers[slot.text] = below.id.number
    return live is not None and bool(wanted.with_devices(numbers).same_as(live))


def status_of(source: spec.TableSource, resources: Resources) -> control.MappedStatus | None:
    """The MappedStatus of the device with the source's UUID or name, or None."""
    mapped = (
        _mapped.find(resources.dm, source.name or "", source.uuid or "")
        if source.name or source.uuid
        else None
    )
    if mapped is not None and mapped.device is not None:
        mapped.device.close()
    return None if mapped is None else mapped.status


def _check_same_table(source: spec.TableSource, resources: Resources, mapped: _mapped.Mapped) -> None:
    """Raise DeviceBusy unless the existing device is exactly the one that the source describes."""
    name = source.name or source.uuid
    taken = DeviceBusy(
        f"there is another device under this name: {_mapped.describe(resources.dm, mapped)}", device=name
    )
    if (
        mapped.device is None
        or (source.uuid and mapped.status.uuid != source.uuid)
        or (source.name and mapped.status.name != source.name)
    ):
        raise taken
    if not _has_table(source, mapped.device, resources):
        raise taken
