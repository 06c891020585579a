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
from .._source.recipe import Seal
from . import connection
from .disk_device import DiskSpec

if TYPE_CHECKING:
    from .._source.spec import Source


class DiskRequest(NamedTuple):
    """
    ``domain``: name or UUID, as given. ``target``: the disk's name in the guest, like ``xvda``.

    ``source``: None to remove a disk, whatever its source is, or for an ``empty`` CD drive. ``mode``: ``r``
    or ``w``. ``device_type``: ``disk`` or ``cdrom``. ``bus``: None lets libvirt choose. ``shared``: other
    guests may use the same storage. ``config`` and ``live``: whether to change the inactive definition and
    the running guest. ``present``: whether the disk must exist afterwards. ``timeout``: seconds for each
    step. ``seal``: of the disk, while a guest has it. ``replace``: whether a disk that the guest has there
    may be replaced. ``size``: make the source's file large enough for this many bytes; 0 if that was not
    asked for.
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
    seal: Seal = Seal()
    replace: bool = False
    size: int = 0
    empty: bool = False

    @property
    def read_only(self) -> bool:
        return self.mode == "r"

    @property
    def title(self) -> str:
        """The disk's name in messages."""
        return f"{self.target} of {self.domain}"

    def limit(self) -> Deadline:
        """A Deadline for one step, starting now."""
        return Deadline(self.timeout)

    def spec(self, definition: connection.Definition) -> DiskSpec:
        """The disk to give to libvirt, once the domain is known."""
        if self.source is None:
            raise AssertionError
        return DiskSpec(
            definition.name, definition.uuid, self.target, self.source, self.read_only, self.shared, self.seal
        )
