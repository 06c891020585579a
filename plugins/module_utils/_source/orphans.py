# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Mapped devices orphaned by a killed run: found by the mark in their name, and removed, or given their own name
back.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Few can be left: loop devices are made with autoclear set, and mapped devices get their deferred remove before
they have their names. Until then, the name of a mapped device identifies the process that makes it.
"""

from __future__ import annotations

import os

from .._base.errors import BlockError, DeviceGone
from .._dm import control as _control
from .._dm import names
from .._process import identity

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .resources import Resources


def find_orphans(control: _control.Control) -> list[str]:
    """
    Names of the mapped devices that a run of this collection was making, or had claimed, when it ended.

    Only processes of this PID namespace are known to have ended; the devices of others are left alone.
    """
    orphans = []
    for prefix in (names.MAKING, names.CLAIMED):
        for entry in control.list_devices(prefix):
            # Kernels that do not filter by the prefix list all devices.
            name = os.fsdecode(entry.name)
            mark = names.holder_of(name) if name.startswith(prefix) else None
            if mark is not None and identity.has_ended(mark):
                orphans.append(name)
    return orphans


def reap(host: Resources) -> list[str]:
    """
    Remove the orphans, once in a run; returns the names of those that are gone, or have their name back.
    """
    if host.reaped is None:
        host.reaped = [name for name in find_orphans(host.dm) if _settle(host.dm, name)]
    return host.reaped


def _settle(control: _control.Control, name: str) -> bool:
    """
    Remove or rename one orphan; whether that is done. Nobody else uses such a name, so no other device is
    affected.
    """
    address = _control.by_name(name)
    try:
        if name.startswith(names.CLAIMED):
            # It belongs to somebody else, so it is not removed.
            control.rename(address, names.name_before(name) or names.unused_name())
        elif control.status(address).has_live_table:
            # A device gets its final name before its table is live, so somebody else changed this one.
            return False
        else:
            control.remove(address)
    except DeviceGone:
        return True
    except BlockError:
        # It is in use for a moment, or its old name is taken: the next run tries again.
        return False
    return True
