# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Which locks (``_base.locks``) are needed for what is made of a source: those of files that get a loop device, and of names and uuids of mapped devices.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

What a source only finds (a path, a disk sequence number) needs none: it is held open from then on.
"""

from __future__ import annotations

from .. import _dm_table
from .._base import locks
from .._base.errors import TableError
from . import spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .spec import Source


def of_source(source: Source) -> list[locks.Lock]:
    """The locks for a source of ``_source.spec.parse``; KernelError when a file cannot be looked at."""
    if isinstance(source, spec.FileSource):
        return locks.of_file(source.file)
    if isinstance(source, spec.TableSource):
        return locks.of_mapped(source.name, source.uuid) + of_table(source.table, source.read_only)
    return []


def of_table(value: object, read_only: bool = False) -> list[locks.Lock]:
    """The locks for what the device slots of a table have made: ``value`` as ``_dm_table.parse_table`` takes it."""
    if not _may_make(value):
        # A table can have 100,000 lines, and reading them takes seconds.
        return []
    try:
        slots = [spec.parse_slot(slot) for dummy, slot in _dm_table.parse_table(value).devices(read_only)]
    except TableError:
        # Nothing is made of it: who plans the table says all that is wrong with it.
        return []
    return [lock for source in slots for lock in of_source(source)]


def _may_make(value: object) -> bool:
    """Whether a file or a table may stand somewhere in the table."""
    if isinstance(value, str):
        return "file" in value or "table" in value
    if isinstance(value, dict):
        return (
            value.get("file") is not None
            or value.get("table") is not None
            or any(map(_may_make, value.values()))
        )
    return isinstance(value, (list, tuple)) and any(map(_may_make, value))
