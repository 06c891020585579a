# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What applying a list would do, without changing anything; and everything that is wrong with the list.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import string

from .._base import gone
from .._base.deadline import Deadline
from .._base.errors import BlockError, DeviceBusy
from .._base.record import Record
from .._block import backing as _backing
from .._block import detach
from .._block import device as _device
from .._dm import control, mapped
from .._source import area, files, lookup, recipe, slots, spec
from .._source.resources import Resources, ToBe
from . import devices, records
from .config import Config, Entry, files_of

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any

    from .._block.device import Device

_BUSY_SECONDS = 1.0
_PLAIN = frozenset(string.ascii_letters + string.digits + ":_.")


class Plan(Record):
    """
    ``changes``: {name: make, change or remove}. ``errors`` and ``warnings`` as texts. ``mounts``: the mount
    units of all file systems that files may be on.
    """

    changes: dict[str, str]
    errors: list[str]
    warnings: list[str]
    mounts: list[str]


def plan(config: Config) -> Plan:
    """The Plan. KernelError if it cannot be determined what is there."""
    errors = [str(error) for error in config.wrong.values()]
    changes: dict[str, str] = {}
    with Resources() as resources:
        known = records.read_all()
        wanted = {entry.name: entry for entry in config.entries}
        going = [
            record
            for name, record in reversed(known.items())
            if name not in config.wrong and (name not in wanted or wanted[name].text != record.text)
        ]
        above: set[str] = set()
        for record in going:
            changes[record.name] = "change" if record.name in wanted else "remove"
            _try(errors, _check_going, resources, record, above)
        for entry in config.entries:
            there = known.get(entry.name)
            if entry.name not in changes and not (there and _is_as_wanted(resources, there)):
                changes[entry.name] = "make"
            _try(errors, _check_wanted, resources, entry, changes.get(entry.name))
        mounts = sorted({unit for entry in config.entries for unit in _mounts(entry)})
        return Plan(changes, errors, list(resources.warnings), mounts)


def _try(errors: list[str], function: Any, *arguments: Any) -> None:
    try:
        function(*arguments)
    except BlockError as error:
        errors.append(str(error))


def _is_as_wanted(resources: Resources, record: records.Made) -> bool:
    """Whether the record's device is there, and stays."""
    device = devices.find(resources, record)
    if device is None:
        return False
    with device:
        return record.how == records.FOUND or devices.stays(resources, device)


def _check_going(resources: Resources, record: records.Made, above: set[str]) -> None:
    """
    Raise DeviceBusy if a device that was made here cannot be taken down. ``above``: the kernel's names of
    those that are taken down before it.
    """
    device = devices.find(resources, record) if record.how == records.MADE else None
    if device is None:
        return
    resources.enter_context(device)
    holders = set(gone.list_directory(f"{device.sysfs}/holders", gone.SYSFS))
    if not holders <= above or not holders and _device.is_claimed(device):
        raise devices.in_use(record.name, device.path, detach.busy(device).message)
    if mapped.is_mapped(device):
        _need_unused(resources, record, device, len(holders))
    above.add(device.name)


def _need_unused(resources: Resources, record: records.Made, device: Device, others: int) -> None:
    """A mapped device counts those who have it open, also if not exclusively, such as QEMU."""
    limit = Deadline(_BUSY_SECONDS)
    while resources.dm.status(control.by_device(device)).open_count > 1 + others:
        if limit.expired:
            raise devices.in_use(record.name, device.path, "a program has it open")
        limit.sleep(0.05)


def _check_wanted(resources: Resources, entry: Entry, change: str | None) -> None:
    """Raise what making the device would raise, as far as that is known before."""
    source = entry.source
    if isinstance(source, spec.TableSource):
        # Also if it is there already: the devices of later entries may be named by this one.
        if change != "change":
            found = lookup.find(source, resources)
            if found is not None:
                resources.enter_context(found)
                return
        _check_table(resources, source, change == "change")
    elif isinstance(source, spec.FileSource) and change == "change":
        with files.backing_of(source) as backing:
            source = area.of_source(source, backing)
            _backing.check_geometry(backing, source.offset, source.size, source.sector_size)
    elif resources.mapped_to_be.get(slots.mapped_name(source)) is None:
        found = lookup.find(source, resources)
        if found is not None:
            _warn_of_path(resources, source, resources.enter_context(found))


def _check_table(resources: Resources, source: spec.TableSource, changes: bool) -> None:
    """``changes``: the loop devices below the present device go before the new ones are made."""
    try:
        looked = slots.host_slots(resources, source.table).look(source.table, source.read_only)
    except DeviceBusy:
        if not changes:
            raise
        return
    resources.mapped_to_be[source.name] = ToBe(source.uuid, looked.table.length, source.read_only)
    _warn_of_slots(resources, looked.written.devices(source.read_only))


def _warn_of_slots(resources: Resources, rows: Any) -> None:
    for dummy, slot in rows:
        below = spec.parse_slot(slot)
        if isinstance(below, spec.PathSource) and not resources.mapped_to_be.get(slots.mapped_name(below)):
            found = lookup.find(below, resources)
            if found is not None:
                _warn_of_path(resources, below, resources.enter_context(found))


def _warn_of_path(resources: Resources, source: spec.Source, device: Device) -> None:
    """Warn about a path that can lead to another device after the next boot."""
    if isinstance(source, spec.PathSource):
        doubt = recipe.doubt(source.path, mapped.is_mapped(device), source.uuid)
        if doubt:
            resources.warn(doubt)


def _mounts(entry: Entry) -> list[str]:
    found = []
    for path in files_of(entry.source):
        parts = [part for part in path.split("/") if part][:-1]
        found += [mount_unit(parts[: end + 1]) for end in range(len(parts))]
    return found


def mount_unit(parts: list[str]) -> str:
    """The name of the unit of the file system mounted at a path, as systemd-escape --path names it."""
    return "-".join(map(_escaped, parts)) + ".mount"


def _escaped(part: str) -> str:
    letters = []
    for index, byte in enumerate(part.encode("utf-8", "surrogateescape")):
        letter = chr(byte)
        is_plain = letter in _PLAIN and not (letter == "." and index == 0)
        letters.append(letter if is_plain else f"\\x{byte:02x}")
    return "".join(letters)
