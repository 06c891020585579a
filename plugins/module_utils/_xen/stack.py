# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What lies below a device: the answers to ``_xen.footprint.Questions`` from sysfs, device-mapper and the loop
driver.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The caller holds the device at the top, or somebody else does; what it stands on cannot go away, or change its
number, as long as that is so.
"""

from __future__ import annotations

from .._base import gone
from .._base.errors import DeviceGone
from .._block import device, loop, sysfs
from .footprint import Questions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .._dm.control import Control

    class Host(Protocol):
        """What a run (``_source.resources.Resources``) is asked for."""

        @property
        def dm(self) -> Control: ...


def questions(host: Host) -> Questions:
    """
    The Questions that a run (``_source.resources.Resources``) can answer. What cannot be looked at is an
    error.
    """
    return Questions(
        lambda major, minor: _table(host, major, minor), _loop_file, sysfs.partition_of, sysfs.members_of
    )


def _table(host: Host, major: int, minor: int) -> list[tuple[int, int, str, str]] | None:
    if not gone.exists(f"/sys/dev/block/{major}:{minor}/dm", gone.SYSFS):
        return None
    from .._dm import control

    try:
        lines = host.dm.table(control.by_number(major, minor), secure=True)[1]
    except DeviceGone:
        # On its way out. Should it be there yet, it counts as a disk, not as one that stands on nothing.
        return None
    return [
        (
            line.start,
            line.length,
            line.type.decode("ascii", "replace"),
            line.params.decode("utf-8", "surrogateescape"),
        )
        for line in lines
    ]


def _loop_file(major: int, minor: int) -> tuple[int, int, int, int] | None:
    name = sysfs.kernel_name(major, minor) if major == device.LOOP_MAJOR else None
    # sysfs tells the file's path only, and a path can lead to another file by now, or in another mount
    # namespace.
    status = loop.read_status(name) if name is not None and loop.is_name(name) else None
    if not status:
        return None
    return (status["lo_device"], status["lo_inode"], status["lo_offset"], status["lo_sizelimit"])
