# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Mapped devices by name and by UUID, read from the kernel's attributes in sysfs.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base import gone
from .._block import sysfs
from .disk_name import DiskName

_BLOCK = "/sys/block"
_ANNOUNCED = "/sys/kernel/uevent_seqnum"


class MappedNames:
    """The mapped devices by one attribute, ``name`` or ``uuid``. The scan is cached until the next uevent."""

    def __init__(self, attribute: str) -> None:
        self._attribute = attribute
        self._names: dict[str, str] = {}
        self._announced = ""

    def find(self, text: str) -> DiskName | None:
        """The device that has this name (UUID) now, or None. KernelError if sysfs cannot be read."""
        found = self._proved(text)
        if found is None and sysfs.read(_ANNOUNCED) != self._announced:
            self._look()
            found = self._proved(text)
        return found

    def listed(self) -> list[str]:
        """All names (UUIDs) that are valid file names."""
        self._look()
        return [text for text in self._names if text and "/" not in text and text not in (".", "..")]

    def _proved(self, text: str) -> DiskName | None:
        """
        The cached device, verified: diskseq is the same before and after its name is read, so both are of one
        device.
        """
        name = self._names.get(text)
        if name is None:
            return None
        base = f"{_BLOCK}/{name}"
        before = sysfs.read(f"{base}/diskseq")
        there = sysfs.read(f"{base}/dm/{self._attribute}")
        if there != text or before is None or sysfs.read(f"{base}/diskseq") != before:
            return None
        return DiskName(int(before))

    def _look(self) -> None:
        gone.need_sysfs()
        announced = sysfs.read(_ANNOUNCED) or ""
        names = {}
        for name in gone.list_directory(_BLOCK, ()):
            if name.startswith("dm-"):
                text = sysfs.read(f"{_BLOCK}/{name}/dm/{self._attribute}")
                if text:
                    names[text] = name
        self._names, self._announced = names, announced
