# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Write disks and their recipes into a domain's inactive definition, without overwriting what somebody else
writes into it at the same time.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

virDomainDefineXML replaces the whole definition, and has no way to say which one it is to replace. So each
disk is changed by a call of its own, which libvirt makes while it holds the domain
(virDomainAttachDeviceFlags and its siblings with VIR_DOMAIN_AFFECT_CONFIG, qemuDomainAttachDeviceConfig in
src/qemu/qemu_driver.c), and the recipes by virDomainSetMetadata. Only where libvirt has no such call is the
definition replaced as a whole, see :func:`_needs_whole`.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Callable, NamedTuple

from .._base.deadline import Deadline
from .._base.errors import GuestError
from . import connection as _connection
from . import domain_xml
from .connection import libvirt
from .handles import Connection, DomainHandle

_QEMU, _XEN = ("kvm", "qemu"), "xen"
_AGAIN = "Try again"


class Part(NamedTuple):
    """What a definition has about one disk: the text of its element and of its recipe, or None."""

    element: str | None
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

        A recipe without its disk has no effect. The hook refuses a disk of this collection without a recipe.
        """
        if self.old.element is None or self.new.element is None:
            return self.old.element is None
        if self.old.recipe is None or self.new.recipe is None:
            return self.old.recipe is None
        old, new = (domain_xml.flags_in(element) for element in (self.old.element, self.new.element))
        # The state between the two steps is read-only, or else not shareable.
        return not new.read_only and (old.read_only or not old.shareable)


class _Step(NamedTuple):
    """One call to libvirt and the one that takes it back."""

    do: Callable[[], object]
    undo: Callable[[], object]


def write(uri: str, uuid: str, before: str, after: str, targets: Collection[str], limit: Deadline) -> str:
    """
    Change the disks ``targets`` of the domain, and their recipes, from what the inactive definition
    ``before`` has to what ``after`` has. Returns the definition as libvirt has stored it.

    GuestError, without any change, if someone else has changed these disks. If one call fails, the earlier
    ones are taken back. After a timeout, a part of the disks may be changed: the caller must look again.
    """

    def exchange(connection: Connection) -> str:
        now = _connection.read_on(connection, uuid)
        if now.xml is None:
            raise GuestError("it has no definition any more", device=now.name, hint=_AGAIN)
        changes = [Change(target, _part_of(before, target), _part_of(after, target)) for target in targets]
        changes = [change for change in changes if change.old != change.new]
        if _needs_whole(now.xml, changes):
            if now.xml != before:
                raise _changed_by_others("its definition", now.name)
            connection.defineXML(after)
        else:
            for change in changes:
                if _part_of(now.xml, change.target) != change.old:
                    raise _changed_by_others(f"its disk {change.target}", now.name)
            recipes = domain_xml.parsed(now.xml).recipes()
            _run(_steps(connection.lookupByUUIDString(uuid), recipes, changes), limit, now.name)
        made = _connection.read_on(connection, uuid).xml
        if made is None:
            raise GuestError("it has no definition any more", device=now.name, hint=_AGAIN)
        return made

    return _connection.with_connection(uri, limit, uuid, exchange)


def _part_of(text: str, target: str) -> Part:
    domain = domain_xml.parsed(text)
    disk = domain.disk(target)
    return Part(None if disk is None else disk.xml, domain.recipe(target))


def _changed_by_others(what: str, domain: str) -> GuestError:
    return GuestError(
        f"{what} was changed by someone else meanwhile; nothing was done", device=domain, hint=_AGAIN
    )


def _needs_whole(text: str, changes: list[Change]) -> bool:
    """
    Whether the definition must be replaced as a whole: libvirt's Xen driver can add and remove a disk, but
    not change one (libxlDomainUpdateDeviceConfig in src/libxl/libxl_driver.c), other drivers lack more calls,
    and virDomainSetMetadata cannot keep what others have put into the list of recipes.
    """
    domain = domain_xml.parsed(text)
    if not domain.has_plain_recipes:
        return True
    if domain.type == _XEN:
        return any(
            None not in (change.old.element, change.new.element) and change.old.element != change.new.element
            for change in changes
        )
    return domain.type not in _QEMU


def _steps(domain: DomainHandle, recipes: dict[str, str], changes: list[Change]) -> list[_Step]:
    """The calls, in order. ``recipes``: what the definition has, by target."""
    first = _with_recipes(recipes, [change for change in changes if change.recipe_first])
    last = _with_recipes(recipes, changes)
    steps = [_recipes_step(domain, recipes, first)] if first != recipes else []
    steps += [_disk_step(domain, change) for change in changes if change.old.element != change.new.element]
    return steps + ([_recipes_step(domain, first, last)] if last != first else [])


def _with_recipes(recipes: dict[str, str], changes: list[Change]) -> dict[str, str]:
    found: dict[str, str | None] = {**recipes, **{change.target: change.new.recipe for change in changes}}
    return {target: recipe for target, recipe in found.items() if recipe is not None}


def _recipes_step(domain: DomainHandle, old: dict[str, str], new: dict[str, str]) -> _Step:
    def put(recipes: dict[str, str]) -> None:
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            domain_xml.recipe_list(recipes),
            domain_xml.KEY,
            domain_xml.NAMESPACE,
            libvirt.VIR_DOMAIN_AFFECT_CONFIG,
        )

    return _Step(functools.partial(put, new), functools.partial(put, old))


def _disk_step(domain: DomainHandle, change: Change) -> _Step:
    def put(old: str | None, new: str | None) -> None:
        if new is None:
            call, text = domain.detachDeviceFlags, old
        else:
            call, text = domain.attachDeviceFlags if old is None else domain.updateDeviceFlags, new
        if text is None:
            raise AssertionError
        call(text, libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    old, new = change.old.element, change.new.element
    return _Step(functools.partial(put, old, new), functools.partial(put, new, old))


def _run(steps: list[_Step], limit: Deadline, name: str) -> None:
    """Run the steps. If one fails, take the earlier ones back and raise its error."""
    for number, step in enumerate(steps):
        if limit.expired:
            # Nobody waits for the answer any more.
            raise _connection.NotAsked(limit, name)
        try:
            step.do()
        except libvirt.libvirtError as error:
            _take_back(steps[:number], error, name)
            raise


def _take_back(steps: list[_Step], failure: Exception, name: str) -> None:
    """Take the steps back, last first. GuestError if that fails."""
    for step in reversed(steps):
        try:
            step.undo()
        except libvirt.libvirtError as error:
            raise GuestError(
                f"libvirt refused: {_words(failure)}. Taking back what was changed before failed too: "
                f"{_words(error)}",
                device=name,
                hint="Look at the definition (virsh dumpxml --inactive), and run the task again",
            ) from failure


def _words(error: Exception) -> str:
    return str(error.get_error_message() if isinstance(error, libvirt.libvirtError) else error)
