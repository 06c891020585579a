# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The files, and the volumes of thin pools, that a source names, also inside a table.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from .. import _dm_table
from .._base.record import Record
from . import spec

if TYPE_CHECKING:
    from .spec import Source

# What identifies a pool, and the number of a volume.
Volume = tuple[str, int]


class Mention(Record):
    """The storage that somebody names. ``who``: the disk and where that is written, for messages."""

    who: str
    files: list[str]
    volumes: list[Volume]


def of_source(source: Source) -> tuple[list[str], list[Volume]]:
    """The paths of files, and the volumes. TableError or InvalidValue for a table that is not valid."""
    if isinstance(source, spec.FileSource):
        return [source.file], []
    files: list[str] = []
    volumes: list[Volume] = []
    targets = _dm_table.parse_table(source.table).targets if isinstance(source, spec.TableSource) else ()
    for target in targets:
        for slot in target.devices():
            below = spec.parse_slot(slot)
            more = of_source(below)
            files += more[0]
            volumes += more[1]
            if target.TYPE == "thin" and slot.field == "pool":
                volumes += volume_of(below, target.id)
    return files, volumes


def volume_of(pool: Source, number: int) -> list[Volume]:
    """The volume with this number by all that identifies its pool: the uuid, the name and the path."""
    name, path = getattr(pool, "name", None), getattr(pool, "path", None)
    if path is None and name is not None:
        path = f"/dev/mapper/{name}"
    names = [getattr(pool, "uuid", None), name, path and plain(path)]
    return [(each, number) for each in names if each]


def plain(path: object) -> str:
    """Normalize a path for comparison."""
    return "/" + posixpath.normpath(str(path)).lstrip("/")
