# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The device of a disk that a guest of xl loses: proves whether the disk that xl attaches again is the same one.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

xl and the hotplug scripts only get the text with which the disk was attached, such as a path or the name of a
recipe. That may lead elsewhere by then, or the script makes the device anew: another loop device over the
same bytes, or a mapped device with the same table.
"""

from __future__ import annotations

from .._base.errors import InvalidValue, WrongDevice
from .._block import device as _device
from .._block import loop
from .._dm import control, mapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._block.device import Device
    from .._source.resources import Resources

    # Of each target: its start and length in sectors and its type; the words of its parameters.
    Lines = list[tuple[tuple[int, int, bytes], list[object]]]


class OldDevice:
    """
    What is known of a ``device`` that is held and that the guest still has. The devices below a mapped device
    are held until the end of the run, so that their numbers in its table go on meaning them: it may have to
    be closed itself, for the new one to get its name. KernelError.
    """

    def __init__(self, resources: Resources, device: Device) -> None:
        self._resources = resources
        self._device = device
        self._read_only = device.read_only
        # Holding a loop device keeps the inode of its file from being reused, too.
        self._loop = loop.settings_of(device) if loop.is_loop(device) else None
        self._table = self._table_of(device) if mapped.is_mapped(device) else None
        for below in self._below(device) if self._table else ():
            resources.enter_context(below)

    def is_same(self, device: Device) -> bool:
        """Whether another held device is this one, or was made anew of exactly the same storage."""
        if device.id == self._device.id:
            return True
        if device.read_only != self._read_only:
            return False
        if self._loop is not None and self._loop.backing_device != loop.UNKNOWN and loop.is_loop(device):
            return _area(loop.settings_of(device)) == _area(self._loop)
        return self._table is not None and mapped.is_mapped(device) and self._table == self._table_of(device)

    def refuse_other(self, path: str) -> None:
        """
        WrongDevice or DeviceGone if the ``path`` of a block device does not lead to this one. Only while the
        device is held. A path of something else is for the hotplug script to judge, and for :meth:`is_same`.
        """
        if self._device.fd < 0:
            return
        try:
            there = _device.open_path(path)
        except InvalidValue:
            return
        with there:
            if there.id != self._device.id:
                raise WrongDevice(
                    f"it leads to {there.path} (diskseq {there.id.diskseq}) now, not to {self._device.path} "
                    f"(diskseq {self._device.id.diskseq})",
                    device=path,
                )

    def _table_of(self, device: Device) -> Lines:
        """
        The table, with the tables of the mapped devices below instead of their numbers. Such a device without
        a name of its own is made anew, too, and then has another number.
        """
        inner: dict[bytes, object] = {}
        for below in self._below(device):
            with below:
                if mapped.is_mapped(below):
                    inner[below.id.number.encode()] = self._table_of(below)
        return [
            (line[:3], [inner.get(word, word) for word in line.params.split(b" ")])
            for line in self._resources.dm.table(control.by_device(device), secure=True)[1]
        ]

    def _below(self, device: Device) -> Iterator[Device]:
        """The devices that the table of a held mapped device has open. The caller closes them."""
        for number in self._resources.dm.deps(control.by_device(device)):
            yield _device.open_number(*number)


def _area(status: loop.LoopInfo) -> tuple[int, int, int, int]:
    return status.backing_device, status.backing_inode, status.offset, status.sizelimit
