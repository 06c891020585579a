# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
One disk of a running guest of xl: whether it is that of its recipe, and how it grows. ``_xl.live_disk``
attaches, detaches and replaces it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any

from .._base.errors import BlockError, DeviceBusy, GuestError
from .._block.device import Device
from .._dm import udev
from .._source import growth, lookup
from .._source.resources import Resources
from .._xen import attached, grown, vbd_nodes, vbd_read
from .._xen import guest as _guest
from .._xen import vdev as _vdev
from .._xen.vbd_nodes import Vbd
from .._xenstore.nodes import Nodes
from .disk_change import DiskRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._source.spec import Source

Settings = dict[str, Any]
_WAY = "Set replace=true, or live=false, so that the new disk is used from the next start on"


def find_guest(store: Nodes, name: str) -> _guest.Guest | None:
    """The running guest with this name, or None. GuestError if several have it."""
    # Not _guest.find: the name of a guest may be the id of another.
    found = [guest for guest in _guest.running(store) if _guest.is_named(guest, name)]
    if len(found) > 1:
        ids = ", ".join(str(guest.domid) for guest in found)
        raise GuestError(
            f"several guests have this name, with the ids {ids}", device=name, hint="See xl list"
        )
    return found[0] if found else None


class RunningDisk:
    """``device``: the device that blkback has open for the disk, held by the resources."""

    def __init__(self, resources: Resources, request: DiskRequest, guest: _guest.Guest, store: Nodes) -> None:
        self._resources = resources
        self._request = request
        self._guest = guest
        self._store = store
        self._vbd: Vbd | None = None
        self._growth: growth.Growth | None = None
        self._tells = False
        self._why_other = ""
        self.device: Device | None = None

    @property
    def title(self) -> str:
        return f"{self._request.vdev} of {self._guest}"

    @property
    def grows(self) -> bool:
        """Whether the disk must become larger, or the guest must still be told."""
        return self._tells or (self._growth is not None and self._growth.changes)

    @property
    def grown(self) -> list[str]:
        """What has grown, as texts. It stays, whatever fails afterwards."""
        return [] if self._growth is None else self._growth.grown

    def remains(self) -> list[str]:
        """What stays changed, as texts: what has grown, and what a failed step has left."""
        return [] if self._growth is None else self._growth.remains()

    def look(self) -> Vbd | None:
        """
        The guest's disk now, None if it has none. DeviceBusy if blkback does not serve it, or if none can be
        attached there.
        """
        number = _vdev.parse(self._request.vdev).number
        self._vbd = vbd_read.read_vbd(self._store, self._guest.domid, number)
        if self._vbd is None:
            key = vbd_nodes.Key(self._guest.domid, number)
            attached.refuse_served_by_others(self._store, key, self._request.vdev, self.title)
            if self._request.present:
                attached.refuse_libxl_nodes(self._store, key, self._request.vdev, self.title)
        else:
            device = attached.open_device(self._vbd)
            self.device = None if device is None else self._resources.enter_context(device)
        return self._vbd

    def difference(self, source: Source, seconds: float) -> BlockError | None:
        """
        Why the guest's disk is not the wanted one; None if it is, or would be if it grew, which is planned.
        Called after :meth:`look`, for a disk that the guest has. ``seconds``: the limit for outstanding reads
        and writes to end.
        """
        request, vbd = self._request, self._vbd
        if vbd is None:
            raise AssertionError
        access = "r" if request.device_type == "cdrom" else request.mode
        wanted = {"mode": access, "device_type": request.device_type}
        way, wait = _WAY, f"Wait, and try again. {_WAY}"
        if not request.present:
            # The mode does not matter for a disk that is removed.
            wanted = attached.settings_of(vbd)
            way = "It is not the source that was given; leave source out to remove whatever is there"
            wait = "Wait until the guest has released it, and run the task again"
        error = attached.difference(vbd, self.title, wanted, way, wait)
        if error is None and (self.device is None or not self._is_source(vbd, source, self.device, seconds)):
            wrong = attached.other_disk(vbd, self.device) + self._why_other
            error = DeviceBusy(wrong, device=self.title, hint=way)
        return error

    def plan(self) -> tuple[Settings, Settings]:
        """What grows, before and after; both empty if nothing does. Called after :meth:`difference`."""
        before: Settings = {}
        after: Settings = {}
        if self._vbd is None or self.device is None:
            raise AssertionError
        self._tells = grown.compare(self._store, self._vbd, self.device, self._growth, before, after)
        return before, after

    def grow(self) -> None:
        """
        Grow the disk. Its recipe is written before: a guest that starts again must not get a shorter disk.
        """
        if self._growth is None:
            return
        if not _guest.lives(self._store, self._guest):
            raise GuestError("the guest has ended meanwhile", device=self.title)
        self._growth.apply()

    def wait_told(self, seconds: float) -> BlockError | None:
        """Wait until the backend has told the guest the new size; an error or None."""
        if not self._tells or self._vbd is None or self.device is None:
            return None
        told = grown.Told(self._vbd.key, self.title, self.device.size)
        return grown.wait(self._store, [told], seconds)[0]

    def _is_source(self, vbd: Vbd, source: Source, device: Device, seconds: float) -> bool:
        """Whether the device is that of the source, or would be if it grew, which is planned."""
        if not self._request.present:
            return lookup.is_device_in_any_mode(source, device, self._resources)
        place = grown.Place(vbd.key, self._guest, self._request.vdev)
        guard = (
            growth.allow
            if self._request.shared
            else grown.guard(self._resources, self._store, place, device, vbd.writable)
        )
        found = growth.Growth(self._resources, guard, udev.HANDS_OFF, seconds)
        if found.plan(source, device, self._request.size):
            self._growth = found
            return True
        self._why_other = found.why
        return lookup.is_device(source, device, self._resources)
