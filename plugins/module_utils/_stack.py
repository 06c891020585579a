# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What lies below a device: the answers to ``_footprint.Questions`` from sysfs, device-mapper and the loop driver.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The caller holds the device at the top; what it stands on cannot go away, or change its number, as long as that is so.
"""

from __future__ import annotations

import os

from . import _device, _loop, _sysfs_stack
from ._errors import BlockError, DeviceGone
from ._footprint import Questions


def questions(host):
    """The Questions that a run (``_host.Host``) can answer."""
    return Questions(lambda major, minor: _table(host, major, minor), _loop_file, _sysfs_stack.partition_of, _sysfs_stack.members_of)


def _table(host, major, minor):
    if not os.path.isdir(f"/sys/dev/block/{major}:{minor}/dm"):
        return None
    from . import _dm_ioctl

    try:
        lines = host.dm.table(_dm_ioctl.by_number(major, minor), secure=True)[1]
    except DeviceGone:
        return []
    return [(line.start, line.length, line.type.decode("ascii", "replace"), line.params.decode("utf-8", "surrogateescape")) for line in lines]


def _loop_file(major, minor):
    if major != _loop.MAJOR or _device.read_sysfs(f"/sys/dev/block/{major}:{minor}/partition") is not None:
        return None
    try:
        with _device.open_number(major, minor) as device:
            status = _loop.info(device)
    except BlockError:
        return None
    return status.backing_device, status.backing_inode, status.offset, status.sizelimit
