# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What disks of running guests have in common, whether Xen or QEMU runs the guest: the order in which a disk and
its recipe in the running definition change, replacing, growing, and rolling back.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._base.errors import BlockError, DeadlineExceeded, DeviceBusy, WrongDevice
from .._block.device import Device
from .._dm import control, mapped, udev
from .._source import growth, lookup
from .._source.resources import Resources
from .._xen import replacing
from . import disk_device, live_recipe
from .connection import Definition, NotAsked
from .disk_request import DiskRequest
from .old_disk import OldRunningDisk

if TYPE_CHECKING:
    from .._source.spec import Source

Settings = dict[str, Any]


class Running:
    """
    ``had_recipe`` and ``recipe``: the recipe of the disk in the running definition, and the one that it is to
    have. ``device``: the device of the guest's present disk, held by the resources. ``old``: the disk that is
    replaced.
    """

    def __init__(self, resources: Resources, request: DiskRequest, definition: Definition) -> None:
        self.resources = resources
        self.request = request
        self.definition = definition
        self.device: Device | None = None
        self.old: OldRunningDisk | None = None
        # Whether the disk must be attached or detached.
        self.changes_disk = False
        self.had_recipe: str | None = None
        self.recipe: str | None = None
        self.was_detached = False
        # Whether a change was begun, whether the recipe was changed, and whether it stays as it is now.
        self._is_begun = False
        self._put = False
        self._keeps_recipe = False
        # Whether the table of a new disk must be made.
        self._makes_table = False
        self._growth: growth.Growth | None = None
        # Whether the guest must be told its disk's size.
        self._tells = False
        self._why_other = ""

    @property
    def grows(self) -> bool:
        """Whether a disk that the guest has must become larger, or the guest must still be told."""
        return self._tells or (self._growth is not None and self._growth.changes)

    @property
    def grown(self) -> list[str]:
        """What has grown, as texts. It stays, whatever fails afterwards."""
        return [] if self._growth is None else self._growth.grown

    def remains(self) -> list[str]:
        """What stays changed, as texts: what has grown, and what a failed step has left."""
        told = [] if self._growth is None else self._growth.remains()
        # A disk that is detached is told by the module, and one that is replaced by ``old``.
        if self.old is None and self._is_begun and not self.was_detached:
            try:
                told += self._disk_remains() if self.changes_disk else []
            except BlockError as failure:
                # It must not hide what else stays.
                told.append(f"it could not be seen what the guest has: {failure}")
            told += ["the running definition has the new recipe"] if self._put else []
        return told

    def _disk_remains(self) -> list[str]:
        """How the guest's disk differs from what it was, after a failure, as texts. Looks at the guest."""
        raise NotImplementedError

    @property
    def changes_recipe(self) -> bool:
        return self.had_recipe != self.recipe

    @property
    def changes(self) -> bool:
        return self.changes_disk or self.changes_recipe

    def change(self) -> None:
        """
        Attach, replace or detach the disk. A guest can be saved at any moment, and needs the recipe of each
        disk to be restored. So the recipe is written before the disk is attached, and removed after it is
        detached. A recipe without a disk has no effect.
        """
        self._is_begun = True
        if not self.request.present:
            if self.changes_disk:
                self._detach()
                self.was_detached = True
            self._put_recipe(self.recipe)
            return
        if self.old is not None:
            self._replace(self.old)
            return
        self._put_recipe(self.recipe)
        if self.changes_disk:
            try:
                self._attach()
            except DeadlineExceeded as error:
                if not isinstance(error, NotAsked):
                    # libvirt may still attach the disk, which then needs its recipe.
                    self._keeps_recipe = True
                raise

    def undo(self) -> None:
        """
        Detach what was attached, attach what was replaced, and restore the old recipe, unless the disk has
        grown.
        """
        if self.grown or (not self.request.present and self.was_detached):
            return
        try:
            if self.request.present and self._is_attached:
                self._detach()
        finally:
            # A disk that could not be rolled back needs its recipe.
            is_kept = self._keeps_recipe or self.old is not None
            if self._put and not is_kept and not (self.changes_disk and self._is_there()):
                self._write_recipe(self.had_recipe)
                self._put = False
        if self.old is not None:
            self._undo_replaced(self.old)

    # What differs between Xen and QEMU

    @property
    def _is_attached(self) -> bool:
        """Whether this run has attached a disk that is to be detached again."""
        raise NotImplementedError

    def _is_there(self) -> bool:
        """Whether the guest has a disk in this place now."""
        raise NotImplementedError

    def _attach(self) -> None:
        """Attach the wanted disk."""
        raise NotImplementedError

    def _detach(self) -> None:
        """Detach the disk that the plan has found, or that :meth:`_attach` has attached."""
        raise NotImplementedError

    def _guard(self, device: Device) -> growth.Guard:
        """Raises DeviceBusy if others use the storage that the guest's device uses once it has grown."""
        raise NotImplementedError

    # Comparing

    def _is_source(self, device: Device) -> bool:
        source = self.request.source
        if source is None:
            raise AssertionError
        is_ours = self._is_ours(device)
        if self.request.present and self._plan_growth(device, source, is_ours):
            return True
        is_device = lookup.is_device if self.request.present else lookup.is_device_in_any_mode
        if is_ours:
            return disk_device.is_made_of(self.resources, device, source, is_device)
        return is_device(source, device, self.resources)

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

    def _other_settings(self, settings: dict[str, tuple[object, object]]) -> DeviceBusy | None:
        """An error if one of the ``{option: (what the guest's disk has, what is wanted)}`` differs."""
        for name, (has, wanted) in settings.items():
            if has != wanted:
                return DeviceBusy(
                    f"the running guest has it with {name}={_shown(has)}, not {_shown(wanted)}",
                    device=self.request.title,
                    hint="Remove it first with state=absent, or set replace=true, or live=false",
                )
        return None

    def _other_disk(self, wrong: str) -> DeviceBusy | WrongDevice:
        """``wrong``: what the guest has instead of the wanted disk."""
        wrong += self._why_other
        if not self.request.present:
            return WrongDevice(
                wrong,
                device=self.request.title,
                hint="It is not the source that was given; leave source out to remove whatever is there",
            )
        return DeviceBusy(
            wrong,
            device=self.request.title,
            hint="Remove it first with state=absent, or set replace=true, or set live=false, so that the "
            "new disk is used from the next start on",
        )

    # Replacing

    def _replace(self, old: OldRunningDisk) -> None:
        """Detach the old disk, and attach the new one. If that fails, the old one is attached again."""
        limit = self.request.limit()
        with disk_device.locked(limit):
            below = disk_device.open_below(self.resources, self._spec(), limit, old.store, old.replaces)
        old.check(below, self._makes_table)
        old.take()
        try:
            self._put_recipe(self.recipe)
            self._attach()
        except BlockError as error:
            self._close_new()
            old.has_again(error)
            self._restore_recipe(old)
            raise

    def _undo_replaced(self, old: OldRunningDisk) -> None:
        self._close_new()
        failure = old.put_back()
        if failure is not None:
            raise replacing.not_again(old, failure)
        self._restore_recipe(old)

    def _close_new(self) -> None:
        """Close the new disk's device, which is removed then, so that its name is free."""
        if self.device is not None:
            self.device.close()

    def _restore_recipe(self, old: OldRunningDisk) -> None:
        if self._put and old.is_again:
            self._put = False
            self._write_recipe(self.had_recipe)

    # Parts

    def _is_ours(self, device: Device) -> bool:
        """Whether the device was made for this disk's path."""
        return (
            mapped.is_mapped(device)
            and self.resources.dm.status(control.by_device(device)).uuid == self._spec().mapped_uuid
        )

    def _put_recipe(self, recipe: str | None) -> None:
        if self.changes_recipe:
            self._put = True
            self._write_recipe(recipe)

    def _write_recipe(self, recipe: str | None) -> None:
        request = self.request
        live_recipe.put(request.uri, self.definition, request.target, recipe, request.limit())

    def _spec(self) -> disk_device.DiskSpec:
        return self.request.spec(self.definition)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def settings(path: str | None, mode: str, device_type: str, recipe: str | None) -> Settings:
    """A disk's settings, as a plan shows them."""
    return {"path": path, "mode": mode, "device_type": device_type, "recipe": recipe}
