# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The floors of the house, and the imports that break its rules."""

from __future__ import annotations

from .imports import Import, room_graph, room_of

# Imports go down: a room imports rooms of lower floors only.
FLOORS = {
    "_base": 1,
    "_xenstore": 2,
    "_kernel": 2,
    "_dm_table": 2,
    "_block": 3,
    "_process": 3,
    "_dm": 4,
    "_xen": 5,
    "_source": 5,
    "_hotplug": 6,
    "_libvirt": 6,
    "_guest_disks": 6,
    "_volumes": 6,
    "_module": 7,
}


def floors_of(imports: list[Import], rooms: set[str]) -> dict[str, int]:
    """
    The floor of each room: that of FLOORS; for a room that is not there, the lowest above all that it
    imports.
    """
    graph = room_graph(imports)
    floors = {room: FLOORS[room] for room in rooms if room in FLOORS}
    pending: set[str] = set()

    def floor(room: str) -> int:
        if room not in floors and room not in pending:
            pending.add(room)
            floors[room] = 1 + max((floor(other) for other in graph.get(room, ())), default=0)
        return floors.get(room, 0)

    for room in sorted(rooms):
        floor(room)
    return floors


def misplaced(imports: list[Import], rooms: set[str]) -> list[Import]:
    """The imports that go up, or to another room of the same floor."""
    floors = floors_of(imports, rooms)
    return [
        each
        for each in imports
        if room_of(each.importer) != room_of(each.imported)
        and floors[room_of(each.imported)] >= floors[room_of(each.importer)]
    ]
