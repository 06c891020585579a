# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
One disk of a running guest of QEMU: compared with the wanted disk, attached with its recipe, grown, detached,
and rolled back. It has the methods of ``_libvirt.running_disk.RunningDisk``, which is for Xen.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

libvirt accepts only a path. This is safe: the mapped device at the path stays open, also in a holder process
that outlives a killed run, so its name, node and number cannot become another device's. Afterwards, what QEMU
has opened is compared with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, TypeVar

from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeadlineExceeded, DeviceBusy, WrongDevice
from .._block import device as _device
from .._block.device import Device
from .._dm import udev
from .._process.holder import hold, hold_for
from .._source import growth, lookup, opener
from .._source.resources import Resources
from .._xen import domain0, grown
from .._xen import sharing as _sharing
from .._xen.footprint import footprint
from .._xenstore.pyxs_store import Store
from . import connection as _connection
from . import disk_device, domain_xml, qemu_process
from .connection import Definition, libvirt
from .disk_request import DiskRequest
from .handles import DomainHandle
from .running import Running, Settings, settings

if TYPE_CHECKING:
    from .._source.spec import Source

T = TypeVar("T")
# Seconds for undoing what libvirt did, for one answer of libvirt, and for holding a device for a daemon that
# may still attach it.
_TAKING_BACK = 20
_ANSWERING = 10
_LATE = 600


class RunningQemuDisk(Running):
    """
    ``listed``: the guest's present disk, or None. ``device``: the device that QEMU has open for it, held by
    the resources.
    """

    # No disk is replaced.
    old = None

    def __init__(self, resources: Resources, request: DiskRequest, definition: Definition) -> None:
        super().__init__(resources, request, definition)
        self.listed: domain_xml.Present | None = None
        self._process: qemu_process.Process | None = None
        self._was_attached = False

    def plan(self, below: Device | None, recipe: str | None) -> tuple[Settings | None, Settings | None]:
        """As ``RunningDisk.plan``."""
        self._process = qemu_process.find(self.definition.name, self.definition.uuid)
        live = self._live()
        self.listed = live.disk(self.request.target)
        self.had_recipe = live.recipe(self.request.target)
        before = self._before()
        if not self.request.present:
            self.changes_disk = self.listed is not None
            if self.listed is not None and self.request.source is not None:
                self._check_same(self.listed)
            return before, None
        return before, self._plan_present(before, below, recipe)

    def change(self) -> None:
        """
        Attach or detach the disk. The recipe is written before the disk is attached, and removed after it is
        detached, because a guest can be saved at any moment.
        """
        if not self.request.present:
            if self.changes_disk:
                self._detach(self.request.limit())
                self.was_detached = True
            self._put_recipe(self.recipe)
            return
        self._put_recipe(self.recipe)
        if self.changes_disk:
            try:
                self._attach()
            except DeadlineExceeded:
                # libvirt may still attach the disk, which then needs its recipe.
                self._put = False
                raise

    def grow(self) -> None:
        """Grow the disk, and have QEMU tell the guest. The recipes are written before."""
        if self._growth is not None:
            self._growth.apply()
        if self._tells and self.device is not None:
            size = self.device.size
            self._call(
                self.request.limit(),
                lambda domain: domain.blockResize(
                    self.request.target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
                ),
            )

    def wait_told(self) -> BlockError | None:
        """QEMU tells the guest at once, and :meth:`grow` has reported any error."""
        return None

    def undo(self) -> None:
        """Detach what was attached, and restore the old recipe, unless the disk has grown."""
        if self.grown or self.was_detached:
            return
        if self._was_attached:
            self._detach(self.request.limit())
        if self._put:
            self._write_recipe(self.had_recipe)

    # Planning

    def _live(self) -> domain_xml.Domain:
        if self.definition.live is None:
            raise AssertionError
        return domain_xml.Domain(self.definition.live)

    def _before(self) -> Settings | None:
        listed = self.listed
        if listed is not None:
            return settings(listed.source, _mode_of(listed), listed.device, self.had_recipe)
        return None if self.had_recipe is None else {"recipe": self.had_recipe}

    def _plan_present(self, before: Settings | None, below: Device | None, recipe: str | None) -> Settings:
        request, path = self.request, self._spec().path
        self.recipe = recipe
        if self.listed is None:
            if below is not None:
                opener.refuse_broken(self.resources, below)
            self.changes_disk = True
            return settings(path, request.mode, request.device_type, recipe)
        self._check_same(self.listed)
        if self.listed.source != path:
            # The same storage by another path: the disk was attached before there was a definition.
            self.recipe = None
        elif self.recipe is None:
            self.recipe = self.had_recipe
        after = dict(before or {}, recipe=self.recipe)
        self._plan_telling({} if before is None else before, after)
        return after

    def _plan_telling(self, before: Settings, after: Settings) -> None:
        if self.device is None or self._growth is None:
            return
        if self._growth.changes:
            before["sizes"], after["sizes"] = self._growth.sizes()
        told = self._call(self.request.limit(), lambda domain: domain.blockInfo(self.request.target, 0))[0]
        self._tells = self._growth.changes or told < self._growth.size
        if told < self._growth.size:
            before["size"], after["size"] = told, self._growth.size

    def _check_same(self, listed: domain_xml.Present) -> None:
        """Raise an error unless the attached disk is the wanted one. Sets ``device``."""
        request = self.request
        has = {"mode": _mode_of(listed), "device_type": listed.device}
        for name, wanted in (("mode", request.mode), ("device_type", request.device_type)):
            if request.present and has[name] != wanted:
                raise DeviceBusy(
                    f"the running guest has it with {name}={has[name]}, not {wanted}",
                    device=request.title,
                    hint="Detach it first, or say live: false",
                )
        self.device = self._opened(listed)
        if self.device is None or not self._is_source(self.device, listed):
            raise self._other_disk(listed)

    def _other_disk(self, listed: domain_xml.Present) -> DeviceBusy | WrongDevice:
        wrong = f"the guest has another disk there: {listed.source or 'an empty drive'}{self._why_other}"
        if not self.request.present:
            return WrongDevice(
                wrong,
                device=self.request.title,
                hint="It is not the source that was given; leave source out to remove whatever is there",
            )
        return DeviceBusy(
            wrong,
            device=self.request.title,
            hint="Remove it first with state=absent, or set live to false, so that the new disk is used from "
            "the next start on",
        )

    def _opened(self, listed: domain_xml.Present) -> Device | None:
        """The device that QEMU has open for the disk, held; None if it is none, or has not got one."""
        process = self._of_guest()
        if listed.type != "block" or listed.source is None:
            return None
        number = qemu_process.number_at(process, listed.source)
        if number is None or number not in qemu_process.opened(process):
            return None
        # While QEMU has it open, its number is pinned.
        device = self.resources.enter_context(_device.open_number(*number))
        qemu_process.prove(process, listed.source, device, self.request.title)
        return device

    def _is_source(self, device: Device, listed: domain_xml.Present) -> bool:
        source, spec = self.request.source, self._spec()
        if source is None:
            raise AssertionError
        made = disk_device.find(self.resources, spec) if listed.source == spec.path else None
        is_ours = made is not None and made.id == device.id
        if self.request.present and self._plan_growth(device, source, is_ours):
            return True
        if is_ours:
            return disk_device.is_made_of(self.resources, device, source)
        return lookup.is_device(source, device, self.resources)

    def _plan_growth(self, device: Device, source: Source, is_ours: bool) -> bool:
        """Whether the device is that of the source, or would be if it grew, which is planned."""
        guard = growth.allow if self.request.shared else self._guard(device)
        found = growth.Growth(self.resources, guard, udev.HANDS_OFF, self.request.timeout)
        plan = found.plan_linear if is_ours else found.plan
        if not plan(source, device, self.request.size):
            self._why_other = found.why
            return False
        self._growth = found
        return True

    def _guard(self, device: Device) -> growth.Guard:
        def check(tables: dict[growth.Number, list[growth.Line]], limits: dict[growth.Number, int]) -> None:
            questions = grown.questions_to_be(self.resources, tables, limits)
            mine = footprint(device.id.major, device.id.minor, not self.request.read_only, questions)
            spec = self._spec()
            disk_device.check_others(self.resources, spec, mine, device.path, self._of_guest().pid)
            _sharing.refuse_mounted(mine, device.path, device)

        return check

    # Changing

    def _attach(self) -> None:
        limit, spec = self.request.limit(), self._spec()
        store = self.resources.shared(Store) if domain0.is_here() else None
        with disk_device.locked(limit):
            device = disk_device.make(self.resources, spec, limit, store)
        self.device = device
        disk_device.settle(self.resources, [(spec, device)], limit)
        # If this process is killed while libvirt attaches, QEMU may open the device yet.
        with hold([device], limit.left() + _TAKING_BACK):
            try:
                self._call(
                    limit,
                    lambda domain: domain.attachDeviceFlags(self._element(), libvirt.VIR_DOMAIN_AFFECT_LIVE),
                )
                self._was_attached = True
                qemu_process.prove(self._of_guest(), spec.path, device, self.request.title)
            except BlockError as error:
                if isinstance(error, DeadlineExceeded):
                    # The path must not lead to another device by then.
                    hold_for([device], _LATE)
                    error.hint = (
                        f"{error.hint}. It may attach the disk yet; the device is held for it for {_LATE} s"
                    )
                self._take_back(error)
                raise

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
                request.bus,
            )
        )

    def _take_back(self, error: BlockError) -> None:
        """After a failure, detach what libvirt attached. If that fails too, add this to the error."""
        try:
            if self._attached_now(Deadline(_TAKING_BACK)) is not None:
                self._detach(Deadline(_TAKING_BACK))
            self._was_attached = False
        except BlockError as failure:
            hint = error.hint or "It could not be rolled back"
            error.hint = f"{hint}. The disk {self.request.target} may still be attached: {failure}"

    def _attached_now(self, limit: Deadline) -> domain_xml.Present | None:
        live = _connection.read(self.request.uri, self.definition.uuid, limit).live
        return None if live is None else domain_xml.Domain(live).disk(self.request.target)

    def _detach(self, limit: Deadline) -> None:
        """
        Ask the guest for the disk, and wait until QEMU has closed it: libvirt itself waits for a few seconds
        only, and then reports success (qemuDomainDetachDeviceLiveAndConfig).
        """
        listed = self._attached_now(limit)
        if listed is None:
            return
        if self.listed is not None and listed.source != self.listed.source:
            raise WrongDevice(
                "the guest's disk is another one now; it is left unchanged", device=self.request.title
            )
        self._call(
            limit,
            lambda domain: domain.detachDeviceFlags(listed.xml, libvirt.VIR_DOMAIN_AFFECT_LIVE),
        )
        for pause in pauses():
            # At the end of the limit, libvirt must still have time to answer.
            if self._attached_now(Deadline(_ANSWERING)) is None:
                return
            if limit.expired:
                break
            limit.sleep(pause)
        raise limit.exceeded(
            "the guest to release the disk",
            device=self.request.title,
            hint="Its system must run, and must not use the disk. It may still release it later; run the "
            "task again to see",
        )

    # Calls

    def _of_guest(self) -> qemu_process.Process:
        if self._process is None:
            raise AssertionError
        return self._process

    def _call(self, limit: Deadline, function: Callable[[DomainHandle], T]) -> T:
        return _connection.with_connection(
            self.request.uri,
            limit,
            self.request.title,
            lambda connection: function(connection.lookupByUUIDString(self.definition.uuid)),
        )


def _mode_of(listed: domain_xml.Present) -> str:
    return "r" if listed.read_only or listed.device == "cdrom" else "w"
