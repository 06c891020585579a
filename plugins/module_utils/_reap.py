# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What a killed run left: found by the mark in its uuid, and removed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Little can be left at all: loop devices are made with autoclear set, and mapped devices get their deferred remove before
they are live. Between its creation and that, a mapped device's uuid tells which process made it.
"""

from __future__ import annotations

import os

from . import _dm, _dm_ioctl
from ._errors import BlockError, DeviceGone


def find_orphans(control):
    """Uuids of mapped devices without a live table whose maker, a run of this collection, has ended."""
    orphans = []
    for entry in control.list_devices():
        uuid = os.fsdecode(entry.uuid) if entry.uuid is not None else _ask_uuid(control, entry)
        if not _dm.maker_is_gone(uuid):
            continue
        try:
            status = control.status(_dm_ioctl.by_uuid(uuid))
        except DeviceGone:
            continue
        if not status.has_live_table and not status.open_count:
            orphans.append(uuid)
    return orphans


def reap(host):
    """Remove the orphans, once in a run; the names that they had."""
    if host.reaped is None:
        host.reaped = _remove(host.dm, find_orphans(host.dm))
    return host.reaped


def reap_hidden(host):
    """Remove those orphans only that have no name of anybody's choice; they may hold what a run is to look at."""
    control = host.dm
    _remove(control, [uuid for uuid in find_orphans(control) if _name(control, uuid) == _dm.unused_name(uuid)])


def _remove(control, uuids):
    removed = []
    for uuid in uuids:
        try:
            # By uuid: nobody else can have it, so this cannot hit another device.
            name = _name(control, uuid)
            control.remove(_dm_ioctl.by_uuid(uuid))
            removed.append(name)
        except BlockError:
            continue
    return removed


def _name(control, uuid):
    try:
        return control.status(_dm_ioctl.by_uuid(uuid)).name
    except DeviceGone:
        return None


def _ask_uuid(control, entry):
    """For kernels that do not list uuids (before interface 4.44)."""
    try:
        return control.status(_dm_ioctl.by_name(os.fsdecode(entry.name))).uuid
    except DeviceGone:
        return ""
