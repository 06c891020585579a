# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``libvirt_disk`` and ``libvirt_disks`` do with one disk of one domain.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .. import _dm_table
from .._base import locks as _locks
from .._base.deadline import Deadline
from .._base.errors import (
    BlockError,
    DeadlineExceeded,
    DefinitionError,
    DeviceBusy,
    DeviceGone,
    GuestError,
    InvalidValue,
    TableError,
    WrongDevice,
)
from .._block import device as _device
from .._block import trusted_path
from .._dm import mapped
from .._libvirt import attach, connection, disk_device, domain_xml, kept_format, live_recipe
from .._source import needed_locks, opener
from .._source import recipe as _recipe
from .._source import slots as _slots
from .._xen import blkback, guest, stack, vbd_nodes, vbd_read, vdev
from .._xen import sharing as _sharing
from .runner import Item, Plan, check_seconds

ARGUMENTS = {
    "domain": {"type": "str", "required": True},
    "vdev": {"type": "str", "required": True},
    "source": {"type": "raw"},
    "mode": {"type": "str", "choices": ["r", "w"], "default": "w"},
    "device_type": {"type": "str", "choices": ["disk", "cdrom"], "default": "disk"},
    "bus": {"type": "str"},
    "shared": {"type": "bool", "default": False},
    "config": {"type": "bool", "default": True},
    "live": {"type": "bool", "default": False},
    "uri": {"type": "str", "default": connection.URI},
    "timeout": {"type": "int", "default": 60},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
_BUSES = ("xen", "virtio", "ide", "scsi", "sata", "usb", "fdc", "uml", "sd")


class DiskItem(Item):
    ARGUMENTS = ARGUMENTS
    CONSTRAINTS = {"required_if": [("state", "present", ("source",))]}

    def __init__(self, params, host):
        super().__init__(params, host)
        self.target = params["vdev"]
        self.source = None
        # The device that the source is, where that is one.
        self.below = None
        self.recipe = None
        self.doubts = []
        self.definition = None
        self.changes_config = False
        # Of the running domain: the guest, the disk that it has, and whether there is anything to do about that.
        self.guest = None
        self.vbd = None
        self.device = None
        self.changes_live = False
        # The recipe that the running definition has for it, and the one that it is to have.
        self.had_recipe = None
        self.running_recipe = None
        self.put_recipe = False
        self.exchange = None
        self.was_detached = False

    def key(self):
        return "vdev", f"{self.params['vdev']} of {self.params['domain']}"

    def identities(self):
        """A domain can be named by name and uuid, and libvirt's driver for Xen by several URIs."""
        driver = connection.driver_of(self.params["uri"])
        found = {}
        if self.definition is not None:
            words = f"{self.target} of the domain {self.definition.name} (uuid {self.definition.uuid})"
            found[driver, self.definition.uuid, self.target] = words
        found[driver, self.params["domain"], self.target] = f"the disk {self.target}"
        return found

    def title(self):
        return f"{self.target} of {self.params['domain']}"

    # Checks

    def check(self):
        params = self.params
        self.target = _canonical_target(params["vdev"])
        if not params["domain"] or not params["domain"].isprintable() or len(params["domain"]) > 256:
            raise InvalidValue("domain", params["domain"], "must be the name or the uuid of a domain")
        if not params["config"] and not params["live"]:
            raise InvalidValue("config", False, "must be true without live: there is nothing else to change")
        check_seconds(params, "timeout", 1)
        if params["bus"] not in (None, *_BUSES):
            raise InvalidValue("bus", params["bus"], f"must be one of {', '.join(_BUSES)}")
        if params["device_type"] == "cdrom" and params["mode"] == "w" and params["state"] == "present":
            raise InvalidValue("mode", "w", "must be r: a cdrom is read-only")
        if params["live"] and not params["uri"].startswith("xen:"):
            raise InvalidValue(
                "live",
                True,
                f"is possible only for Xen, since only there it can be proved which device the guest got, and the uri is {params['uri']}",
            )
        if params["source"] is not None:
            self._check_source()
        elif params["state"] == "present":
            raise InvalidValue("source", None, "must be given with state=present")

    def _check_source(self):
        source = opener.parse(self.params["source"])
        if (
            isinstance(source, (opener.FileSource, opener.TableSource))
            and source.read_only
            and self.params["mode"] == "w"
        ):
            raise InvalidValue("mode", "w", "must be r: the source is read_only")
        if isinstance(source, opener.FileSource) and self.params["mode"] == "r":
            source = source._replace(read_only=True)
        if self.params["config"]:
            _recipe.check(source)
        self.source = source

    def locks(self):
        """The whole definition's, which is read and written; and the running guest's disk."""
        uri, domain = self.params["uri"], self.params["domain"]
        found = self.host.domains.get((uri, domain))
        if found is None:
            try:
                definition = connection.read(uri, domain, self._limit())
            except BlockError:  # the plan, which reads it too, says why
                return []
            found = self.host.domains[uri, domain] = (definition.uuid, definition.live is not None)
        uuid, is_live = found
        locks = [
            _locks.Lock(
                f"domain {connection.driver_of(uri)} {uuid}", f"the definition of the domain {domain}"
            )
        ]
        if self.params["live"] and is_live:
            domid = guest.find(self.host.store, uuid).domid
            locks.append(_locks.of_vbd(domid, vdev.parse(self.target).number, self.title()))
            if self.source is not None:
                # What is made for it: before, and not beside, the lock for making guests' disks.
                locks += needed_locks.of_source(self.source)
        return locks

    # What there is, and what would become of it

    def plan(self):
        self.definition = definition = connection.read(
            self.params["uri"], self.params["domain"], self._limit()
        )
        before, after = {}, {}
        if self.params["state"] == "present":
            self._look_at_source()
        if self.params["config"]:
            self._plan_config(before, after)
        if self.params["live"] and definition.live is not None:
            self._plan_live(before, after)
        elif self.params["live"] and not self.params["config"]:
            raise GuestError(
                "it does not run, so it has no running disks to change",
                device=definition.name,
                hint="config: true changes its definition",
            )
        return Plan(self.changes_config or self.changes_live or self.changes_recipe, before, after)

    @property
    def changes_recipe(self):
        return self.had_recipe != self.running_recipe

    def _look_at_source(self):
        """What the recipe needs must be there when it is written, though it is only opened when the guest starts."""
        self.host.for_guests = True
        source = self.source
        if isinstance(source, opener.FileSource):
            domains = [
                domain_xml.Domain(text)
                for text in (self.definition.xml, self.definition.live)
                if text is not None
            ]
            source = kept_format.known(source, domains, self.target)
            trusted_path.check(source.file, source.trusted_path, self.host.warn, "source.file")
            with opener.backing_of(source) as backing:
                kept_format.refuse_driver(source, backing, domains)
                # What else writes it is asked when the guest starts.
                opener.check_new(source._replace(overlap=True), backing, self.host)
            # From now on it is the guest that writes it.
            self.source = source._replace(format="raw")
        elif isinstance(source, opener.TableSource):
            self._look_at_table()
        else:
            self._look_at_device()
        if self.params["config"]:
            self.recipe = _recipe.text_of(self.source)
            self.warnings += self.doubts
            if _recipe.boot_of(self.source):
                self.warnings.append(
                    f"{self.title()}: after the next boot of the host the guest does not start with it: its number is of this boot"
                )
        else:
            self.recipe = self._recipe_of_the_run()

    def _recipe_of_the_run(self):
        """What a saved guest can be restored by; None, with a warning, when that could be another disk by then."""
        try:
            recipe, doubts = _recipe.text_of(self.source), self.doubts
        except InvalidValue as error:
            recipe, doubts = None, [str(error)]
        if not doubts:
            return recipe
        self.warnings.append(
            f"{self.title()}: no recipe is kept for it, so a guest that is saved cannot be restored with this disk: {doubts[0]}"
        )
        return None

    def _look_at_device(self):
        device = self.below = self.host.enter_context(opener.find(self.source, self.host))
        if device.read_only and self.params["mode"] == "w":
            raise InvalidValue(
                "mode", "w", f"{device.path} is read-only, so the guest can have it only with mode=r"
            )
        if isinstance(self.source, opener.PathSource):
            if self.source.uuid is None and mapped.is_mapped(device):
                # The name can be another device's at the next start; the uuid, which is kept with the volume, cannot.
                self.source = self.source._replace(
                    uuid=self.host.dm.status(mapped.number_of(device)).uuid or None
                )
            self._warn(self.source, device)

    def _warn(self, source, device):
        doubt = _recipe.doubt(source.path, mapped.is_mapped(device), source.uuid)
        if doubt and doubt not in self.doubts:
            self.doubts.append(doubt)

    def _look_at_table(self):
        slots = _slots.Slots(self.host)
        table = slots.look(self.source.table, self.source.read_only).written
        for dummy, slot in table.devices(self.source.read_only):
            source, device = opener.parse_slot(slot), slots.device(slot)
            if device is not None and isinstance(source, opener.PathSource):
                self._warn(source, device)

    def _plan_config(self, before, after):
        definition = self.definition
        if definition.xml is None:
            raise GuestError(
                "it is transient: it has no definition that would outlive it",
                device=definition.name,
                hint="Say config: false and live: true",
            )
        self._guard(definition.xml)
        self._refuse_cut(definition.xml)
        changed = self.edit(definition.xml)
        self.changes_config = changed != definition.xml
        before["definition"] = domain_xml.excerpt(definition.xml, self.target).splitlines()
        after["definition"] = domain_xml.excerpt(changed, self.target).splitlines()

    def _guard(self, xml):
        """A disk that is removed must be the source, when one is given."""
        if self.params["state"] == "present" or self.source is None:
            return
        domain = domain_xml.Domain(xml)
        disk, recipe = domain.disk(self.target), domain.recipes().get(self.target)
        if disk is not None and (recipe is None or not self._is_kept(recipe)):
            raise WrongDevice(
                f"the definition has another disk there: {recipe or disk.source}",
                device=self.title(),
                hint="It is not the source that was given; leave source out to remove whatever is there",
            )

    def _refuse_cut(self, xml):
        """The same snapshot or volume as before is not made shorter, which would take from the guest what is behind the new end."""
        recipe = (
            domain_xml.Domain(xml).recipes().get(self.target) if self.params["state"] == "present" else None
        )
        try:
            cut = None if recipe is None else _recipe.cut_of(_recipe.parse(recipe, self.title()), self.source)
        except (InvalidValue, TableError, DefinitionError):
            # One that cannot be read is to be replaced.
            return
        if cut is not None:
            raise InvalidValue(
                "source.table",
                f"{_dm_table.parse_table(self.source.table).length} sectors",
                f"must be {cut} sectors or more: the disk is that large in the definition. If it is meant, say state=absent first",
                device=self.title(),
            )

    def _is_kept(self, recipe):
        kept = _recipe.parse(recipe, self.title())
        return _recipe.without_guards(kept) == _recipe.without_guards(self._kept_source(recipe))

    def _kept_source(self, recipe):
        """The source as it would have been kept: with the uuid that was found then, when only the path is given now."""
        kept = _recipe.parse(recipe, self.title())
        if (
            isinstance(self.source, opener.PathSource)
            and isinstance(kept, opener.PathSource)
            and self.source.uuid is None
        ):
            return self.source._replace(uuid=kept.uuid)
        if isinstance(self.source, opener.FileSource) and isinstance(kept, opener.FileSource):
            return self.source._replace(read_only=kept.read_only)
        return self.source

    def edit(self, xml):
        """The definition as it is to be."""
        if self.params["state"] == "absent":
            return domain_xml.drop(xml, self.target)
        domain = domain_xml.Domain(xml)
        if domain.type == "xen":
            vdev.parse(self.target)
        disk = domain_xml.Disk(
            self.target,
            domain_xml.path_of(self.definition.uuid, self.target),
            "phy" if domain.type == "xen" else "qemu",
            self.params["device_type"],
            self.params["mode"] == "r",
            self.params["shared"],
            self.params["bus"] or ("xen" if self.target.startswith("xvd") else None),
        )
        return domain_xml.put(xml, disk, self.recipe)

    def _plan_live(self, before, after):
        self.guest = guest.find(self.host.store, self.definition.uuid)
        self.vbd = vbd_read.read_vbd(self.host.store, self.guest.domid, vdev.parse(self.target).number)
        live = domain_xml.Domain(self.definition.live)
        listed = live.disk(self.target)
        self.had_recipe = live.recipe(self.target)
        if self.vbd is not None:
            before["running"] = self._settings(
                self.vbd.params,
                "w" if self.vbd.writable else "r",
                "cdrom" if self.vbd.cdrom else "disk",
                self.had_recipe,
            )
        elif self.had_recipe is not None:
            before["running"] = {"recipe": self.had_recipe}
        if self.params["state"] == "absent":
            self.changes_live = self.vbd is not None
            if self.vbd is not None and self.source is not None:
                self._check_running()
            if self.vbd is None and listed is not None:
                # libvirt would save it with the guest.
                self.running_recipe = self.had_recipe
                after.update(before)
            return
        self.running_recipe = self.recipe
        after["running"] = self._settings(
            self._wanted().path, self.params["mode"], self.params["device_type"], self.running_recipe
        )
        if self.vbd is None:
            if self.below is not None:
                opener.refuse_broken(self.host, self.below)
            self.changes_live = True
            return
        self._check_running()
        if listed is None or listed.source != self._wanted().path:
            # The same storage by another path, as it was attached before there was a definition.
            self.running_recipe = None
        elif self.running_recipe is None:
            self.running_recipe = self.had_recipe
        after["running"] = dict(before["running"], recipe=self.running_recipe)

    def _check_running(self):
        vbd = self.vbd
        if vbd.state in (vbd_nodes.CLOSING, vbd_nodes.CLOSED) or not vbd.online:
            raise DeviceBusy(
                f"the disk that the guest had as {vbd.dev} is being detached (state {vbd.state})",
                device=self.title(),
                hint="Wait, and try again",
            )
        if self.params["state"] == "present":
            for option, has in (
                ("mode", "w" if vbd.writable else "r"),
                ("device_type", "cdrom" if vbd.cdrom else "disk"),
            ):
                if self.params[option] != has:
                    allowed = f"cannot be changed: the guest has it with {option}={has} while it runs. Detach it first, or say live: false"
                    raise InvalidValue(option, self.params[option], allowed)
        self.device = self._opened(vbd)
        if self.device is None or not self._is_source(self.device):
            here = (
                "nothing" if self.device is None else f"{self.device.path} (diskseq {self.device.id.diskseq})"
            )
            if self.params["state"] == "absent":
                raise WrongDevice(
                    f"the running guest has another disk there: {here}, params {vbd.params or '(none)'}",
                    device=self.title(),
                    hint="It is not the source that was given; leave source out to remove whatever is there",
                )
            raise DeviceBusy(
                f"the running guest has another disk there: {here}, params {vbd.params or '(none)'}",
                device=self.title(),
                hint="A disk is not exchanged under a running guest: say state=absent first, or live: false to have it from the next start on",
            )

    def _opened(self, vbd):
        number = vbd_read.opened_number(vbd.key) or vbd.number
        try:
            return None if number is None else self.host.enter_context(_device.open_number(*number))
        except (DeviceGone, WrongDevice):
            return None

    def _is_source(self, device):
        if (
            mapped.is_mapped(device)
            and self.host.dm.status(mapped.number_of(device)).uuid == self._wanted().mapped_uuid
        ):
            return disk_device.is_made_of(self.host, device, self.source)
        return opener.is_device(self.source, device, self.host)

    def _wanted(self):
        return disk_device.Wanted(
            self.definition.name,
            self.definition.uuid,
            self.target,
            self.source,
            self.params["mode"] == "r",
            self.params["shared"],
        )

    def _settings(self, path, mode, device_type, recipe):
        return {"path": path, "mode": mode, "device_type": device_type, "recipe": recipe}

    def _limit(self):
        return Deadline(self.params["timeout"])

    # Doing it

    def apply(self):
        """All that an item does is done together with the others of its domain."""

    @classmethod
    def apply_together(cls, items):
        errors = {}
        for item in items:
            if item.changes_live or item.changes_recipe:
                errors[id(item)] = _error_of(item.change_running)
        domains = {}
        for item in items:
            if item.changes_config and errors.get(id(item)) is None:
                domains.setdefault((item.params["uri"], item.definition.uuid), []).append(item)
        for chosen in domains.values():
            exchange = _Exchange(chosen)
            error = _error_of(exchange.run)
            for item in chosen:
                item.exchange = exchange
                errors[id(item)] = error
        return [errors.get(id(item)) for item in items]

    def change_running(self):
        """
        A guest that is saved at any moment, and restored, has each disk by its own recipe: that is there before the disk is, and goes after it. Alone,
        it means nothing.
        """
        if self.params["state"] == "absent":
            if self.changes_live:
                self._detach()
            self._put_recipe(self.running_recipe)
            return
        self._put_recipe(self.running_recipe)
        if self.changes_live:
            outcome = self._attach()
            if outcome.error is not None:
                # libvirt may attach it yet: then it needs its recipe.
                self.put_recipe = self.put_recipe and not isinstance(outcome.error, DeadlineExceeded)
                raise outcome.error
            self.vbd = outcome.vbd

    def _detach(self):
        (outcome,) = attach.detach(
            self.host.store,
            [blkback.Detachment(self.vbd, self.guest)],
            self.params["timeout"],
            self.params["uri"],
        )
        if outcome.error is not None:
            raise outcome.error
        self.vbd = outcome.vbd
        self.was_detached = self.params["state"] == "absent"

    def _put_recipe(self, recipe):
        if self.changes_recipe:
            self.put_recipe = True
            live_recipe.put(self.params["uri"], self.definition.uuid, self.target, recipe, self._limit())

    def _attach(self):
        limit, wanted = self._limit(), self._wanted()
        with disk_device.locked(limit):
            device = disk_device.make(self.host, wanted, limit, self.host.store)
        disk_device.settle(self.host, [(wanted, device)], limit)
        request = blkback.Request(
            self.guest,
            vdev.parse(self.target),
            device,
            self.params["mode"],
            self.params["device_type"],
            wanted.path,
        )
        with _sharing.Sharing(stack.questions(self.host)) as sharing:
            guard = None if self.params["shared"] else sharing.guard
            (outcome,) = attach.attach(self.host.store, [request], limit.left(), guard, self.params["uri"])
        self.device = device
        return outcome

    def undo(self):
        """What was attached is detached, and the definitions that were there before are there again."""
        failures = [_error_of(self.exchange.undo)] if self.exchange is not None else []
        failures.append(_error_of(self._undo_running))
        for failure in failures:
            if failure is not None:
                raise failure

    def is_removal(self):
        # A definition can be put back; what a running guest has lost cannot, and remains tells of it.
        return False

    def remains(self):
        return ["the disk of the running guest is detached"] if self.was_detached else []

    def _undo_running(self):
        if self.params["state"] == "absent" and self.was_detached:
            return
        if self.params["state"] == "present" and self.changes_live and self.vbd is not None:
            self._detach()
        # A disk that could not be taken back needs its recipe.
        if self.put_recipe and not (
            self.changes_live
            and vbd_read.read_vbd(self.host.store, self.guest.domid, vdev.parse(self.target).number)
        ):
            live_recipe.put(
                self.params["uri"], self.definition.uuid, self.target, self.had_recipe, self._limit()
            )

    def result(self):
        if self.params["state"] == "absent" or self.definition is None:
            return {"disk": None, "device": None}
        disk = {
            "domain": self.definition.name,
            "uuid": self.definition.uuid,
            "vdev": self.target,
            "path": self._wanted().path,
            "mode": self.params["mode"],
            "device_type": self.params["device_type"],
            "recipe": self.recipe if self.params["config"] else self.running_recipe,
            "running": self.definition.live is not None,
        }
        return {"disk": disk, "device": None if self.device is None else self.device.as_dict()}


class _Exchange:
    """The changes of several disks of one domain's definition, made at once."""

    def __init__(self, items):
        self.items = items
        self.before = items[0].definition.xml
        self.now = None
        self.was_undone = False

    def run(self):
        first = self.items[0]
        after = self.before
        for item in self.items:
            after = item.edit(after)
        self.now = connection.define(
            first.params["uri"], first.definition.uuid, self.before, after, first._limit()
        )
        for item in self.items:
            # What it does not know, libvirt leaves out without a word.
            if item.edit(self.now) != self.now:
                error = GuestError(
                    "libvirt did not keep the disk as it was defined",
                    device=item.title(),
                    hint="The definition is as it was before",
                )
                self.undo()
                raise error

    def undo(self):
        if self.was_undone or self.now is None:
            return
        self.was_undone = True
        first = self.items[0]
        connection.define(first.params["uri"], first.definition.uuid, self.now, self.before, first._limit())


def _canonical_target(value):
    """libvirt knows only names; Xen's numbers and short forms have one."""
    if value[:1].isdigit() or (value[:1] == "d" and value[1:2].isdigit()):
        value = vdev.parse(value).name
    return domain_xml.check_target(value)


def _error_of(function):
    try:
        function()
    except BlockError as error:
        return error
    return None
