# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``xl_disk`` and ``xl_disks`` do with one disk of one guest.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._base import late
from .._base import locks as _locks
from .._base.errors import BlockError, GuestError, InvalidValue
from .._base.files import check_path
from .._block.seal import reason_text
from .._hotplug import state
from .._source import needed_locks, recipe_file, spec
from .._source import recipe as _recipe
from .._source.resources import Resources
from .._xen import vdev as _vdev
from .._xl import config_file, disk_text
from .._xl.disk_change import DiskChange, DiskRequest
from .._xl.guest_config import Exchange, GuestConfig
from . import sealing
from .guest_disk import SIZE_ARGUMENTS, check_replace, check_source_mode, file_to_grow, wanted_size
from .item import Identities, Item, Params, Plan, check_seconds, error_of, known, seen

if TYPE_CHECKING:
    from .._source import growth
    from .._source.spec import Source
    from .._xen import guest as _guest
    from .._xen import replacing
    from .._xenstore import pyxs_store
    from .._xl import live_disk, running_disk
else:
    # For the options ``live`` and ``size``.
    growth = late.Module(__name__, ".._source.growth")
    replacing = late.Module(__name__, ".._xen.replacing")
    pyxs_store = late.Module(__name__, ".._xenstore.pyxs_store")
    live_disk = late.Module(__name__, ".._xl.live_disk")
    running_disk = late.Module(__name__, ".._xl.running_disk")

ARGUMENTS = {
    "domain": {"type": "str"},
    "config_file": {"type": "path"},
    "vdev": {"type": "str", "required": True},
    "source": {"type": "raw"},
    **SIZE_ARGUMENTS,
    "recipe": {"type": "str"},
    "mode": {"type": "str", "choices": ["r", "w"], "default": "w"},
    "device_type": {"type": "str", "choices": ["disk", "cdrom"], "default": "disk"},
    "shared": {"type": "bool", "default": False},
    "live": {"type": "bool", "default": False},
    "replace": {"type": "bool", "default": False},
    **sealing.BELOW_ARGUMENTS,
    "timeout": {"type": "int", "default": 60},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
_LONGEST_DOMAIN = 256


class XlDiskItem(Item):
    ARGUMENTS = ARGUMENTS
    CONSTRAINTS = {
        "required_if": [("state", "present", ("source",))],
        "required_one_of": [("domain", "config_file")],
    }
    # Set by check.
    request: DiskRequest

    def __init__(self, params: Params, resources: Resources) -> None:
        super().__init__(params, resources)
        self.change: DiskChange | None = None
        self.exchange: Exchange | None = None
        # The disk that the running guest has, if that is to grow.
        self.running: running_disk.RunningDisk | None = None
        # The disk that the running guest is to get or to lose, and why that failed.
        self.live: live_disk.LiveDisk | None = None
        self._live_error: BlockError | None = None
        # The guest whose disk is locked, if it runs; None if locks were not asked for, as in check mode.
        self._locked_domids: tuple[int, ...] | None = None
        # The bytes that the source's file must get, None if it is large enough.
        self._file_size: int | None = None
        # The file that was made larger, which is not rolled back, as texts.
        self._enlarged: list[str] = []
        # How the disk that is replaced is sealed, and the reason of its seal.
        self._old_seal: dict[str, Any] = {}
        self._reason = ""

    def key(self) -> tuple[str, Any]:
        return "vdev", self.title()

    def identities(self) -> Identities:
        """A configuration has several paths, and a disk several names."""
        number = _vdev.parse(self.params["vdev"]).number
        path = self.params["config_file"] or config_file.path_of(self.params["domain"])
        found: dict[Any, str] = {("disk", os.path.realpath(path), number): f"the disk {self.title()}"}
        if self.change is not None:
            found["recipe", self.change.name] = f"the recipe {self.change.name}"
        return found

    def title(self) -> str:
        return f"{self.params['vdev']} of {self.params['domain'] or self.params['config_file']}"

    def check(self) -> None:
        params = self.params
        vdev = _vdev.parse(params["vdev"]).name
        _check_names(params)
        sealing.check_guest_disk(params, "absent")
        check_seconds(params, "timeout", 1)
        check_replace(params, "absent")
        if params["source"] is None and params["state"] == "present":
            raise InvalidValue("source", None, "must be given with state=present")
        if params["device_type"] == "cdrom" and params["mode"] == "w" and params["state"] == "present":
            raise InvalidValue("mode", "w", "must be r: a cdrom is read-only")
        source = None if params["source"] is None else self._source()
        self.request = DiskRequest(
            params["config_file"],
            params["domain"],
            vdev,
            source,
            params["recipe"],
            params["mode"],
            params["device_type"],
            params["shared"],
            params["state"] == "present",
            params["sealed"],
            params["sealed_below"],
            wanted_size(params, source, "absent"),
        )

    def _source(self) -> Source:
        source = spec.parse(self.params["source"])
        if self.params["state"] == "present":
            source = check_source_mode(source, self.params["mode"])
        _recipe.check(source)
        return source

    def locks(self) -> list[_locks.Lock]:
        """
        The configuration, which is read and written as a whole, and the recipe. With ``live``, what the
        disk is made of, and the disk of the running guest.
        """
        request = self.request
        path = request.config_file or config_file.path_of(request.domain or "")
        change = DiskChange(self.resources, request, self._read())
        own = [*config_file.lock_of(path), recipe_file.lock_of(change.name)]
        return own + self._live_locks(change.guest.name)

    def _live_locks(self, name: str) -> list[_locks.Lock]:
        if not self.params["live"]:
            return []
        guest = running_disk.find_guest(self.resources.shared(pyxs_store.Store), name)
        self._locked_domids = () if guest is None else (guest.domid,)
        if guest is None:
            return []
        number = _vdev.parse(self.request.vdev).number
        own = _locks.of_vbd(guest.domid, number, self.title())
        source = self.request.source
        return [own] if source is None else [own, *needed_locks.of_source(source)]

    def _read(self) -> GuestConfig:
        return GuestConfig(self.request.config_file, self.request.domain)

    def plan(self) -> Plan:
        change = DiskChange(self.resources, self.request, self._read())
        self.change = change
        # A sealed disk has another word before it.
        used = disk_text.RECIPE + change.name
        guest = self._running_guest()
        # With live, the guest loses the disk first.
        is_in_use = (
            not self.request.present
            and guest is None
            and any(each.endswith(used) for each in state.targets())
        )
        before, after = change.plan(is_in_use)
        if change.wanted is not None and change.wanted.seal.sealed:
            if change.guest.config.is_hvm:
                raise InvalidValue(
                    "sealed",
                    True,
                    "is not possible for an HVM guest: its device model opens the disk too, and a seal would "
                    "refuse that, so that the guest could not start",
                )
            sealing.need_support()
        self.warnings += change.warnings
        self._plan_file(before, after)
        if guest is not None:
            self._plan_running(guest, before, after)
        grows = self._file_size is not None or (self.running is not None and self.running.grows)
        changes = change.changes_config or change.changes_recipe or grows or self.live is not None
        return Plan(changes, before, after)

    def _plan_file(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        source = self.request.source
        grows = file_to_grow(source, self.request.size)
        if grows is not None and isinstance(source, spec.FileSource):
            before["file"], after["file"] = ({source.file: size} for size in grows)
            self._file_size = grows[1]

    def _running_guest(self) -> _guest.Guest | None:
        """The guest whose disk is to change now, None if it does not run."""
        if not self.params["live"]:
            return None
        guest = running_disk.find_guest(
            self.resources.shared(pyxs_store.Store), known(self.change).guest.name
        )
        locked = self._locked_domids
        if guest is not None and locked is not None and guest.domid not in locked:
            raise GuestError(
                "it was started meanwhile; nothing was done", device=str(guest), hint="Try again"
            )
        return guest

    def _plan_running(self, guest: _guest.Guest, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Plan how the disk of the running guest is attached, replaced or detached, or grows."""
        change, store, seconds = (
            known(self.change),
            self.resources.shared(pyxs_store.Store),
            self.params["timeout"],
        )
        source = known(change.wanted).source if self.request.present else None
        running = running_disk.RunningDisk(self.resources, self.request, guest, store)
        vbd = running.look()
        if vbd is not None:
            difference = self._difference(running, source)
            if difference is not None and not (self.params["replace"] and self.request.present):
                raise difference
            if difference is None and source is not None:
                has, gets = running.plan()
                if running.grows:
                    self.running = running
                    before["running"], after["running"] = has, gets
                return
        if vbd is not None or source is not None:
            live = live_disk.LiveDisk(
                self.resources, self.request, guest, store, change.says, source, seconds
            )
            before["running"], after["running"] = live.plan(vbd, running.device)
            self.live = live
            if live.old is not None and source is not None:
                self._reason = reason_text.of_vbd(guest.domid, _vdev.parse(self.request.vdev).number)
                sealing.as_before(self.params, live.old.device, self._old_seal, self._reason)

    def _difference(self, running: running_disk.RunningDisk, source: Source | None) -> BlockError | None:
        """
        Why the guest has another disk than the wanted one, or than the one to remove, if that was given.
        """
        wanted = self.request.source if source is None else source
        if wanted is None:
            return None
        return running.difference(wanted, self.params["timeout"])

    def apply(self) -> None:
        if self._file_size is not None and isinstance(self.request.source, spec.FileSource):
            self._enlarged = [growth.enlarge_file(self.request.source, self._file_size)]
        if self.live is not None:
            self.live.check()
        known(self.change).write_recipe()

    @classmethod
    def apply_together(cls, items: Sequence[XlDiskItem]) -> list[BlockError | None]:
        """
        Detach disks of running guests. Then change all disks of one configuration at once. Then recipes that
        nothing names are removed, and disks of running guests grow, or are attached.
        """
        errors: dict[XlDiskItem, BlockError | None] = {}
        for item in items:
            if item.live is not None and not item.request.present:
                errors[item] = error_of(item.live.change)
        for chosen in _by_file([item for item in items if errors.get(item) is None]):
            changes = [known(item.change) for item in chosen]
            exchange = Exchange(changes[0].guest, [change.edit for change in changes])
            error = error_of(exchange.run)
            for item, change in zip(chosen, changes):
                item.exchange = exchange
                errors[item] = error or error_of(change.remove_recipe)
        growing = [item for item in items if item.running is not None and errors.get(item) is None]
        for item in growing:
            errors[item] = error_of(known(item.running).grow)
        for item in growing:
            seconds = item.params["timeout"]
            errors[item] = errors.get(item) or known(item.running).wait_told(seconds)
        for item in items:
            if item.live is not None and item.request.present and errors.get(item) is None:
                errors[item] = item._live_error = error_of(item.live.change)
        return [errors.get(item) for item in items]

    def undo(self) -> None:
        """
        Restore the configuration and the recipe, unless the disk of the running guest has grown: it must not
        be shorter after the next start. Other disks of the configuration stay changed. Raises the first error
        at the end.
        """
        if self.running is not None and self.running.grown:
            return
        exchange, change = self.exchange, self.change
        steps: list[Callable[[], object]] = []
        if change is not None:
            if exchange is not None:
                steps.append(functools.partial(exchange.undo, change.edit))
            # A configuration that was not restored needs the recipe that it names.
            steps.insert(0 if not self.request.present else len(steps), change.undo_recipe)
        failures = {step: error_of(step) for step in steps}
        # The old disk is made of the old recipe. Without that, the guest keeps the new disk.
        has_recipe = change is None or failures[change.undo_recipe] is None
        if self.live is not None and (has_recipe or self.live.old is None):
            failures[self._undo_live] = error_of(self._undo_live)
        for failure in failures.values():
            if failure is not None:
                raise failure

    def _undo_live(self) -> None:
        live = known(self.live)
        live.undo()
        if live.again is not None and live.old is not None:
            if self._live_error is not None:
                replacing.has_again(self._live_error, live.old)
            else:
                self.warnings.append(f"{self.title()}: the guest has {live.old} again")
            # With a target that says so, the hotplug script has sealed it already.
            sealing.change(live.again, {}, self._old_seal, [], self._reason)

    def remains(self) -> list[str]:
        told = self._enlarged + ([] if self.running is None else self.running.remains())
        return told + ([] if self.live is None else seen(self.live.remains))

    def is_removal(self) -> bool:
        # A configuration and a recipe can be restored.
        return False

    def result(self) -> dict[str, Any]:
        change = self.change
        if change is None or not self.request.present:
            return {"disk": None, "replaced": None}
        text = _recipe.text_of(known(change.wanted).source)
        disk = {
            "domain": change.guest.name,
            "config_file": change.guest.path,
            "vdev": self.request.vdev,
            "mode": change.says.access,
            "device_type": self.request.device_type,
            "recipe": change.name,
            "recipe_file": recipe_file.path_of(change.name),
            "source": json.loads(text),
            "sealed": known(change.wanted).seal.sealed,
            "text": disk_text.written(change.says),
        }
        return {"disk": disk, "replaced": None if self.live is None else self.live.replaced()}


def _check_names(params: Params) -> None:
    """Check the names of the guest, its configuration and the recipe. Raises InvalidValue."""
    domain, path = params["domain"], params["config_file"]
    if domain is not None and (
        not domain or not domain.isprintable() or len(domain) > _LONGEST_DOMAIN or "/" in domain
    ):
        raise InvalidValue("domain", domain, "must be the name of a guest")
    if path is not None:
        check_path(path, "config_file")
    elif domain is None:
        raise InvalidValue("domain", None, "must be given, or config_file")
    if params["recipe"] is not None:
        recipe_file.check_name(params["recipe"])


def _by_file(items: Sequence[XlDiskItem]) -> list[list[XlDiskItem]]:
    groups: dict[str, list[XlDiskItem]] = {}
    for item in items:
        groups.setdefault(known(item.change).guest.file.path, []).append(item)
    return list(groups.values())
