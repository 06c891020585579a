# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What a task asks for one disk of one domain, once its options have been checked.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .._base.deadline import Deadline
from . import connection
from .disk_device import DiskSpec

if TYPE_CHECKING:
    from .._source.spec import Source


class DiskRequest(NamedTuple):
    """
    ``domain``: name or UUID, as given; ``target``: the disk's name in the guest, like ``xvda``.

    ``source``: None only when a disk is to be removed, whichever it is. ``mode``: ``r`` or ``w``;
    ``device_type``: ``disk`` or ``cdrom``; ``bus`` None leaves it to libvirt. ``shared``: other guests may
    use the same storage. ``config`` and ``live``: whether the inactive definition and the running guest are
    to be changed. ``present``: whether the disk is to be there afterwards. ``timeout``: seconds for each
    step.
    """

    uri: str
    domain: str
    target: str
    source: Source | None
    mode: str = "w"
    device_type: str = "disk"
    bus: str | None = None
    shared: bool = False
    config: bool = True
    live: bool = False
    present: bool = True
    timeout: int = 60

    @property
    def read_only(self) -> bool:
        return self.mode == "r"

    @property
    def title(self) -> str:
        """The disk's name in messages."""
        return f"{self.target} of {self.domain}"

    def limit(self) -> Deadline:
        """A Deadline for one step, from now on."""
        return Deadline(self.timeout)

    def spec(self, definition: connection.Definition) -> DiskSpec:
        """The disk that libvirt is to be given, once the domain is known."""
        if self.source is None:
            raise AssertionError
        return DiskSpec(
            definition.name, definition.uuid, self.target, self.source, self.read_only, self.shared
        )
