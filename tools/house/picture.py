# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The picture of the house: rooms on their floors, with arrows to the rooms that they import; and where it
stands in a page.
"""

from __future__ import annotations

import ast

from .imports import imports_of, reachable, room_graph, room_of
from .rules import floors_of

BEGIN = "<!-- Made by tools/house from the imports: run python3 tools/house --draw. -->"
END = "<!-- End of what tools/house made. -->"


def picture(house: dict[str, str]) -> str:
    """Markdown: a Mermaid diagram and a table; house: {"_block/loop.py": text}."""
    imports = imports_of(house)
    subjects = subjects_of(house)
    graph = {room: room_graph(imports).get(room, set()) for room in subjects}
    floors = floors_of(imports, set(subjects))
    return "\n".join([*_diagram(graph, floors), "", *_table(graph, floors, subjects)])


def subjects_of(house: dict[str, str]) -> dict[str, str]:
    """{room: first paragraph of its docstring, as one line}."""
    found = {}
    for path, text in house.items():
        room, _slash, rest = path.partition("/")
        if rest == "__init__.py":
            docstring = ast.get_docstring(ast.parse(text, path)) or ""
            found[room] = " ".join(docstring.partition("\n\n")[0].split())
    return found


def direct_only(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph without the arrows that follow from others: a -> c goes if a -> b -> c is there."""
    return {
        node: {
            below
            for below in graph[node]
            if not any(below in reachable(graph, other) for other in graph[node] - {below})
        }
        for node in graph
    }


def _diagram(graph: dict[str, set[str]], floors: dict[str, int]) -> list[str]:
    lines = ["```mermaid", "flowchart TD"]
    for floor in sorted(set(floors.values()), reverse=True):
        rooms = sorted(room for room in floors if floors[room] == floor)
        lines.append(f'    subgraph floor{floor}["{floor}"]')
        lines.extend(f'        {room}["{room}"]' for room in rooms)
        lines.append("    end")
    arrows = direct_only(graph)
    for room in sorted(graph, key=lambda name: (-floors[name], name)):
        lines.extend(f"    {room} --> {below}" for below in sorted(arrows[room]))
    return [*lines, "```"]


def _table(graph: dict[str, set[str]], floors: dict[str, int], subjects: dict[str, str]) -> list[str]:
    lines = ["| Floor | Room | Subject | Imports |", "| --- | --- | --- | --- |"]
    for room in sorted(graph, key=lambda name: (-floors[name], name)):
        below = sorted(graph[room], key=lambda name: (-floors[name], name))
        names = ", ".join(f"`{name}`" for name in below) or "nothing"
        lines.append(f"| {floors[room]} | `{room}` | {subjects[room]} | {names} |")
    return lines


def with_picture(page: str, drawn: str) -> str:
    """The page with the picture between the two marks. Raises ValueError if it does not have both."""
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page does not have the two lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{drawn}\n\n{END}{after}"


def rooms_of(house: dict[str, str]) -> set[str]:
    """The top folders, and in a flat tree the files, of the house."""
    return {room_of(path.replace("/", ".")) for path in house}
