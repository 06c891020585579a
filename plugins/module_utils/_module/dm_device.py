# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``dm_device`` and ``dm_devices`` do with one mapped device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import stat

from .._base import gone
from .._base import locks as _locks
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy, DeviceGone, InvalidValue, WrongDevice
from .._block import device as _device
from .._block import sysfs
from .._dm import (
    control as _control,
)
from .._dm import health, live_table, reload, removal, udev
from .._dm import (
    mapped as _mapped,
)
from .._dm import (
    names as _names,
)
from .._dm import (
    suspended as _suspended,
)
from .._dm_table.keys import with_keys
from .._source import needed_locks, opener, orphans, slot_files, slots
from .._volumes import thin
from . import dm_order, sealing
from .runner import Item, Plan, check_seconds, undo_steps

# For how long somebody who has a device open for a moment is waited for.
_PROBING_SECONDS = 2
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
    **sealing.ARGUMENTS,
    "timeout": {"type": "int", "default": 10},
    "state": {"type": "str", "choices": ["present", "suspended", "absent"], "default": "present"},
}


class DmItem(Item):
    ARGUMENTS = ARGUMENTS
    CONSTRAINTS = {
        "required_one_of": [("name", "uuid", "diskseq")],
        "required_if": [("state", "present", ("name",)), ("state", "suspended", ("name",))],
    }

    def __init__(self, params, host):
        super().__init__(params, host)
        self.mapped = None
        self.device = None
        self.slots = None
        self.value = None
        self.opener = None
        self.created = False
        self.gone = None
        self.volumes = None
        self._restore = []
        # The settings that the plan found and wants.
        self._seal_before, self._seal_after = {}, {}
        # How many devices that stand on it are removed before it.
        self._above = 0

    def key(self):
        for option in ("name", "uuid"):
            if self.params[option]:
                return option, self.params[option]
        return "diskseq", self.params["diskseq"]

    def identities(self):
        params, found = self.params, {}
        if self.device is not None:
            found[self.device.id] = f"{self.device.path} (diskseq {self.device.id.diskseq})"
        if self.mapped is not None:
            status = self.mapped.status
            found["device", status.name] = f"the mapped device {status.name} (uuid {status.uuid or '(none)'})"
        found.update(
            {(option, params[option]): "" for option in ("name", "uuid", "diskseq") if params[option]}
        )
        return found

    def check(self):
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
                    f"must be left out with state={params['state']}: a pool is live when its volumes are changed",
                )
            self.volumes = thin.Volumes(
                self.host, thin.parse_volumes(params["volumes"]), max(1, params["timeout"])
            )
        self.value = (
            None if params["table"] is None else with_keys(table_lines(params["table"]), params["keys"] or {})
        )

    @classmethod
    def prepare(cls, host):
        orphans.reap(host)
        sealing.prepare()

    def locks(self):
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

    def look(self):
        self._look()

    @classmethod
    def in_order(cls, items):
        return [items[index] for index in dm_order.in_order([item._in_stack() for item in items])]

    def _in_stack(self):
        """The entry for ``_module.dm_order.in_order``."""
        params, numbers = self.params, None
        if params["state"] == "absent":
            own = None if self.device is None else (self.device.id.major, self.device.id.minor)
            numbers = own, set() if own is None else sysfs.stack_below(*own)
            self.host.mapped_to_go.update([own] if own else [])
        return params["name"], self.value, params["read_only"], numbers

    def plan(self):
        if self.params["state"] == "absent":
            return self._plan_absent()
        self._check_owner()
        before = self._now()
        after = self._wanted(before)
        if self.slots is not None and before.get("table") != after["table"]:
            standing_on = self.host.dm.deps(_control.by_device(self.device)) if before else []
            sealing.refuse_sealed(self.slots.found(), standing_on)
        sealing.compare(self.params, self.device, before, after)
        self._seal_before, self._seal_after = before, after
        if not before and after["table"] is not None:
            self.host.mapped_to_be[after["name"]] = slots.ToBe(
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
            _suspended.check(self.host.dm, self.device)
        if self.volumes is not None:
            self._plan_volumes(before, after)
        return Plan(before != after, _shown(before), _shown(after))

    def apply(self):
        if self.params["state"] == "absent":
            self._remove()
        elif self.device is None:
            self._create()
        else:
            self._change()
        if self.volumes is not None:
            self.volumes.make(self.device)
        if self.params["state"] != "absent":
            sealing.change(self.device, self._seal_before, self._seal_after, self._restore)

    def finish(self):
        if self.volumes is not None:
            self.volumes.delete(self.device)

    def is_removal(self):
        return super().is_removal() or (self.volumes is not None and self.volumes.deleted)

    def made(self):
        below = [] if self.opener is None else self.opener.made
        return below + ([self.device] if self.created else [])

    def commit(self):
        if self.opener is not None and self.params["persist"]:
            self.opener.keep()
        if self.created and self.params["persist"]:
            _mapped.set_persist(self.host.dm, self.device, True)

    def to_hold(self):
        params = self.params
        return (
            [self.device] if params["state"] != "absent" and not params["persist"] and params["hold"] else []
        )

    def remains(self):
        told = [] if self.opener is None else list(self.opener.grown)
        if self.params["state"] == "absent" and self.gone is not None:
            told.append(
                "the mapped device is gone" if self.gone else "the mapped device goes with its last user"
            )
        if self.volumes is not None and self.volumes.deleted:
            told.append("volumes are deleted, and what was done with them")
        return told

    def outcome(self):
        return {"gone": self.gone is True or self.mapped is None} if self.params["state"] == "absent" else {}

    def undo(self):
        try:
            if self.volumes is not None and self.device is not None:
                self.volumes.undo(self.device)
        finally:
            self._undo_device()

    def _undo_device(self):
        if self.opener is not None:
            self.opener.give_up()
        if self.created:
            # With its deferred remove set it goes with this descriptor; if another item failed after our commit, that is off by now.
            with self.device:
                _mapped.set_persist(self.host.dm, self.device, False)
        undo_steps(self._restore)

    def result(self):
        if self.params["state"] == "absent":
            return dict(self.outcome(), device=None)
        if self.device is None:
            return {"device": None}
        problems = health.problems(self.host.dm, self.device)
        self.warnings = [f"mapped device {name}: {wrong} ({kind.decode()})" for name, kind, wrong in problems]
        return {"device": describe(self.host, self.device)}

    # Finding

    def _look(self):
        self.mapped = self._find()
        if self.mapped is not None and self.mapped.device is not None:
            self.device = self.host.enter_context(self.mapped.device)
            self._guard(self.device)

    def _find(self):
        params = self.params
        if params["name"] or params["uuid"]:
            return _mapped.find(self.host.dm, params["name"] or "", params["uuid"] or "")
        try:
            device = _device.open_diskseq(params["diskseq"])
        except DeviceGone:
            return None
        if not _mapped.is_mapped(device):
            device.close()
            raise WrongDevice("this is not a mapped device", device=f"diskseq:{params['diskseq']}")
        return _mapped.Mapped(device, self.host.dm.status(_control.by_device(device)))

    def _guard(self, device):
        wanted = self.params["diskseq"]
        if wanted is not None and device.id.diskseq != wanted:
            raise WrongDevice(
                f"its disk sequence number is {device.id.diskseq}, not {wanted}",
                device=self.mapped.status.name,
                hint="The name belongs to another device than the one that was asked for; nothing was done",
            )

    def _check_owner(self):
        """The device found is the one that name and uuid ask for, and none has to be pushed aside for it."""
        params, mapped = self.params, self.mapped
        if mapped is None:
            if params["diskseq"] is not None:
                raise WrongDevice(
                    f"it is not there, and diskseq={params['diskseq']} was asked for",
                    device=params["name"],
                    hint="The device that had this number is gone; leave diskseq out to make a new one",
                )
            if self.value is None:
                raise InvalidValue(
                    "table",
                    None,
                    f"must be given: there is no mapped device {params['name']}, and one cannot be made without a table",
                )
            return
        if params["uuid"] and mapped.status.uuid != params["uuid"]:
            raise DeviceBusy(
                f"the name is taken by another device: {_mapped.describe(self.host.dm, mapped)}",
                device=params["name"],
                hint=f"It has not the uuid {params['uuid']}; nothing was done",
            )
        if mapped.status.name != params["name"]:
            other = _mapped.open_mapped(self.host.dm, _control.by_name(params["name"]))
            if other is not None:
                if other.device is not None:
                    self.host.enter_context(other.device)
                raise DeviceBusy(
                    f"{mapped.status.name} (uuid {params['uuid']}) cannot be renamed: the name is taken by {_mapped.describe(self.host.dm, other)}",
                    device=params["name"],
                )

    # Comparing

    def _now(self):
        """The settings of the device as it is; empty when there is none with a live table."""
        if self.mapped is None or self.device is None or not self.mapped.status.has_live_table:
            return {}
        status = self.mapped.status
        return {
            "name": status.name,
            "uuid": status.uuid,
            "table": live_table.live_table(self.host.dm, self.device),
            "read_only": status.read_only,
            "suspended": status.suspended,
            "persist": not status.deferred_remove,
        }

    def _wanted(self, now):
        params = self.params
        return {
            "name": params["name"],
            "uuid": params["uuid"] or now.get("uuid", ""),
            "table": self._wanted_table(now),
            "read_only": params["read_only"] if self.value is not None else now["read_only"],
            "suspended": params["state"] == "suspended",
            "persist": params["persist"],
        }

    def _wanted_table(self, now):
        if self.value is None:
            if not now:
                raise InvalidValue("table", None, f"must be given: {self.params['name']} has no live table")
            return now["table"]
        own = None if self.device is None else (self.device.id.major, self.device.id.minor)
        self.slots = slots.host_slots(self.host, self.value, own)
        wanted = self.slots.look(self.value, self.params["read_only"])
        live = now.get("table")
        if live is None:
            return wanted.table
        wanted.table.check_replaces(live)
        if wanted.table.length < live.length and not self.params["allow_shrink"]:
            self._refuse_shrinking(live.length, wanted.table.length)
        # What is the same in meaning is not written in another way.
        if wanted.is_complete and live.same_as(wanted.table):
            return live
        self._refuse_exchange(live, wanted.written)
        return wanted.table

    def _refuse_exchange(self, live, written):
        """Whoever has mounted the device would go on with another file, which the path of the old one leads to now."""
        found = slot_files.exchanged(live, written)
        if found is None:
            return
        if self._is_in_use():
            raise DeviceBusy(
                f"it is in use, and stands on {found.old}; the table would have it stand on another file, "
                f"{found.file}",
                device=self.params["name"],
                hint="End that use first. If the other file is meant, name its loop device by diskseq=N in the table",
            )
        self.host.warn(
            f"{self.params['name']}: it stood on {found.old}, and stands on another file with this table, {found.file}"
        )

    def _refuse_shrinking(self, sectors, left):
        """Who uses a device that gets shorter gets errors behind its new end."""
        if self._is_in_use():
            raise DeviceBusy(
                f"the table would shrink it from {sectors} to {left} sectors while it is in use",
                device=self.params["name"],
                hint="End that use first, or say allow_shrink=true if nobody needs what is behind the new end",
            )

    def _is_in_use(self, seconds=_PROBING_SECONDS):
        """One who has it for a moment, such as udev, is waited for."""
        limit = Deadline(seconds)
        for pause in pauses():
            # One is this process.
            if self.host.dm.status(_control.by_device(self.device)).open_count <= 1:
                return False
            if limit.expired:
                break
            limit.sleep(pause)
        return True

    def _plan_volumes(self, before, after):
        table = after["table"]
        if table is None or [target.TYPE for target in table] != ["thin-pool"]:
            raise InvalidValue(
                "volumes",
                self.params["volumes"],
                "is possible only for a device whose table is one thin-pool target",
                device=self.params["name"],
            )
        if not before:
            after["volumes"] = self.volumes.wanted()
        elif before["suspended"] or [target.TYPE for target in before["table"] or ()] != ["thin-pool"]:
            # The kernel does not look a volume up now; it is asked when the pool is live.
            before["volumes"], after["volumes"] = None, self.volumes.wanted()
        else:
            before["volumes"] = self.volumes.look(self.device)
            after["volumes"] = self.volumes.wanted(before["volumes"])

    # Changing

    def _create(self):
        params = self.params
        self.opener = opener.Opener(self.host)
        table = (self.slots or slots.host_slots(self.host, self.value)).make(
            self.value, params["read_only"], self.opener
        )
        event_nr = self._event()
        uuid = params["uuid"] or (self.mapped.status.uuid if self.mapped is not None else None)
        self._make_way()
        device = self._made_by(
            event_nr, lambda: _mapped.make(self.host.dm, params["name"], uuid, table, event_nr, persist=False)
        )
        self.created = True
        self.device = self.host.mapped_made[params["name"]] = self.host.enter_context(device)
        if params["state"] == "suspended":
            self._set_suspended(True)

    def _make_way(self):
        """Remove what was found without a live table: nothing can be in it. It is there again, without a table, when this is undone."""
        if self.mapped is None:
            return
        control, status = self.host.dm, self.mapped.status
        if self.device is None:
            removal.remove_without_table(control, status)
        else:
            # Its maker holds it until it is live.
            if removal.wait_unused(control, self.device, self.params["timeout"]).has_live_table:
                raise DeviceBusy(
                    "it got its live table from another process meanwhile",
                    device=status.name,
                    hint="Try again",
                )
            removal.remove(control, self.device, self.host.cookie, timeout=self.params["timeout"])
        self._restore.append(lambda: removal.create_again(control, status))

    def _made_by(self, event_nr, make):
        try:
            return make()
        except BaseException:
            if event_nr & 0xFFFF:
                self.host.cookie.not_sent()
            raise

    def _change(self):
        if not self.mapped.status.has_live_table:
            self._create()
            return
        before = self._now()
        after = self._wanted(before)
        if before["name"] != after["name"]:
            self._rename(after["name"])
            self._restore.append(lambda: self._rename(before["name"]))
        if before["table"] != after["table"] or before["read_only"] != after["read_only"]:
            self._reload(before, after)
        if before["suspended"] != after["suspended"]:
            self._set_suspended(after["suspended"])
            self._restore.append(lambda: self._set_suspended(before["suspended"]))
        if before["persist"] != after["persist"]:
            _mapped.set_persist(self.host.dm, self.device, after["persist"])
            self._restore.append(lambda: _mapped.set_persist(self.host.dm, self.device, before["persist"]))

    def _reload(self, before, after):
        how = self._how()
        old = reload.saved_table(self.host.dm, self.device, self.host)
        self.opener = opener.Opener(self.host)
        if self.value is None:
            table = live_table.loadable(after["table"], after["read_only"])
        else:
            table = self.slots.make(self.value, after["read_only"], self.opener)
        self._take_live(table, how, before["suspended"])
        self._restore.append(lambda: self._take_live(old, how, before["suspended"]))

    def _take_live(self, table, how, suspended):
        event_nr = self._event()
        self._made_by(event_nr, lambda: reload.reload(self.host.dm, self.device, table, event_nr, how))
        if suspended:
            self._set_suspended(True)

    def _rename(self, name):
        event_nr = self._event()
        if not self._made_by(event_nr, lambda: _mapped.rename(self.host.dm, self.device, name, event_nr)):
            self.host.cookie.not_sent()

    def _set_suspended(self, wanted):
        how = self._how()
        if wanted:
            # udev's probers would read from it, and hang.
            self.host.cookie.wait(how.seconds)
            _suspended.suspend(self.host.dm, self.device, how)
        else:
            _suspended.check(self.host.dm, self.device)
            address, event_nr = _control.by_device(self.device), self._event()
            status = self._made_by(
                event_nr, lambda: self.host.dm.resume(address, how.noflush, how.nolockfs, event_nr)
            )
            if not status.uevent_generated:
                self.host.cookie.not_sent()

    def _how(self):
        params = self.params
        return _suspended.Suspend(params["noflush"], params["nolockfs"], max(1, params["timeout"]))

    def _event(self):
        return self.host.cookie.next(udev.HIDDEN if self.params["udev"] == "hidden" else 0)

    # Removing

    def _plan_absent(self):
        if self.mapped is None:
            return Plan(False, {}, {})
        params, status = self.params, self.mapped.status
        for option, has in (("name", status.name), ("uuid", status.uuid)):
            if params[option] and params[option] != has:
                raise WrongDevice(
                    f"its {option} is {has or '(none)'}, not {params[option]}: {_mapped.describe(self.host.dm, self.mapped)}",
                    device=status.name,
                    hint="It is not the device that was asked for; nothing was done",
                )
        if self.device is None and params["diskseq"] is not None:
            raise WrongDevice("it has no table yet, so no disk sequence number", device=status.name)
        if (
            self.device is not None
            and params["deferred"]
            and status.deferred_remove
            and status.open_count > 1
            and not sealing.is_missing(params, self.device)
        ):
            # It is to go with its last user already.
            self.gone = False
            return Plan(False, {}, {})
        if self.device is not None and not params["deferred"]:
            self._above = self._going_above()
            removal.wait_unused(self.host.dm, self.device, params["timeout"], self._above)
        row = {"name": status.name, "uuid": status.uuid}
        if self.device is not None:
            row.update(path=self.device.path, diskseq=self.device.id.diskseq)
        return Plan(True, row, {})

    def _going_above(self):
        """How many of the mapped devices that stand on it the same list removes before."""
        holders = sysfs.holders_of(self.device.id.major, self.device.id.minor)
        return len(self.host.mapped_to_go.intersection(holders))

    def _remove(self):
        if self.mapped is None:
            self.gone = True
            return
        status = self.mapped.status
        if self.device is None:
            removal.remove_without_table(self.host.dm, status)
            self.gone = True
            return
        if self._above:
            # What stood on it is gone from sysfs a moment before it lets go of this one; who still has it then is
            # told by the removal.
            self._is_in_use(min(_PROBING_SECONDS, self.params["timeout"]))
        with sealing.going(self.params, self.device):
            self.gone = removal.remove(
                self.host.dm, self.device, self.host.cookie, self.params["deferred"], self.params["timeout"]
            )
        if self.gone:
            sealing.forget(self.device.id)
            self.host.link_goes(status.name, self.device.id)


def _mapper_path(status):
    """The path in /dev/mapper, which udev makes; None when it does not lead to the device."""
    path = f"/dev/mapper/{status.name}"
    try:
        found = os.stat(path)
    except OSError as error:
        if error.errno in gone.PATH:
            return None
        raise gone.not_seen(error, path) from error
    number = os.major(found.st_rdev), os.minor(found.st_rdev)
    return path if stat.S_ISBLK(found.st_mode) and number == (status.major, status.minor) else None


def describe(host, device):
    """What the modules return of a mapped device: its identity and its settings."""
    status = host.dm.status(_control.by_device(device))
    table = live_table.live_table(host.dm, device)
    return dict(
        device.as_dict(),
        mapper_path=_mapper_path(status),
        mapper_name=status.name,
        uuid=status.uuid,
        table=None if table is None else table.redacted().lines(),
        suspended=status.suspended,
        persist=not status.deferred_remove,
        sealed=sealing.described(device) is not None,
        open_count=status.open_count - 1,
        status=[_mapped.line_text(line) for line in host.dm.target_status(_control.by_device(device))[1]],
    )


def table_lines(value):
    """A table option as a list: text is cut into lines, also inside a list."""
    rows = value if isinstance(value, list) else [value]
    result = []
    for row in rows:
        if isinstance(row, dict):
            result.append(row)
        elif isinstance(row, str):
            result.extend(row.splitlines())
        else:
            raise InvalidValue(
                "table",
                row,
                "must be text lines as for dmsetup, or dictionaries with start, length and target",
            )
    return result


def _shown(settings):
    """Settings for the diff: the table as lines, without keys."""
    if not settings:
        return {}
    table = settings["table"]
    return dict(settings, table=None if table is None else table.redacted().lines())
