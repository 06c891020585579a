# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Write disks and their recipes into a domain's inactive definition, without overwriting what somebody else
writes into it at the same time.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

virDomainDefineXML replaces the whole definition, and has no way to say which one it is to replace. So one
disk is changed by a call of its own, which libvirt makes while it holds the domain
(virDomainAttachDeviceFlags and its siblings with VIR_DOMAIN_AFFECT_CONFIG, qemuDomainAttachDeviceConfig in
src/qemu/qemu_driver.c), and its recipe by virDomainSetMetadata. Where libvirt has no such call, or does not
check its result as virDomainDefineXML does, the definition is compared and replaced as a whole, see
:func:`_is_single`.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Callable, NamedTuple

from .._base.deadline import Deadline
from .._base.errors import GuestError
from . import connection as _connection
from . import domain_xml, recipe_list
from .connection import libvirt
from .domain_xml import Present
from .handles import Connection, DomainHandle

_QEMU, _XEN = ("kvm", "qemu"), "xen"
_LOOK = "Look at the definition (virsh dumpxml --inactive), and run the task again"


class Part(NamedTuple):
    """What a definition has about one disk: the disk and the text of its recipe, or None."""

    disk: Present | None
    recipe: str | None


class Change(NamedTuple):
    target: str
    old: Part
    new: Part

    @property
    def recipe_first(self) -> bool:
        """
        Whether the recipe changes before the disk. A guest may start between the two steps: it must not get
        a disk that it may write to, or share with others, and that neither definition would have given it.

        A recipe without its disk has no effect. The hook refuses a disk of this collection without a recipe,
        and an empty drive with one. Otherwise both disks have the path that the recipe is for (_is_single).
        """
        old, new = self.old, self.new
        if old.disk is None or new.disk is None:
            return old.disk is None
        if old.recipe is None or new.recipe is None:
            return old.recipe is None
        # The state between the two steps is read-only, or else not shareable.
        return new.disk.mode == "w" and (old.disk.mode == "r" or not old.disk.shareable)


class Written(NamedTuple):
    """
    ``text``: the definition as libvirt has stored it. ``only_ours``: whether nothing else in it has changed,
    so that it can be replaced as a whole to take the change back.
    """

    text: str
    only_ours: bool


class PartlyChanged(GuestError):
    """A call was refused, and what was changed before could not be taken back."""


class _Step(NamedTuple):
    """One call to libvirt and the one that takes it back."""

    do: Callable[[], object]
    undo: Callable[[], object]


def write(uri: str, uuid: str, before: str, after: str, targets: Collection[str], limit: Deadline) -> Written:
    """
    Change the disks ``targets`` of the domain, and their recipes, from what the inactive definition
    ``before`` has to what ``after`` has.

    GuestError, without any change, if someone else has changed these disks, or if libvirt refuses the change;
    PartlyChanged. After a DeadlineExceeded other than NotAsked, libvirt may still make the change.
    """

    def exchange(connection: Connection) -> Written:
        now = _connection.read_on(connection, uuid)
        there = _text(now)
        changes = _changes(before, after, targets)
        if len(changes) == 1 and _is_single(there, uuid, changes[0]):
            _need_same(changes[0], there, now.name, "nothing was done")
            try:
                _run(connection, uuid, changes[0], limit)
            except libvirt.libvirtError:
                # The call for one disk of a running domain looks at its active definition, too, and waits for
                # jobs such as saving it. Replacing the definition does neither.
                if not before == there == _read(connection, uuid):
                    raise
            else:
                made = _read(connection, uuid)
                return Written(made, _without(before, changes[0]) == _without(made, changes[0]))
        elif there != before:
            raise _changed_by_others("its definition", now.name, "nothing was done")
        connection.defineXML(after)
        return Written(_read(connection, uuid), True)

    return _connection.with_connection(uri, limit, uuid, exchange)


def write_back(
    uri: str, uuid: str, before: Written, after: str, targets: Collection[str], limit: Deadline
) -> Written:
    """
    Take changes back: as :func:`write`, from ``before``, which :func:`write` has returned. If nobody else has
    changed the definition, it becomes ``after`` as a whole. Otherwise, what libvirt has added on its own for
    a disk stays, such as a controller.
    """

    def exchange(connection: Connection) -> Written:
        now = _connection.read_on(connection, uuid)
        there, stays = _text(now), "what this task changed was not taken back"
        is_whole = before.only_ours and there == before.text
        if is_whole:
            connection.defineXML(after)
        else:
            changes = _changes(before.text, after, targets)
            for change in changes:
                if not _is_single(there, uuid, change):
                    raise _changed_by_others("its definition", now.name, stays)
                _need_same(change, there, now.name, stays)
            for change in reversed(changes):
                _run(connection, uuid, change, limit)
        return Written(_read(connection, uuid), is_whole)

    return _connection.with_connection(uri, limit, uuid, exchange)


def _read(connection: Connection, uuid: str) -> str:
    return _text(_connection.read_on(connection, uuid))


def _text(definition: _connection.Definition) -> str:
    if definition.xml is None:
        raise GuestError("it has no definition any more", device=definition.name, hint="Try again")
    return definition.xml


def _changes(before: str, after: str, targets: Collection[str]) -> list[Change]:
    changes = [Change(target, _part_of(before, target), _part_of(after, target)) for target in targets]
    return [change for change in changes if change.old != change.new]


def _without(text: str, change: Change) -> str:
    return domain_xml.drop(text, change.target)


def _part_of(text: str, target: str) -> Part:
    domain = domain_xml.parsed(text)
    return Part(domain.disk(target), domain.recipe(target))


def _need_same(change: Change, text: str, domain: str, otherwise: str) -> None:
    """GuestError if the definition has something else about the disk than the change begins with."""
    if _part_of(text, change.target) != change.old:
        raise _changed_by_others(f"its disk {change.target}", domain, otherwise)


def _changed_by_others(what: str, domain: str, otherwise: str) -> GuestError:
    hint = "Try again" if otherwise == "nothing was done" else _LOOK
    return GuestError(f"{what} was changed by someone else meanwhile; {otherwise}", device=domain, hint=hint)


def _is_single(text: str, uuid: str, change: Change) -> bool:
    """
    Whether the change can be made with one call for the disk and one for the recipe, with the result that
    the whole new definition would have, or a refusal.
    """
    domain, old, new = domain_xml.parsed(text), change.old.disk, change.new.disk
    if domain.type not in (*_QEMU, _XEN) or not domain.has_plain_recipes:
        # virDomainSetMetadata would not keep what others have put there.
        return False
    if old is None and new is not None:
        # libvirt's Xen driver does not check the address of a new disk (libxlDomainAttachDeviceConfig).
        return domain.type != _XEN or new.bus == "xen"
    if old is not None and new is None:
        # Without the last one, libvirt adds a boot order of another kind, and refuses to add this again.
        return "<boot " not in old.xml
    if old is None or new is None or old.xml == new.xml:
        return True
    # virDomainUpdateDeviceFlags does not check a new address (qemuDomainUpdateDeviceConfig), and a disk of
    # others may have an old recipe.
    return domain.type in _QEMU and _kind(old, uuid) == _kind(new, uuid)


def _kind(disk: Present, uuid: str) -> object:
    """What a call for one disk may not change; a value that equals nothing for a disk of others."""
    path = domain_xml.path_of(uuid, disk.target)
    is_ours = disk.source is None or (disk.type, disk.source) == ("block", path)
    return (disk.device, disk.bus) if is_ours else object()


def _run(connection: Connection, uuid: str, change: Change, limit: Deadline) -> None:
    """Make one change. If libvirt refuses the second step, take the first one back and raise its error."""
    domain = connection.lookupByUUIDString(uuid)
    steps = _steps(domain, change)
    for number, step in enumerate(steps):
        if limit.expired and number:
            # Nobody waits for the answer any more.
            raise limit.exceeded("libvirt to change the definition", device=domain.name())
        try:
            step.do()
        except libvirt.libvirtError as error:
            if not limit.expired:
                _take_back(steps[:number], error, domain.name())
            raise


def _steps(domain: DomainHandle, change: Change) -> list[_Step]:
    """The calls, in order."""
    old, new, steps = change.old, change.new, []
    if old.disk != new.disk:
        put = functools.partial(_put_disk, domain)
        steps.append(_Step(lambda: put(old.disk, new.disk), lambda: put(new.disk, old.disk)))
    if old.recipe != new.recipe:
        keep = functools.partial(
            recipe_list.put, domain, change.target, affects=libvirt.VIR_DOMAIN_AFFECT_CONFIG
        )
        step = _Step(lambda: keep(recipe=new.recipe), lambda: keep(recipe=old.recipe))
        steps.insert(0 if change.recipe_first else len(steps), step)
    return steps


def _put_disk(domain: DomainHandle, old: Present | None, new: Present | None) -> None:
    if new is not None:
        call = domain.attachDeviceFlags if old is None else domain.updateDeviceFlags
        call(new.xml, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    elif old is not None:
        domain.detachDeviceFlags(old.xml, libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def _take_back(steps: list[_Step], failure: libvirt.libvirtError, name: str) -> None:
    """Take the steps back, last first. PartlyChanged if that fails."""
    for step in reversed(steps):
        try:
            step.undo()
        except libvirt.libvirtError as error:
            raise PartlyChanged(
                f"libvirt refused: {failure.get_error_message()}. Taking back what was changed before failed "
                f"too: {error.get_error_message()}",
                device=name,
                hint=_LOOK,
            ) from failure
