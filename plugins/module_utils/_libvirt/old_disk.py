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

from .._base.deadline import Deadline
from .._base.errors import BlockError
from .._block.device import Device
from .._dm import control, mapped
from .._source.resources import Resources
from .._xen import replacing, stack
from .._xen import sharing as _sharing
from .._xen.replacing import OldDisk
from .._xenstore.pyxs_store import Store
from . import attach, disk_device
from .disk_device import DiskSpec, Over
from .disk_request import DiskRequest


class OldRunningDisk:
    """
    ``old``: the disk, whose device is held by the resources. ``again``: the device with which it is attached
    again, or None.
    """

    def __init__(self, resources: Resources, request: DiskRequest, spec: DiskSpec, old: OldDisk) -> None:
        self._resources = resources
        self._request = request
        self._spec = spec
        self.old = old
        self.again: Device | None = None
        self._over: Over | None = None
        self._is_taken = False

    def check(self, below: Device, is_new_table: bool) -> None:
        """
        The last checks before the guest is asked. ``below``: the new source's device, held; ``is_new_table``:
        whether its table was made in this run.
        """
        questions = stack.questions(self._resources)
        if is_new_table:
            replacing.refuse_overlap(self.old, below, not self._spec.read_only, questions)
        with _sharing.Sharing(questions) as sharing:
            self.old = replacing.with_sharing(self.old, self._store, sharing)

    def take(self) -> None:
        """Ask the guest to release it, and detach it. Raises the error, in which case it is not taken."""
        self._let_go()
        (outcome,) = attach.detach(
            self._store, [self.old.detachment], self._request.timeout, self._request.uri, withdraw=True
        )
        if outcome.error is not None:
            raise outcome.error
        self._is_taken = True

    def put_back(self) -> BlockError | None:
        """Attach it again, if it was taken; an error or None."""
        if not self._is_taken or self.old.device is None:
            return None
        self._is_taken = False
        try:
            self.again = self._attach(self.old.device, self._request.limit())
        except BlockError as error:
            return error
        return None

    def has_again(self, error: BlockError) -> None:
        """Put it back after this error, and add to the error what holds now."""
        was_taken = self._is_taken
        failure = self.put_back()
        if self.again is not None:
            replacing.has_again(error, self.old)
        elif was_taken:
            replacing.has_none(error, self.old, failure)

    @property
    def _store(self) -> Store:
        return self._resources.shared(Store)

    def _let_go(self) -> None:
        """Hold what is below the mapped device instead of the mapped device itself."""
        device = self.old.device
        if device is None or not mapped.is_mapped(device):
            return
        dm = self._resources.dm
        if dm.status(control.by_device(device)).uuid == self._spec.mapped_uuid:
            self._over = disk_device.over(self._resources, device)
            device.close()

    def _attach(self, device: Device, limit: Deadline) -> Device:
        request = self.old.request()
        if self._over is not None:
            with disk_device.locked(limit):
                device = disk_device.make_again(self._resources, self._spec, self._over, limit)
            disk_device.settle(self._resources, [(self._spec, device)], limit)
            request = request._replace(device=device, params=self._spec.path)
        with _sharing.Sharing(stack.questions(self._resources)) as sharing:
            guard = None if self.old.is_shared else sharing.guard
            (outcome,) = attach.attach(self._store, [request], limit.left(), guard, self._request.uri)
        if outcome.error is not None:
            raise outcome.error
        return device
