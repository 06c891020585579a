# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``loop_device`` and ``loop_devices`` do with one loop device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._base import files, late, values
from .._base import locks as _locks
from .._base.errors import DeviceBusy, DeviceGone, InvalidValue, WrongDevice, shown
from .._block import backing as _backing
from .._block import bind, detach, loop, new_loop, replaced, trusted_path
from .._block import device as _device
from .._block.backing import Backing
from .._block.device import Device
from .._source.resources import Resources
from . import duplicates, elsewhere, sealing
from .item import Identities, Item, Params, Plan, check_seconds, known, undo_steps
from .loop_describe import describe

if TYPE_CHECKING:
    from .._block import partitions
    from .._source import below
else:
    # For the options ``partitions`` and ``backing``.
    partitions = late.Module(__name__, ".._block.partitions")
    below = late.Module(__name__, ".._source.below")

ARGUMENTS = {
    "backing_file": {"type": "path"},
    "backing": {"type": "raw"},
    "path": {"type": "path"},
    "diskseq": {"type": "int"},
    "offset": {"type": "str", "default": "0"},
    "size": {"type": "str", "default": "0"},
    "sector_size": {"type": "str"},
    "read_only": {"type": "bool", "default": False},
    "direct_io": {"type": "bool"},
    "partitions": {"type": "bool"},
    "format": {"type": "str", "choices": ["raw"]},
    "overlap": {"type": "bool", "default": False},
    "trusted_path": {"type": "bool", "default": False},
    "allow_shrink": {"type": "bool", "default": False},
    "persist": {"type": "bool", "default": True},
    "hold": {"type": "int", "default": 60},
    "deferred": {"type": "bool", "default": False},
    **sealing.ARGUMENTS,
    "timeout": {"type": "int", "default": 10},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}

# The identity of an area of a file, and its description.
Area = tuple[tuple[int, int, int, int], str]


class LoopItem(Item):
    ARGUMENTS = ARGUMENTS
    CONSTRAINTS = {
        "required_if": [("state", "present", ("backing_file", "backing"), True)],
        "required_one_of": [("backing_file", "backing", "path", "diskseq")],
    }
    # LOOP_SET_STATUS64 freezes the device's queue, and waits for an RCU grace period, some 20 ms.
    COMMITS_AT_ONCE = True

    def __init__(self, params: Params, resources: Resources) -> None:
        super().__init__(params, resources)
        self.backing: Backing | None = None
        # With the option ``backing``: the source, and the size in bytes that its device has or will have.
        self.source: below.Lower | None = None
        self.size_below = 0
        self.device: Device | None = None
        self.status: loop.LoopInfo | None = None
        # The identity of the file's area, and its description.
        self.area: Area | None = None
        self.created = False
        self._made_below: list[Device] = []
        self.removing: list[Device] = []
        self.gone: bool | None = None
        self._at_risk: list[Device] = []
        self._restore: list[Callable[[], Any]] = []
        # The settings before the run, and the wanted ones, from the plan.
        self._seal_before: dict[str, Any] = {}
        self._seal_after: dict[str, Any] = {}
        # Changes that cannot be rolled back, as texts.
        self._for_good: list[str] = []
        # Whether the device is persistent, as far as this run is concerned.
        self._stays = False

    def key(self) -> tuple[str, Any]:
        for option in ("backing_file", "path"):
            if self.params[option]:
                return option, self.params[option]
        if self.params["backing"] is not None:
            # What is no source may contain a key: a table, for example.
            return "backing", "(not shown)" if self.source is None else str(self.source)
        return "diskseq", self.params["diskseq"]

    def identities(self) -> Identities:
        """
        The area of the file and the devices that exist for it. Before these are known, the option as it was
        given.
        """
        devices = [*self.removing, *([] if self.device is None else [self.device])]
        found: Identities = {device.id: f"{device.path} (diskseq {device.id.diskseq})" for device in devices}
        if self.area is not None:
            found.update([self.area])
        option, value = self.key()
        if option != "diskseq":
            name = value if option == "backing" else os.path.normpath(value)
            value = (name, self.params["offset"], self.params["size"])
        found[option, value] = ""
        return found

    def title(self) -> str:
        option, value = self.key()
        return f"diskseq:{value}" if option == "diskseq" else str(value)

    def check(self) -> None:
        params = self.params
        if params["diskseq"] is not None:
            _device.check_diskseq(params["diskseq"])
        for option, kind in (("backing_file", "a regular file"), ("path", "a block device")):
            if params[option]:
                files.check_path(params[option], option, f"an absolute path of {kind}")
        for option in ("offset", "size", "sector_size"):
            if params[option] is not None:
                params[option] = values.bytes_or_0(params[option], option)
        check_seconds(params, "hold")
        check_seconds(params, "timeout")
        sealing.check(params)
        if params["state"] == "present" and params["path"]:
            raise InvalidValue(
                "path", params["path"], "is possible only with state=absent: the kernel picks a new device"
            )
        if params["state"] == "absent" and not params["backing_file"] and params["backing"] is None:
            for option in ("offset", "size"):
                if params[option]:
                    wrong = "must be left out: path or diskseq says which device"
                    raise InvalidValue(option, params[option], wrong)
        if params["backing"] is not None:
            self._check_source()
        elif params["state"] == "present" and not params["backing_file"]:
            raise InvalidValue(
                "backing_file", params["backing_file"], "must be an absolute path of a regular file"
            )
        if params["backing_file"] and params["path"]:
            raise InvalidValue(
                "path",
                params["path"],
                "must be left out: either backing_file or path says which device, not both",
            )

    def _check_source(self) -> None:
        params = self.params
        for option in ("backing_file", "path"):
            if params[option]:
                wrong = f"must be left out: either {option} or backing says which device, not both"
                raise InvalidValue(option, params[option], wrong)
        for option, meant in (("format", "raw"), ("trusted_path", True)):
            if params[option] == meant:
                raise InvalidValue(option, meant, "is possible only for a file: set it inside backing")
        self.source = below.parse(params["backing"])

    def locks(self) -> list[_locks.Lock]:
        if self.params["backing_file"]:
            return _locks.of_file(self.params["backing_file"])
        if self.source is not None:
            return below.locks(self.source, self.resources, self.params["state"] == "absent")
        locks = []
        for device in self._to_remove():
            with device:
                locks.append(_lock_of(device))
        return locks

    @classmethod
    def prepare(cls, resources: Resources) -> None:
        del resources
        sealing.prepare()

    def plan(self) -> Plan:
        return self._plan_absent() if self.params["state"] == "absent" else self._plan_present()

    def apply(self) -> None:
        if self.params["state"] == "absent":
            self._remove()
        elif self.device is None:
            self._create()
        else:
            self._change()
        if self.params["state"] != "absent":
            sealing.change(known(self.device), self._seal_before, self._seal_after, self._restore)

    def made(self) -> list[Device]:
        return self._made_below + self._own_made()

    def lasting(self) -> list[Device]:
        return self._own_made() if self.params["persist"] else []

    def _own_made(self) -> list[Device]:
        return [known(self.device)] if self.created else []

    def risks(self) -> list[Any]:
        return self._at_risk

    def commit(self) -> None:
        if self.created and self.params["persist"]:
            loop.set_autoclear(known(self.device), False)
        self._stays = self.params["persist"]

    def to_hold(self) -> list[Device]:
        params = self.params
        return (
            [known(self.device)]
            if params["state"] == "present" and not params["persist"] and params["hold"]
            else []
        )

    def finish(self) -> None:
        # On a bound device, the kernel can undo neither a larger capacity nor a partition scan.
        now = (
            None
            if self.created or self.device is None
            else settings(self.device, known(self.status), self._named())
        )
        if now is None:
            return
        wanted = self._wanted()
        if now["partitions"] != wanted["partitions"]:
            loop.set_partitions(known(self.device))
            self._for_good.append("the kernel has looked for partitions")
        if now["size"] != wanted["size"]:
            loop.set_capacity(known(self.device))
            self._for_good.append(
                f"{known(self.device).path} has {known(self.device).size} bytes, as its file allows"
            )
        if self._update_partitions():
            self._for_good.append("the kernel's partitions are now those of the changed table")

    def remains(self) -> list[str]:
        return self._for_good

    def undo(self) -> None:
        if self.created:
            # The device is removed when this descriptor is closed, if autoclear is set. A commit may have
            # cleared that.
            with known(self.device):
                loop.set_autoclear(known(self.device), True)
        undo_steps(self._restore)

    def result(self) -> dict[str, Any]:
        if self.params["state"] == "absent":
            return dict(self.outcome(), device=None)
        if self.device is None:
            return {"device": None}
        status = loop.info(self.device)
        if self._stays and status.autoclear:
            raise DeviceBusy(
                "another process has detached it, so it is removed when its last user closes it",
                device=self.device.path,
                hint="Run the task again: it makes a new device if one is wanted",
            )
        parts = partitions.describe(self.device) if self.params["partitions"] else {}
        return {"device": dict(describe(self.device, status), **parts)}

    def _area(self, backing: Backing) -> Area:
        """The area of the file, in bytes. It identifies the device, whichever path and size were given."""
        offset, size = self.params["offset"], self.params["size"]
        size = size or max(0, backing.size - offset)
        if backing.block is None:
            identity, words = duplicates.file_identity(os.fstat(backing.fd))
        else:
            identity, words = (backing.device, backing.inode), f"the device {backing.path}"
        return (*identity, offset, size), f"{words}, {size} bytes from {offset} on"

    def outcome(self) -> dict[str, Any]:
        # None before the device was looked for.
        return {"gone": bool(self.gone)} if self.params["state"] == "absent" else {}

    def _plan_present(self) -> Plan:
        params = self.params
        self._open_backing()
        if self.backing is not None:
            self.area = self._area(self.backing)
            self.device, self.status = self._existing()
            if self.device is None:
                self._check_new()
                self._check_planned()
            self._check_backing(self.backing)
        else:
            # Over a device that is yet to be made.
            to_be = _backing.ToBe(str(self.source), self.size_below)
            _backing.check_geometry(to_be, params["offset"], params["size"], params["sector_size"])
        wanted = self._wanted()
        if self.device is None:
            if params["diskseq"] is not None:
                wrong = f"the {'file' if self.source is None else 'device'} has no loop device"
                elsewhere.refuse(params, self.title(), wrong)
            return self._planned({}, wanted)
        # The run returns the device's path, which must lead to this device.
        self.device.need_node()
        return self._planned(settings(self.device, known(self.status), self._named()), wanted)

    def _open_backing(self) -> None:
        """Open what the device is to be over. The device of ``backing`` may be yet to be made."""
        params = self.params
        if self.source is None:
            must = params["trusted_path"]
            trusted_path.check(
                params["backing_file"], must, self.resources.warn, "backing_file", self.resources.walked
            )
            opened = _backing.Backing(params["backing_file"], params["read_only"])
            self.backing = self.resources.enter_context(opened)
            self.size_below = opened.size
            return
        block, self.size_below = below.look(self.source, self.resources)
        if block is not None:
            self._stand_on(block)

    def _stand_on(self, block: Device) -> None:
        opened = _backing.Backing(block.path, self.params["read_only"], "backing", block)
        self.backing = self.resources.enter_context(opened)
        self.size_below = opened.size

    def _check_backing(self, backing: Backing) -> None:
        params = self.params
        _backing.check_geometry(backing, params["offset"], params["size"], params["sector_size"])
        if params["direct_io"]:
            _backing.check_direct_io(backing)

    def _planned(self, before: dict[str, Any], wanted: dict[str, Any]) -> Plan:
        sealing.compare(self.params, self.device, before, wanted)
        if self.params["partitions"]:
            self._plan_partitions(before, wanted)
        self._seal_before, self._seal_after = before, wanted
        self._stays = bool(before) and before["persist"] and wanted["persist"]
        return Plan(before != wanted, before, wanted)

    def _plan_partitions(self, before: dict[str, Any], wanted: dict[str, Any]) -> None:
        """
        Add the partitions to the state before and after. DeviceBusy if one that must be removed is in use.
        """
        size, block = wanted["size"], wanted["sector_size"]
        if self.device is None:
            backing = self.backing
            if backing is None:
                # It is over a device that is yet to be made.
                return
            table = partitions.table_of(backing.fd, backing.path, size, block, self.params["offset"])
            wanted["partition_list"] = partitions.expected([], table)
            return
        there = partitions.known(self.device)
        # Not from the file, because what was written to the device may be in its cache only.
        table = partitions.table_of(self.device.fd, self.device.path, size, block)
        partitions.refuse_used(self.device, partitions.changes(there, table).remove)
        before["partition_list"] = [part.row for part in there]
        wanted["partition_list"] = partitions.expected(there, table)

    def _update_partitions(self) -> bool:
        """Have the kernel's partitions be those of the table, if the task asks for partitions."""
        device = known(self.device)
        return self.params["partitions"] and partitions.update(device, partitions.read_table(device))

    def _existing(self) -> tuple[Device | None, loop.LoopInfo | None]:
        """The device to use, of all devices that the file has. The others are left unchanged."""
        params = self.params
        chosen = None
        found = self.resources.loops.find(known(self.backing), params["offset"], params["size"])
        for device, _status in found:
            self.resources.enter_context(device)
        if params["diskseq"] is not None and found:
            asked_for = [row for row in found if row[0].id.diskseq == params["diskseq"]]
            if not asked_for:
                raise WrongDevice(
                    f"its loop device has the disk sequence number {found[0][0].id.diskseq}, "
                    f"not {params['diskseq']}",
                    device=self.title(),
                    hint="It is not the device that was asked for any more; nothing was done",
                )
            found = asked_for
        fitting = [row for row in found if row[1].read_only == params["read_only"]]
        if fitting:
            chosen = fitting[0]
        elif found:
            has, asked = (
                ("read-only", "read_only=false") if found[0][1].read_only else ("writable", "read_only=true")
            )
            raise DeviceBusy(
                f"{self.title()} is bound {has} already, and {asked} was asked for",
                device=found[0][0].path,
                hint="A bound loop device cannot change that: remove it first (state=absent)",
            )
        return chosen or (None, None)

    def _wanted(self) -> dict[str, Any]:
        """
        The settings after the run. An option that is not given keeps its current value, or has the kernel's
        default.
        """
        params = self.params
        now = None if self.device is None else settings(self.device, known(self.status), self._named())
        wanted = {
            **self._named(),
            "offset": params["offset"],
            "size": params["size"]
            or _whole(self.size_below - params["offset"], params["sector_size"] or 512),
            "sector_size": params["sector_size"] or (now["sector_size"] if now else 512),
            "read_only": params["read_only"],
            "direct_io": params["direct_io"]
            if params["direct_io"] is not None
            else (now["direct_io"] if now else False),
            "partitions": params["partitions"]
            if params["partitions"] is not None
            else (now["partitions"] if now else False),
            "persist": params["persist"],
        }
        if now is not None:
            self._check_change(now, wanted)
        return wanted

    def _named(self) -> dict[str, str]:
        option, value = self.key()
        return {option: value}

    def _check_change(self, now: dict[str, Any], wanted: dict[str, Any]) -> None:
        for option, why in (
            ("sector_size", "it cannot be changed while the device is bound"),
            ("partitions", "the kernel cannot be told to forget partitions while the device is bound"),
        ):
            if now[option] != wanted[option] and not (option == "partitions" and wanted[option]):
                wrong = (
                    f"is not what {known(self.device).path} has, {shown(now[option])}, and {why}: "
                    "remove it first (state=absent)"
                )
                raise InvalidValue(option, wanted[option], wrong)
        if wanted["size"] < now["size"] and not self.params["allow_shrink"]:
            raise _backing.cut(
                known(self.device),
                now["size"],
                wanted["size"],
                "set allow_shrink=true if nobody needs what was beyond the new end",
            )

    def _check_new(self) -> None:
        params, backing, area = self.params, known(self.backing), self._part()
        file, resources = (backing.device, backing.inode), self.resources
        if backing.block is None:
            replaced.refuse(backing.path, file, area, resources.loops, resources.warn, with_going=False)
        said = new_loop.Said(params["format"], params["overlap"])
        new_loop.check(backing, area, said, resources.loops, option=self.key()[0])

    def _check_planned(self) -> None:
        """
        Check against the new devices of earlier entries of the list, which do not exist yet in check mode.

        Two entries for exactly the same part are duplicates: the task refuses both.
        """
        part, file = self._part(), (known(self.backing).device, known(self.backing).inode)
        planned = self.resources.planned.setdefault(file, [])
        for other, identity, title in planned:
            if identity == known(self.area)[0] or self.params["overlap"]:
                continue
            if part.writes and other.writes and part.overlaps(other):
                raise DeviceBusy(
                    f"another entry of the list, {title}, writes the same part of the file",
                    device=known(self.backing).path,
                    hint="Keep one of the two, or set overlap=true if two writers are intended",
                )
        planned.append((part, known(self.area)[0], f"from byte {part.offset} on"))

    def _part(self) -> new_loop.Area:
        return new_loop.Area(self.params["offset"], self.params["size"], not self.params["read_only"])

    def _create(self) -> None:
        params = self.params
        self.resources.loops.expect_nothing()
        if self.backing is None:
            if self.source is None:
                raise AssertionError
            device, is_new = below.make(self.source, self.resources)
            self._made_below += [device] if is_new else []
            self._stand_on(device)
            self.area = self._area(known(self.backing))
            self._check_backing(known(self.backing))
        self._check_new()
        self.device = self.resources.enter_context(
            bind.attach(
                known(self.backing),
                params["offset"],
                params["size"],
                params["sector_size"],
                params["read_only"],
                bool(params["direct_io"]),
                bool(params["partitions"]),
            )
        )
        self.created = True
        self._update_partitions()
        self.resources.loops.add(self.device, loop.info(self.device))

    def _change(self) -> None:
        now, wanted = settings(known(self.device), known(self.status), self._named()), self._wanted()
        if now["direct_io"] != wanted["direct_io"]:
            loop.set_direct_io(known(self.device), wanted["direct_io"])
            self._restore.append(lambda: loop.set_direct_io(known(self.device), now["direct_io"]))
        if now["persist"] != wanted["persist"]:
            loop.set_autoclear(known(self.device), not wanted["persist"])
            self._restore.append(lambda: loop.set_autoclear(known(self.device), not now["persist"]))

    def _plan_absent(self) -> Plan:
        params = self.params
        self.removing = [self.resources.enter_context(device) for device in self._to_remove()]
        # These locks are already held, unless a device was bound to a file a moment ago.
        self.resources.locks.take([_lock_of(device) for device in self.removing])
        if params["diskseq"] is not None:
            asked_for = [device for device in self.removing if device.id.diskseq == params["diskseq"]]
            if self.removing and not asked_for:
                device = self.removing[0]
                raise WrongDevice(
                    f"its disk sequence number is {device.id.diskseq}, not {params['diskseq']}",
                    device=device.path,
                    hint="It is not the device that was asked for any more; nothing was done",
                )
            self.removing = asked_for
            if not self.removing:
                elsewhere.refuse(params, self.title(), "it does not lead to this device")
        self.gone = not self.removing
        if not params["deferred"]:
            for device in self.removing:
                if _device.is_claimed(device):
                    raise detach.busy(device)
            self.resources.loops.expect_gone(self.removing)
        for device in self.removing:
            # Refuse before anything is changed.
            sealing.is_missing(params, device)
        statuses = [(device, loop.settings_of(device)) for device in self.removing]
        if not params["deferred"]:
            self._at_risk = [device for device, status in statuses if not status.autoclear]
        before = {"devices": [_removal_row(*row) for row in statuses]} if statuses else {}
        is_set = params["deferred"] and all(
            status.autoclear and not sealing.is_missing(params, device) for device, status in statuses
        )
        return Plan(bool(self.removing) and not is_set, before, before if is_set else {})

    def _to_remove(self) -> list[Device]:
        params = self.params
        if params["backing_file"]:
            return self._bound_to_file()
        if self.source is not None:
            return self._bound_to_source(self.source)
        try:
            device = (
                _device.open_path(params["path"])
                if params["path"]
                else _device.open_diskseq(params["diskseq"])
            )
        except DeviceGone:
            return []
        if not loop.is_loop(device):
            device.close()
            raise WrongDevice(
                "this is not a loop device", device=params["path"] or f"diskseq:{params['diskseq']}"
            )
        return [device] if self._is_bound(device) else []

    def _is_bound(self, device: Device) -> bool:
        """
        Whether a held loop device has a file; it is closed otherwise. One whose storage has failed is removed
        only if the task gives its disk sequence number. KernelError.
        """
        try:
            (loop.info if self.params["diskseq"] is None else loop.settings_of)(device)
        except DeviceGone:
            device.close()
            return False
        except BaseException:
            device.close()
            raise
        return True

    def _bound_to_file(self) -> list[Device]:
        params = self.params
        if params["trusted_path"]:
            trusted_path.check(
                params["backing_file"], True, self.resources.warn, "backing_file", self.resources.walked
            )
        try:
            backing = _backing.Backing(params["backing_file"], read_only=True)
        except InvalidValue as error:
            if error.errno not in (errno.ENOENT, *_backing.NO_SUCH_FILE):
                raise
            replaced.refuse(
                params["backing_file"], None, self._part(), self.resources.loops, self.resources.warn
            )
            return []
        with backing:
            self.area = self._area(backing)
            file = backing.device, backing.inode
            replaced.refuse(backing.path, file, self._part(), self.resources.loops, self.resources.warn)
            return self._of_the_area(backing, file)

    def _bound_to_source(self, source: below.Lower) -> list[Device]:
        """The devices over the device of the source; none if that is gone, or not made yet."""
        removing: list[Device] = []
        for block in below.existing(source, self.resources):
            with _backing.Backing(block.path, True, "backing", block) as backing:
                self.area = self._area(backing)
                removing += self._of_the_area(backing, (backing.device, backing.inode))
        return removing

    def _of_the_area(self, backing: Backing, file: tuple[int, int]) -> list[Device]:
        """The devices that have exactly this area. A warning names devices that have only a part of it."""
        offset, size, part = self.params["offset"], self.params["size"], self._part()
        found = self.resources.loops.over(file, with_going=True)
        removing = [
            device
            for device, status in found
            if loop.is_same(status, backing, offset, size)
            and (status.read_only or not self.params["read_only"])
        ]
        rest = [
            f"{device.path} (diskseq {device.id.diskseq}), {device.size} bytes from {status.offset} on"
            for device, status in found
            if device not in removing and part.meets(status)
        ]
        for device, dummy in found:
            if device not in removing:
                device.close()
        if rest:
            self.resources.warn(
                f"{backing.path}: another device, with another offset, size or access, covers this part, "
                "and was left unchanged: "
                f"{'; '.join(rest)}. To remove it, set diskseq=N and state=absent, without backing_file and "
                "backing"
            )
        return removing

    def _remove(self) -> None:
        for device in list(self.removing):
            path = device.path
            with sealing.going(self.params, device):
                is_gone = detach.detach(device, self.params["deferred"], self.params["timeout"])
            self._for_good.append(
                f"{path} was removed" if is_gone else f"{path} is removed when its last user closes it"
            )
            if is_gone:
                sealing.forget(device.id)
                self.removing.remove(device)
        self.gone = not self.removing


def _lock_of(device: Device) -> _locks.Lock:
    status = loop.settings_of(device)
    if status.backing_device == loop.UNKNOWN:
        # Nobody else can find it by its file now, so it is removed by its number only.
        return _locks.of_loop(status.number, device.id.diskseq, device.path)
    return _locks.of_inode(
        status.backing_device, status.backing_inode, loop.backing_path(device) or device.path
    )


def settings(device: Device, status: loop.LoopInfo, named: dict[str, str]) -> dict[str, Any]:
    """
    The settings of a bound device, named like the module's options. Sizes in bytes. ``named``: the option
    that says what it is over.
    """
    return {
        **named,
        "offset": status.offset,
        "size": device.size,
        "sector_size": device.logical_block,
        "read_only": status.read_only,
        "direct_io": status.direct_io,
        "partitions": status.partitions,
        "persist": not status.autoclear,
    }


def _removal_row(device: Device, status: loop.LoopInfo) -> dict[str, Any]:
    return {
        "path": device.path,
        "diskseq": device.id.diskseq,
        "backing_file": loop.backing_path(device),
        "offset": status.offset,
    }


def _whole(size: int, sector: int) -> int:
    return size - size % sector
