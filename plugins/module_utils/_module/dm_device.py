# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``dm_device`` and ``dm_devices`` do with one mapped device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._base import locks as _locks
from .._base.errors import DeviceBusy, DeviceGone, InvalidValue, WrongDevice
from .._block import device as _device
from .._block import loop, sysfs
from .._block.device import Device
from .._dm import control as _control
from .._dm import health, lifetime, live_table, reload, removal
from .._dm import mapped as _mapped
from .._dm import names as _names
from .._dm import suspended as _suspended
from .._dm_table import Table
from .._dm_table.keys import with_keys
from .._source import needed_locks, opener, orphans
from .._source.resources import Resources, ToBe
from .._volumes import thin
from . import dm_order, elsewhere, sealing
from .dm_change import Changes
from .dm_describe import Settings, as_plain_data, describe, settings_of
from .dm_plan import PROBING_SECONDS, TablePlan, is_in_use
from .item import Identities, Item, Params, Plan, check_seconds, known
from .table_option import table_lines

ARGUMENTS = {
    "name": {"type": "str"},
    "uuid": {"type": "str"},
    "diskseq": {"type": "int"},
    "table": {"type": "raw"},
    "keys": {"type": "dict", "no_log": True},
    "volumes": {
        "type": "list",
        "elements": "dict",
        "options": {
            "id": {"type": "int", "required": True},
            "snapshot_of": {"type": "int"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
    },
    "read_only": {"type": "bool", "default": False},
    "allow_shrink": {"type": "bool", "default": False},
    "persist": {"type": "bool", "default": True},
    "hold": {"type": "int", "default": 60},
    "noflush": {"type": "bool", "default": False},
    "nolockfs": {"type": "bool", "default": False},
    "udev": {"type": "str", "choices": ["full", "hidden"], "default": "full"},
    "deferred": {"type": "bool", "default": False},
    **sealing.BELOW_ARGUMENTS,
    "timeout": {"type": "int", "default": 10},
    "state": {"type": "str", "choices": ["present", "suspended", "absent"], "default": "present"},
}


class DmItem(Item):
    ARGUMENTS = ARGUMENTS
    CONSTRAINTS = {
        "required_one_of": [("name", "uuid", "diskseq")],
        "required_if": [("state", "present", ("name",)), ("state", "suspended", ("name",))],
    }

    def __init__(self, params: Params, resources: Resources) -> None:
        super().__init__(params, resources)
        # None if there is none, once it was looked for.
        self.mapped: _mapped.Mapped | None = None
        self.device: Device | None = None
        self.table: TablePlan | None = None
        self.value: list[str | dict[str, Any]] | None = None
        self.opener: opener.Opener | None = None
        self.created = False
        # None: not known.
        self.gone: bool | None = None
        self.volumes: thin.Volumes | None = None
        self.changes: Changes | None = None
        # The settings that the plan found and wants.
        self._seal_before: Settings = {}
        self._seal_after: Settings = {}
        # The number of devices stacked on it that the task removes before it.
        self._above = 0

    def key(self) -> tuple[str, Any]:
        for option in ("name", "uuid"):
            if self.params[option]:
                return option, self.params[option]
        return "diskseq", self.params["diskseq"]

    def identities(self) -> Identities:
        params = self.params
        found: Identities = {}
        if self.device is not None:
            found[self.device.id] = f"{self.device.path} (diskseq {self.device.id.diskseq})"
        if self.mapped is not None:
            status = self.mapped.status
            found["device", status.name] = f"the mapped device {status.name} (uuid {status.uuid or '(none)'})"
        found.update(
            {(option, params[option]): "" for option in ("name", "uuid", "diskseq") if params[option]}
        )
        return found

    def check(self) -> None:
        params = self.params
        if params["name"] is not None:
            _names.check_name(params["name"])
        if params["uuid"] is not None:
            _names.check_uuid(params["uuid"])
        if params["diskseq"] is not None:
            _device.check_diskseq(params["diskseq"])
        check_seconds(params, "hold")
        check_seconds(params, "timeout")
        sealing.check(params)
        if params["volumes"] is not None:
            if params["state"] != "present":
                raise InvalidValue(
                    "volumes",
                    params["volumes"],
                    f"must be left out with state={params['state']}: "
                    "a pool must be active to change its volumes",
                )
            self.volumes = thin.Volumes(
                self.resources, thin.parse_volumes(params["volumes"]), max(1, params["timeout"])
            )
        self.value = (
            None if params["table"] is None else with_keys(table_lines(params["table"]), params["keys"] or {})
        )

    @classmethod
    def prepare(cls, resources: Resources) -> None:
        orphans.reap(resources)
        sealing.prepare()

    def locks(self) -> list[_locks.Lock]:
        names = [(self.params["name"], self.params["uuid"])]
        found = self._find()
        if found is not None:
            names.append((found.status.name, found.status.uuid))
            if found.device is not None:
                found.device.close()
        locks = [lock for name, uuid in names for lock in _locks.of_mapped(name, uuid)]
        return locks + (
            [] if self.value is None else needed_locks.of_table(self.value, self.params["read_only"])
        )

    def look(self) -> None:
        self._look()

    @classmethod
    def in_order(cls, items: Sequence[DmItem]) -> Sequence[Item]:
        return [items[index] for index in dm_order.in_order([item._in_stack() for item in items])]

    def _in_stack(self) -> dm_order.Entry:
        """The entry for ``_module.dm_order.in_order``."""
        params, numbers = self.params, None
        if params["state"] == "absent":
            own = None if self.device is None else (self.device.id.major, self.device.id.minor)
            numbers = own, set() if own is None else loop.stack_below(*own)
            self.resources.mapped_to_go.update([own] if own else [])
        return params["name"], self.value, params["read_only"], numbers

    def plan(self) -> Plan:
        if self.params["state"] == "absent":
            return self._plan_absent()
        self._check_owner()
        before = self._now()
        after = self._wanted(before)
        if self.table is not None and before.get("table") != after["table"]:
            standing_on = self.resources.dm.deps(_control.by_device(known(self.device))) if before else []
            sealing.refuse_sealed(self.table.found(), standing_on)
        sealing.compare(self.params, self.device, before, after)
        self._seal_before, self._seal_after = before, after
        if not before and after["table"] is not None:
            self.resources.mapped_to_be[after["name"]] = ToBe(
                after["uuid"] or None,
                after["table"].length,
                after["read_only"],
            )
        if (
            before
            and before["suspended"]
            and not after["suspended"]
            and (before["table"], before["read_only"]) == (after["table"], after["read_only"])
        ):
            _suspended.check(self.resources.dm, known(self.device))
        if self.volumes is not None:
            self._plan_volumes(before, after)
        return Plan(before != after, as_plain_data(before), as_plain_data(after))

    def apply(self) -> None:
        if self.params["state"] == "absent":
            self._remove()
        elif self.device is None:
            self._create()
        else:
            self._change()
        if self.volumes is not None:
            self.volumes.make(known(self.device))
        if self.params["state"] != "absent":
            sealing.change(
                known(self.device), self._seal_before, self._seal_after, known(self.changes).steps_back
            )

    def finish(self) -> None:
        if self.volumes is not None:
            self.volumes.delete(known(self.device))

    def is_removal(self) -> bool:
        return super().is_removal() or (self.volumes is not None and self.volumes.deleted)

    def made(self) -> list[Device]:
        below = [] if self.opener is None else self.opener.made
        return below + ([known(self.device)] if self.created else [])

    def commit(self) -> None:
        if self.opener is not None and self.params["persist"]:
            self.opener.keep()
        if self.created and self.params["persist"]:
            lifetime.set_persist(self.resources.dm, known(self.device), True)

    def to_hold(self) -> list[Device]:
        params = self.params
        return (
            [known(self.device)]
            if params["state"] != "absent" and not params["persist"] and params["hold"]
            else []
        )

    def remains(self) -> list[str]:
        told = [] if self.opener is None else list(self.opener.grown)
        if self.changes is not None:
            told += self.changes.left
        if self.params["state"] == "absent" and self.gone is not None:
            told.append(
                "the mapped device was removed"
                if self.gone
                else "the mapped device is removed when its last user closes it"
            )
        if self.volumes is not None and self.volumes.deleted:
            told.append("what was done with the volumes, because some are deleted")
        return told

    def outcome(self) -> dict[str, Any]:
        if self.params["state"] != "absent":
            return {}
        return {"gone": self.gone is True}

    def undo(self) -> None:
        try:
            if self.volumes is not None and self.device is not None:
                self.volumes.undo(self.device)
        finally:
            self._undo_device()

    def _undo_device(self) -> None:
        if self.opener is not None:
            self.opener.give_up()
        if self.created:
            # The device is removed when this descriptor is closed, if its deferred remove is set. A commit
            # may have cleared that.
            with known(self.device):
                lifetime.set_persist(self.resources.dm, known(self.device), False)
        if self.changes is not None:
            self.changes.undo()

    def result(self) -> dict[str, Any]:
        if self.params["state"] == "absent":
            return dict(self.outcome(), device=None)
        if self.device is None:
            return {"device": None}
        problems = health.problems(self.resources.dm, self.device)
        self.warnings = [f"mapped device {name}: {wrong} ({kind.decode()})" for name, kind, wrong in problems]
        return {"device": describe(self.resources, self.device)}

    # Finding

    def _look(self) -> None:
        self.mapped = self._find()
        if self.mapped is not None and self.mapped.device is not None:
            self.device = self.resources.enter_context(self.mapped.device)
            self._guard(self.device)
        elif self.mapped is not None and self.params["diskseq"] is not None:
            raise WrongDevice(
                "it has no table yet, so no disk sequence number", device=self.mapped.status.name
            )

    def _find(self) -> _mapped.Mapped | None:
        params = self.params
        if params["name"] or params["uuid"]:
            return _mapped.find(self.resources.dm, params["name"] or "", params["uuid"] or "")
        try:
            device = _device.open_diskseq(params["diskseq"])
        except DeviceGone:
            return None
        if not _mapped.is_mapped(device):
            device.close()
            raise WrongDevice("this is not a mapped device", device=f"diskseq:{params['diskseq']}")
        return _mapped.Mapped(device, self.resources.dm.status(_control.by_device(device)))

    def _guard(self, device: Device) -> None:
        wanted = self.params["diskseq"]
        if wanted is not None and device.id.diskseq != wanted:
            raise WrongDevice(
                f"its disk sequence number is {device.id.diskseq}, not {wanted}",
                device=known(self.mapped).status.name,
                hint="The name belongs to another device than the one that was asked for; nothing was done",
            )

    def _check_owner(self) -> None:
        """
        Raise an error unless the device that was found has the wanted name and UUID, or can be renamed to it.
        """
        params, mapped = self.params, self.mapped
        if mapped is None:
            if params["diskseq"] is not None:
                elsewhere.refuse(params, params["name"], "it does not exist")
            if self.value is None:
                raise InvalidValue(
                    "table",
                    None,
                    f"must be given: there is no mapped device {params['name']}, "
                    "and it cannot be created without a table",
                )
            return
        if params["uuid"] and mapped.status.uuid != params["uuid"]:
            raise DeviceBusy(
                f"the name is taken by another device: {_mapped.describe(self.resources.dm, mapped)}",
                device=params["name"],
                hint=f"It does not have the uuid {params['uuid']}; nothing was done",
            )
        if mapped.status.name != params["name"]:
            other = _mapped.open_mapped(self.resources.dm, _control.by_name(params["name"]))
            if other is not None:
                if other.device is not None:
                    self.resources.enter_context(other.device)
                raise DeviceBusy(
                    f"{mapped.status.name} (uuid {params['uuid']}) cannot be renamed: "
                    f"the name is taken by {_mapped.describe(self.resources.dm, other)}",
                    device=params["name"],
                )

    # Comparing

    def _now(self) -> Settings:
        """The current settings of the device. Empty if it does not exist or has no live table."""
        if self.mapped is None or self.device is None or not self.mapped.status.has_live_table:
            return {}
        return settings_of(self.resources, self.device, self.mapped.status)

    def _wanted(self, now: Settings) -> Settings:
        params = self.params
        return {
            "name": params["name"],
            "uuid": params["uuid"] or now.get("uuid", ""),
            "table": self._wanted_table(now),
            "read_only": params["read_only"] if self.value is not None else now["read_only"],
            "suspended": params["state"] == "suspended",
            "persist": params["persist"],
        }

    def _wanted_table(self, now: Settings) -> Table | None:
        if self.value is None:
            if not now:
                raise InvalidValue("table", None, f"must be given: {self.params['name']} has no live table")
            table: Table | None = now["table"]
            return table
        self.table = self._table_plan()
        return self.table.wanted(now.get("table"))

    def _table_plan(self) -> TablePlan:
        params = self.params
        return TablePlan(
            self.resources,
            params["name"],
            known(self.value),
            params["read_only"],
            params["allow_shrink"],
            self.device,
        )

    def _plan_volumes(self, before: Settings, after: Settings) -> None:
        table = after["table"]
        if table is None or [target.TYPE for target in table] != ["thin-pool"]:
            raise InvalidValue(
                "volumes",
                self.params["volumes"],
                "is possible only for a device whose table is one thin-pool target",
                device=self.params["name"],
            )
        if not before:
            after["volumes"] = known(self.volumes).wanted()
        elif before["suspended"] or [target.TYPE for target in before["table"] or ()] != ["thin-pool"]:
            # The kernel cannot look up a volume now. It is asked again when the pool is active.
            before["volumes"], after["volumes"] = None, known(self.volumes).wanted()
        else:
            before["volumes"] = known(self.volumes).look(known(self.device))
            after["volumes"] = known(self.volumes).wanted(before["volumes"])

    # Changing

    def _create(self) -> None:
        params = self.params
        self._begin()
        table = (self.table or self._table_plan()).make(known(self.opener))
        uuid = params["uuid"] or (self.mapped.status.uuid if self.mapped is not None else None)
        device = known(self.changes).make(params["name"], uuid, table, self.mapped)
        self.created = True
        self.device = self.resources.mapped_made[params["name"]] = self.resources.enter_context(device)
        if params["state"] == "suspended":
            known(self.changes).set_suspended(self.device, True)

    def _change(self) -> None:
        if not known(self.mapped).status.has_live_table:
            self._create()
            return
        self._begin()
        before = self._now()
        after = self._wanted(before)
        if before["name"] != after["name"]:
            known(self.changes).rename(known(self.device), before["name"], after["name"])
        if before["table"] != after["table"] or before["read_only"] != after["read_only"]:
            self._reload(before, after)
        if before["suspended"] != after["suspended"]:
            known(self.changes).suspend(known(self.device), after["suspended"])
        if before["persist"] != after["persist"]:
            known(self.changes).persist(known(self.device), after["persist"])

    def _begin(self) -> None:
        params = self.params
        self.opener = opener.Opener(self.resources)
        self.changes = Changes(
            self.resources,
            params["udev"] == "hidden",
            _suspended.Suspend(params["noflush"], params["nolockfs"], max(1, params["timeout"])),
            params["timeout"],
        )

    def _reload(self, before: Settings, after: Settings) -> None:
        old = reload.saved_table(self.resources.dm, known(self.device), self.resources)
        if self.value is None:
            table = live_table.loadable(after["table"], after["read_only"])
        else:
            table = known(self.table).make(known(self.opener))
        known(self.changes).reload(known(self.device), table, old, before["suspended"])

    # Removing

    def _plan_absent(self) -> Plan:
        if self.mapped is None:
            if self.params["diskseq"] is not None:
                elsewhere.refuse(self.params, self.title(), "it does not exist")
            self.gone = True
            return Plan(False, {}, {})
        params, status = self.params, self.mapped.status
        for option, has in (("name", status.name), ("uuid", status.uuid)):
            if params[option] and params[option] != has:
                raise WrongDevice(
                    f"its {option} is {has or '(none)'}, not {params[option]}: "
                    f"{_mapped.describe(self.resources.dm, self.mapped)}",
                    device=status.name,
                    hint="It is not the device that was asked for; nothing was done",
                )
        if (
            self.device is not None
            and params["deferred"]
            and status.deferred_remove
            and status.open_count > 1
            and not sealing.is_missing(params, self.device)
        ):
            # Its deferred remove is already set.
            self.gone = False
            return Plan(False, {}, {})
        if self.device is not None and not params["deferred"]:
            self._above = self._going_above()
            removal.wait_unused(self.resources.dm, self.device, params["timeout"], self._above)
        row: dict[str, Any] = {"name": status.name, "uuid": status.uuid}
        if self.device is not None:
            row.update(path=self.device.path, diskseq=self.device.id.diskseq)
        return Plan(True, row, {})

    def _going_above(self) -> int:
        """How many mapped devices above this one the same task removes before it."""
        holders = sysfs.holders_of(known(self.device).id.major, known(self.device).id.minor)
        return len(self.resources.mapped_to_go.intersection(holders))

    def _remove(self) -> None:
        status = known(self.mapped).status
        if self.device is None:
            removal.remove_without_table(self.resources.dm, status)
            self.gone = True
            return
        if self._above:
            # A device above disappears from sysfs shortly before it closes this one. The removal names a user
            # that remains.
            is_in_use(self.resources, self.device, min(PROBING_SECONDS, self.params["timeout"]))
        with sealing.going(self.params, self.device):
            self.gone = removal.remove(
                self.resources.dm,
                self.device,
                self.resources.cookie,
                self.params["deferred"],
                self.params["timeout"],
            )
        if self.gone:
            sealing.forget(self.device.id)
            self.resources.link_goes(status.name, self.device.id)
