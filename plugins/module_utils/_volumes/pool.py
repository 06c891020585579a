# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The thin pool that a source names: found, or activated briefly to examine its volumes; and grown.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Activating a pool with the size in its metadata changes nothing on disk (__commit_transaction in
``drivers/md/dm-thin-metadata.c`` writes nothing before the first change). A larger table grows the pool at
once (maybe_resize_data_dev in ``drivers/md/dm-thin.c``). Activating a pool without metadata formats them, so
that is done only to change the pool.
"""

from __future__ import annotations

import os

from .. import _dm_table
from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy, DeviceGone, InvalidValue, WrongDevice
from .._block import new_loop
from .._dm import control, live_table, names, reload, removal, suspended, udev
from .._dm import mapped as _mapped
from .._source import area, files, lookup, named, opener, spec
from .._source import slots as _slots
from . import superblock

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any

    from .._block.device import Device
    from .._source.resources import Resources
    from .._source.spec import Source


_TYPE = "thin-pool"
_GOING_SECONDS = 2


def check(source: Source, option: str = "pool") -> None:
    """Raise InvalidValue for a source (of ``_source.spec.parse``) that cannot name a pool of ours."""
    uuid = source.uuid if isinstance(source, (spec.PathSource, spec.TableSource)) else None
    if uuid is not None and uuid.startswith(names.LVM):
        allowed = (
            "not be that of an LVM pool, because LVM assigns the numbers of its volumes itself: make and "
            "remove them with lvcreate and lvremove"
        )
        raise InvalidValue(f"{option}.uuid", uuid, f"must {allowed}")
    if isinstance(source, spec.PathSource) and (source.uuid or source.diskseq):
        return
    if not isinstance(source, spec.TableSource) or not (source.name and source.uuid):
        allowed = (
            "a mapped device's path, with its uuid; or a table with a name and a uuid, by which the next "
            "user finds the pool"
        )
        raise InvalidValue(option, str(source), f"must be {allowed}")
    if [target.TYPE for target in _dm_table.parse_table(source.table)] != [_TYPE]:
        raise InvalidValue(f"{option}.table", str(source), f"must be one {_TYPE} target")


class Pool:
    """
    A thin pool. ``device`` is held by the resources, None while the pool does not exist.
    ``length``: its length in sectors, 0 for a new pool; ``wanted``: the length in sectors that the source
    asks for.
    """

    def __init__(self, resources: Resources, source: Source) -> None:
        self._resources = resources
        self._source = source
        # Called after everything that is added later has been closed.
        resources.callback(self._wait_gone)
        self._opener = opener.Opener(resources, udev.HANDS_OFF)
        self.device: Device | None = None
        self.length = 0
        self.wanted = 0
        # What a failed step has left changed, as texts.
        self.left: list[str] = []

    def look(self) -> None:
        """
        Find the pool, or activate it with its present size. DeviceBusy if another device has its name;
        InvalidValue for a table that would shrink it. Also raises what opening its devices raises.
        """
        if isinstance(self._source, spec.PathSource):
            self.device = self._resources.enter_context(named.open_path(self._source, self._resources))
            self.length = self.wanted = self._live().length
            return
        described = self._described
        self.wanted = _dm_table.parse_table(described.table).length
        mapped = _mapped.find(self._resources.dm, described.name or "", described.uuid or "")
        if mapped is not None:
            self._look_at(mapped)
            return
        found = self._superblock()
        if found is None or not found.length:
            self._refuse_image()
            return
        blocks = self.wanted // found.block_size
        self.length = self.wanted if blocks == found.blocks else found.length
        if blocks < found.blocks:
            raise self._cut()
        self.device = self._opener.open(described._replace(table=self._table_of(self.length)))

    @property
    def _described(self) -> spec.TableSource:
        """The source, if it describes the pool (:func:`check`)."""
        if not isinstance(self._source, spec.TableSource):
            raise InvalidValue("pool", str(self._source), "must be a table with a name and a uuid")
        return self._source

    @property
    def _held(self) -> Device:
        """The pool's device; DeviceGone if it does not exist."""
        if self.device is None:
            raise DeviceGone("the pool does not exist", device=str(self._source))
        return self.device

    @property
    def grows(self) -> bool:
        """Whether the source asks for a larger pool."""
        return self.wanted > self.length

    def make(self) -> None:
        """Create the pool with the size in the source, if it does not exist."""
        if self.device is None:
            self.device = self._opener.open(self._source)
            self.length = self.wanted

    def grow(self, seconds: float) -> None:
        """Grow the pool to the size in the source. ``seconds``: the limit for outstanding I/O to complete."""
        slots = _slots.host_slots(self._resources, self._described.table)
        table = slots.make(self._described.table, False, self._opener)
        how = suspended.Suspend(seconds=seconds)
        run = self._resources
        reload.reload(run.dm, self._held, table, run.cookie, udev.HANDS_OFF, how, self.left)
        self.length = self.wanted

    def _look_at(self, mapped: _mapped.Mapped) -> None:
        """Check that an existing device is the pool, except for its size."""
        if mapped.device is None:
            found = _mapped.describe(self._resources.dm, mapped)
            raise DeviceBusy(f"it has no table: {found}", device=self._described.name)
        self.device = self._resources.enter_context(mapped.device)
        if (mapped.status.name, mapped.status.uuid) != (self._described.name, self._described.uuid):
            found = _mapped.describe(self._resources.dm, mapped)
            raise DeviceBusy(
                f"there is another device under this name or uuid: {found}", device=self._described.name
            )
        live = self._live()
        self.length = live.length
        # Compare with the present size, because the data device for the new size may not exist yet.
        table = self._table_of(live.length)
        wanted = _slots.host_slots(self._resources, table).look(table, False)
        if not wanted.is_complete or not wanted.table.same_as(live):
            raise DeviceBusy(
                f"it exists with another table: {_mapped.describe(self._resources.dm, mapped)}",
                device=self._described.name,
            )
        if self.wanted < self.length:
            raise self._cut()

    def _live(self) -> _dm_table.Table:
        """The live table of the pool. DeviceBusy if the pool is suspended."""
        device = self._held
        if not _mapped.is_mapped(device):
            raise WrongDevice("it is not a mapped device", device=device.path)
        if self._resources.dm.status(control.by_device(device)).suspended:
            raise DeviceBusy(
                "the pool is suspended",
                device=device.path,
                hint="Resume it first: a suspended pool does not answer",
            )
        live = live_table.live_table(self._resources.dm, device)
        if live is None or [target.TYPE for target in live] != [_TYPE]:
            raise WrongDevice("it is not a thin pool", device=device.path)
        return live

    def _table_of(self, length: int) -> list[dict[str, Any]]:
        return [dict(_dm_table.parse_table(self._described.table).to_list()[0], length=length)]

    def _source_of(self, field: str) -> Source:
        (slot,) = (
            slot
            for dummy, slot in _dm_table.parse_table(self._described.table).devices()
            if slot.field == field
        )
        return spec.parse_slot(slot)

    def _refuse_image(self) -> None:
        """
        InvalidValue if the data device of a new pool is a disk image that is not raw: somebody may want to
        keep it. An existing pool is not checked, because its data is what guests write.
        """
        source = self._source_of("data")
        if (
            not isinstance(source, spec.FileSource)
            or source.offset
            or source.partition
            or not gone.exists(source.file)
        ):
            return
        with files.backing_of(source, read_only=True, option="pool.data") as backing:
            found = new_loop.format_of(backing)
        if found is not None:
            raise InvalidValue(
                "pool.data",
                source.file,
                f"must be an empty file for a new pool: this is an image of the format {found}",
            )

    def _superblock(self) -> superblock.Superblock | None:
        source = self._source_of("metadata")
        if isinstance(source, spec.FileSource):
            if not gone.exists(source.file):
                return None
            with files.backing_of(source, read_only=True) as backing:
                source = area.of_source(source, backing, "pool.metadata")
                return superblock.parse(os.pread(backing.fd, superblock.BYTES, source.offset), source.file)
        found = lookup.find(source, self._resources)
        if found is None:
            return None
        with found as device:
            return superblock.parse(os.pread(device.fd, superblock.BYTES, 0), device.path)

    def _wait_gone(self) -> None:
        """
        A pool that was activated briefly is removed when its last user closes it. Wait for that, but not if a
        guest is using it by now.
        """
        deadline = Deadline(_GOING_SECONDS)
        for pause in pauses():
            if deadline.expired or not any(removal.is_there(device.id) for device in self._opener.made):
                return
            deadline.sleep(pause)

    def _cut(self) -> InvalidValue:
        return InvalidValue(
            "pool.table",
            self.wanted,
            f"must be {self.length} sectors or more: a pool is never shrunk",
            device=self._described.name,
        )
