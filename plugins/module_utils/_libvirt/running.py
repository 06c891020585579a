# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What disks of running guests have in common, whether Xen or QEMU runs the guest: the recipe in the running
definition, and growing.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any

from .._block.device import Device
from .._source import growth
from .._source.resources import Resources
from . import disk_device, live_recipe
from .connection import Definition
from .disk_request import DiskRequest

Settings = dict[str, Any]


class Running:
    """
    ``had_recipe`` and ``recipe``: the recipe of the disk in the running definition, and the one that it is to
    have.
    """

    def __init__(self, resources: Resources, request: DiskRequest, definition: Definition) -> None:
        self.resources = resources
        self.request = request
        self.definition = definition
        self.device: Device | None = None
        # Whether the disk must be attached or detached.
        self.changes_disk = False
        self.had_recipe: str | None = None
        self.recipe: str | None = None
        self.was_detached = False
        self._put = False
        self._growth: growth.Growth | None = None
        # Whether the guest must be told its disk's size.
        self._tells = False
        self._why_other = ""

    @property
    def grows(self) -> bool:
        """Whether a disk that the guest has must become larger, or the guest must still be told."""
        return self._tells or (self._growth is not None and self._growth.changes)

    @property
    def grown(self) -> list[str]:
        """What has grown, as texts. It stays, whatever fails afterwards."""
        return [] if self._growth is None else self._growth.grown

    @property
    def changes_recipe(self) -> bool:
        return self.had_recipe != self.recipe

    @property
    def changes(self) -> bool:
        return self.changes_disk or self.changes_recipe

    def _put_recipe(self, recipe: str | None) -> None:
        if self.changes_recipe:
            self._put = True
            self._write_recipe(recipe)

    def _write_recipe(self, recipe: str | None) -> None:
        request = self.request
        live_recipe.put(request.uri, self.definition.uuid, request.target, recipe, request.limit())

    def _spec(self) -> disk_device.DiskSpec:
        return self.request.spec(self.definition)


def settings(path: str | None, mode: str, device_type: str, recipe: str | None) -> Settings:
    """A disk's settings, as a plan shows them."""
    return {"path": path, "mode": mode, "device_type": device_type, "recipe": recipe}
