# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The CD drive of a running guest of QEMU: a medium is inserted, ejected, or replaced.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

libvirt changes a medium by virDomainUpdateDeviceFlags, and asks the guest to unlock the tray first
(qemuDomainChangeEjectableMedia, src/qemu/qemu_hotplug.c). The medium is a mapped device at the disk's path,
as at the start of the guest, and afterwards QEMU's open files are compared with it. All media of a drive have
this path, so the old one is ejected and removed before the new one is made; what lies below it stays open, so
that it can be inserted again.

libvirt changes whatever medium is there: no call says which one is expected. So the drive is looked at right
before and after each call, and a medium that somebody else has inserted meanwhile stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .._base.errors import BlockError, DeadlineExceeded, DeviceBusy, GuestError, InvalidValue, WrongDevice
from .._block import sysfs
from .._block.device import Device
from .._source import opener
from .._source.resources import Resources
from .._source.spec import PathSource
from .._xen import domain0
from .._xenstore.pyxs_store import Store
from . import connection, disk_device, domain_xml, live_recipe, qemu_process
from .connection import Definition, NotAsked, libvirt
from .disk_device import Over
from .disk_request import DiskRequest

if TYPE_CHECKING:
    from .._process.open_files import What

Settings = dict[str, Any]


class _Medium(NamedTuple):
    """
    What a drive has. ``source``: as libvirt lists it, None for an empty drive. ``what``: the file or device
    that QEMU has open for it, None if that cannot be told from its source. ``diskseq``: of a device.
    """

    source: str | None = None
    what: What | None = None
    diskseq: int | None = None

    def __str__(self) -> str:
        if self.source is None:
            return "no medium"
        if self.what is None:
            return self.source
        return f"{self.source} ({_numbers(self.what, self.diskseq)})"

    def is_device(self, device: Device) -> bool:
        """Whether QEMU has this device open, which the caller holds."""
        return (self.what, self.diskseq) == (("block", *device.id[:2]), device.id.diskseq)


def _numbers(what: What, diskseq: int | None) -> str:
    kind, first, second = what
    return f"{first}:{second}, diskseq {diskseq}" if kind == "block" else f"inode {second}"


_EMPTY = _Medium()


class CdDrive:
    """
    ``device``: the medium's device, held by the resources, None if the drive is or was empty. ``recipe``: the
    one that the running definition is to have.
    """

    def __init__(self, resources: Resources, request: DiskRequest, definition: Definition) -> None:
        self.resources = resources
        self.request = request
        self.definition = definition
        self.device: Device | None = None
        self.had_recipe: str | None = None
        self.recipe: str | None = None
        self.changes_medium = False
        # The drive as libvirt listed it, its medium, the guest's QEMU, and what the medium was made of, if
        # the collection had made it.
        self._listed: domain_xml.Present | None = None
        self._old = _EMPTY
        self._process: qemu_process.Process | None = None
        self._over: Over | None = None
        # Whether this run has asked for a change of the medium that is not undone, whether it has asked for
        # the new one, and whether it has written a recipe.
        self._is_asked = False
        self._inserts = False
        self._is_put = False

    @property
    def changes(self) -> bool:
        return self.changes_medium or self.had_recipe != self.recipe

    def plan(self, below: Device | None, recipe: str | None) -> tuple[Settings | None, Settings | None]:
        """The drive before and after. ``below``, ``recipe``: of the medium to insert. Raises an error."""
        request = self.request
        live = domain_xml.parsed(self.definition.live or "")
        self._listed = listed = live.disk(request.target)
        if listed is None and not request.present:
            return None, None
        self._check_drive(listed)
        if listed is None:
            raise AssertionError
        self._process = qemu_process.find(self.definition.name, self.definition.uuid)
        self._old = self._medium(listed, self._process)
        self.had_recipe = live.recipe(request.target)
        self.recipe = None if request.empty else recipe
        before = {"medium": listed.source, "recipe": self.had_recipe}
        self.changes_medium = listed.source is not None if request.empty else not self._is_medium(listed)
        if self.changes_medium and not request.empty:
            if listed.source is not None and not request.replace:
                raise DeviceBusy(
                    f"the drive has another medium: {self._old}",
                    device=request.title,
                    hint="Set replace=true, or eject it first with state=empty",
                )
            if below is not None:
                opener.refuse_broken(self.resources, below)
        return before, {"medium": None if request.empty else self._path, "recipe": self.recipe}

    def change(self) -> None:
        """
        Change the medium. If that fails, the drive gets its old one again, and the error says so. WrongDevice
        if somebody else has changed it meanwhile: what is there then stays.
        """
        if not self.changes_medium:
            self._need(self._old)
            self._put_recipe(self.recipe)
            return
        if not self.request.empty:
            with disk_device.locked(self.request.limit()):
                disk_device.open_below(self.resources, self._spec(), self.request.limit(), self._store())
        self._hold_old()
        self._need(self._old)
        self._is_asked = True
        try:
            if self._old.source is not None:
                self._update(None)
                self._need(_EMPTY)
            self._put_recipe(self.recipe)
            if not self.request.empty:
                self._insert()
        except BlockError as error:
            failure = self._back()
            holds = "The drive has its old medium again" if self._old.source else "The drive is empty again"
            if failure is not None:
                holds = f"The drive could not be given back what it had: {failure}"
            if isinstance(error, DeadlineExceeded) and not isinstance(error, NotAsked):
                holds += ". libvirt may still change it"
            error.add_hint(holds)
            raise

    def undo(self) -> None:
        """Insert the old medium again, or eject the new one. Raises the error."""
        if self._is_asked:
            failure = self._back()
            if failure is not None:
                raise failure
        elif self._is_put:
            self._put_recipe(self.had_recipe)

    def replaced(self) -> dict[str, Any] | None:
        """The medium that this run has replaced, as plain data for a module's return values, or None."""
        if not self._inserts or self._old.source is None:
            return None
        return {
            "path": self._old.source,
            "diskseq": self._old.diskseq,
            "params": self._old.source,
            "mode": "r",
            "device_type": "cdrom",
        }

    def remains(self) -> list[str]:
        """What remains changed after :meth:`undo`, as texts."""
        return ["the drive does not have its old medium"] if self._is_asked else []

    @property
    def _path(self) -> str:
        return domain_xml.path_of(self.definition.uuid, self.request.target)

    def _check_drive(self, listed: domain_xml.Present | None) -> None:
        request = self.request
        if not request.present:
            raise InvalidValue(
                "state",
                "absent",
                "is not possible with live for a CD drive: QEMU cannot remove one from a running guest. "
                "state=empty ejects its medium",
            )
        if listed is None or listed.device != "cdrom":
            found = "no CD drive" if listed is None else f"a {listed.device} instead of a CD drive"
            raise GuestError(
                f"the running guest has {found} there, and QEMU cannot add one now",
                device=request.title,
                hint="With live=false, it has the drive from its next start on",
            )

    def _is_medium(self, listed: domain_xml.Present) -> bool:
        """Whether the drive has the wanted medium. Sets ``device`` if it has one of the collection."""
        source = self.request.source
        if listed.source != self._path or source is None:
            return False
        device = disk_device.find(self.resources, self._spec())
        if device is None:
            return False
        if self._old.is_device(device) and disk_device.is_made_of(self.resources, device, source):
            self.device = device
            return True
        # It goes with its last user when it is ejected.
        device.close()
        return False

    def _spec(self) -> disk_device.DiskSpec:
        return self.request.spec(self.definition)

    def _old_spec(self) -> disk_device.DiskSpec:
        """The old medium, of which only the place matters."""
        request, definition = self.request, self.definition
        return disk_device.DiskSpec(
            definition.name, definition.uuid, request.target, PathSource(self._path), read_only=True
        )

    def _store(self) -> Store | None:
        return self.resources.shared(Store) if domain0.is_here() else None

    def _hold_old(self) -> None:
        """Hold what is below the old medium's device instead of the device, which goes when it is ejected."""
        if self._listed is None or self._listed.source != self._path:
            return
        device = disk_device.find(self.resources, self._old_spec())
        if device is not None:
            if self._old.is_device(device):
                self._over = disk_device.over(self.resources, device)
            device.close()

    def _insert(self) -> None:
        limit, spec = self.request.limit(), self._spec()
        with disk_device.locked(limit):
            self.device = disk_device.make(self.resources, spec, limit, self._store())
        disk_device.settle(self.resources, [(spec, self.device)], limit)
        self._need(_EMPTY)
        self._inserts = True
        self._update(self._path)
        self._prove(self.device)

    def _prove(self, device: Device) -> None:
        """WrongDevice unless the drive has this device, which is held, at the path of its media."""
        now = self._look()
        if now.source != self._path:
            raise self._other(now, _Medium(self._path, ("block", *device.id[:2]), device.id.diskseq))
        process = qemu_process.find(self.definition.name, self.definition.uuid)
        qemu_process.prove(process, self._path, device, self.request.title)

    # Looking again

    def _medium(self, listed: domain_xml.Present, process: qemu_process.Process) -> _Medium:
        """The medium that libvirt lists, with what QEMU has open for it."""
        source = listed.source
        if source is None or source[:1] != "/" or listed.type not in ("block", "file"):
            return _Medium(source)
        what = qemu_process.at(process, source)
        if what is None or not qemu_process.count(process, what):
            # The path leads to something else by now, which is not the medium.
            return _Medium(source)
        return _Medium(source, what, sysfs.diskseq_of(*what[1:]) if what[0] == "block" else None)

    def _look(self) -> _Medium:
        """What the drive has now. GuestError if the guest is not the same run, or has no CD drive there."""
        request, uuid = self.request, self.definition.uuid
        live = connection.read(request.uri, uuid, request.limit()).live
        if live is None:
            raise GuestError("the guest has ended meanwhile", device=request.title)
        process = qemu_process.find(self.definition.name, uuid)
        listed = domain_xml.parsed(live).disk(request.target)
        if process != self._process or listed is None or listed.device != "cdrom":
            raise GuestError(
                "the guest was started again meanwhile, or its CD drive was changed",
                device=request.title,
                hint="Run the task again",
            )
        return self._medium(listed, process)

    def _need(self, expected: _Medium) -> None:
        """WrongDevice unless the drive has this medium now."""
        now = self._look()
        if now != expected:
            raise self._other(now, expected)

    def _other(self, now: _Medium, expected: _Medium) -> WrongDevice:
        return WrongDevice(
            f"the drive has {now} now instead of {expected}: somebody else has changed it meanwhile, and it "
            "is left unchanged",
            device=self.request.title,
            hint="Find out who changes it, and run the task again",
        )

    # Back

    def _back(self) -> BlockError | None:
        """Give the drive what it had, unless somebody else has changed it; an error or None."""
        try:
            now = self._look()
            if self._inserts and now.source == self._path:
                # This path is for media of this drive only, so it is the one that this run has inserted.
                self._update(None)
                now = self._look()
            self._inserts = False
            if self.device is not None:
                self.device.close()
            if now not in (self._old, _EMPTY):
                if now.source != self._path:
                    # A recipe that is not for this medium would keep a saved guest from being restored.
                    self._put_recipe(None)
                return self._other(now, self._old)
            self._put_recipe(self.had_recipe)
            if now != self._old and self._listed is not None:
                self._insert_old(self._listed)
            self._is_asked = False
        except BlockError as error:
            return error
        return None

    def _insert_old(self, listed: domain_xml.Present) -> None:
        if self._over is None:
            # Not a medium of the collection.
            self._update_xml(listed.xml)
            self._need(self._old)
            return
        limit, spec = self.request.limit(), self._old_spec()
        with disk_device.locked(limit):
            device = disk_device.make_again(self.resources, spec, self._over, limit)
        disk_device.settle(self.resources, [(spec, device)], limit)
        self._need(_EMPTY)
        self._update(self._path)
        self._prove(device)

    def _update(self, path: str | None) -> None:
        """Have libvirt put the device at this path into the drive, or eject what is there."""
        wanted = domain_xml.Disk(self.request.target, path, "qemu", "cdrom", True)
        text = domain_xml.Domain(domain_xml.put(self.definition.live or "", wanted))
        drive = text.disk(self.request.target)
        if drive is None:
            raise AssertionError
        self._update_xml(drive.xml)

    def _update_xml(self, xml: str) -> None:
        request = self.request
        connection.with_connection(
            request.uri,
            request.limit(),
            request.title,
            lambda conn: connection.look_up_run(
                conn, self.definition.uuid, self.definition.run, request.title
            ).updateDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE),
        )

    def _put_recipe(self, recipe: str | None) -> None:
        request, self._is_put = self.request, True
        live_recipe.put(request.uri, self.definition, request.target, recipe, request.limit())
