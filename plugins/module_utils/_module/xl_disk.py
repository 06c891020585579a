# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``xl_disk`` and ``xl_disks`` do with one disk of one guest.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._base import locks as _locks
from .._base.errors import BlockError, InvalidValue
from .._base.files import check_path
from .._hotplug import state
from .._source import recipe as _recipe
from .._source import recipe_file, spec
from .._source.resources import Resources
from .._xen import vdev as _vdev
from .._xl import config_file, disk_text
from .._xl.disk_change import DiskChange, DiskRequest
from .._xl.guest_config import Exchange, GuestConfig
from . import sealing
from .guest_disk import check_source_mode
from .item import Identities, Item, Params, Plan, error_of, known

if TYPE_CHECKING:
    from .._source.spec import Source

ARGUMENTS = {
    "domain": {"type": "str"},
    "config_file": {"type": "path"},
    "vdev": {"type": "str", "required": True},
    "source": {"type": "raw"},
    "recipe": {"type": "str"},
    "mode": {"type": "str", "choices": ["r", "w"], "default": "w"},
    "device_type": {"type": "str", "choices": ["disk", "cdrom"], "default": "disk"},
    "shared": {"type": "bool", "default": False},
    **sealing.BELOW_ARGUMENTS,
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
        if params["source"] is None and params["state"] == "present":
            raise InvalidValue("source", None, "must be given with state=present")
        if params["device_type"] == "cdrom" and params["mode"] == "w" and params["state"] == "present":
            raise InvalidValue("mode", "w", "must be r: a cdrom is read-only")
        self.request = DiskRequest(
            params["config_file"],
            params["domain"],
            vdev,
            None if params["source"] is None else self._source(),
            params["recipe"],
            params["mode"],
            params["device_type"],
            params["shared"],
            params["state"] == "present",
            params["sealed"],
            params["sealed_below"],
        )

    def _source(self) -> Source:
        source = check_source_mode(spec.parse(self.params["source"]), self.params["mode"])
        _recipe.check(source)
        return source

    def locks(self) -> list[_locks.Lock]:
        """The configuration, which is read and written as a whole, and the recipe."""
        request = self.request
        path = request.config_file or config_file.path_of(request.domain or "")
        try:
            name = [DiskChange(self.resources, request, self._read()).name]
        except BlockError:  # the plan reads it again and reports the error
            name = []
        return config_file.lock_of(path) + [recipe_file.lock_of(each) for each in name]

    def _read(self) -> GuestConfig:
        return GuestConfig(self.request.config_file, self.request.domain)

    def plan(self) -> Plan:
        change = DiskChange(self.resources, self.request, self._read())
        # A sealed disk has another word before it.
        used = disk_text.RECIPE + change.name
        is_in_use = not self.request.present and any(each.endswith(used) for each in state.targets())
        before, after = change.plan(is_in_use)
        if change.wanted is not None and change.wanted.seal.sealed:
            sealing.need_support()
        self.change = change
        self.warnings += change.warnings
        return Plan(change.changes_config or change.changes_recipe, before, after)

    def apply(self) -> None:
        known(self.change).write_recipe()

    @classmethod
    def apply_together(cls, items: Sequence[XlDiskItem]) -> list[BlockError | None]:
        """Change all disks of one configuration at once. Then recipes that nothing names are removed."""
        errors: dict[XlDiskItem, BlockError | None] = {}
        for chosen in _by_file(items):
            changes = [known(item.change) for item in chosen]
            exchange = Exchange(changes[0].guest, [change.edit for change in changes])
            error = error_of(exchange.run)
            for item, change in zip(chosen, changes):
                item.exchange = exchange
                errors[item] = error or error_of(change.remove_recipe)
        return [errors.get(item) for item in items]

    def undo(self) -> None:
        """Restore the configuration and the recipe. Raises the first error at the end."""
        steps = [self.exchange.undo] if self.exchange is not None else []
        if self.change is not None:
            # A configuration that was not restored needs the recipe that it names.
            steps.insert(0 if not self.request.present else len(steps), self.change.undo_recipe)
        for step in steps:
            failure = error_of(step)
            if failure is not None:
                raise failure

    def is_removal(self) -> bool:
        # A configuration and a recipe can be restored.
        return False

    def result(self) -> dict[str, Any]:
        change = self.change
        if change is None or not self.request.present:
            return {"disk": None}
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
        return {"disk": disk}


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
