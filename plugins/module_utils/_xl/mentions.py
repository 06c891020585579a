# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What the configurations of xl's guests, and the recipes kept in files, name as storage of disks.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from .._base import gone
from .._base.errors import DefinitionError, InvalidValue, KernelError
from .._base.files import open_regular
from .._source import named_storage, recipe_file, spec
from .._source.named_storage import Mention
from . import config_file
from .config import MOST_BYTES, Config
from .disk_text import DiskText

# What targets of the hotplug script begin with (_hotplug.target).
_SEALS = ("sealed-below:", "sealed:")
_FORMS = ("diskseq:", "file:", "path:", "dm:")


def of_configurations() -> Iterator[tuple[str, str, Mention]]:
    """
    Yield ``(guest, vdev, Mention)`` for each disk that a configuration in /etc/xen or /etc/xen/auto names
    without a recipe. DefinitionError for one that cannot be read safely; KernelError.
    """
    for path in _paths():
        config = Config(_read(path), path)
        guest = config.name or os.path.splitext(os.path.basename(path))[0]
        for disk in config.disks:
            if disk.says.recipe is None:
                files, volumes = _storage_of(disk.says)
                who = f"{disk.says.vdev} of {guest}, in {path}"
                yield guest, disk.says.vdev, Mention(who, files, volumes)


def of_recipes() -> Iterator[tuple[str, Mention]]:
    """
    Yield ``(the disk for which it was written, like "xvda of web1", or "", Mention)`` for each recipe.
    DefinitionError for one that cannot be read safely; KernelError.
    """
    for entry in gone.list_directory(recipe_file.DIRECTORY):
        name, end = os.path.splitext(entry)
        if end != ".json":
            continue
        try:
            kept = recipe_file.read(name)
        except DefinitionError:
            # Another run may have removed it meanwhile.
            if recipe_file.exists(name):
                raise
            continue
        files, volumes = named_storage.of_source(kept.source)
        yield kept.disk or "", Mention(f"the recipe {recipe_file.path_of(name)}", files, volumes)


def _paths() -> list[str]:
    """The configurations, each once: those in /etc/xen/auto are mostly links to others."""
    places = (config_file.DIRECTORY, f"{config_file.DIRECTORY}/auto")
    names = {
        os.path.realpath(f"{place}/{name}")
        for place in places
        for name in gone.list_directory(place)
        # xendomains starts everything in auto that has no dot first.
        if not name.startswith(".") and (name.endswith(".cfg") or place.endswith("/auto"))
    }
    return sorted(name for name in names if _may_be_read(name))


def _may_be_read(path: str) -> bool:
    """Whether there is such a path, and it is no directory, of which xl can start no guest."""
    return gone.exists(path) and not gone.exists(f"{path}/.")


def _read(path: str) -> bytes:
    try:
        with open(open_regular(path, "config_file"), "rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise KernelError.from_oserror(error, "read the configuration", device=path) from error


def _storage_of(says: DiskText) -> tuple[list[str], list[named_storage.Volume]]:
    target = next(
        (says.target[len(start) :] for start in _SEALS if says.target.startswith(start)), says.target
    )
    if target.startswith(_FORMS):
        try:
            return named_storage.of_source(spec.parse(target, option="target"))
        except InvalidValue:
            # It is for a script of somebody else. Xen takes it for a path.
            pass
    if not target:
        return [], []
    return [target if target.startswith("/") else f"/dev/{target}"], []
