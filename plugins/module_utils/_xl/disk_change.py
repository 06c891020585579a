# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
One disk of a guest of xl: what would change in the guest's configuration and in the disk's recipe.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A recipe is written before the configuration that names it, and removed after it. So whenever a run is killed,
a configuration never names a recipe that does not exist.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from .. import _dm_table
from .._base.errors import (
    BlockError,
    DefinitionError,
    DeviceBusy,
    InvalidValue,
    KernelError,
    TableError,
    WrongDevice,
)
from .._block import image_format
from .._block.backing import Backing
from .._source import recipe as _recipe
from .._source import recipe_file, to_keep
from .._source.recipe_file import KeptRecipe
from .._source.resources import Resources
from .._source.spec import FileSource, TableSource
from . import disk_text, edit
from .config import Config, Disk
from .disk_text import DiskText
from .guest_config import GuestConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._source.spec import Source

_RAW = (None, "raw", "empty")


class DiskRequest(NamedTuple):
    """
    ``config_file`` and ``domain``: as given, one of them may be None. ``vdev``: the disk's name in the guest.

    ``source``: None only to remove a disk, whatever it is. ``recipe``: its name, or None for the usual one.
    ``mode``: ``r`` or ``w``. ``device_type``: ``disk`` or ``cdrom``. ``shared``: other guests may write to
    the same storage. ``present``: whether the disk must exist afterwards. ``sealed``, ``sealed_below``: of
    the disk while the guest has it; None leaves it as it is. ``size``: make the source's file large enough
    for this many bytes; 0 if that was not asked for.
    """

    config_file: str | None
    domain: str | None
    vdev: str
    source: Source | None
    recipe: str | None = None
    mode: str = "w"
    device_type: str = "disk"
    shared: bool = False
    present: bool = True
    sealed: bool | None = None
    sealed_below: bool | None = None
    size: int = 0


class DiskChange:
    """
    ``name``: of the recipe. ``had`` and ``wanted``: the recipe before and after, None for none; ``had`` is
    None for one that is not valid, too. ``warnings``: texts.
    """

    def __init__(self, resources: Resources, request: DiskRequest, guest: GuestConfig) -> None:
        self._resources = resources
        self.request = request
        self.guest = guest
        self.disk: Disk | None = guest.config.disk(request.vdev)
        self.name = self._name()
        self.had: KeptRecipe | None = None
        self.wanted: KeptRecipe | None = None
        self.warnings: list[str] = []
        self._file_exists = False
        self._was_written = False

    @property
    def title(self) -> str:
        return f"{self.request.vdev} of {self.guest.name}"

    @property
    def says(self) -> DiskText:
        """The disk that the configuration is to have."""
        request = self.request
        access = "r" if request.device_type == "cdrom" else request.mode
        target = disk_text.RECIPE + self.name
        return DiskText(request.vdev, target, access, request.device_type, script=disk_text.SCRIPT)

    @property
    def changes_config(self) -> bool:
        if not self.request.present:
            return self.disk is not None
        if self.disk is None:
            return True
        there, says = self.disk.says, self.says
        same = (there.recipe, there.access, there.device_type) == (self.name, says.access, says.device_type)
        return not same or there.backend is not None or there.format not in _RAW

    @property
    def changes_recipe(self) -> bool:
        if self.wanted is None:
            return self._file_exists and not self.request.present
        return self.had is None or recipe_file.text_of(self.had) != recipe_file.text_of(self.wanted)

    def plan(self, is_in_use: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        The disk before and after, for a diff. ``is_in_use``: whether a running guest has the recipe's disk.
        Raises an error to refuse it.
        """
        self._read_recipe()
        if self.request.present:
            self._plan_present()
        else:
            self._plan_absent(is_in_use)
        return self._shown(self.guest.config, self.had), self._shown(
            Config(self.edit(self.guest.config), ""), self.wanted
        )

    def edit(self, config: Config) -> bytes:
        """The configuration with the change."""
        if not self.changes_config:
            return config.text
        return edit.put(config, self.says) if self.request.present else edit.drop(config, self.request.vdev)

    def write_recipe(self) -> None:
        """Before the configuration is changed: write the recipe."""
        if self.wanted is not None and self.request.present and self.changes_recipe:
            self._was_written = True
            recipe_file.write(self.wanted)

    def remove_recipe(self) -> None:
        """After the configuration was changed: remove the recipe of a disk that is removed."""
        if self.wanted is None and self.changes_recipe:
            self._was_written = True
            recipe_file.remove(self.name)

    def undo_recipe(self) -> None:
        """
        Restore the recipe that there was. The caller has restored the configuration: if that still names a
        new recipe, which it did not before, the recipe stays.
        """
        if not self._was_written:
            return
        self._was_written = False
        if self.had is not None:
            recipe_file.write(self.had)
        elif self.request.present and (self._names_it(self.guest.config) or not self._is_named()):
            recipe_file.remove(self.name)

    def _names_it(self, config: Config) -> bool:
        return any(disk.says.recipe == self.name for disk in config.disks)

    def _is_named(self) -> bool:
        """Whether the configuration names the recipe now, or may do so."""
        try:
            return self._names_it(GuestConfig(self.guest.path, None).config)
        except BlockError:
            return True

    def _name(self) -> str:
        """As given, or as the configuration has it, or GUEST-VDEV."""
        known = None if self.disk is None else self.disk.says.recipe
        name = self.request.recipe or known or f"{self.guest.name}-{self.request.vdev}"
        try:
            return recipe_file.check_name(name)
        except InvalidValue as error:
            if self.request.recipe is None:
                raise InvalidValue("recipe", None, f"must be given: {name} is not valid as a name") from error
            raise

    def _read_recipe(self) -> None:
        self._file_exists = recipe_file.exists(self.name)
        if not self._file_exists:
            return
        try:
            self.had = recipe_file.read(self.name)
        except (DefinitionError, InvalidValue, TableError) as error:
            self.warnings.append(f"the existing recipe is not used: {error}")
            return
        if self.had.disk not in (None, self.title):
            raise DeviceBusy(
                f"the recipe {self.name} belongs to another disk, {self.had.disk}",
                device=recipe_file.path_of(self.name),
                hint="Give another name with recipe, or remove that disk first",
            )

    def _plan_present(self) -> None:
        request = self.request
        if request.source is None:
            raise AssertionError
        source = to_keep.known_raw(request.source, None if self.had is None else self.had.source)
        state = to_keep.read(self._resources, source, request.mode == "r", self._refuse_format)
        dummy, warnings = to_keep.kept_text(state, self.title)
        self.warnings += warnings
        had = _recipe.Seal() if self.had is None else self.had.seal
        seal = had.with_options(request.sealed, request.sealed_below)
        self.wanted = KeptRecipe(self.name, state.source, request.shared, self.title, seal)
        self._refuse_shrinking(state.source)

    def _plan_absent(self, is_in_use: bool) -> None:
        known = None if self.disk is None else self.disk.says.recipe
        is_ours = self.disk is None or known == self.name
        if self.request.source is not None and (self.disk is not None or self.had is not None):
            self._refuse_other(self.name if self.disk is None else known)
        if not is_ours or (self.had is not None and self.had.disk is None):
            # It belongs to another disk, or was written by hand.
            self.wanted = self.had
        elif is_in_use and self._file_exists:
            self.wanted = self.had
            self.warnings.append(
                f"{self.title}: the recipe {self.name} stays, because a running guest has this disk, and "
                "needs it to start again after a reboot or a restore. Run this again when the guest is off"
            )

    def _refuse_other(self, known: str | None) -> None:
        source = self.request.source
        if source is None:
            raise AssertionError
        if known != self.name or self.had is None or not to_keep.is_kept(self.had.source, source):
            raise WrongDevice(
                f"the recipe {self.name} is that of another disk"
                if self.disk is None
                else f"the configuration has another disk there: {self.guest.config.source_of(self.disk)}",
                device=self.title,
                hint="It is not the source that was given; leave source out to remove whatever is there",
            )

    def _refuse_format(self, source: FileSource, backing: Backing) -> None:
        """Refuse a file that the configuration has as an image of another format."""
        for disk in self.guest.config.disks if source.format is None else ():
            if disk.says.format in _RAW or not _is_file(disk.says.target, backing):
                continue
            raise InvalidValue(
                "source.file",
                source.file,
                f"is an image of the format {disk.says.format} according to the configuration "
                f"({disk.says.vdev}), but a guest would get it byte for byte. Convert it "
                f"{image_format.way_out(disk.says.format)}, or set format=raw if the configuration is wrong",
            )

    def _refuse_shrinking(self, source: Source) -> None:
        cut = None if self.had is None else _recipe.cut_of(self.had.source, source)
        if cut is not None and isinstance(source, TableSource):
            raise InvalidValue(
                "source.table",
                f"{_dm_table.parse_table(source.table).length} sectors",
                f"must be {cut} sectors or more: the disk has that size in its recipe. "
                "To make it smaller on purpose, remove the disk first with state=absent",
                device=self.title,
            )

    def _shown(self, config: Config, kept: KeptRecipe | None) -> dict[str, Any]:
        disk = config.disk(self.request.vdev)
        text = None if disk is None else config.source_of(disk)
        recipe = None if kept is None else json.loads(recipe_file.text_of(kept))
        return {"configuration": text, "recipe": recipe}


def _is_file(path: str, backing: Backing) -> bool:
    path = path if path.startswith("/") else f"/dev/{path}"
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # It does not exist, or is not a path.
        return False
    except OSError as error:
        raise KernelError.from_oserror(error, "look at a disk of the configuration", device=path) from error
    return (found.st_dev, found.st_ino) == (backing.device, backing.inode)
