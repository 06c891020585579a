# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The disk of a running guest that is to be replaced: taken away through libvirt, and attached again if the new
one fails.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The mapped device of the old disk and that of the new one have the same name, since a disk has one path. So
the old one must be gone before the new one is created. What lies below it stays open, and the mapped device
is created over it again if necessary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._base.deadline import pauses
from .._base.errors import BlockError, DeviceBusy
from .._block.device import Device
from .._dm import control, mapped
from .._process import open_files
from .._source.resources import Resources
from .._xen import replacing
from . import disk_device
from .disk_device import DiskSpec, Over, Replaces
from .disk_request import DiskRequest

if TYPE_CHECKING:
    from .._base.deadline import Deadline
    from .._xenstore.pyxs_store import Store


class OldRunningDisk:
    """
    ``device``: what the guest has open for the disk, held by the resources, or None. ``again``: whether it is
    attached again. ``device_again``: the device that it then has. ``spec``: of the new disk. ``store``: for
    the check of other users; None without Xen.
    """

    def __init__(
        self,
        resources: Resources,
        request: DiskRequest,
        spec: DiskSpec,
        device: Device | None,
        store: Store | None,
    ) -> None:
        self._resources = resources
        self._request = request
        self._spec = spec
        self.device = device
        self.store = store
        self.is_again = False
        self.again: Device | None = None
        self._over: Over | None = None
        self._is_taken = False
        # Whether the guest has released it, but detaching it has failed.
        self._has_remains = False

    def check(self, below: Device, is_new_table: bool) -> None:
        """
        The last checks before the guest is asked. ``below``: the new source's device, held; ``is_new_table``:
        whether its table was made in this run.
        """
        raise NotImplementedError

    def take(self) -> None:
        """
        Ask the guest to release it, and detach it. After an error, the guest still has it, or has it again if
        it had released it; the error says so if it has no disk now.
        """
        self._let_go()
        self._wait_for_holders()
        try:
            self._detach()
        except BlockError as error:
            self._is_taken = self._has_remains = self._was_released(error)
            self.has_again(error)
            raise
        self._is_taken = True

    def _was_released(self, error: BlockError) -> bool:
        """Whether the guest has released it. ``error``: of detaching it, which says if that is not known."""
        try:
            return self._is_released()
        except BlockError as failure:
            error.add_hint(f"Whether the guest still has {self} could not be seen: {failure}")
            return False

    def put_back(self) -> BlockError | None:
        """Attach it again, if it was taken; an error or None."""
        if not self._is_taken or not self._can_come_back:
            return None
        self._is_taken = False
        try:
            self.again = self._attach(self._request.limit())
            self.is_again = True
        except BlockError as error:
            return error
        return None

    def has_again(self, error: BlockError) -> None:
        """Put it back after this error, and add to the error what holds now."""
        was_taken = self._is_taken
        failure = self.put_back()
        if self.is_again:
            replacing.has_again(error, self)
        elif was_taken:
            replacing.has_none(error, self, failure)

    @property
    def dev(self) -> str:
        return self._request.target

    def replaced(self) -> dict[str, Any]:
        """Plain data for a module's return values."""
        raise NotImplementedError

    def state_words(self) -> list[str]:
        """What differs from how the disk was before, as texts. Reads what the guest has now."""
        raise NotImplementedError

    @property
    def replaces(self) -> Replaces:
        """For the check of other users, which it is not."""
        raise NotImplementedError

    @property
    def _can_come_back(self) -> bool:
        raise NotImplementedError

    def _detach(self) -> None:
        """Ask the guest for it, and wait until it is gone."""
        raise NotImplementedError

    def _is_released(self) -> bool:
        """Whether the guest has released it, although detaching it has failed."""
        raise NotImplementedError

    def _attach(self, limit: Deadline) -> Device | None:
        """Attach it again; returns its device, which may be a new one."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """Hold what is below the mapped device instead of the mapped device itself."""
        device = self.device
        if device is None or not mapped.is_mapped(device):
            return
        dm = self._resources.dm
        if dm.status(control.by_device(device)).uuid == self._spec.mapped_uuid:
            self._over = disk_device.over(self._resources, device)
            device.close()

    def _wait_for_holders(self) -> None:
        """
        A killed run may have left a process that holds the mapped device for a while. The device would stay
        when the guest has released it, and its name would not be free. DeviceBusy if that takes too long.
        """
        if self.device is None or self._over is None:
            return
        limit, what = self._request.limit(), ("block", *self.device.id[:2])
        for pause in pauses():
            pids = open_files.holders_of(what)
            if not pids:
                return
            if limit.expired:
                break
            limit.sleep(pause)
        raise DeviceBusy(
            f"{self.device.path} is held by the process {', '.join(pids)}, for a task that was killed or did "
            "not get an answer from libvirt",
            device=self._request.title,
            hint="Nothing was changed. The process ends within ten minutes. Then run the task again",
        )

    def _make_again(self, limit: Deadline) -> Device | None:
        """The device to attach again: that of the plan, or a mapped device over the same as before."""
        with disk_device.locked(limit):
            self._refuse_others()
            if self._over is None:
                return self.device
            device = disk_device.make_again(self._resources, self._spec, self._over, limit)
        disk_device.settle(self._resources, [(self._spec, device)], limit)
        return device

    def _refuse_others(self) -> None:
        """DeviceBusy if somebody else uses its storage by now, unless that is checked later."""
