# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``dm_table`` does: check a table against this host's kernel, targets and devices, without changing
anything.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any

from .._base.errors import BlockError, DeviceGone, InvalidValue, TableError
from .._dm import live_table, names
from .._dm import mapped as _dm
from .._dm_table import Table, keys, redact
from .._dm_table.grammar import kernels
from .._source import slots as _slots
from .._source.resources import Resources
from .item import Params
from .table_option import table_lines

ARGUMENTS = {
    "table": {"type": "raw", "required": True},
    "keys": {"type": "dict", "no_log": True},
    "read_only": {"type": "bool", "default": False},
    "name": {"type": "str"},
    "kernels": {"type": "list", "elements": "str", "choices": list(kernels.KERNELS), "default": []},
    "fail": {"type": "bool", "default": True},
}


def collect(params: Params, resources: Resources) -> dict[str, Any]:
    """The module's return values. Raises TableError for an invalid table with ``fail``."""
    lines = keys.with_keys(table_lines(params["table"]), params["keys"] or {})
    slots = None
    try:
        mapped = _mapped(params["name"], resources)
        device = None if mapped is None else mapped.device
        own = None if device is None else (device.id.major, device.id.minor)
        slots = _slots.host_slots(resources, lines, own, params["kernels"])
        wanted = slots.look(lines, params["read_only"], whole=True)
        if mapped is not None and device is not None and mapped.status.has_live_table:
            live = live_table.live_table(resources.dm, device)
            if live is not None:
                wanted.table.check_replaces(live)
    except InvalidValue:
        raise
    except BlockError as error:
        if params["fail"]:
            raise
        return {"valid": False, "errors": _errors(error), "lines": None, "targets": None, "devices": None}
    shown = wanted.table.redacted()
    return {
        "valid": True,
        "errors": [],
        "lines": shown.lines(),
        "targets": shown.to_list(),
        "devices": _devices(slots, wanted.written, params["read_only"]),
    }


def _mapped(name: str | None, resources: Resources) -> _dm.Mapped | None:
    """The device that the table is for, held by the resources, or None."""
    if name is None:
        return None
    mapped = _dm.find(resources.dm, names.check_name(name))
    if mapped is None:
        raise DeviceGone(
            "there is no such mapped device",
            device=name,
            hint="Leave name out for a device that is not there yet",
        )
    if mapped.device is not None:
        resources.enter_context(mapped.device)
    return mapped


def _errors(error: BlockError) -> list[dict[str, Any]]:
    if isinstance(error, TableError):
        return error.errors
    value = None if error.device is None else str(error.device)
    return [
        {
            "line": None,
            "target": None,
            "field": "device",
            "value": value,
            "rule": error.message,
            "column": None,
            "text": None,
        }
    ]


def _devices(slots: _slots.Slots, table: Table, read_only: bool) -> list[dict[str, Any]]:
    rows = []
    for index, slot in table.devices(read_only):
        device = slots.device(slot)
        rows.append(
            {
                "target": index + 1,
                "field": slot.field,
                "value": redact.shown(slot),
                "access": slot.access,
                "device": None if device is None else device.as_dict(),
            }
        )
    return rows
