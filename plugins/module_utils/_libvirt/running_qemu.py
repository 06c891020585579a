# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
One disk of a running guest of QEMU: compared with the wanted disk, attached, grown and detached.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base.deadline import Deadline
from .._base.errors import BlockError, WrongDevice
from .._block import device as _device
from .._block.device import Device
from .._process import open_files
from .._source import growth, opener
from .._source.resources import Resources
from .._source.spec import TableSource
from .._xen import domain0, grown, stack
from .._xen import sharing as _sharing
from .._xen.footprint import footprint
from .._xenstore.pyxs_store import Store
from . import disk_device, domain_xml, qemu_process
from .connection import Definition, libvirt
from .disk_request import DiskRequest
from .old_qemu_disk import OldQemuDisk
from .qemu_disk import QemuDisk
from .running import Running, Settings, settings


class RunningQemuDisk(Running):
    """
    ``listed``: the guest's present disk, or None. ``device``: the device that QEMU has open for it, held by
    the resources.
    """

    def __init__(self, resources: Resources, request: DiskRequest, definition: Definition) -> None:
        super().__init__(resources, request, definition)
        self.listed: domain_xml.Present | None = None
        self._place: QemuDisk | None = None
        self._was_attached = False
        # The bus of the disk that is replaced, if no other is wanted.
        self._bus = request.bus

    def plan(self, below: Device | None, recipe: str | None) -> tuple[Settings | None, Settings | None]:
        """As ``RunningDisk.plan``."""
        self._place = QemuDisk(self.request, self.definition)
        live = self._live()
        self.listed = live.disk(self.request.target)
        self.had_recipe = live.recipe(self.request.target)
        before = self._before()
        if not self.request.present:
            self.changes_disk = self.listed is not None
            if self.listed is not None:
                if self.request.source is not None:
                    self._check_same(self.listed)
                self._at().refuse_fixed(self.listed)
            return before, None
        return before, self._plan_present(before, below, recipe)

    def grow(self) -> None:
        """Grow the disk, and have QEMU tell the guest. The recipes are written before."""
        if self._growth is not None:
            self._growth.apply()
        if self._tells and self.device is not None:
            size = self.device.size
            self._at().call(
                self.request.limit(),
                lambda domain: domain.blockResize(
                    self.request.target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
                ),
            )

    def wait_told(self) -> BlockError | None:
        """QEMU tells the guest at once, and :meth:`grow` has reported any error."""
        return None

    @property
    def _is_attached(self) -> bool:
        return self._was_attached

    def _is_there(self) -> bool:
        listed = self._at().listed()
        return listed is not None and self._at().is_disk(listed, self._spec().path)

    def _disk_remains(self) -> list[str]:
        if self.request.present:
            return [f"the guest has a disk {self.request.target}"] if self._is_there() else []
        if self._at().listed() is None:
            # A guest that has ended has no disks, whoever ended it.
            return ["the disk of the running guest is detached"] if self._at().is_running() else []
        if self._at().was_asked:
            return ["the guest was asked to release the disk, which QEMU cannot withdraw"]
        return []

    # Planning

    def _live(self) -> domain_xml.Domain:
        if self.definition.live is None:
            raise AssertionError
        return domain_xml.parsed(self.definition.live)

    def _before(self) -> Settings | None:
        listed = self.listed
        if listed is not None:
            return settings(listed.source, listed.mode, listed.device, self.had_recipe)
        return None if self.had_recipe is None else {"recipe": self.had_recipe}

    def _plan_present(self, before: Settings | None, below: Device | None, recipe: str | None) -> Settings:
        request, path = self.request, self._spec().path
        self.recipe = recipe
        if self.listed is None:
            return self._plan_new(below)
        problem = self._difference(self.listed)
        if problem is not None:
            if not request.replace:
                raise problem
            return self._plan_replaced(self.listed, below)
        if self.listed.source != path:
            # The same storage by another path: the disk was attached before there was a definition.
            self.recipe = None
        elif self.recipe is None:
            self.recipe = self.had_recipe
        after = dict(before or {}, recipe=self.recipe)
        self._plan_telling({} if before is None else before, after)
        return after

    def _plan_new(self, below: Device | None) -> Settings:
        request = self.request
        self._at().refuse_new(self._bus)
        if below is not None:
            opener.refuse_broken(self.resources, below)
        self.changes_disk = True
        return settings(self._spec().path, request.mode, request.device_type, self.recipe)

    def _plan_replaced(self, listed: domain_xml.Present, below: Device | None) -> Settings:
        request, spec, store = self.request, self._spec(), self._store()
        self.old = OldQemuDisk(self.resources, request, spec, self._at(), listed, self.device, store)
        self._bus = request.bus or listed.bus
        # From here on, these two are the new disk's.
        self.listed = self.device = None
        self._makes_table = below is None and isinstance(request.source, TableSource)
        return self._plan_new(below)

    def _plan_telling(self, before: Settings, after: Settings) -> None:
        if self.device is None or self._growth is None:
            return
        if self._growth.changes:
            before["sizes"], after["sizes"] = self._growth.sizes()
        told = self._at().call(self.request.limit(), lambda domain: domain.blockInfo(self.request.target, 0))[
            0
        ]
        self._tells = self._growth.changes or told < self._growth.size
        if told < self._growth.size:
            before["size"], after["size"] = told, self._growth.size

    def _check_same(self, listed: domain_xml.Present) -> None:
        """Raise an error unless the attached disk is the wanted one."""
        error = self._difference(listed)
        if error is not None:
            raise error

    def _difference(self, listed: domain_xml.Present) -> BlockError | None:
        """Why the attached disk is not the wanted one. Sets ``device``."""
        request = self.request
        self.device = self._opened(listed)
        other = self._other_settings(
            {
                "mode": (listed.mode, request.mode),
                "device_type": (listed.device, request.device_type),
                "shared": (listed.shareable, request.shared),
                "bus": (listed.bus, request.bus or listed.bus),
            }
        )
        if request.present and other is not None:
            return other
        if self.device is None or not self._is_source(self.device):
            return self._other_disk(f"the guest has another disk there: {listed.source or 'an empty drive'}")
        return None

    def _opened(self, listed: domain_xml.Present) -> Device | None:
        """The device that QEMU has open for the disk, held; None if QEMU has no block device open for it."""
        process = self._at().process
        if listed.type != "block" or listed.source is None:
            return None
        number = qemu_process.number_at(process, listed.source)
        if number is None or number not in qemu_process.opened(process):
            return None
        # While QEMU has it open, its number is pinned.
        device = self.resources.enter_context(_device.open_number(*number))
        qemu_process.prove(process, listed.source, device, self.request.title)
        return device

    def _guard(self, device: Device) -> growth.Guard:
        def check(tables: dict[growth.Number, list[growth.Line]], limits: dict[growth.Number, int]) -> None:
            now = stack.questions(self.resources)
            questions = grown.questions_to_be(now, tables, limits)
            mine = footprint(device.id.major, device.id.minor, not self.request.read_only, questions)
            spec = self._spec()
            own = _sharing.QemuUse(self._at().process.pid, ("block", *device.id[:2]))
            disk_device.check_others(self.resources, spec, mine, device.path, own)
            _sharing.refuse_mounted(mine, device.path, device, now)

        return check

    # Changing

    def _attach(self) -> None:
        limit, spec, place = self.request.limit(), self._spec(), self._at()
        with disk_device.locked(limit):
            device = disk_device.make(self.resources, spec, limit, self._store())
        self.device = device
        disk_device.settle(self.resources, [(spec, device)], limit)
        self._was_attached = True
        try:
            place.attach(self._element(), _opened_as(device), [device], lambda: self._prove(device), limit)
        except BlockError:
            self._was_attached = place.is_stuck
            raise

    def _prove(self, device: Device) -> None:
        qemu_process.prove(self._at().process, self._spec().path, device, self.request.title)

    def _element(self) -> str:
        request = self.request
        return domain_xml.disk_text(
            domain_xml.Disk(
                request.target,
                self._spec().path,
                "qemu",
                request.device_type,
                request.read_only,
                request.shared,
                self._bus,
            )
        )

    def _detach(self) -> None:
        limit, place = self.request.limit(), self._at()
        listed = self.listed or self._attached_by_this_run(limit)
        if listed is not None:
            place.detach(listed, limit)
        self._was_attached = False

    def _attached_by_this_run(self, limit: Deadline) -> domain_xml.Present | None:
        """
        The disk that :meth:`_attach` has attached; None if the guest has released it. WrongDevice if
        somebody else has attached another one meanwhile.
        """
        place = self._at()
        listed = place.listed(limit)
        if listed is None or self.device is None:
            return listed
        what = None if place.is_stuck else _opened_as(self.device)
        if not place.is_disk(listed, self._spec().path, what):
            self._was_attached = False
            raise WrongDevice(place.other_words(listed), device=self.request.title)
        return listed

    def _store(self) -> Store | None:
        """For the check of other users; None without Xen."""
        return self.resources.shared(Store) if domain0.is_here() else None

    def _at(self) -> QemuDisk:
        if self._place is None:
            raise AssertionError
        return self._place


def _opened_as(device: Device) -> open_files.What:
    """What QEMU has open for the held device."""
    return ("block", *device.id[:2])
