# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``libvirt_disk`` and ``libvirt_disks`` do with one disk of one domain.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._base import locks as _locks
from .._base.errors import (
    BlockError,
    DeadlineExceeded,
    DefinitionError,
    GuestError,
    InvalidValue,
    NotSupported,
)
from .._block.device import Device
from .._block.seal import reason_text
from .._libvirt import connection, disk_source, domain_xml
from .._libvirt.cd_drive import CdDrive
from .._libvirt.disk_definition import DiskDefinition, Exchange
from .._libvirt.disk_request import DiskRequest
from .._libvirt.kept import KeptConnections
from .._libvirt.running_disk import RunningDisk
from .._libvirt.running_qemu import RunningQemuDisk
from .._source import growth, needed_locks, spec
from .._source import recipe as _recipe
from .._source.resources import Resources
from .._xen import guest, vdev
from .._xenstore.pyxs_store import Store
from . import sealing
from .guest_disk import SIZE_ARGUMENTS, check_replace, check_source_mode, file_to_grow, wanted_size
from .item import Identities, Item, Params, Plan, check_seconds, error_of, known, seen, undo_steps

if TYPE_CHECKING:
    from .._source.spec import Source

ARGUMENTS = {
    "domain": {"type": "str", "required": True},
    "vdev": {"type": "str", "required": True},
    "source": {"type": "raw"},
    **SIZE_ARGUMENTS,
    "mode": {"type": "str", "choices": ["r", "w"], "default": "w"},
    "device_type": {"type": "str", "choices": ["disk", "cdrom"], "default": "disk"},
    "bus": {"type": "str"},
    "shared": {"type": "bool", "default": False},
    "config": {"type": "bool", "default": True},
    "live": {"type": "bool", "default": False},
    "replace": {"type": "bool", "default": False},
    **sealing.BELOW_ARGUMENTS,
    "uri": {"type": "str", "default": connection.URI},
    "timeout": {"type": "int", "default": 60},
    "state": {"type": "str", "choices": ["present", "absent", "empty"], "default": "present"},
}
# Seconds for reading a definition while the task holds locks of sources: less than those of the hook, which
# may wait for one of them meanwhile.
_READING = 20
_BUSES = ("xen", "virtio", "ide", "scsi", "sata", "usb", "fdc", "uml", "sd")


class _AskedLocks(contextlib.ExitStack):
    """The locks of sources that the entries of one task have asked for. ``by_name``: some may not be held."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: dict[str, _locks.Lock] = {}


class DiskItem(Item):
    ARGUMENTS = ARGUMENTS
    CONSTRAINTS = {"required_if": [("state", "present", ("source",))]}
    # Set by check.
    request: DiskRequest

    def __init__(self, params: Params, resources: Resources) -> None:
        super().__init__(params, resources)
        resources.shared(KeptConnections)
        self.target: str = params["vdev"]
        self.definition: connection.Definition | None = None
        self.recipe: str | None = None
        # The disk in the inactive definition, and in the running guest, if these are requested.
        self.defined: DiskDefinition | None = None
        self.running: RunningDisk | RunningQemuDisk | None = None
        # The CD drive of a running guest of QEMU.
        self.drive: CdDrive | None = None
        self.exchange: Exchange | None = None
        # The settings of the running disk that the plan found and wants, and the steps that roll back a
        # change of its seals.
        self._had: dict[str, Any] = {}
        self._has: dict[str, Any] = {}
        self._unseal: list[Callable[[], Any]] = []
        # How the disk that is replaced is sealed.
        self._old_seal: dict[str, Any] = {}
        # The bytes that the source's file must get, None if it is large enough.
        self._file_size: int | None = None
        # The file that was made larger, which is not rolled back, as texts.
        self._enlarged: list[str] = []
        # The locks of the source, and whether they are needed after the plan.
        self._source_locks: list[_locks.Lock] = []
        self._needs_source = True

    def key(self) -> tuple[str, Any]:
        return "vdev", f"{self.params['vdev']} of {self.params['domain']}"

    def identities(self) -> Identities:
        """A domain has a name and a UUID, and libvirt's Xen driver has several URIs."""
        driver = connection.driver_of(self.params["uri"])
        found = {}
        if self.definition is not None:
            words = f"{self.target} of the domain {self.definition.name} (uuid {self.definition.uuid})"
            found[driver, self.definition.uuid, self.target] = words
        found[driver, self.params["domain"], self.target] = f"the disk {self.target}"
        return found

    def title(self) -> str:
        return f"{self.target} of {self.params['domain']}"

    @property
    def _is_drive(self) -> bool:
        """Whether it is a CD drive of QEMU, whose medium changes while the guest runs."""
        return self.params["device_type"] == "cdrom" and not connection.is_xen(self.params["uri"])

    def check(self) -> None:
        params = self.params
        self.target = _canonical_target(params["vdev"])
        _check_options(params)
        if params["source"] is None and params["state"] == "present":
            raise InvalidValue("source", None, "must be given with state=present")
        source = None if params["source"] is None else self._source()
        self.request = DiskRequest(
            params["uri"],
            params["domain"],
            self.target,
            source,
            "r" if params["state"] == "empty" else params["mode"],
            params["device_type"],
            params["bus"],
            params["shared"],
            params["config"],
            params["live"],
            params["state"] != "absent",
            params["timeout"],
            empty=params["state"] == "empty",
            replace=params["replace"],
            size=wanted_size(params, source, "absent"),
        )

    @classmethod
    def prepare(cls, resources: Resources) -> None:
        sealing.prepare()

    def _source(self) -> Source:
        source = spec.parse(self.params["source"])
        if self.params["state"] == "present":
            source = check_source_mode(source, self.params["mode"])
        if self.params["config"]:
            _recipe.check(source)
        return source

    def locks(self) -> list[_locks.Lock]:
        """
        A lock for the whole definition, which is read and written, and one for the disk of the running guest.
        """
        uri, domain = self.params["uri"], self.params["domain"]
        found = self.resources.domains.get((uri, domain))
        if found is None:
            try:
                found = connection.uuid_of(uri, domain, self.request.limit())
            except NotSupported:  # the plan reports it
                return []
            self.resources.domains[uri, domain] = found
        uuid, is_live = found
        name, words = f"domain {connection.driver_of(uri)} {uuid}", f"the definition of the domain {domain}"
        locks = [_locks.Lock(name, words)]
        self._source_locks = []
        if self.params["live"] and is_live:
            locks.append(self._lock_of_disk(uuid))
            if self.request.source is not None:
                self._source_locks = needed_locks.of_source(self.request.source)
                asked = self.resources.shared(_AskedLocks).by_name
                asked.update((lock.name, lock) for lock in self._source_locks)
        return locks + self._source_locks

    def unneeded_locks(self) -> list[_locks.Lock]:
        # Many guests can use one image. Other runs, and guests that start, only wait while its device is
        # created.
        return [] if self._needs_source else self._source_locks

    def _need_locked(self, definition: connection.Definition) -> None:
        """
        GuestError if this is not the domain whose locks are held, or if its disk is not locked because it did
        not run. Without locks, in check mode, nothing is compared.
        """
        request = self.request
        now = definition.uuid, definition.live is not None
        locked = self.resources.domains.get((request.uri, request.domain), now)
        if locked[0] != now[0] or (request.live and now[1] > locked[1]):
            raise GuestError(
                "it was started or defined again meanwhile; nothing was done",
                device=request.domain,
                hint="Try again",
            )

    def _lock_of_disk(self, uuid: str) -> _locks.Lock:
        """The lock for one disk of the running guest with this UUID."""
        if not connection.is_xen(self.params["uri"]):
            return _locks.Lock(f"disk {uuid} {self.target}", f"the disk {self.title()}")
        domid = guest.find(self.resources.shared(Store), uuid).domid
        return _locks.of_vbd(domid, vdev.parse(self.target).number, self.title())

    def _running(self) -> RunningDisk | RunningQemuDisk:
        """``running``, which the plan has set."""
        if self.running is None:
            raise AssertionError
        return self.running

    def plan(self) -> Plan:
        request = self.request
        self.definition = definition = self._read_definition()
        self._need_locked(definition)
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        self.request = request = request._replace(seal=self._seal())
        if request.present and request.seal.sealed:
            sealing.need_support()
        below = self._read_source() if request.present and not request.empty else None
        self._plan_file(before, after)
        if request.config:
            self.defined = DiskDefinition(self.request, definition, self.recipe)
            before["definition"], after["definition"] = self.defined.plan()
        run = self.resources, self.request, definition
        if request.live and definition.live is not None and self._is_drive:
            self.drive = CdDrive(*run)
            had, has = self.drive.plan(below, self.recipe)
            before.update({} if had is None else {"running": had})
            after.update({} if has is None else {"running": has})
        elif request.live and definition.live is not None:
            self.running = RunningDisk(*run) if connection.is_xen(request.uri) else RunningQemuDisk(*run)
            had, has = self.running.plan(below, self.recipe)
            self._plan_seals(had, has)
            before.update({} if had is None else {"running": had})
            after.update({} if has is None else {"running": has})
        elif request.live and not request.config:
            raise GuestError(
                "it does not run, so it has no running disks to change",
                device=definition.name,
                hint="Set config=true to change its definition",
            )
        parts = (self.defined, self.running, self.drive)
        changes = [part.changes for part in parts if part is not None]
        grows = self._file_size is not None or (self.running is not None and self.running.grows)
        is_changed = any(part is not None and part.changes for part in (self.running, self.drive))
        self._needs_source = grows or (below is None and is_changed)
        return Plan(any(changes) or self._seals_change or grows, before, after)

    def _read_definition(self) -> connection.Definition:
        """
        The domain's definition. libvirt does not answer while the hook makes the domain's disks, and the hook
        may wait for the locks of a source that this task holds, for any of its entries. Then this wait ends
        well before the hook's.
        """
        request, asked = self.request, self.resources.shared(_AskedLocks).by_name
        is_locked = any(map(self.resources.locks.has, asked.values()))
        limit = request.limit()
        try:
            return connection.read(
                request.uri, request.domain, limit.sooner(_READING) if is_locked else limit
            )
        except DeadlineExceeded as error:
            if is_locked:
                error.hint = (
                    f"{error.hint}. If the domain is just starting, it may wait for an image that this task "
                    "has locked. Nothing was done. Try again"
                )
            raise

    def _plan_file(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        source = self.request.source
        grows = file_to_grow(source, self.request.size)
        if grows is not None and isinstance(source, spec.FileSource):
            before["file"], after["file"] = ({source.file: size} for size in grows)
            self._file_size = grows[1]

    def _seal(self) -> _recipe.Seal:
        """The wanted seal: as the options say, or else as the present recipe does."""
        definition = known(self.definition)
        kept = _recipe.Seal()
        for text in (definition.live, definition.xml):
            recipe = None if text is None else domain_xml.parsed(text).recipes().get(self.target)
            try:
                kept = kept if recipe is None else _recipe.seal_of(recipe, self.title())
            except (DefinitionError, InvalidValue):
                # A recipe that cannot be read is replaced.
                kept = _recipe.Seal()
        return kept.with_options(self.params["sealed"], self.params["sealed_below"])

    def _plan_seals(self, had: dict[str, Any] | None, has: dict[str, Any] | None) -> None:
        """Compare the seal of the running disk, and add it to both settings."""
        running = self._running()
        # Only the disks of Xen can be sealed.
        if has is None or not self.request.present or isinstance(running, RunningQemuDisk):
            return
        self._had, self._has = had or {}, has
        options = dict(self.params)
        if self.request.seal.sealed:
            options.update(self.request.seal._asdict())
        if running.old is not None:
            options = sealing.as_before(options, running.old.device, self._had, self._reason())
            self._old_seal = {name: self._had.get(name) for name in _recipe.Seal._fields}
            sealing.compare(options, None, {}, has, self._reason())
            return
        before = self._had if running.vbd is not None else {}
        sealing.compare(options, running.device, before, has, self._reason())

    @property
    def _seals_change(self) -> bool:
        return any(self._had.get(name) != self._has.get(name) for name in _recipe.Seal._fields)

    def _reason(self) -> str:
        """The reason of the seal of the running disk (``_block.seal.reason_text``)."""
        running = self.running
        if not isinstance(running, RunningDisk):
            raise AssertionError
        return reason_text.of_vbd(known(running.guest).domid, vdev.parse(self.target).number)

    def _change_running(self) -> None:
        running = self._running()
        if running.changes:
            try:
                running.change()
            finally:
                self._seal_old()
        if not self.request.present:
            # Its seal has no reason any more.
            sealing.prepare()
        elif self._has:
            had = self._had if running.old is None else {}
            sealing.change(known(running.device), had, self._has, self._unseal, self._reason())

    def _seal_old(self) -> None:
        """Seal the disk that was replaced and is attached again, as it was."""
        old = None if self.running is None else self.running.old
        # Only the disks of Xen can be sealed.
        if isinstance(self.running, RunningDisk) and old is not None and old.again is not None:
            sealing.change(old.again, {}, self._old_seal, [], self._reason())

    def _read_source(self) -> Device | None:
        """
        Read the source, and set the source to keep and its recipe. Returns the source's device if it exists.
        """
        state = disk_source.read(self.resources, self.request, known(self.definition))
        self.request = self.request._replace(source=state.source)
        recipe_of = disk_source.recipe_to_define if self.request.config else disk_source.recipe_for_run
        self.recipe, warnings = recipe_of(state, self.title(), self.request.seal)
        self.warnings += warnings
        return state.device

    def apply(self) -> None:
        """Make the file larger. All disks of one domain are changed together, in :meth:`apply_together`."""
        if self._file_size is not None and isinstance(self.request.source, spec.FileSource):
            self._enlarged = [growth.enlarge_file(self.request.source, self._file_size)]

    @classmethod
    def apply_together(cls, items: Sequence[DiskItem]) -> list[BlockError | None]:
        errors: dict[DiskItem, BlockError | None] = {}
        for item in items:
            if item.running is not None and (item.running.changes or item._seals_change):
                errors[item] = error_of(item._change_running)
            if item.drive is not None and item.drive.changes:
                errors[item] = error_of(item.drive.change)
        growing = [item for item in items if item.running is not None and item.running.grows]
        cls._release_sources(items, growing)
        domains: dict[tuple[str, str], list[DiskItem]] = {}
        for item in items:
            if item.defined is not None and item.defined.changes and errors.get(item) is None:
                domains.setdefault((item.request.uri, known(item.definition).uuid), []).append(item)
        for chosen in domains.values():
            exchange = Exchange([known(item.defined) for item in chosen])
            error = error_of(exchange.run)
            for item in chosen:
                item.exchange = exchange
                errors[item] = error
        # Recipes and definitions come first: a guest that starts again must not get a shorter disk.
        for item in growing:
            errors[item] = errors.get(item) or error_of(item._grow_running)
        for item in growing:
            errors[item] = errors.get(item) or item._running().wait_told()
        return [errors.get(item) for item in items]

    @staticmethod
    def _release_sources(items: Sequence[DiskItem], growing: Sequence[DiskItem]) -> None:
        """
        Release the locks of the sources, whose devices exist now, except for those that grow. libvirt's calls
        for the definitions may wait for domains that are starting, which may wait for these locks.
        """
        needed = {lock.name for item in growing for lock in item._source_locks}
        for item in items:
            item.resources.locks.release(lock for lock in item._source_locks if lock.name not in needed)

    def _grow_running(self) -> None:
        running = self._running()
        try:
            running.grow()
        finally:
            if running.grown and self.exchange is not None:
                self.exchange.stay(known(self.defined))
        if self._has.get("sealed_below"):
            # The longer table may name more devices.
            sealing.change(known(running.device), self._has, self._has, self._unseal, self._reason())

    def undo(self) -> None:
        """
        Restore the disk in the definition, where other disks stay changed, and detach what was attached.
        Raises the first error at the end.
        """
        failures = [error_of(lambda: undo_steps(self._unseal)), error_of(self._undo_definition)]
        failures += [error_of(part.undo) for part in (self.running, self.drive) if part is not None]
        failures.append(error_of(self._seal_old))
        for failure in failures:
            if failure is not None:
                raise failure

    def _undo_definition(self) -> None:
        if self.exchange is not None:
            self.exchange.undo(known(self.defined))

    def is_removal(self) -> bool:
        # A definition can be restored. A disk that was detached from a running guest cannot: remains()
        # reports it.
        return False

    def remains(self) -> list[str]:
        told = self._enlarged + ([] if self.running is None else self.running.remains())
        told += [] if self.drive is None else self.drive.remains()
        if self.exchange is not None and self.exchange.stays(self.defined):
            told.append("the definition is changed, so that the disk is as large after the next start")
        if self.exchange is not None and self.exchange.is_unknown:
            told.append("whether the definition has changed is not known: virsh dumpxml --inactive")
        old = None if self.running is None else self.running.old
        if old is not None:
            if not old.is_again:
                return told + seen(old.state_words)
            self.warnings.append(f"{self.title()}: the guest has {old} again")
            return told
        if self.running is not None and self.running.was_detached:
            told.append("the disk of the running guest is detached")
        return told

    def result(self) -> dict[str, Any]:
        request, definition = self.request, self.definition
        if definition is None or not request.present:
            return {"disk": None, "device": None, "replaced": None}
        kept = None if self.drive is None else self.drive.recipe
        kept = kept if self.running is None else self.running.recipe
        part = self.running or self.drive
        device = None if part is None else part.device
        disk = {
            "domain": definition.name,
            "uuid": definition.uuid,
            "vdev": self.target,
            "path": None if request.empty else request.spec(definition).path,
            "mode": request.mode,
            "device_type": request.device_type,
            "recipe": self.recipe if request.config else kept,
            "running": definition.live is not None,
        }
        return {
            "disk": disk,
            "device": None if device is None else device.as_dict(),
            "replaced": self._replaced(),
        }

    def _replaced(self) -> dict[str, Any] | None:
        if self.drive is not None:
            return self.drive.replaced()
        if self.running is None or self.running.old is None or self.running.device is None:
            return None
        return self.running.old.replaced()


def _check_options(params: Params) -> None:
    """Check the options other than the disk's name and source. Raises InvalidValue."""
    if not params["domain"] or not params["domain"].isprintable() or len(params["domain"]) > 256:
        raise InvalidValue("domain", params["domain"], "must be the name or the uuid of a domain")
    if not params["config"] and not params["live"]:
        raise InvalidValue("config", False, "must be true without live: there is nothing else to change")
    check_seconds(params, "timeout", 1)
    sealing.check_guest_disk(params, "absent")
    check_replace(params, "absent")
    if params["sealed"] and not params["uri"].startswith("xen:"):
        raise InvalidValue(
            "sealed",
            True,
            f"is possible only for Xen, where blkback tells when it has opened a disk, but the uri is "
            f"{params['uri']}",
        )
    if params["bus"] not in (None, *_BUSES):
        raise InvalidValue("bus", params["bus"], f"must be one of {', '.join(_BUSES)}")
    if params["device_type"] == "cdrom" and params["mode"] == "w" and params["state"] == "present":
        raise InvalidValue("mode", "w", "must be r: a cdrom is read-only")
    _check_empty(params)
    _check_live(params)


def _check_live(params: Params) -> None:
    """Refuse what is not possible for the running guests of this URI."""
    uri = params["uri"]
    if params["live"] and not (connection.is_xen_here(uri) or connection.is_qemu_here(uri)):
        raise InvalidValue(
            "live",
            True,
            "is possible only for xen:///system and qemu:///system, where it can be proved which device the "
            f"guest got, but the uri is {uri}",
        )


def _check_empty(params: Params) -> None:
    """InvalidValue if ``state=empty`` does not make sense with the other options."""
    if params["state"] != "empty":
        return
    if params["device_type"] != "cdrom":
        raise InvalidValue("state", "empty", "is possible only with device_type=cdrom")
    for option in ("source", "sealed", "sealed_below"):
        if params[option]:
            raise InvalidValue(option, params[option], "must not be given with state=empty")
    if params["live"] and connection.is_xen(params["uri"]):
        raise InvalidValue(
            "state",
            "empty",
            "is not possible with live for Xen: blkback has no empty CD drives. state=absent takes the CD "
            "away from a paravirtual guest; xl cd-eject ejects that of an HVM guest",
        )


def _canonical_target(value: str) -> str:
    """The disk's name as libvirt knows it, for Xen's numbers and short forms too."""
    if value[:1].isdigit() or (value[:1] == "d" and value[1:2].isdigit()):
        value = vdev.parse(value).name
    return domain_xml.check_target(value)
