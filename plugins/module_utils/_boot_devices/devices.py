# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Make and prove one device, let it stay, and take it down again.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Everything that a run makes goes with its last user (autoclear, deferred remove), which is the run. The record
is written next, and only then the device itself is set to stay; what is below it is held by it. So a killed
run leaves a device that stays and is recorded, or none.
"""

from __future__ import annotations

from .._base.deadline import Deadline, pauses
from .._base.errors import DeadlineExceeded, DeviceBusy, DeviceGone, WrongDevice
from .._base.record import Record
from .._block import detach, loop, sysfs
from .._block import device as _device
from .._dm import control, lifetime, mapped, removal
from .._source import for_guest, needed_locks, opener, spec
from .._source.resources import Resources
from . import records
from .config import Entry

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any

    from .._block.device import Device, DeviceId

_UDEV_SECONDS = 30
_BUSY_SECONDS = 5


class Had(Record):
    """A device that is there. ``changed``: whether it was made, grown or set to stay. ``warnings``: texts."""

    facts: dict[str, Any]
    changed: bool
    warnings: list[str]


def have(entry: Entry, known: records.Made | None, order: int) -> Had:
    """
    Make the entry's device unless it exists, prove it, and let it stay. ``known``: its record. ``order``: for
    a new record.

    Raises what ``_source.opener.Opener.open`` raises.
    """
    with Resources() as resources:
        for_guest.reap(resources)
        resources.locks.take(needed_locks.of_source(entry.source))
        resources.loops.forget()
        maker = opener.Opener(resources)
        device = maker.open(entry.source)
        device.need_node()
        changed = bool(maker.made or maker.grown)
        if known is None or known.number != number_of(device) or known.text != entry.text:
            how = _how(resources, entry, device, maker)
            known = records.Made(entry.name, entry.text, how, order, *number_of(device))
            records.write(known)
        if known.how != records.FOUND and not stays(resources, device):
            set_stay(resources, device, True)
            changed = True
        # A program that uses the device by its link in /dev/mapper must find it.
        if not resources.settle(_UDEV_SECONDS):
            raise DeadlineExceeded("udev to finish with the device", _UDEV_SECONDS, device=entry.name)
        return Had(_facts(entry, known, device), changed, list(resources.warnings))


def _how(resources: Resources, entry: Entry, device: Device, maker: opener.Opener) -> str:
    if any(made.id == device.id for made in maker.made):
        return records.MADE
    is_named = isinstance(entry.source, (spec.FileSource, spec.TableSource))
    return records.KEPT if is_named and not stays(resources, device) else records.FOUND


def take_down(record: records.Made) -> bool:
    """
    Remove a device that was made here, and let one that was made by somebody else go with its last user
    again. Others are left unchanged. Returns whether anything has changed. DeviceBusy if a device that was
    made here is in use: it is left unchanged, too.
    """
    with Resources() as resources:
        device = None if record.how == records.FOUND else find(resources, record)
        changed = device is not None
        if device is not None and record.how == records.KEPT:
            set_stay(resources, resources.enter_context(device), False)
        elif device is not None:
            _remove(resources, record, device)
        records.remove(record.name)
        return changed


def find(resources: Resources, record: records.Made) -> Device | None:
    """The record's device, which the caller must close; None if it is gone. Raises KernelError."""
    try:
        device = _device.open_number(record.major, record.minor, diskseq=record.diskseq)
    except (DeviceGone, WrongDevice):
        return None
    try:
        # A loop device without a file keeps its number until it gets another file.
        if loop.is_loop(device):
            loop.settings_of(device)
    except DeviceGone:
        device.close()
        return None
    except BaseException:
        device.close()
        raise
    return device


def _remove(resources: Resources, record: records.Made, device: Device) -> None:
    title, below = record.name, _going_below(resources, device)
    try:
        if loop.is_loop(device):
            is_gone = detach.detach(device, timeout=_BUSY_SECONDS)
        else:
            name = resources.dm.status(control.by_device(device)).name
            resources.link_goes(name, device.id)
            is_gone = removal.remove(resources.dm, device, resources.cookie, timeout=_BUSY_SECONDS)
    except DeviceBusy as error:
        raise in_use(title, error.device, error.message) from error
    finally:
        device.close()
    if not is_gone:
        raise in_use(title, device.path, "it is not removed yet")
    limit = Deadline(_BUSY_SECONDS)
    for pause in pauses():
        # Others may use them by now. Then they stay until these close them.
        if limit.expired or not any(_is_there(identity) for identity in below):
            break
        limit.sleep(pause)
    resources.settle(limit.left())


def in_use(title: str, path: object, wrong: str) -> DeviceBusy:
    """The error for a device that cannot be taken down. ``wrong``: who uses it."""
    hint = "End that use first: guests, devices above it, mounts. It was left unchanged"
    return DeviceBusy(f"{title}: {path} cannot be removed: {wrong}", hint=hint)


def _going_below(resources: Resources, device: Device) -> list[DeviceId]:
    """The devices below a held one that go with their last user."""
    found = []
    for major, minor in loop.stack_below(device.id.major, device.id.minor):
        with _device.open_number(major, minor) as below:
            if (loop.is_loop(below) or mapped.is_mapped(below)) and not stays(resources, below):
                found.append(below.id)
    return found


def _is_there(identity: DeviceId) -> bool:
    if identity.major == _device.LOOP_MAJOR:
        return sysfs.read(f"/sys/dev/block/{identity.number}/loop/backing_file") is not None
    return removal.is_there(identity)


def number_of(device: Device) -> tuple[int, int, int]:
    """(major, minor, diskseq)"""
    return device.id.major, device.id.minor, device.id.diskseq


def stays(resources: Resources, device: Device) -> bool:
    """Whether a held loop or mapped device stays after its last close."""
    if loop.is_loop(device):
        return not loop.settings_of(device).autoclear
    return not resources.dm.status(control.by_device(device)).deferred_remove


def set_stay(resources: Resources, device: Device, wanted: bool) -> None:
    """Set whether a held loop or mapped device stays after its last close. Raises KernelError."""
    if loop.is_loop(device):
        loop.set_autoclear(device, not wanted)
    else:
        lifetime.set_persist(resources.dm, device, wanted)


def _facts(entry: Entry, known: records.Made, device: Device) -> dict[str, Any]:
    path = device.path
    if isinstance(entry.source, spec.TableSource):
        path = f"/dev/mapper/{entry.source.name}"
    major, minor, diskseq = number_of(device)
    return {
        "path": path,
        "major": major,
        "minor": minor,
        "diskseq": diskseq,
        "size": device.size,
        "made": known.how == records.MADE,
    }
