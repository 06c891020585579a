# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
One disk of a running guest of Xen: compared with the wanted disk, attached, grown and detached.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base.errors import BlockError
from .._block.device import Device
from .._source import growth, opener
from .._source.resources import Resources
from .._source.spec import TableSource
from .._xen import attached, blkback, grown, replacing, stack, vbd_nodes, vbd_read, vdev
from .._xen import guest as _guest
from .._xen import sharing as _sharing
from .._xen.vbd_nodes import Vbd
from .._xenstore.pyxs_store import Store
from . import attach, disk_device, domain_xml
from .connection import Definition
from .disk_request import DiskRequest
from .old_xen_disk import OldXenDisk
from .running import Running, Settings, settings


class RunningDisk(Running):
    """
    ``vbd``: the guest's present disk, or None. ``listed``: the same as libvirt lists it, or None. ``device``:
    the device that blkback has open for it, held by the resources.
    """

    def __init__(self, resources: Resources, request: DiskRequest, definition: Definition) -> None:
        super().__init__(resources, request, definition)
        self.guest: _guest.Guest | None = None
        self.vbd: Vbd | None = None
        self.listed: domain_xml.Present | None = None

    def plan(self, below: Device | None, recipe: str | None) -> tuple[Settings | None, Settings | None]:
        """
        The disk's settings before and after, None for no disk. ``below``: the source's device, if it exists.
        ``recipe``: to be kept for it. Raises an error if the disk cannot be changed.
        """
        self.guest = _guest.find(self.resources.shared(Store), self.definition.uuid)
        self.vbd = self._read()
        if self.definition.live is None:
            raise AssertionError
        if self.vbd is None:
            key = vbd_nodes.Key(self.guest.domid, vdev.parse(self.request.target).number)
            store, request = self.resources.shared(Store), self.request
            attached.refuse_served_by_others(store, key, request.target, request.title)
            if request.present:
                attached.refuse_libxl_nodes(store, key, request.target, request.title)
        live = domain_xml.parsed(self.definition.live)
        self.listed = live.disk(self.request.target)
        self.had_recipe = live.recipe(self.request.target)
        before, has = self._before(), self.vbd
        after = (
            self._plan_present(before, below, recipe) if self.request.present else self._plan_absent(before)
        )
        if self.changes_disk:
            gets = self.request.present and self.request.device_type == "cdrom"
            attach.refuse_cd(gets or (has is not None and has.cdrom), self.request.title, "Set live=false")
        return before, after

    def grow(self) -> None:
        """
        Grow the disk. The recipes are written before: a guest that starts again must not get a shorter disk.
        """
        if self._growth is not None:
            self._growth.apply()

    def wait_told(self) -> BlockError | None:
        """Wait until the backend has told the guest the new size; an error or None."""
        if not self._tells or self.vbd is None or self.device is None:
            return None
        told = grown.Told(self.vbd.key, self.request.title, self.device.size)
        return grown.wait(self.resources.shared(Store), [told], self.request.timeout)[0]

    @property
    def _is_attached(self) -> bool:
        return self.changes_disk and self.vbd is not None

    def _is_there(self) -> bool:
        now = self._read()
        return now is not None and self._is_of_this_run(now)

    def _is_of_this_run(self, now: Vbd) -> bool:
        """Whether it is the disk that :meth:`_attach` was to attach, and not one of somebody else."""
        if self.device is None:
            return False
        return now.params == self._spec().path or now.number == self.device.id[:2]

    def _disk_remains(self) -> list[str]:
        now, target = self._read(), self.request.target
        if self.request.present:
            is_ours = now is not None and self._is_of_this_run(now)
            return [f"the guest has a disk {target} (state {now.state})"] if now and is_ours else []
        if now is None:
            # A guest that has ended has no disks, whoever ended it.
            is_running = self.guest is not None and _guest.lives(self.resources.shared(Store), self.guest)
            return ["the disk of the running guest is detached"] if is_running else []
        if not replacing.is_leaving(now):
            return []
        has = "has released" if now.state == vbd_nodes.CLOSED else "was asked to release, and still has,"
        return [f"the guest {has} {target} (state {now.state})"]

    def _read(self) -> Vbd | None:
        if self.guest is None:
            raise AssertionError
        return vbd_read.read_vbd(
            self.resources.shared(Store), self.guest.domid, vdev.parse(self.request.target).number
        )

    # Planning

    def _before(self) -> Settings | None:
        vbd = self.vbd
        if vbd is not None:
            return settings(vbd.params, **attached.settings_of(vbd), recipe=self.had_recipe)
        return None if self.had_recipe is None else {"recipe": self.had_recipe}

    def _plan_absent(self, before: Settings | None) -> Settings | None:
        self.changes_disk = self.vbd is not None
        if self.vbd is not None and self.request.source is not None:
            self._check_same(self.vbd)
        if self.vbd is None and self.listed is not None:
            # libvirt would save the disk with the guest, and restoring the guest then needs the recipe.
            self.recipe = self.had_recipe
            return before
        return None

    def _plan_present(self, before: Settings | None, below: Device | None, recipe: str | None) -> Settings:
        request, path = self.request, self._spec().path
        self.recipe = recipe
        if self.vbd is None:
            if below is not None:
                opener.refuse_broken(self.resources, below)
            self.changes_disk = True
            return settings(path, request.mode, request.device_type, recipe)
        problem = self._difference(self.vbd)
        if problem is not None:
            if not request.replace:
                raise problem
            return self._plan_replaced(self.vbd, below, recipe)
        if self.listed is None or self.listed.source != path:
            # The same storage by another path: the disk was attached before there was a definition.
            self.recipe = None
        elif self.recipe is None:
            self.recipe = self.had_recipe
        after = dict(before or {}, recipe=self.recipe)
        if self.device is None:
            raise AssertionError
        self._tells = grown.compare(
            self.resources.shared(Store),
            self.vbd,
            self.device,
            self._growth,
            {} if before is None else before,
            after,
        )
        return after

    def _plan_replaced(self, vbd: Vbd, below: Device | None, recipe: str | None) -> Settings:
        request, spec = self.request, self._spec()
        if below is not None:
            opener.refuse_broken(self.resources, below)
        if self.guest is None:
            raise AssertionError
        old = replacing.look_at(self.resources.shared(Store), vbd, self.guest, self.device)
        is_shareable = self.listed is not None and self.listed.shareable
        self.old = OldXenDisk(self.resources, request, spec, old, is_shareable)
        # From here on, these two are the new disk's.
        self.vbd = self.device = None
        self.changes_disk, self.recipe = True, recipe
        self._makes_table = below is None and isinstance(request.source, TableSource)
        return settings(spec.path, request.mode, request.device_type, recipe)

    def _difference(self, vbd: Vbd) -> BlockError | None:
        """Why the attached disk is not the wanted one. Sets ``device``."""
        request = self.request
        wanted = {"mode": request.mode, "device_type": request.device_type}
        if not request.present:
            wanted = attached.settings_of(vbd)
        way = "Remove it first with state=absent, or set replace=true, or live=false"
        wait = "Wait until the guest has released it, and run the task again"
        if request.present:
            wait = "Wait, and try again, or set replace=true"
        error = attached.difference(vbd, request.title, wanted, way, wait)
        self.device = self._opened(vbd)
        listed = self.listed
        # Without the mark, the definition does not say whether others may use it: xen_vbd, and the first
        # version of this collection, do not write it.
        is_shared = listed is not None and listed.source == self._spec().path and listed.shareable
        if error is None and request.present and is_shared:
            error = self._other_settings({"shared": (True, request.shared)})
        if error is None and (self.device is None or not self._is_source(self.device)):
            error = self._other_disk(attached.other_disk(vbd, self.device))
        return error

    def _check_same(self, vbd: Vbd) -> None:
        """Raise an error unless the attached disk is the wanted one."""
        error = self._difference(vbd)
        if error is not None:
            raise error

    def _opened(self, vbd: Vbd) -> Device | None:
        device = attached.open_device(vbd)
        return None if device is None else self.resources.enter_context(device)

    def _guard(self, device: Device) -> growth.Guard:
        if self.vbd is None or self.guest is None:
            raise AssertionError
        place = grown.Place(self.vbd.key, self.guest, self.request.target)
        return grown.guard(
            self.resources, self.resources.shared(Store), place, device, not self.request.read_only
        )

    # Changing

    def _attach(self) -> None:
        limit, spec, request = self.request.limit(), self._spec(), self.request
        with disk_device.locked(limit):
            device = disk_device.make(self.resources, spec, limit, self.resources.shared(Store))
        self.device = device
        disk_device.settle(self.resources, [(spec, device)], limit)
        if self.guest is None:
            raise AssertionError
        wanted = blkback.Request(
            self.guest,
            vdev.parse(request.target),
            device,
            request.mode,
            request.device_type,
            spec.path,
        )
        with _sharing.Sharing(stack.questions(self.resources)) as sharing:
            guard = None if request.shared else sharing.guard
            (outcome,) = attach.attach(
                self.resources.shared(Store), [wanted], limit.left(), guard, request.uri, request.shared
            )
        if outcome.error is not None:
            raise outcome.error
        self.vbd = outcome.vbd

    def _detach(self) -> None:
        request = self.request
        if self.vbd is None:
            raise AssertionError
        (outcome,) = attach.detach(
            self.resources.shared(Store),
            [blkback.Detachment(self.vbd, self.guest)],
            request.timeout,
            request.uri,
            withdraw=self.old is not None,
        )
        if outcome.error is not None:
            raise outcome.error
        self.vbd = outcome.vbd
