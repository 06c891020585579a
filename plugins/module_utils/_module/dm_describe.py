# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
How the modules show a mapped device: its settings, and their return value.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from .._base import gone
from .._block.device import Device
from .._dm import codec, live_table
from .._dm import control as _control
from .._dm.control import MappedStatus
from .._source.resources import Resources
from . import sealing

Settings = dict[str, Any]


def settings_of(resources: Resources, device: Device, status: MappedStatus) -> Settings:
    """
    The settings of a held device with a live table, named like the module's options. ``table`` is a Table.
    """
    return {
        "name": status.name,
        "uuid": status.uuid,
        "table": live_table.live_table(resources.dm, device),
        "read_only": status.read_only,
        "suspended": status.suspended,
        "persist": not status.deferred_remove,
    }


def as_plain_data(settings: Settings) -> Settings:
    """Settings for the diff: the table as lines, without keys."""
    if not settings:
        return {}
    table = settings["table"]
    return dict(settings, table=None if table is None else table.redacted().lines())


def describe(resources: Resources, device: Device) -> dict[str, Any]:
    """What the modules return of a mapped device: its identity and its settings."""
    status = resources.dm.status(_control.by_device(device))
    table = live_table.live_table(resources.dm, device)
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
        status=[codec.line_text(line) for line in resources.dm.target_status(_control.by_device(device))[1]],
    )


def _mapper_path(status: MappedStatus) -> str | None:
    """The path in /dev/mapper, which udev creates. None if it does not lead to the device."""
    path = f"/dev/mapper/{status.name}"
    try:
        found = os.stat(path)
    except OSError as error:
        if error.errno in gone.PATH:
            return None
        raise gone.not_seen(error, path) from error
    number = os.major(found.st_rdev), os.minor(found.st_rdev)
    return path if stat.S_ISBLK(found.st_mode) and number == (status.major, status.minor) else None
