# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A disk of a running guest of xl is attached, detached or replaced, through xl and the hotplug script.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The script makes the device from the disk's recipe, which is written before. So that as little as possible can
fail when the old disk is gone, the same device is made and checked here first, and held until the script has
found it. If the old disk has a mapped device of the same recipe, which has the same name, the new one is made
under another name, checked, and removed again; what lies below it stays open.
"""

from __future__ import annotations

from typing import Any

from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeviceBusy, GuestError, WrongDevice
from .._block.device import Device
from .._dm import mapped, removal
from .._source import for_guest, lookup, needed_locks, recipe_file
from .._source.resources import Resources
from .._source.spec import TableSource
from .._xen import attached, blkback, replacing, stack, vbd_nodes, vbd_read
from .._xen import guest as _guest
from .._xen import sharing as _sharing
from .._xen import vdev as _vdev
from .._xen.replacing import OldDisk
from .._xen.vbd_nodes import Vbd
from .._xenstore.session import Session
from . import disk_text, xl_command
from .disk_change import DiskRequest
from .disk_text import DiskText
from .old_device import OldDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._source.spec import Source

Settings = dict[str, Any]


class LiveDisk:
    """
    ``says``: the disk as the configuration has it or is to have it. ``source``: of its recipe, None to detach
    the disk. ``old``: the disk that the guest has there now. ``again``: what it has been proved to have open
    after that was attached again, for as long as the guest has it; None before.
    """

    def __init__(
        self,
        resources: Resources,
        request: DiskRequest,
        guest: _guest.Guest,
        store: Session,
        says: DiskText,
        source: Source | None,
        seconds: float,
    ) -> None:
        self._resources = resources
        self._request = request
        self._guest = guest
        self._store = store
        self._says = says
        self._source = source
        self._seconds = seconds
        self._key = vbd_nodes.Key(guest.domid, _vdev.parse(request.vdev).number)
        self.old: OldDisk | None = None
        self.again: Device | None = None
        self._was: OldDevice | None = None
        # The new device as it was made and checked, None if it could not keep its name until then.
        self._device: Device | None = None
        self._is_taken = False
        self._is_attached = False
        # The disk that was attached and proved to be the right one.
        self._new: Vbd | None = None

    @property
    def title(self) -> str:
        return f"{self._request.vdev} of {self._guest}"

    def plan(self, vbd: Vbd | None, device: Device | None) -> tuple[Settings, Settings]:
        """
        The running guest's disk before and after. ``vbd``: the one that it has, ``device``: what blkback has
        open for it, held.
        """
        if vbd is not None and self._source is None:
            self.old = OldDisk(vbd, self._guest, device, None)
        elif vbd is not None:
            self.old = replacing.look_at(self._store, vbd, self._guest, device)
        before = {} if vbd is None else {"target": vbd.params, **attached.settings_of(vbd)}
        if self._source is None:
            return before, {}
        says = self._says
        return before, {"target": says.target, "mode": says.access, "device_type": says.device_type}

    def check(self) -> None:
        """Make the new device and check it, before anything is changed."""
        if self._source is None:
            return
        limit, source = Deadline(self._seconds), self._named(self._source)
        is_trial = isinstance(source, TableSource) and self._is_name_taken(source)
        if is_trial and isinstance(source, TableSource):
            source = source._replace(name=None, uuid=None)
        device = for_guest.open_source(
            self._resources, source, limit, self._says.access == "r", self._request.shared
        )
        self._check_device(device)
        self._device = device
        if is_trial:
            device.close()
            self._wait_gone(device, limit)

    def change(self) -> None:
        """Detach the old disk, and attach the new one. The caller has written the recipe."""
        if not _guest.lives(self._store, self._guest):
            raise GuestError("the guest has ended meanwhile", device=self.title)
        if self._source is not None:
            # The hotplug script needs the locks of what it makes the disk of.
            self._resources.locks.release(needed_locks.of_source(self._named(self._source)))
            if self.old is not None and self.old.device is not None:
                self._was = OldDevice(self._resources, self.old.device)
        if self.old is not None:
            self._take(self.old)
        if self._source is not None:
            self._attach(self._says)
            self._is_attached = True
            self._prove()

    def replaced(self) -> dict[str, Any] | None:
        """The disk that the new one has replaced, as in the modules' results. None if that was not done."""
        return self.old.replaced() if self.old is not None and self._is_attached else None

    def undo(self) -> None:
        """Detach the new disk, and attach the old one again. The caller has restored the recipe."""
        if self._is_attached:
            self._is_attached = False
            now = self._new or vbd_read.read_vbd(self._store, *self._key)
            if now is not None and _is_of(now, self._says):
                self._take_new(blkback.Detachment(now, self._guest))
        if self._is_taken and self.old is not None and self._source is not None:
            self._is_taken = False
            try:
                self._clear(self.old.detachment)
                self._put_back(self.old)
            except BlockError as failure:
                raise replacing.not_again(self.old, failure) from failure

    def remains(self) -> list[str]:
        """What remains changed after :meth:`undo`, as texts."""
        if self.old is None or self.again is not None:
            return []
        return self.old.state_words(self._store)

    def _named(self, source: Source) -> Source:
        """The source as the hotplug script will open it."""
        return recipe_file.named(source, self._says.recipe or "")

    def _is_name_taken(self, source: TableSource) -> bool:
        if not source.name and not source.uuid:
            return False
        found = mapped.find(self._resources.dm, source.name or "", source.uuid or "")
        if found is not None and found.device is not None:
            found.device.close()
        return found is not None

    def _check_device(self, device: Device) -> None:
        says, questions = self._says, stack.questions(self._resources)
        vdev = _vdev.parse(self._request.vdev)
        request = blkback.Request(self._guest, vdev, device, says.access, says.device_type)
        blkback.check(request)
        if self.old is not None and isinstance(self._source, TableSource):
            replacing.refuse_overlap(self.old, device, says.access == "w", questions)
        with _sharing.Sharing(questions) as sharing:
            if not self._request.shared:
                sharing.guard(self._store, request)
            if self.old is not None:
                self.old = replacing.with_sharing(self.old, self._store, sharing)

    @staticmethod
    def _wait_gone(device: Device, limit: Deadline) -> None:
        """Wait until the mapped device that was made on trial is removed."""
        for pause in pauses():
            if not removal.is_there(device.id):
                return
            if limit.expired:
                raise limit.exceeded("the new disk's device to be removed again", device=device.path)
            limit.sleep(pause)

    def _take(self, old: OldDisk) -> None:
        if self._device is not None and self._device.fd < 0 and old.device is not None:
            if mapped.is_mapped(old.device):
                # It has the name that the new one is to have.
                old.device.close()
        self._ask(old.detachment)
        # From here on the guest has no disk, whatever xl says.
        self._is_taken = True
        self._detach(old.detachment)

    def _take_new(self, detachment: blkback.Detachment) -> None:
        self._ask(detachment)
        try:
            self._detach(detachment)
        except BlockError:
            # Its nodes must not be in the way of the old disk.
            self._clear(detachment)

    def _ask(self, detachment: blkback.Detachment) -> None:
        """Ask the guest first: xl gives up after 10 s, and leaves the request pending."""
        (asked,) = blkback.ask(self._store, [detachment], self._seconds)
        if asked.error is not None:
            raise asked.error

    def _clear(self, detachment: blkback.Detachment) -> None:
        """Remove what a failed xl has left of a disk that the guest has released. WrongDevice for others."""
        replacing.clear(
            self._store, self._key, lambda: blkback.detach(self._store, [detachment], self._seconds)
        )

    def _detach(self, detachment: blkback.Detachment) -> None:
        """Have xl detach a disk that the guest has released."""
        try:
            xl_command.detach(self._key.domid, self._key.devid, self.title, self._seconds)
        except BlockError:
            # An xl that was started by a killed run, or by somebody else, may have detached it by now.
            if vbd_read.read_vbd(self._store, *self._key) is not None:
                raise
        blkback.wait_released(detachment, Deadline(self._seconds))

    def _attach(self, says: DiskText) -> None:
        there = vbd_read.read_vbd(self._store, *self._key)
        if there is not None:
            raise DeviceBusy(
                f"somebody attached a disk there meanwhile: {_words(there)}; it is left unchanged",
                device=self.title,
                hint="Detach it first, or set replace=true",
            )
        try:
            xl_command.attach(self._key.domid, disk_text.written(says), self.title, self._seconds)
        except BlockError as error:
            self._take_back(error, says)
            raise

    def _take_back(self, error: BlockError, says: DiskText) -> None:
        """
        Remove what a failed xl has left, which the ``error`` says if it fails. xl also fails because somebody
        else attached a disk there first: that one stays.
        """
        try:
            left = vbd_read.read_vbd(self._store, *self._key)
            if left is None:
                return
            if not _is_of(left, says):
                error.add_hint(f"The guest has another disk there now, which stays: {_words(left)}")
                return
            (outcome,) = blkback.detach(self._store, [blkback.Detachment(left, self._guest)], 10, force=True)
            if outcome.error is not None:
                raise outcome.error
        except BlockError as failure:
            error.add_hint(f"Whether {self.title} was rolled back is not known: {failure}")

    def _prove(self) -> None:
        """WrongDevice unless the guest has got the device that was checked, or one of its recipe."""
        vbd, device = self._opened()
        with device:
            source, checked = self._source, self._device
            if checked is not None and checked.fd >= 0:
                is_right = device.id == checked.id
            else:
                is_right = source is not None and lookup.is_device(source, device, self._resources)
            if not is_right:
                raise WrongDevice(attached.other_disk(vbd, device), device=self.title)
        self._new = vbd

    def _opened(self) -> tuple[Vbd, Device]:
        """The disk that xl has attached, and its device, held. Xen's own script does not wait for blkback."""
        limit = Deadline(self._seconds)
        for pause in pauses():
            vbd = vbd_read.read_vbd(self._store, *self._key)
            is_opened = vbd is not None and vbd_read.opened_number(vbd.key) is not None
            if is_opened or vbd is None or vbd.error or replacing.is_leaving(vbd) or limit.expired:
                break
            limit.sleep(pause)
        device = attached.open_device(vbd) if vbd is not None and is_opened else None
        if vbd is None or device is None:
            said = "" if vbd is None or not vbd.error else f": {vbd.error}"
            raise GuestError(
                f"xl says that it attached the disk, and blkback does not have it{said}", device=self.title
            )
        return vbd, device

    def _put_back(self, old: OldDisk) -> None:
        if old.device is None or self._was is None:
            return
        vbd = old.vbd
        if vbd.diskseq is not None and vbd.script == vbd_nodes.STOCK_SCRIPT and old.device.fd >= 0:
            # Attached by xen_vbd, of which xl knows nothing.
            with _sharing.Sharing(stack.questions(self._resources)) as sharing:
                guard = None if old.is_shared else sharing.guard
                (outcome,) = blkback.attach(self._store, [old.request()], self._seconds, guard=guard)
            if outcome.error is not None:
                raise outcome.error
            self.again = old.device
            return
        script = (vbd.script or vbd_nodes.STOCK_SCRIPT).rpartition("/")[2]
        settings = attached.settings_of(vbd)
        says = DiskText(
            self._request.vdev, vbd.params or "", settings["mode"], settings["device_type"], script=script
        )
        if says.target.startswith("/"):
            self._was.refuse_other(says.target)
        self._attach(says)
        try:
            self.again = self._prove_old(self._was)
        except BlockError as error:
            self._take_back(error, says)
            raise

    def _prove_old(self, was: OldDevice) -> Device:
        """The device that the guest has now, held by the resources. WrongDevice unless it is the old one."""
        vbd, device = self._opened()
        self._resources.enter_context(device)
        if not was.is_same(device):
            raise WrongDevice(attached.other_disk(vbd, device), device=self.title)
        return device


def _is_of(vbd: Vbd, says: DiskText) -> bool:
    """Whether xl attached the vbd as ``says``: it writes the target and the script before anything else."""
    script = (vbd.script or vbd_nodes.STOCK_SCRIPT).rpartition("/")[2]
    return (vbd.params, script) == (says.target, says.script)


def _words(vbd: Vbd) -> str:
    """The disk for messages."""
    return f"{vbd.params or '(no target)'}, {vbd_nodes.device_words(vbd.number, vbd.diskseq)}"
