# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The disk of a running guest of Xen that is to be replaced, see ``_libvirt.old_disk``.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any

from .._base.deadline import Deadline
from .._block.device import Device
from .._source.resources import Resources
from .._xen import replacing, stack
from .._xen import sharing as _sharing
from .._xen.replacing import OldDisk
from .._xenstore.pyxs_store import Store
from . import attach
from .disk_device import DiskSpec, Replaces
from .disk_request import DiskRequest
from .old_disk import OldRunningDisk


class OldXenDisk(OldRunningDisk):
    """
    ``old``: the disk, whose device is held by the resources. ``is_shareable``: whether the running definition
    says that others may use it too.
    """

    def __init__(
        self,
        resources: Resources,
        request: DiskRequest,
        spec: DiskSpec,
        old: OldDisk,
        is_shareable: bool = False,
    ) -> None:
        self._store: Store = resources.shared(Store)
        super().__init__(resources, request, spec, old.device, self._store)
        self.old = old
        self._is_shareable = is_shareable

    def __str__(self) -> str:
        return str(self.old)

    def check(self, below: Device, is_new_table: bool) -> None:
        questions = stack.questions(self._resources)
        if is_new_table:
            replacing.refuse_overlap(self.old, below, not self._spec.read_only, questions)
        with _sharing.Sharing(questions) as sharing:
            self.old = replacing.with_sharing(self.old, self._store, sharing)

    def replaced(self) -> dict[str, Any]:
        return self.old.replaced()

    def state_words(self) -> list[str]:
        return self.old.state_words(self._store)

    @property
    def replaces(self) -> Replaces:
        return Replaces(self.old.vbd.key)

    @property
    def _can_come_back(self) -> bool:
        return self.old.device is not None

    def _detach(self) -> None:
        (outcome,) = attach.detach(
            self._store, [self.old.detachment], self._request.timeout, self._request.uri, withdraw=True
        )
        if outcome.error is not None:
            raise outcome.error

    def _is_released(self) -> bool:
        return self.old.is_released(self._store)

    def _attach(self, limit: Deadline) -> Device:
        is_listed = self._has_remains and attach.remove_released(
            self._store, self.old.detachment, limit, self._request.uri
        )
        request, device = self.old.request(), self._make_again(limit)
        if self._over is not None and device is not None:
            request = request._replace(device=device, params=self._spec.path)
        with _sharing.Sharing(stack.questions(self._resources)) as sharing:
            guard = None if self.old.is_shared else sharing.guard
            outcome = attach.attach_again(
                self._store, request, limit, guard, self._request.uri, is_listed, self._is_shareable
            )
        if outcome.error is not None:
            raise outcome.error
        return request.device
