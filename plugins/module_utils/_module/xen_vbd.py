# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``xen_vbd`` and ``xen_vbds`` do with one disk of one guest.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .._base import locks as _locks
from .._base.deadline import Deadline
from .._base.errors import (
    BlockError,
    DeadlineExceeded,
    DeviceBusy,
    GuestError,
    InvalidValue,
    WrongDevice,
)
from .._block import device as _device
from .._block.device import Device
from .._block.seal import reason_text
from .._libvirt import attach
from .._libvirt.connection import URI
from .._source import area, files, growth, lookup, needed_locks, opener, spec
from .._source.resources import Resources
from .._xen import attached, blkback, grown, replacing, stack, vbd_nodes, vbd_read, vdev
from .._xen import guest as _guest
from .._xen import sharing as _sharing
from .._xen.footprint import Extent
from .._xen.replacing import OldDisk
from .._xen.vbd_nodes import Vbd
from .._xenstore.nodes import Nodes
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
    "diskseq": {"type": "int"},
    "diskseq_form": {"type": "str", "choices": list(vbd_nodes.FORMS), "default": "diskseq"},
    "shared": {"type": "bool", "default": False},
    "replace": {"type": "bool", "default": False},
    "persist": {"type": "bool", "default": True},
    **sealing.BELOW_ARGUMENTS,
    "wait_connected": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "toolstack": {"type": "str", "choices": ["auto", "xenstore", "libvirt"], "default": "auto"},
    "timeout": {"type": "int", "default": 30},
    "state": {"type": "str", "choices": ["attached", "detached"], "default": "attached"},
}


_LEAVING = (
    "Wait until the guest has released it, or set replace=true, or detach it with state=detached and "
    "force=true"
)


class _Place(NamedTuple):
    """A disk that has no device yet, as the sharing check of a file identifies it."""

    key: vbd_nodes.Key
    guest: _guest.Guest
    name: str

    def __str__(self) -> str:
        return f"{self.name} of {self.guest}"


class _RunByLibvirt(contextlib.ExitStack):
    """
    Which guests libvirt runs, in one task. libvirt is asked once for each guest, before anything is changed:
    if it stops answering afterwards, it is still known how to roll back.
    """

    # Seconds for libvirt's answer, and for later answers once it has let one question time out.
    _PATIENCE = 10.0
    _LATER = 1.0

    def __init__(self) -> None:
        super().__init__()
        self._answers: dict[str, bool | BlockError] = {}
        self._seconds = self._PATIENCE

    def has(self, guest: _guest.Guest) -> bool:
        """Whether libvirt runs this guest. Raises an error, each time the same one, if it did not tell."""
        if guest.uuid not in self._answers:
            self._answers[guest.uuid] = self._ask(guest)
        answer = self._answers[guest.uuid]
        if isinstance(answer, BlockError):
            raise answer
        return answer

    def _ask(self, guest: _guest.Guest) -> bool | BlockError:
        try:
            return attach.may_run_guests() and attach.runs(guest, self._seconds)
        except BlockError as error:
            if isinstance(error, DeadlineExceeded):
                # A long list must not wait as long for each of its guests.
                self._seconds = self._LATER
            return error


class VbdItem(Item):
    ARGUMENTS = ARGUMENTS
    CONSTRAINTS = {"required_if": [("state", "attached", ("source",))]}
    # Set by check.
    vdev: vdev.Vdev

    def __init__(self, params: Params, resources: Resources) -> None:
        super().__init__(params, resources)
        self.source: Source | None = None
        self.guest: _guest.Guest | None = None
        self.vbd: Vbd | None = None
        self.device: Device | None = None
        # The source's device, if it already exists.
        self.found: Device | None = None
        # Whether the disk was attached before this run, and the device of a disk that is detached.
        self.was_there = False
        self.old_device: Device | None = None
        # The disk that the guest has there and that is to be replaced, and whether it is detached now.
        self.old: OldDisk | None = None
        self._is_taken = False
        # Whether the guest has released it, but detaching it has failed.
        self._has_remains = False
        # The bytes that the disk is to have at least, 0 if that was not given; and how the disk grows.
        self.size = 0
        self.growth: growth.Growth | None = None
        # Whether the guest must be told its disk's size.
        self._tells = False
        self._why_other = ""
        # The settings that the plan found and wants, and the steps that roll back a change of the seals.
        self._before: dict[str, Any] = {}
        self._after: dict[str, Any] = {}
        self._unseal: list[Callable[[], Any]] = []
        # How the disk that is replaced is sealed.
        self._old_seal: dict[str, Any] = {}
        resources.for_guests = True
        self.opener = opener.Opener(resources)

    def key(self) -> tuple[str, Any]:
        return "vdev", self.title()

    def identities(self) -> Identities:
        number = self.vdev.number
        found = {}
        if self.guest is not None:
            found[self.guest.domid, number] = f"{self.vdev.name} ({number}) of {self.guest}"
        found[self.params["domain"], number] = f"{self.vdev.name} ({number})"
        return found

    def title(self) -> str:
        return f"{self.params['vdev']} of {self.params['domain']}"

    def check(self) -> None:
        params = self.params
        self.vdev = vdev.parse(params["vdev"])
        if params["diskseq"] is not None:
            _device.check_diskseq(params["diskseq"])
        check_seconds(params, "timeout", 1)
        sealing.check_guest_disk(params, "detached")
        check_replace(params, "detached")
        if params["source"] is not None:
            self.source = spec.parse(params["source"])
        elif params["state"] == "attached":
            raise InvalidValue("source", None, "must be given with state=attached")
        if params["device_type"] == "cdrom" and params["mode"] == "w" and params["state"] == "attached":
            raise InvalidValue("mode", "w", "must be r: a cdrom is read-only")
        if self.source is not None and params["state"] == "attached":
            self.source = check_source_mode(self.source, params["mode"])
        self.size = wanted_size(params, self.source, "detached")
        if isinstance(self.source, spec.FileSource) and params["shared"]:
            self.source = self.source._replace(overlap=True)

    @classmethod
    def prepare(cls, resources: Resources) -> None:
        sealing.prepare()

    def locks(self) -> list[_locks.Lock]:
        try:
            domid = _guest.find(self.resources.shared(Store), self.params["domain"]).domid
        except GuestError:  # the plan reports it, or no change
            return []
        locks = [_locks.of_vbd(domid, self.vdev.number, self.title())]
        return locks + (
            needed_locks.of_source(self._wanted_source()) if self.params["state"] == "attached" else []
        )

    def unneeded_locks(self) -> list[_locks.Lock]:
        # Many guests can use one image. Other runs only wait while its device is created.
        return [] if self.found is None else needed_locks.of_source(self._wanted_source())

    def plan(self) -> Plan:
        plan = self._plan_detached() if self.params["state"] == "detached" else self._plan_attached()
        if plan.changed and not self.was_there:
            # An error of one guest is an error of its own entries only.
            if self.by_libvirt() and not self.params["force"]:
                attach.refuse_cd(self._is_cd(), self.title(), attach.CD_WAY)
        return plan

    def _is_cd(self) -> bool:
        """Whether a CD is attached or detached."""
        gets = self.params["state"] == "attached" and self.params["device_type"] == "cdrom"
        has = self.vbd if self.old is None else self.old.vbd
        return gets or (has is not None and has.cdrom)

    def apply(self) -> None:
        if self.params["state"] != "attached":
            return
        if self.was_there:
            if self.growth is not None:
                self.growth.apply()
            return
        source = self._wanted_source()
        if isinstance(source, spec.FileSource) and file_to_grow(source, self.size):
            self.opener.grown.append(growth.enlarge_file(source, source.offset + self.size))
        self.device = self.opener.open(source)
        # The name may lead to another device than the one that the plan has seen.
        self._guard(self.device)
        if self.old is not None:
            self.old = self._check_replacement(self.old, known(self.device))

    @classmethod
    def apply_together(cls, items: Sequence[VbdItem]) -> list[BlockError | None]:
        errors: dict[int, BlockError | None] = {}
        for batch, chosen in _batches([item for item in items if not item.was_there]):
            if batch.replaces:
                cls._replace(chosen, batch, errors)
            elif batch.attached:
                cls._attach(chosen, batch, errors)
            else:
                cls._detach(chosen, batch, errors)
        cls._wait_told(items, errors)
        for item in items:
            if errors.get(id(item)) is None:
                errors[id(item)] = item._change_seals()
        return [errors.get(id(item)) for item in items]

    @staticmethod
    def _wait_told(items: Sequence[VbdItem], errors: dict[int, BlockError | None]) -> None:
        """Wait until the guests know the new sizes of the disks that they had before."""
        chosen = [item for item in items if item._tells]
        if not chosen:
            return
        told = [grown.Told(known(item.vbd).key, item.title(), known(item.device).size) for item in chosen]
        store, seconds = chosen[0].resources.shared(Store), max(item.params["timeout"] for item in chosen)
        errors.update(zip(map(id, chosen), grown.wait(store, told, seconds)))

    def _change_seals(self) -> BlockError | None:
        """Seal what blkback has open now, or lift seals, as the settings say."""
        try:
            if self.params["state"] == "attached":
                sealing.change(known(self.device), self._before, self._after, self._unseal, self._reason())
                if self.old is not None:
                    # The seal of the disk that is replaced has no reason any more.
                    sealing.prepare()
            elif self.old_device is not None:
                sealing.lift(self.old_device, self._reason())
        except BlockError as error:
            return error
        return None

    def _reason(self) -> str:
        """The reason of this disk's seal (``_block.seal.reason_text``)."""
        return reason_text.of_vbd(known(self.guest).domid, self.vdev.number)

    def remains(self) -> list[str]:
        told = self.opener.grown + ([] if self.growth is None else self.growth.remains())
        if self.old is not None:
            old = self.old
            return told + seen(lambda: old.state_words(self.resources.shared(Store)))
        if self.params["state"] == "attached":
            return told + seen(self._new_disk_words)
        return told + seen(self._removed_words)

    def _removed_words(self) -> list[str]:
        """What has become of the disk that was to be detached, as texts."""
        if self.vbd is None:
            return []
        now = vbd_read.read_vbd(self.resources.shared(Store), known(self.guest).domid, self.vdev.number)
        if now is None:
            return ["the disk is detached"]
        if (now.state, now.online) != (self.vbd.state, self.vbd.online):
            return [f"the disk is being detached (state {now.state})"]
        return []

    def _new_disk_words(self) -> list[str]:
        """That the guest has the new disk although it was rolled back, as texts."""
        if self.was_there or self.device is None or self.guest is None:
            return []
        now = vbd_read.read_vbd(self.resources.shared(Store), self.guest.domid, self.vdev.number)
        if now is None or now.number != self.device.id[:2]:
            return []
        return [f"the guest has the new disk as {self.vdev.name} (state {now.state})"]

    def made(self) -> list[Device]:
        return self.opener.made

    def commit(self) -> None:
        if self.params["persist"]:
            self.opener.keep()
            if self.growth is not None:
                self.growth.opener.keep()

    def undo(self) -> None:
        try:
            undo_steps(self._unseal)
        finally:
            if not self.was_there:
                self._undo_disk()

    def _undo_disk(self) -> None:
        try:
            if self.params["state"] == "attached" and self.vbd is not None:
                self._take_new()
                self.vbd = None
            if self.old is not None and self._is_taken:
                failure = error_of(self._put_back)
                if failure is not None:
                    raise replacing.not_again(self.old, failure)
                if self.old.is_attached:
                    self.warnings.append(f"{self.title()}: the guest has {self.old} again")
        finally:
            # A device that was created for the disk is removed when its last user closes it: this task, or a
            # guest that keeps the disk.
            self.opener.give_up()

    def _take_new(self) -> None:
        """Detach the disk that this run has attached."""
        errors: dict[int, BlockError | None] = {}
        # A guest that keeps the new disk keeps it for good.
        self._detach([self], _BatchKey(False, self.by_libvirt()), errors, self.old is not None)
        error = errors[id(self)]
        if error is None:
            return
        if self.old is None or not self.old.is_attached or not self.by_libvirt():
            raise error
        new = OldDisk(known(self.vbd), known(self.guest), self.device, None)
        if not new.is_released(self.resources.shared(Store)):
            raise error
        # The guest has neither of them now.
        failure = error_of(lambda: self._forget_new(new, error))
        if failure is not None:
            raise replacing.not_again(self.old, failure)

    def _forget_new(self, new: OldDisk, error: BlockError) -> None:
        """Have libvirt forget the new disk, which the guest has released. Raises ``error`` if it does not."""
        limit = Deadline(self.params["timeout"])
        if attach.remove_released(self.resources.shared(Store), new.detachment, limit, URI):
            # With the old disk there, libvirt would list another disk than the guest has, and save that one.
            error.add_hint(f"libvirt still lists the new disk as {self.vdev.name}")
            raise error

    def by_libvirt(self) -> bool:
        """
        Whether to use libvirt for the change: libvirt knows only the disks that it attached itself. Called
        first by the plan; later calls, also those of a rollback, get the same answer.
        """
        wanted: str = self.params["toolstack"]
        if wanted != "auto":
            return wanted == "libvirt"
        if self.params["state"] == "detached" and self.params["force"]:
            # Neither the guest nor libvirt is asked.
            return False
        return self.resources.shared(_RunByLibvirt).has(known(self.guest))

    def result(self) -> dict[str, Any]:
        if self.params["state"] == "detached" or self.vbd is None:
            return {"vbd": None, "device": None, "replaced": None}
        vbd = dict(
            self.vbd.as_dict(),
            domain=known(self.guest).name,
            uuid=known(self.guest).uuid,
            sealed=sealing.is_for(known(self.device), self._reason()),
        )
        replaced = None if self.old is None else self.old.replaced()
        return {"vbd": vbd, "device": known(self.device).as_dict(), "replaced": replaced}

    # Attaching

    def _plan_attached(self) -> Plan:
        self.guest = _guest.find(self.resources.shared(Store), self.params["domain"])
        vbd = vbd_read.read_vbd(self.resources.shared(Store), self.guest.domid, self.vdev.number)
        after = self._settings(str(self.source), self.params["mode"], self.params["device_type"])
        if vbd is not None:
            difference = self._difference(vbd)
            if difference is None:
                self._guard(known(self.device))
                self.vbd, self.was_there = vbd, True
                before = dict(after)
                store = self.resources.shared(Store)
                self._tells = grown.compare(store, vbd, known(self.device), self.growth, before, after)
                return self._plan_seals(before, after)
            if not self.params["replace"]:
                raise difference
            self._check_options_of_new()
            return self._plan_replaced(vbd, after)
        self._refuse_served_by_others()
        self._check_options_of_new()
        self._check_free()
        self._plan_file(after)
        return self._plan_seals({}, after)

    def _refuse_served_by_others(self) -> None:
        key = vbd_nodes.Key(known(self.guest).domid, self.vdev.number)
        store = self.resources.shared(Store)
        attached.refuse_served_by_others(store, key, self.vdev.name, self.title())
        if self.params["state"] == "attached":
            attached.refuse_nodes(store, key, self.vdev.name, self.title())

    def _plan_file(self, after: dict[str, Any]) -> None:
        """Add the new size of a file that must become larger for a new disk."""
        grows = file_to_grow(self.source, self.size)
        if grows is not None and isinstance(self.source, spec.FileSource):
            after["sizes"] = {self.source.file: grows[1]}

    def _check_options_of_new(self) -> None:
        """InvalidValue for options that are not possible for a disk that is not attached yet."""
        params = self.params
        if params["diskseq"] is not None and not isinstance(
            self.source, (spec.DiskseqSource, spec.PathSource)
        ):
            raise InvalidValue(
                "diskseq",
                params["diskseq"],
                "is possible only for a disk that is attached, or a source that names a device by its path",
            )
        if params["diskseq_form"] != "diskseq" and self.by_libvirt():
            raise InvalidValue(
                "diskseq_form",
                params["diskseq_form"],
                "is a node that libvirt does not write: set diskseq_form=diskseq, or toolstack=xenstore",
            )

    def _plan_seals(self, before: dict[str, Any], after: dict[str, Any]) -> Plan:
        sealing.compare(self.params, self.device, before, after, self._reason())
        self._before, self._after = before, after
        return Plan(before != after, before, after)

    def _difference(self, vbd: Vbd) -> BlockError | None:
        """Why the attached disk is not the wanted one. Otherwise, the ``device`` is set."""
        way = "Detach it first with state=detached, or set replace=true"
        error = attached.difference(vbd, self.title(), self.params, way, _LEAVING)
        device = self._opened(vbd)
        if error is None and (device is None or not self._is_source(vbd, device)):
            wrong = attached.other_disk(vbd, device) + self._why_other
            error = DeviceBusy(wrong, device=self.title(), hint=way)
        if error is None:
            self.device = device
        else:
            self.old_device = device
        return error

    def _plan_replaced(self, vbd: Vbd, after: dict[str, Any]) -> Plan:
        store = self.resources.shared(Store)
        self.old = replacing.look_at(store, vbd, known(self.guest), self.old_device)
        self._check_free()
        self._plan_file(after)
        before = self._settings(vbd.params, **attached.settings_of(vbd))
        wanted = sealing.as_before(self.params, self.old.device, before, self._reason())
        self._old_seal = {name: before.get(name) for name in ("sealed", "sealed_below")}
        sealing.compare(wanted, None, {}, after, self._reason())
        self._after = after
        return Plan(True, before, after)

    def _check_replacement(self, old: OldDisk, device: Device) -> OldDisk:
        """Check the new device, which is open, before the old disk is touched."""
        request, store = self._request(device), self.resources.shared(Store)
        blkback.check(request)
        device.prove()
        questions = stack.questions(self.resources)
        if any(device is made for made in self.opener.made) and isinstance(self.source, spec.TableSource):
            replacing.refuse_overlap(old, device, self.params["mode"] == "w", questions)
        with _sharing.Sharing(questions) as sharing:
            if not self.params["shared"]:
                sharing.guard(store, request)
            return replacing.with_sharing(old, store, sharing)

    @classmethod
    def _replace(
        cls, items: Sequence[VbdItem], batch: _BatchKey, errors: dict[int, BlockError | None]
    ) -> None:
        """Detach the old disks, and attach the new ones. Where that fails, the old one is attached again."""
        store = items[0].resources.shared(Store)
        timeout = max(item.params["timeout"] for item in items)
        detachments = [known(item.old).detachment for item in items]
        detach = attach.detach if batch.by_libvirt else blkback.detach
        taken = []
        for item, outcome in zip(items, detach(store, detachments, timeout, withdraw=True)):
            errors[id(item)] = outcome.error
            if outcome.error is None:
                item._is_taken = True
                taken.append(item)
            else:
                # It can fail when the guest has released the disk already.
                item._say_not_known(outcome.error, error_of(item._look_if_taken))
        if taken:
            cls._attach(taken, batch, errors)
        for item in items:
            error = errors[id(item)]
            if error is not None and item._is_taken:
                item._say_what_holds(error, error_of(item._put_back))

    def _look_if_taken(self) -> None:
        self._is_taken = self._has_remains = known(self.old).is_released(self.resources.shared(Store))

    def _say_not_known(self, error: BlockError, failure: BlockError | None) -> None:
        if failure is not None:
            error.add_hint(f"Whether the guest has its disk is not known: {failure}")

    def _say_what_holds(self, error: BlockError, failure: BlockError | None) -> None:
        old = known(self.old)
        if failure is None and old.is_attached:
            replacing.has_again(error, old)
        else:
            replacing.has_none(error, old, failure)

    def _put_back(self) -> None:
        """Attach the old disk again, and seal it as it was."""
        old, self._is_taken = known(self.old), False
        if old.device is None:
            return
        store, timeout = self.resources.shared(Store), self.params["timeout"]
        by_libvirt, is_listed, limit = self.by_libvirt(), False, Deadline(timeout)
        if by_libvirt and self._has_remains:
            is_listed = attach.remove_released(store, old.detachment, limit, URI)
        else:
            detach = attach.detach if by_libvirt else blkback.detach
            replacing.clear(store, old.vbd.key, lambda: detach(store, [old.detachment], timeout))
        with _sharing.Sharing(stack.questions(self.resources)) as sharing:
            guard = None if old.is_shared else sharing.guard
            if by_libvirt:
                outcome = attach.attach_again(
                    store, old.request(), limit, guard, URI, is_listed, shareable=old.is_shared
                )
            else:
                (outcome,) = blkback.attach(store, [old.request()], timeout, guard=guard)
        if outcome.error is not None:
            raise outcome.error
        sealing.change(old.device, {}, self._old_seal, [], self._reason())

    def _is_source(self, vbd: Vbd, device: Device) -> bool:
        """Whether the attached device is that of the source, or would be if it grew, which is planned."""
        store, place = self.resources.shared(Store), grown.Place(vbd.key, known(self.guest), self.vdev.name)
        found = growth.Growth(
            self.resources,
            growth.allow
            if self.params["shared"]
            else grown.guard(self.resources, store, place, device, vbd.writable),
            seconds=self.params["timeout"],
        )
        if found.plan(self._wanted_source(), device, self.size):
            self.growth = found
            return True
        self._why_other = found.why
        return lookup.is_device(self._wanted_source(), device, self.resources)

    def _opened(self, vbd: Vbd) -> Device | None:
        device = attached.open_device(vbd)
        return None if device is None else self.resources.enter_context(device)

    def _guard(self, device: Device) -> None:
        wanted = self.params["diskseq"]
        if wanted is not None and device.id.diskseq != wanted:
            raise WrongDevice(
                f"its disk sequence number is {device.id.diskseq}, not {wanted}",
                device=f"{device.path} as {self.title()}",
                hint="It is not the device that was asked for; nothing was done",
            )

    def _check_free(self) -> None:
        """Refuse here what attach would refuse, so that check mode reports it."""
        device = lookup.find(self._wanted_source(), self.resources)
        if device is not None:
            device = self.found = self.resources.enter_context(device)
            self._guard(device)
            opener.refuse_broken(self.resources, device)
            request = self._request(device)
            blkback.check(request)
            if not self.params["shared"]:
                with _sharing.Sharing(stack.questions(self.resources)) as sharing:
                    sharing.guard(self.resources.shared(Store), request)
        elif isinstance(self.source, spec.FileSource) and not self.params["shared"]:
            self._check_file()

    def _check_file(self) -> None:
        source = self.source
        if not isinstance(source, spec.FileSource):
            raise AssertionError
        with files.backing_of(source) as backing:
            source = area.of_source(source, backing)
            leaf = ("file", backing.device, backing.inode)
        mine = [
            Extent(
                leaf,
                source.offset,
                source.offset + source.size if source.size else None,
                self.params["mode"] == "w",
            )
        ]
        place = _Place(
            vbd_nodes.Key(known(self.guest).domid, self.vdev.number), known(self.guest), self.vdev.name
        )
        questions = stack.questions(self.resources)
        with _sharing.Sharing(questions) as sharing:
            sharing.check_extents(self.resources.shared(Store), mine, place, source.file)
        _sharing.refuse_mounted(mine, source.file, None, questions)

    def _wanted_source(self) -> Source:
        """The source, which was given."""
        if self.source is None:
            raise AssertionError
        return self.source

    def _request(self, device: Device) -> blkback.Request:
        return blkback.Request(
            known(self.guest),
            self.vdev,
            device,
            self.params["mode"],
            self.params["device_type"],
            form=self.params["diskseq_form"],
        )

    def _settings(self, source: str | None, mode: str, device_type: str) -> dict[str, Any]:
        return {
            "domain": known(self.guest).name or known(self.guest).uuid,
            "vdev": self.vdev.name,
            "source": source,
            "mode": mode,
            "device_type": device_type,
        }

    @staticmethod
    def _attach(items: Sequence[VbdItem], batch: _BatchKey, errors: dict[int, BlockError | None]) -> None:
        resources = items[0].resources
        requests = [item._request(known(item.device)) for item in items]
        by_request = {request.key: item for request, item in zip(requests, items)}
        with _sharing.Sharing(stack.questions(resources)) as sharing:

            def guard(transaction: Nodes, request: blkback.Request) -> None:
                if not by_request[request.key].params["shared"]:
                    sharing.guard(transaction, request)

            timeout = max(item.params["timeout"] for item in items)
            if batch.by_libvirt:
                outcomes = attach.attach(resources.shared(Store), requests, timeout, guard)
            else:
                outcomes = blkback.attach(
                    resources.shared(Store), requests, timeout, batch.wait_connected, guard
                )
        for item, outcome in zip(items, outcomes):
            item.vbd = outcome.vbd if outcome.error is None else None
            errors[id(item)] = outcome.error

    # Detaching

    def _plan_detached(self) -> Plan:
        try:
            self.guest = _guest.find(self.resources.shared(Store), self.params["domain"])
        except GuestError:
            # A guest that is not running has no disk. A guest that cannot be identified is still an error.
            if self._is_running():
                raise
            return Plan(False, {}, {})
        self.vbd = vbd_read.read_vbd(self.resources.shared(Store), self.guest.domid, self.vdev.number)
        if self.vbd is None:
            self._refuse_served_by_others()
            return Plan(False, {}, {})
        device = self._opened(self.vbd)
        if device is None and (self.params["diskseq"] is not None or self.source is not None):
            raise WrongDevice(
                "the backend has no device open for it, so it cannot be compared with "
                f"{'the source' if self.source is not None else 'diskseq'}",
                device=self.title(),
                hint="Wait until the guest or its toolstack is done, or leave it out to detach whatever is "
                "there",
            )
        if device is not None:
            self._guard(device)
            source = self.source
            if source is not None and not lookup.is_device_in_any_mode(source, device, self.resources):
                raise WrongDevice(
                    f"the guest has another disk there: {device.path} (diskseq {device.id.diskseq})",
                    device=self.title(),
                    hint="It is not the source that was given; leave source out to detach whatever is there",
                )
        before = self._settings(self.vbd.params, **attached.settings_of(self.vbd))
        if device is not None and sealing.is_for(device, self._reason()):
            before["sealed"] = True
            self.old_device = device
        return Plan(True, before, {})

    def _is_running(self) -> bool:
        wanted = self.params["domain"]
        return any(
            wanted == str(guest.domid) or _guest.is_named(guest, wanted) or wanted.lower() == guest.uuid
            for guest in _guest.running(self.resources.shared(Store), True)
        )

    @staticmethod
    def _detach(
        items: Sequence[VbdItem],
        batch: _BatchKey,
        errors: dict[int, BlockError | None],
        withdraw: bool = False,
    ) -> None:
        timeout = max(item.params["timeout"] for item in items)
        detachments = [blkback.Detachment(known(item.vbd), item.guest) for item in items]
        if batch.by_libvirt and not batch.force:
            outcomes = attach.detach(
                items[0].resources.shared(Store), detachments, timeout, withdraw=withdraw
            )
        elif batch.by_libvirt:
            store = items[0].resources.shared(Store)
            outcomes = [attach.detach_by_force(store, each, timeout) for each in detachments]
        else:
            outcomes = blkback.detach(
                items[0].resources.shared(Store), detachments, timeout, batch.force, withdraw
            )
        for item, outcome in zip(items, outcomes):
            errors[id(item)] = outcome.error


class _BatchKey(NamedTuple):
    """What disks must have in common to be attached, detached or replaced in one call."""

    attached: bool
    by_libvirt: bool
    wait_connected: bool = False
    force: bool = False
    replaces: bool = False


def _batches(items: Sequence[VbdItem]) -> Iterable[tuple[_BatchKey, list[VbdItem]]]:
    batches: dict[_BatchKey, list[VbdItem]] = {}
    for item in items:
        params = item.params
        batch = _BatchKey(
            params["state"] == "attached",
            item.by_libvirt(),
            params["wait_connected"],
            params["force"],
            item.old is not None,
        )
        batches.setdefault(batch, []).append(item)
    return batches.items()
