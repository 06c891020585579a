# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``thin_volumes`` does with the volumes of one pool.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._base import locks as _locks
from .._base.errors import DeviceGone, InvalidValue, WrongDevice
from .._dm import control
from .._dm import space as _space
from .._source import lookup, needed_locks, orphans, spec
from .._source.resources import Resources
from .._volumes import pool, thin
from .item import Item, Params, Plan, check_percent, check_seconds, known

if TYPE_CHECKING:
    from .._source.spec import Source

ARGUMENTS = {
    "pool": {"type": "raw", "required": True},
    "volumes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "id": {"type": "int", "required": True},
            "snapshot_of": {"type": "int"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
    },
    "warn_percent": {"type": "int"},
    "timeout": {"type": "int", "default": 10},
}


class VolumesItem(Item):
    ARGUMENTS = ARGUMENTS
    # A pool that is not active is briefly activated for the plan.
    PLANS_UNDER_LOCK = True

    # ``volumes`` is set by ``check``, ``pool`` by ``plan``.
    volumes: thin.Volumes
    pool: pool.Pool

    def __init__(self, params: Params, resources: Resources) -> None:
        super().__init__(params, resources)
        self.source: Source | None = None
        self.grows = False
        self.after: dict[str, str] | None = None

    def key(self) -> tuple[str, Any]:
        return "pool", str(self.source or self.params["pool"])

    def check(self) -> None:
        self.source = spec.parse(self.params["pool"], option="pool")
        pool.check(self.source)
        check_seconds(self.params, "timeout", 1)
        check_percent(self.params)
        self.volumes = thin.Volumes(
            self.resources, thin.parse_volumes(self.params["volumes"]), self.params["timeout"]
        )

    @classmethod
    def prepare(cls, resources: Resources) -> None:
        orphans.reap(resources)

    def locks(self) -> list[_locks.Lock]:
        if isinstance(self.source, spec.TableSource):
            return needed_locks.of_source(self.source)
        try:
            with known(lookup.find(self._known_source(), self.resources)) as device:
                status = self.resources.dm.status(control.by_device(device))
        except (DeviceGone, InvalidValue, WrongDevice):  # the plan reports it, or no change
            return []
        return _locks.of_mapped(status.name, status.uuid)

    def plan(self) -> Plan:
        self.pool = pool.Pool(self.resources, self._known_source())
        self.pool.look()
        before = self._none() if self.pool.device is None else self.volumes.look(self.pool.device)
        self.after = self.volumes.wanted(before)
        if self.pool.device is None and before == self.after:
            # The pool does not exist, and the task wants no volumes in it.
            return Plan(False, {}, {})
        self.grows = self.pool.device is not None and self.pool.grows
        return Plan(
            before != self.after or self.grows,
            {"size": self.pool.length * 512, "volumes": before},
            {"size": self.pool.wanted * 512, "volumes": self.after},
        )

    def _known_source(self) -> Source:
        if self.source is None:
            raise AssertionError
        return self.source

    def _none(self) -> dict[str, str]:
        return {str(row["id"]): "absent" for row in self.params["volumes"]}

    def apply(self) -> None:
        self.pool.make()
        if self.grows:
            self.pool.grow(self.params["timeout"])
        self.volumes.make(known(self.pool.device))

    def finish(self) -> None:
        self.volumes.delete(known(self.pool.device))

    def is_removal(self) -> bool:
        return self.volumes.deleted

    def remains(self) -> list[str]:
        told = ["what was done with the volumes, because some are deleted"] if self.volumes.deleted else []
        if self.grows and self.pool.length == self.pool.wanted:
            told.append(f"the pool has {self.pool.length} sectors")
        return told + (self.pool.left if self.grows else [])

    def undo(self) -> None:
        if self.pool.device is not None:
            self.volumes.undo(self.pool.device)

    def _space(self) -> dict[str, Any] | None:
        """How full the pool is, with a warning; None if there is no pool."""
        device, percent = self.pool.device, self.params["warn_percent"]
        space = None if device is None else _space.of_device(self.resources.dm, device)
        if space is not None and percent is not None:
            self.warnings += space.warnings(f"the pool {self.key()[1]}", percent)
        return None if space is None else space.as_dict()

    def result(self) -> dict[str, Any]:
        return {
            "space": self._space(),
            "volumes": [
                {"id": int(number), "state": state.partition(",")[0]}
                for number, state in (self.after or {}).items()
            ],
        }
