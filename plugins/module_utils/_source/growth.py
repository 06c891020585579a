# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Grow the devices of a source while they are in use: its file, loop devices, and mapped devices.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A device grows if it is what its source describes, but shorter. Steps are taken from the bottom of the stack
to its top. Each one leaves a stack that works, so a run that is killed between two of them is continued by
the next run. No step is rolled back: whoever has the device may already use the new part.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import _dm_table
from .._base.errors import InvalidValue
from .._base.values import SECTOR
from .._block import backing as _backing
from .._block import device as _device
from .._block import enlarge, loop, new_loop, sysfs
from .._dm import control, live_table, load, reload, suspended
from .._dm import mapped as _mapped
from .._dm_table import longer
from . import area, files, lookup, opener, slots, spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable

    from .._block.device import Device
    from .resources import Resources
    from .spec import Source

    Number = tuple[int, int]
    Line = tuple[int, int, str, str]
    # Raises an error if devices must not get these tables (as for ``_xen.footprint.Questions``) or size
    # limits in bytes, by number.
    Guard = Callable[[dict[Number, list[Line]], dict[Number, int]], None]

_AWAY = (
    "A disk in use is never made smaller, because its guest would lose what is beyond the new end. To do "
    "that on purpose, shrink the file system in the guest, detach the disk, and attach it with the smaller "
    "size"
)


class Step(NamedTuple):
    """``name``: path of a file or device; ``before`` and ``after``: its size in bytes."""

    name: str
    before: int
    after: int
    run: Callable[[], object]


def allow(tables: dict[Number, list[Line]], limits: dict[Number, int]) -> None:
    """A Guard for storage that may be shared."""
    del tables, limits


class Growth:
    """
    How a held device becomes what its source describes. ``size``: the bytes that it will have. ``grown``:
    what has grown, as texts. ``flags`` (of ``_dm.udev``) are sent with the udev events of mapped devices.
    """

    def __init__(self, resources: Resources, guard: Guard, flags: int = 0, seconds: float = 60.0) -> None:
        """
        ``guard`` is called before anything is planned or changed that uses more of some storage, and after it
        was changed (with nothing, as all tables and limits are in place then). ``seconds``: the limit for
        outstanding reads and writes of each mapped device to end.
        """
        self.size = 0
        # Why the device is not that of the source, if that is known.
        self.why = ""
        self.grown: list[str] = []
        # What a failed step has left changed, as texts.
        self._left: list[str] = []
        # Creates the devices that only the longer tables need.
        self.opener = opener.Opener(resources, flags)
        self._resources = resources
        self._guard = guard
        self._flags = flags
        self._seconds = seconds
        self._steps: list[Step] = []
        # The sizes of the devices that were looked at already: several slots can name one.
        self._seen: dict[_device.DeviceId, int] = {}
        self._tables: dict[Number, list[Line]] = {}
        self._limits: dict[Number, int] = {}

    @property
    def changes(self) -> bool:
        return bool(self._steps)

    def remains(self) -> list[str]:
        """What stays changed if a later step fails, as texts."""
        return self.grown + self._left

    def sizes(self) -> tuple[dict[str, int], dict[str, int]]:
        """``({path: bytes}, {path: bytes})`` before and after, of everything that grows."""
        return {step.name: step.before for step in self._steps}, {
            step.name: step.after for step in self._steps
        }

    def plan(self, source: Source, device: Device, least: int = 0) -> bool:
        """
        Whether the device is that of the source, or a shorter version of it. ``least``: make the file of the
        source large enough for this many bytes. InvalidValue for a device that would become smaller; also
        raises what opening the source raises.
        """
        found = self._of(source, device, least)
        self.size = found or 0
        if found is not None and (self._tables or self._limits):
            self._guard(self._tables, self._limits)
        return found is not None

    def plan_linear(self, source: Source, device: Device, least: int = 0) -> bool:
        """As :meth:`plan`, for a mapped device that is one linear target over the device of the source."""
        lines = self._resources.dm.table(control.by_device(device))[1]
        if len(lines) != 1 or lines[0].type != b"linear":
            return False
        number = sysfs.parse_number(lines[0].params.decode("ascii", "replace").partition(" ")[0])
        if number is None:
            raise AssertionError  # the kernel always writes it in this form
        below = self._hold(number)
        size = self._of(source, below, least)
        if size is None:
            return False
        self.size = max(size, device.size)
        if size > device.size:
            line = (0, size // SECTOR, b"linear", f"{below.id.number} 0".encode())
            table = load.Table((line,), device.read_only, held=(below,))
            self._add_reload(device, size, lambda: table)
            self._tables[device.id[:2]] = _lines(table)
        if self._tables or self._limits:
            self._guard(self._tables, self._limits)
        return True

    def apply(self) -> None:
        """Take the steps. Raises what they raise."""
        while self._steps:
            step = self._steps[0]
            step.run()
            self._steps.pop(0)
            self.grown.append(f"{step.name} was enlarged to {step.after} bytes")

    def _of(self, source: Source, device: Device, least: int = 0) -> int | None:
        """The bytes that the device will have; None if it is not the device of the source."""
        if device.id in self._seen:
            return self._seen[device.id]
        if isinstance(source, spec.FileSource):
            size = self._of_file(source, device, least)
        elif isinstance(source, spec.TableSource):
            size = self._of_table(source, device)
        else:
            size = device.size if lookup.is_device(source, device, self._resources) else None
        if size is not None:
            self._seen[device.id] = size
        return size

    # Files

    def _of_file(self, source: spec.FileSource, device: Device, least: int) -> int | None:
        if not loop.is_loop(device):
            return None
        with files.backing_of(source, read_only=True) as backing:
            status, source = loop.info(device), area.of_source(source, backing)
            has = status.backing_device, status.backing_inode, status.offset
            if has != (backing.device, backing.inode, source.offset) or not files.fits(
                source, device, status
            ):
                return None
            before = backing.size
            backing.size = max(before, source.offset + least)
            if source.size or least:
                # Checked as it will be. A file to its end was checked when it was attached.
                _backing.check_geometry(backing, source.offset, source.size, source.sector_size)
            block = device.logical_block
            size = source.size or (backing.size - source.offset) // block * block
            self._refuse_smaller(source, device, size, least)
            if size == device.size:
                return size if loop.is_same(status, backing, source.offset, source.size) else None
            after = backing.size
            if status.sizelimit:
                self._check_overlap(source, backing, device, size)
        if after > before:
            self._steps.append(Step(source.file, before, after, lambda: enlarge_file(source, after)))
        self._add_loop(source, device, status, size)
        return size

    @staticmethod
    def _refuse_smaller(source: spec.FileSource, device: Device, size: int, least: int) -> None:
        if least and least < size:
            wrong = f"must be {size} or more: {source.file} is that large. {_AWAY}"
            raise InvalidValue("size", least, wrong, device=device.path)
        if size < device.size and source.size:
            wrong = f"must be {device.size} or more: the disk is that large. {_AWAY}"
            raise InvalidValue("source.size", source.size, wrong, device=device.path)
        if size < device.size:
            left = f"give the guest a new disk with {size} bytes"
            raise _backing.cut(device, device.size, size, left)

    def _add_loop(self, source: spec.FileSource, device: Device, status: loop.LoopInfo, size: int) -> None:
        """Add the step in which a loop device gets its new size."""
        if status.sizelimit == source.size:
            self._steps.append(Step(device.path, device.size, size, lambda: loop.set_capacity(device)))
            return
        self._limits[device.id[:2]] = source.size

        def run() -> None:
            self._guard({}, {device.id[:2]: source.size})
            loop.set_limit(device, source.size)
            self._guard({}, {})

        self._steps.append(Step(device.path, device.size, size, run))

    def _check_overlap(
        self, source: spec.FileSource, backing: _backing.Backing, device: Device, size: int
    ) -> None:
        """Refuse to grow over a part of the file that another loop device writes, unless that is allowed."""
        if self._guard is allow:
            return
        new = new_loop.Area(source.offset + device.size, size - device.size, not source.read_only)
        said = new_loop.Said("raw", source.overlap)
        new_loop.check(backing, new, said, self._resources.loops, option="source.file")

    # Mapped devices

    def _of_table(self, source: spec.TableSource, device: Device) -> int | None:
        if loop.is_loop(device):
            # As when the disk of an image gets longer than the image.
            self.why = f", and {device.path} below it cannot become a table while the guest has the disk"
        if not self._has_names(source, device):
            return None
        live = live_table.live_table(self._resources.dm, device)
        if live is None:
            return None
        wanted = _dm_table.parse_table(source.table)
        found = self._slots_of(source, device, live, wanted)
        if found is None:
            return None
        table_slots, numbers = found
        start = self._numbered(wanted, live, numbers)
        if start is None:
            return None
        if start.length < live.length and longer.begins_with(live, start):
            text = f"{wanted.length} sectors"
            wrong = f"must be {live.length} sectors or more: the disk is that long. {_AWAY}"
            raise InvalidValue("source.table", text, wrong, device=device.path)
        if not longer.begins_with(start, live):
            return None
        if wanted.length > live.length:
            self._add_table(source, device, live, table_slots)
        return wanted.length * SECTOR

    def _has_names(self, source: spec.TableSource, device: Device) -> bool:
        if not _mapped.is_mapped(device):
            return False
        status = self._resources.dm.status(control.by_device(device))
        return (
            status.read_only == source.read_only
            and source.name in (None, "", status.name)
            and source.uuid in (None, "", status.uuid)
        )

    def _slots_of(
        self,
        source: spec.TableSource,
        device: Device,
        live: _dm_table.Table,
        wanted: _dm_table.Table,
    ) -> tuple[slots.Slots, dict[str, str]] | None:
        """
        ``(Slots, {text of the slot: number})`` with the devices that the live table has. None if one of them
        is not the device that the slot names. What is below the device is planned, too.
        """
        found = slots.host_slots(self._resources, source.table, device.id[:2])
        there = {(index, slot.field): slot.value for index, slot in live.devices()}
        numbers: dict[str, str] = {}
        for index, slot in wanted.devices(source.read_only):
            value = there.get((index, slot.field))
            number = sysfs.parse_number(value) if isinstance(value, str) else None
            if number is None and index < len(live):
                return None
            if number is None:
                continue  # a target that the live table does not have
            below = self._hold(number)
            size = self._of(spec.parse_slot(slot), below)
            if size is None:
                return None
            found.use(slot, below, size)
            numbers[slot.text] = below.id.number
        return found, numbers

    @staticmethod
    def _numbered(
        wanted: _dm_table.Table, live: _dm_table.Table, numbers: dict[str, str]
    ) -> _dm_table.Table | None:
        """The wanted table with the numbers of the devices that the live table has; None if one differs."""
        count = min(len(wanted), len(live))
        head = _dm_table.Table(wanted.targets[:count])
        try:
            head = head.with_devices(lambda slot: numbers[slot.text])
        except KeyError:
            return None
        return _dm_table.Table((*head.targets, *wanted.targets[count:]))

    def _add_table(
        self, source: spec.TableSource, device: Device, live: _dm_table.Table, found: slots.Slots
    ) -> None:
        checked = found.look(source.table, source.read_only)
        checked.table.check_replaces(live)
        if checked.is_complete:
            loadable = live_table.loadable(checked.table, source.read_only)
            self._tables[device.id[:2]] = _lines(loadable)
        size = checked.written.length * SECTOR
        self._add_reload(device, size, lambda: found.make(source.table, source.read_only, self.opener))

    def _add_reload(self, device: Device, size: int, make: Callable[[], load.Table]) -> None:
        def run() -> None:
            table = make()
            self._guard({device.id[:2]: _lines(table)}, {})
            how = suspended.Suspend(seconds=self._seconds)
            run = self._resources
            reload.reload(run.dm, device, table, run.cookie, self._flags, how, self._left)
            # Somebody may have begun to use the new part since.
            self._guard({}, {})

        self._steps.append(Step(device.path, device.size, size, run))

    def _hold(self, number: Number) -> Device:
        """The device with this number, held. A live table has it open, so the number is not reused."""
        return self._resources.enter_context(_device.open_number(*number))


def enlarge_file(source: spec.FileSource, size: int) -> str:
    """
    Make the file of a source at least ``size`` bytes long, which is not rolled back. Returns that as a text.
    Raises KernelError or DeadlineExceeded.
    """
    with files.backing_of(source, read_only=False) as backing:
        enlarge.enlarge(backing, size)
    return f"{source.file} has {size} bytes"


def _lines(table: load.Table) -> list[Line]:
    """The targets of a table as ``_xen.footprint.Questions`` has them."""
    return [
        (start, length, kind.decode("ascii"), params.decode("utf-8", "surrogateescape"))
        for start, length, kind, params in table.targets
    ]
