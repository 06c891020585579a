# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Mapped devices orphaned by a killed run: found by the process mark in their name. They are removed, or get
their earlier name back.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Few devices can be orphaned: loop devices are created with autoclear set, and mapped devices get their
deferred remove before their final name. Until then, the name of a mapped device identifies the process that
creates it.
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
    Names of the mapped devices that a run of this collection was creating, or had claimed, when it ended.

    Whether a process has ended is known only in this PID namespace. Devices of other processes are left
    unchanged.
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


def reap(resources: Resources) -> list[str]:
    """Remove the orphans, once in a run. Returns the names of those that were removed or renamed back."""
    if resources.reaped is None:
        resources.reaped = [name for name in find_orphans(resources.dm) if _settle(resources.dm, name)]
    return resources.reaped


def _settle(control: _control.Control, name: str) -> bool:
    """
    Remove one orphan or rename it back; returns whether that succeeded. Nobody else uses such a name, so no
    other device is affected.
    """
    address = _control.by_name(name)
    try:
        if name.startswith(names.CLAIMED):
            # A claimed device was created by somebody else, so it is not removed.
            control.rename(address, names.name_before(name) or names.unused_name())
        elif control.status(address).has_live_table:
            # Runs set the final name before the table is live, so somebody else has changed this device.
            return False
        else:
            control.remove(address)
    except DeviceGone:
        return True
    except BlockError:
        # It is briefly in use, or its earlier name is taken: the next run tries again.
        return False
    return True
