# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Mapped devices of one list that are stacked on each other: created from the bottom up, removed from the top
down.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from .. import _dm_table
from .._base.errors import BlockError
from .._source import slots, spec

# Of an item: its name, table, read_only, and the numbers (see in_order).
Entry = tuple[Optional[str], Any, bool, Optional[tuple[Optional[tuple[int, int]], set[tuple[int, int]]]]]
_DIRECTORY = "/dev/mapper/"


def in_order(entries: Sequence[Entry]) -> list[int]:
    """
    The indexes of the entries in the order in which they must be processed. Independent entries keep their
    order.

    ``entries``: for each entry ``(name, value, read_only, numbers)``. ``value`` is the table, or None.
    ``numbers`` is ``((major, minor), {(major, minor) below it})`` for a device to remove, otherwise None.
    """
    made = {
        name: index
        for index, (name, dummy, dummy2, numbers) in enumerate(entries)
        if name and numbers is None
    }
    above: dict[tuple[int, int] | None, list[int]] = {}
    for index, entry in enumerate(entries):
        for number in entry[3][1] if entry[3] else ():
            above.setdefault(number, []).append(index)
    first: list[list[int]] = []
    for index, (dummy, value, read_only, numbers) in enumerate(entries):
        if numbers is not None:
            first.append(above.get(numbers[0], []))
        else:
            names = mapped_names(value, read_only) if len(made) > 1 and value is not None else ()
            first.append([made[name] for name in names if made.get(name, index) != index])
    return _sorted(first)


def _sorted(first: list[list[int]]) -> list[int]:
    """
    ``first``: for each index, the indexes that must come before it. A cycle is not reported here: the plan
    then fails because a device does not exist.
    """
    order: list[int] = []
    seen: set[int] = set()
    for start in range(len(first)):
        todo = [(start, iter(first[start]))] if start not in seen else []
        seen.add(start)
        while todo:
            index, before = todo[-1]
            other = next((other for other in before if other not in seen), None)
            if other is None:
                order.append(index)
                todo.pop()
            else:
                seen.add(other)
                todo.append((other, iter(first[other])))
    return order


def mapped_names(value: Any, read_only: bool = False) -> list[str]:
    """
    The names of the mapped devices to which a table refers by a path in /dev/mapper or by ``dm:NAME,UUID``.
    """
    if not _may_name(value):
        # A table can have 100,000 lines, and reading them takes seconds.
        return []
    try:
        sources = [spec.parse_slot(slot) for dummy, slot in _dm_table.parse_table(value).devices(read_only)]
    except BlockError:
        # The plan reports all errors of the table.
        return []
    names: list[str] = []
    for source in sources:
        if isinstance(source, spec.TableSource):
            names += mapped_names(source.table, source.read_only)
        else:
            name = slots.mapped_name(source)
            names += [name] if name else []
    return names


def _may_name(value: Any) -> bool:
    if isinstance(value, str):
        return _DIRECTORY in value or "dm:" in value
    if isinstance(value, dict):
        return any(map(_may_name, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_may_name, value))
