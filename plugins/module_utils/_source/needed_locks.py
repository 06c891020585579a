# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The locks (``_base.locks``) needed to create the devices of a source: for files that get a loop device, and
for names and UUIDs of mapped devices.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A source that is only looked up (a path or a disk sequence number) needs no lock, because the device is held
open.
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
    """The locks for a source of ``_source.spec.parse``; KernelError if a file cannot be examined."""
    if isinstance(source, spec.FileSource):
        return locks.of_file(source.file)
    if isinstance(source, spec.TableSource):
        return locks.of_mapped(source.name, source.uuid) + of_table(source.table, source.read_only)
    return []


def of_table(value: object, read_only: bool = False) -> list[locks.Lock]:
    """
    The locks for the devices that are created for the slots of a table; ``value`` as for
    ``_dm_table.parse_table``.
    """
    if not _may_make(value):
        # Parsing a table of 100,000 lines takes seconds.
        return []
    try:
        slots = [spec.parse_slot(slot) for dummy, slot in _dm_table.parse_table(value).devices(read_only)]
    except TableError:
        # Nothing is created for it: the plan reports the errors of the table.
        return []
    return [lock for source in slots for lock in of_source(source)]


def _may_make(value: object) -> bool:
    """Whether a file or a table may occur anywhere in the table."""
    if isinstance(value, str):
        return "file" in value or "table" in value
    if isinstance(value, dict):
        return (
            value.get("file") is not None
            or value.get("table") is not None
            or any(map(_may_make, value.values()))
        )
    return isinstance(value, (list, tuple)) and any(map(_may_make, value))
