# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
One disk in a domain's inactive definition: what would change, and the change, made together with other disks.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import _dm_table
from .._base.errors import (
    DeadlineExceeded,
    DefinitionError,
    GuestError,
    InvalidValue,
    TableError,
    WrongDevice,
)
from .._source import recipe as _recipe
from .._source import to_keep
from .._source.spec import TableSource
from .._xen import vdev
from . import domain_xml, write_disks
from .connection import Definition, NotAsked
from .disk_request import DiskRequest

if TYPE_CHECKING:
    from .._source.spec import Source


class DiskDefinition:
    """
    A disk as wanted in the definition. ``recipe``: the text that is kept for its source, None to remove the
    disk. ``changes``: whether the definition must change, known after :meth:`plan`.
    """

    def __init__(self, request: DiskRequest, definition: Definition, recipe: str | None) -> None:
        self.request = request
        self.definition = definition
        self.recipe = recipe
        self.changes = False

    def plan(self) -> tuple[list[str], list[str]]:
        """
        The lines about this disk, before and after. Raises GuestError, WrongDevice or InvalidValue to refuse
        it.
        """
        xml = self.definition.xml
        if xml is None:
            raise GuestError(
                "the domain is transient, so it has no definition that could be changed",
                device=self.definition.name,
                hint="Set config to false and live to true",
            )
        self._refuse_other(xml)
        self._refuse_empty(xml)
        refuse_shrinking(xml, self.request)
        changed = self.edit(xml)
        self.changes = changed != xml
        target = self.request.target
        return (
            domain_xml.excerpt(xml, target).splitlines(),
            domain_xml.excerpt(changed, target).splitlines(),
        )

    def edit(self, xml: str) -> str:
        """The definition with the change."""
        request = self.request
        if not request.present:
            return domain_xml.drop(xml, request.target)
        domain = domain_xml.parsed(xml)
        if domain.type == "xen":
            vdev.parse(request.target)
        disk = domain_xml.Disk(
            request.target,
            None if request.empty else domain_xml.path_of(self.definition.uuid, request.target),
            "phy" if domain.type == "xen" else "qemu",
            request.device_type,
            request.read_only,
            request.shared,
            request.bus or ("xen" if request.target.startswith("xvd") else None),
        )
        return domain_xml.put(xml, disk, self.recipe)

    def _refuse_empty(self, xml: str) -> None:
        """InvalidValue for an empty CD drive of blkback."""
        domain = domain_xml.parsed(xml)
        if self.request.empty and domain.type == "xen" and domain.os_type != "hvm":
            raise InvalidValue(
                "state",
                "empty",
                "is not possible for a paravirtual guest: blkback, which serves its drives, has no empty "
                "ones. Remove the drive with state=absent, and add it again with its next medium",
            )

    def _refuse_other(self, xml: str) -> None:
        """A disk to remove must have the given source, if there is one."""
        request = self.request
        if request.present or request.source is None:
            return
        domain = domain_xml.parsed(xml)
        disk, recipe = domain.disk(request.target), domain.recipes().get(request.target)
        if disk is not None and (recipe is None or not _is_kept(recipe, request.source, request.title)):
            raise WrongDevice(
                f"the definition has another disk there: {recipe or disk.source}",
                device=request.title,
                hint="It is not the source that was given; leave source out to remove whatever is there",
            )


class Exchange:
    """The changes of several disks of one domain's definition. If one fails, none is made."""

    def __init__(self, disks: Sequence[DiskDefinition]) -> None:
        # Those that were not undone.
        self._disks = list(disks)
        self._first = disks[0]
        self._before = disks[0].definition.xml
        self._now: write_disks.Written | None = None
        self._staying: list[DiskDefinition] = []
        # Whether it is not known what the definition has: libvirt did not answer, or refused the way back.
        self.is_unknown = False

    def run(self) -> None:
        """
        Change the definition. If libvirt does not keep a disk, restore the old ones and raise GuestError.
        """
        disks = list(self._disks)
        self._write(disks)
        try:
            self._check_kept("The definition is as it was before")
        except GuestError:
            self._disks.clear()
            self._write(disks)
            raise

    def stay(self, disk: DiskDefinition) -> None:
        """
        Do not undo this change: the disk of the running guest has grown, which cannot be rolled back, and it
        must not be shorter after the next start.
        """
        self._staying.append(disk)

    def stays(self, disk: DiskDefinition | None) -> bool:
        return disk in self._staying

    def undo(self, disk: DiskDefinition) -> None:
        """
        Take back the change of one disk, once, unless it stays; the others' changes stay. GuestError if
        somebody changed the disk since, or changed the definition and it must be replaced as a whole.
        """
        if self._now is None or disk not in self._disks or self.stays(disk):
            return
        self._disks.remove(disk)
        self._write([disk])
        self._check_kept("Look at the definition (virsh dumpxml --inactive), and run the task again")

    def _write(self, changed: Sequence[DiskDefinition]) -> None:
        """Give the disks ``changed`` what was there first, with the changes that are not undone."""
        before = after = self._before
        if before is None or after is None:
            raise AssertionError
        for disk in self._disks:
            after = disk.edit(after)
        first, targets = self._first, [disk.request.target for disk in changed]
        place, limit = (first.request.uri, first.definition.uuid), first.request.limit()
        try:
            if self._now is None:
                self._now = write_disks.write(*place, before, after, targets, limit)
            else:
                self._now = write_disks.write_back(*place, self._now, after, targets, limit)
        except (DeadlineExceeded, write_disks.PartlyChanged) as error:
            self.is_unknown = not isinstance(error, NotAsked)
            raise

    def _check_kept(self, hint: str) -> None:
        """GuestError unless the definition has all changes: libvirt drops elements that it does not know."""
        for disk in self._disks:
            if self._now is None or disk.edit(self._now.text) != self._now.text:
                wrong = "libvirt did not keep the disk as it was defined"
                raise GuestError(wrong, device=disk.request.title, hint=hint)


def refuse_shrinking(xml: str, request: DiskRequest) -> None:
    """
    InvalidValue if the same snapshot or volume would become shorter: the guest would lose the data behind its
    end.
    """
    recipe, source = domain_xml.parsed(xml).recipes().get(request.target), request.source
    if recipe is None or source is None or not request.present:
        return
    try:
        cut = _recipe.cut_of(_recipe.parse(recipe, request.title), source)
    except (InvalidValue, TableError, DefinitionError):
        # A recipe that cannot be read is replaced.
        return
    if cut is not None:
        if not isinstance(source, TableSource):
            raise AssertionError
        raise InvalidValue(
            "source.table",
            f"{_dm_table.parse_table(source.table).length} sectors",
            f"must be {cut} sectors or more: the disk has that size in the definition. "
            "To make it smaller on purpose, remove the disk first with state=absent",
            device=request.title,
        )


def _is_kept(recipe: str, source: Source, title: str) -> bool:
    """Whether the recipe equals the one that would have been kept for the source."""
    return to_keep.is_kept(_recipe.parse(recipe, title), source)
