# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Imports between the files of plugins/module_utils.

A module is named by its place: "_block.loop", and "_dm_table" for that folder's __init__.py. The room of a
module is the top folder that it is in; in a flat tree, each file at the top is a room of its own.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

PREFIX = "ansible_collections.racefree.block.plugins.module_utils"


@dataclass(frozen=True)
class Import:
    """One import of one module by another; hidden: inside a function; line: where in the importer's file."""

    importer: str
    imported: str
    hidden: bool
    line: int


def module_name(path: str) -> str:
    """ "_block/loop.py" -> "_block.loop"; "_dm_table/__init__.py" -> "_dm_table"."""
    name = path[: -len(".py")].replace("/", ".")
    return name[: -len(".__init__")] if name.endswith(".__init__") else name


def room_of(module: str) -> str:
    """ "_dm_table.grammar.slot" -> "_dm_table"."""
    return module.split(".", 1)[0]


def imports_of(house: dict[str, str]) -> list[Import]:
    """All imports between the files; house: {"_block/loop.py": text}."""
    modules = {module_name(path) for path in house}
    found = []
    for path, text in sorted(house.items()):
        name = module_name(path)
        package = name if path.endswith("__init__.py") else name.rpartition(".")[0]
        for node, hidden in _import_statements(ast.parse(text, path)):
            for imported in sorted(_targets(node, package, modules) - {name}):
                found.append(Import(name, imported, hidden, node.lineno))
    return found


def _import_statements(tree: ast.Module) -> list[tuple[ast.Import | ast.ImportFrom, bool]]:
    """(statement, whether it is inside a function), of all import statements."""
    found: list[tuple[ast.Import | ast.ImportFrom, bool]] = []

    def visit(node: ast.AST, hidden: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                found.append((child, hidden))
            else:
                visit(child, hidden or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    visit(tree, False)
    return found


def _targets(node: ast.Import | ast.ImportFrom, package: str, modules: set[str]) -> set[str]:
    """The modules of the house that a statement in a module of the package imports."""
    if isinstance(node, ast.Import):
        return {_within(alias.name) for alias in node.names} & modules
    if node.level:
        parts = package.split(".") if package else []
        if node.level - 1 > len(parts):
            return set()
        parts = parts[: len(parts) - (node.level - 1)]
        base = ".".join(parts + (node.module.split(".") if node.module else []))
    elif node.module and (node.module + ".").startswith(PREFIX + "."):
        base = _within(node.module)
    else:
        return set()
    named = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
    from_base = {base} if named - modules else set()
    return (named | from_base) & modules


def _within(name: str) -> str:
    """The name of a module relative to plugins/module_utils; unchanged for modules from elsewhere."""
    return name[len(PREFIX) + 1 :] if f"{name}.".startswith(PREFIX + ".") else name


def graph_of(imports: list[Import]) -> dict[str, set[str]]:
    """{module: modules that it imports}."""
    graph: dict[str, set[str]] = {}
    for each in imports:
        graph.setdefault(each.importer, set()).add(each.imported)
        graph.setdefault(each.imported, set())
    return graph


def room_graph(imports: list[Import]) -> dict[str, set[str]]:
    """{room: other rooms that its files import}."""
    graph: dict[str, set[str]] = {}
    for each in imports:
        importer, imported = room_of(each.importer), room_of(each.imported)
        graph.setdefault(importer, set())
        graph.setdefault(imported, set())
        if importer != imported:
            graph[importer].add(imported)
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """All that start leads to; start itself only if it is in a circle."""
    found: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(graph.get(node, ()))
    return found


def circles_of(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Groups in which each member leads to every other one, sorted. Empty: there is no circle."""
    leads_to = {node: reachable(graph, node) for node in graph}
    groups = {
        tuple(sorted(other for other in graph if other in leads_to[node] and node in leads_to[other]))
        for node in graph
        if node in leads_to[node]
    }
    return sorted(groups)


def depths_of(graph: dict[str, set[str]]) -> dict[str, int]:
    """
    How high each node stands: 1 if it imports nothing, else one above the highest that it imports. A circle
    counts as one node.
    """
    circle_of = {member: circle for circle in circles_of(graph) for member in circle}
    depths: dict[str, int] = {}

    def depth(node: str) -> int:
        if node not in depths:
            members = circle_of.get(node, (node,))
            below = {other for member in members for other in graph[member]} - set(members)
            height = 1 + max((depth(other) for other in below), default=0)
            depths.update(dict.fromkeys(members, height))
        return depths[node]

    for node in graph:
        depth(node)
    return depths
