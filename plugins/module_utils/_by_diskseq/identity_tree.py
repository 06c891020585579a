# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The tree of /dev/racefree: names by identity, each a symbolic link into /dev/disk/by-diskseq.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``dm-name/NAME`` and ``dm-uuid/UUID`` are the mapped devices with that name or UUID. ``link/PATH`` is the disk
of udev's link /dev/PATH.
"""

from __future__ import annotations

from typing import NamedTuple

from .disk_name import DiskName
from .mapped_names import MappedNames
from .udev_record import UdevLinks

_LINK = "link"


class Found(NamedTuple):
    """What a path is: a directory (``disk`` is None), or a link to a disk."""

    disk: DiskName | None

    @property
    def is_directory(self) -> bool:
        return self.disk is None


class IdentityTree:
    """The tree, with these links of udev. Paths have no leading slash; the root's path is empty."""

    def __init__(self, links: UdevLinks) -> None:
        self._links = links
        self._mapped = {"dm-name": MappedNames("name"), "dm-uuid": MappedNames("uuid")}

    def find(self, path: str) -> Found | None:
        """What the path is now, or None if it does not exist. Raises KernelError."""
        top, dummy, rest = path.partition("/")
        if top == _LINK:
            if self._links.is_directory(rest):
                return Found(None)
            disk = self._links.disk_of(rest)
        elif not rest:
            return Found(None) if not path or top in self._mapped else None
        elif top in self._mapped and "/" not in rest:
            disk = self._mapped[top].find(rest)
        else:
            return None
        return None if disk is None else Found(disk)

    def listed(self, path: str) -> list[str]:
        """The names in an existing directory."""
        top, dummy, rest = path.partition("/")
        if not path:
            return [*self._mapped, _LINK]
        if top == _LINK:
            return self._links.listed(rest)
        return self._mapped[top].listed() if not rest else []
