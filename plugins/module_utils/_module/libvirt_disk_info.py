# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``libvirt_disk_info`` returns: the disks of libvirt domains and their recipes.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import json
from typing import Any

from .._base.deadline import Deadline
from .._base.errors import BlockError, DefinitionError
from .._libvirt import connection, disk_device, disk_facts
from .._libvirt.connection import Definition
from .._libvirt.disk_facts import Facts, Side
from .._source import recipe as _recipe
from .._source.resources import Resources
from .item import Params, check_seconds

ARGUMENTS = {
    "domain": {"type": "str"},
    "uri": {"type": "str", "default": connection.URI},
    "timeout": {"type": "int", "default": 60},
}


def collect(params: Params, resources: Resources) -> dict[str, Any]:
    """The module's return values."""
    check_seconds(params, "timeout", 1)
    limit = Deadline(params["timeout"])
    if params["domain"] is None:
        found = connection.read_all(params["uri"], limit)
    else:
        found = [connection.read(params["uri"], params["domain"], limit)]
    return {"disks": [row for definition in found for row in _rows(definition, resources)]}


def _rows(definition: Definition, resources: Resources) -> list[dict[str, Any]]:
    try:
        return [_row(definition, facts, resources) for facts in disk_facts.of_domain(definition)]
    except DefinitionError as error:
        # One definition that cannot be read does not hide other domains.
        resources.warn(f"domain {definition.name}: {error}")
        return []


def _row(definition: Definition, facts: Facts, resources: Resources) -> dict[str, Any]:
    device, problem = None, facts.problem
    if facts.source is not None:
        spec = disk_device.DiskSpec(definition.name, definition.uuid, facts.target, facts.source)
        try:
            device = disk_device.find(resources, spec)
        except BlockError as error:
            problem = problem or str(error)
    return {
        "domain": definition.name,
        "uuid": definition.uuid,
        "running": definition.live is not None,
        "persistent": definition.xml is not None,
        "vdev": facts.target,
        "config": _side(facts.config),
        "live": _side(facts.live),
        "recipe": None if facts.source is None else json.loads(_recipe.text_of(facts.source, facts.seal)),
        "device": None if device is None else device.as_dict(),
        "problem": problem,
    }


def _side(side: Side | None) -> dict[str, Any] | None:
    if side is None or side.disk is None:
        return None
    disk = side.disk
    return {
        "path": disk.source,
        "type": disk.type,
        "driver": disk.driver,
        "format": disk.format,
        "mode": "r" if disk.read_only else "w",
        "device_type": disk.device,
        "shared": disk.shareable,
        "bus": disk.bus,
        "has_recipe": side.recipe is not None,
    }
