# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The device slots of tables: looked up, held, and written as numbers.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from .. import _dm_table
from .._base.errors import BlockError, DeviceGone, KernelError, WrongDevice
from .._block import loop
from .._dm import control, cow_header, live_table
from .._dm import mapped as _mapped
from .._dm_table.grammar import kernels as _kernels
from . import area, files, lookup, spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from .._block.device import Device
    from .._dm import load
    from .._dm_table.grammar.slot import Slot
    from .resources import Resources, ToBe
    from .spec import Source

    class Maker(Protocol):
        """Creates devices that do not exist (``_source.opener.Opener``)."""

        def open(self, source: Source) -> Device: ...

        def follow(self, source: Source, device: Device) -> None: ...


class CheckedTable(NamedTuple):
    """
    A checked table. ``is_complete``: every slot is the ``major:minor`` of a held device. ``written``: the
    same table with its slots as the user wrote them.
    """

    table: _dm_table.Table
    is_complete: bool
    written: _dm_table.Table


def mapped_name(source: Source) -> str | None:
    """The name of the mapped device that a source names by its path in /dev/mapper, or None."""
    if not isinstance(source, spec.PathSource) or source.diskseq is not None:
        return None
    directory, slash, name = source.path.rpartition("/")
    return name if directory == "/dev/mapper" else None


class Slots:
    """
    The device slots of tables. Each device is opened once, and held until the resources are closed.

    The kernel looks up the devices of a table by number, and a number cannot be reused while its device is
    held. ``mapped``: number of the device that the table is for; ``kernels`` and ``targets`` as for
    ``_dm_table.Context``.
    """

    def __init__(
        self,
        resources: Resources,
        mapped: tuple[int, int] | None = None,
        kernels: Sequence[str] | None = None,
        targets: dict[str, tuple[int, int, int]] | None = None,
    ) -> None:
        self._resources = resources
        self._devices: dict[str, Device | None] = {}
        # Bytes that devices of slots will have, by the slot's text.
        self._sizes: dict[str, int] = {}
        # Placeholder minor numbers for devices that do not exist yet. Their major is 0, which no block device
        # has.
        self._unmade: dict[Any, int] = {}
        self._mapped = mapped
        self._kernels = kernels
        self._targets = targets

    def look(self, value: Any, read_only: bool, whole: bool = False) -> CheckedTable:
        """
        Check the table ``value`` against the devices that exist, and return a CheckedTable. Slots of devices
        that do not exist yet stay as written.

        ``whole``: a device that cannot be opened becomes one of the table's errors, instead of ending the
        check. Raises TableError, and what ``lookup.find`` raises.
        """
        table = _dm_table.parse_table(
            value, context=self._context(read_only, self._find, self._facts_to_be, whole)
        )
        complete = all(self._find(slot) is not None for _index, slot in table.devices(read_only))
        return CheckedTable(table.with_devices(self._number_or_text) if complete else table, complete, table)

    def use(self, slot: Slot, device: Device, size: int) -> None:
        """
        Take this held device for a slot, instead of looking it up. ``size``: the bytes that it will have when
        the table is loaded.
        """
        self._devices[slot.text] = device
        self._sizes[slot.text] = size

    def device(self, slot: Slot) -> Device | None:
        """The held device of a slot that was looked up; None if it does not exist yet."""
        return self._devices.get(slot.text)

    def found(self) -> list[Device]:
        """The held devices that existed when the table was looked up."""
        return [device for device in self._devices.values() if device is not None]

    def make(self, value: Any, read_only: bool, opener: Maker) -> load.Table:
        """
        The ``_dm.load.Table`` to load; ``opener`` (``_source.opener.Opener``) creates the devices that do not
        exist.
        """

        def find_or_make(slot: Slot) -> Device:
            source = spec.parse_slot(slot)
            device = self._devices.get(slot.text)
            if device is None:
                device = self._resources.mapped_made.get(mapped_name(source)) or opener.open(source)
                self._devices[slot.text] = device
            opener.follow(source, device)
            return device

        written = _dm_table.parse_table(value, context=self._context(read_only, find_or_make))
        table = live_table.loadable(written.with_devices(self._number_or_text), read_only)
        devices = [self._device_of(slot) for _index, slot in written.devices()]
        held = {device.id: device for device in devices}
        return table._replace(held=tuple(held.values()))

    def _context(
        self,
        read_only: bool,
        find: Callable[[Slot], Device | None],
        otherwise: Callable[[Slot], _dm_table.DeviceFacts | None] = lambda slot: None,
        whole: bool = False,
    ) -> _dm_table.Context:

        def facts(slot: Slot) -> _dm_table.DeviceFacts | _dm_table.NoDevice | None:
            try:
                device = find(slot)
                if device is None:
                    return otherwise(slot)
                return _facts(device, self._resources, slot, self._sizes.get(slot.text, 0))
            except BlockError as error:
                if not whole:
                    raise
                return _dm_table.NoDevice(str(error))

        return _dm_table.Context(
            kernels=self._kernels,
            targets=self._targets,
            devices=facts,
            read_only=read_only,
            page_size=os.sysconf("SC_PAGE_SIZE"),
            device=self._mapped,
            running=_kernels.version_of(os.uname().release),
        )

    def _facts_to_be(self, slot: Slot) -> _dm_table.DeviceFacts | None:
        """
        The facts of a device that is yet to be created for a file or a table. A nested table is checked here,
        as when it is created.
        """
        source = spec.parse_slot(slot)
        if isinstance(source, spec.TableSource):
            table = (
                host_slots(self._resources, source.table, self._mapped, self._kernels or ())
                .look(source.table, source.read_only)
                .table
            )
            minor = self._unmade.setdefault(source.name or source.uuid or slot.text, len(self._unmade))
            return _dm_table.DeviceFacts(0, minor, table.length, 512, source.read_only, source.uuid or "")
        to_be = self._to_be(source)
        if to_be is not None:
            minor = self._unmade.setdefault(("mapped", mapped_name(source)), len(self._unmade))
            return _dm_table.DeviceFacts(0, minor, to_be.sectors, 512, to_be.read_only, to_be.uuid or "")
        if not isinstance(source, spec.FileSource):
            return None
        with files.backing_of(source, option=slot.field) as backing:
            source = area.of_source(source, backing, slot.field)
            size = source.size or backing.size - source.offset
            minor = self._unmade.setdefault(
                (backing.device, backing.inode, source.offset, size), len(self._unmade)
            )
        return _dm_table.DeviceFacts(0, minor, size // 512, source.sector_size or 512, source.read_only)

    def _find(self, slot: Slot) -> Device | None:
        if slot.text not in self._devices:
            source = spec.parse_slot(slot)
            device = None if self._to_be(source) else lookup.find(source, self._resources)
            self._devices[slot.text] = None if device is None else self._resources.enter_context(device)
        return self._devices[slot.text]

    def _to_be(self, source: Source) -> ToBe | None:
        """The ToBe that the source names, or None; WrongDevice if the source has another UUID."""
        to_be = self._resources.mapped_to_be.get(mapped_name(source))
        if to_be is None or not isinstance(source, spec.PathSource):
            return None
        if source.uuid not in (None, to_be.uuid):
            uuid = f"the uuid {to_be.uuid}" if to_be.uuid else "a new uuid"
            raise WrongDevice(
                f"it will have {uuid}, not {source.uuid}",
                device=source.path,
                hint="Set that uuid in its own entry of the list, too",
            )
        return to_be

    def _number_or_text(self, slot: Slot) -> str:
        return self._device_of(slot).id.number

    def _device_of(self, slot: Slot) -> Device:
        """The device of a slot; DeviceGone if it does not exist yet."""
        device = self._devices[slot.text]
        if device is None:
            raise DeviceGone("there is no such device yet", device=slot.text)
        return device


def host_slots(
    resources: Resources, value: Any, mapped: tuple[int, int] | None = None, kernels: Sequence[str] = ()
) -> Slots:
    """
    Slots that check the table ``value`` against this host's kernel and target types. ``kernels``: others that
    must accept it, too.
    """
    return Slots(resources, mapped, _kernels_of(kernels), _targets_of(value, resources))


def _kernels_of(others: Sequence[str]) -> tuple[str, ...] | None:
    """The kernels that must accept the table: this host's, if its grammar is known, and the others."""
    own = _kernels.same_grammar(os.uname().release)
    return tuple(kernel for kernel in _kernels.KERNELS if kernel == own or kernel in others) or None


def _targets_of(value: Any, resources: Resources) -> dict[str, tuple[int, int, int]]:
    """
    ``{type: version}`` of this host's target types. The kernel loads the modules of the types that the table
    names.
    """
    found = resources.dm.target_versions()
    for line in (
        value.split("\n") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else ()
    ):
        name = line.get("target") if isinstance(line, dict) else (str(line).split() + ["", "", ""])[2]
        if isinstance(name, str) and name in _dm_table.TARGETS and name not in found:
            version = resources.dm.target_version(name)
            if version is not None:
                found[name] = version
    return found


def _facts(device: Device, resources: Resources, slot: Slot, least: int = 0) -> _dm_table.DeviceFacts:
    """The DeviceFacts of the held device of a slot, which will have ``least`` bytes or more."""
    size = max(least, files.size_to_be(spec.parse_slot(slot), device))
    uuid = resources.dm.status(control.by_device(device)).uuid if _mapped.is_mapped(device) else None
    return _dm_table.DeviceFacts(
        device.id.major,
        device.id.minor,
        size // 512,
        device.logical_block,
        device.read_only,
        uuid,
        loop.stack_below(device.id.major, device.id.minor),
        lambda: _cow_chunk(device),
    )


def _cow_chunk(device: Device) -> int | None:
    try:
        return cow_header.chunk_size(device)
    except OSError as error:
        raise KernelError.from_oserror(error, "read a snapshot's header on its COW device", device) from error
