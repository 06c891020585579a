# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be counted in a source tree: its shape, its width, its functions and their annotations."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from .imports import Import, circles_of, depths_of, graph_of, imports_of, room_graph, room_of
from .sources import house_of

# Lines may have this many columns, functions this many lines.
WIDTH = 110
LENGTH = 40
# How many of the widest import lists are shown, and how many members of a circle.
WIDEST = 5
LISTED = 4
# The second line of every file is longer, as Ansible wants it.
LICENCE = "# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or "

Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def numbers_of(sources: dict[str, str]) -> dict[str, Any]:
    """
    Plain data about the sources: {path: text}. All but lines_over_110 is about plugins/module_utils alone.
    """
    house = house_of(sources)
    imports = imports_of(house)
    functions = [(path, node) for path in sorted(house) for node in _functions(house[path], path)]
    long = [f"{path}:{node.lineno} {node.name}" for path, node in functions if _length(node) > LENGTH]
    hidden = [f"{each.importer}:{each.line} -> {each.imported}" for each in imports if each.hidden]
    return {
        "files_per_folder": _files_per_folder(house),
        "floors": max(depths_of(room_graph(imports)).values(), default=min(len(house), 1)),
        "circles_of_files": [list(circle) for circle in circles_of(graph_of(imports))],
        "circles_of_rooms": [list(circle) for circle in circles_of(room_graph(imports))],
        "imports_in_functions": hidden,
        "lines_over_110": _wide_lines(sources),
        "functions": len(functions),
        "functions_over_40_lines": long,
        "functions_annotated": sum(_is_annotated(node) for _path, node in functions),
        "widest_import_lists": _widest(imports),
    }


def _files_per_folder(house: dict[str, str]) -> dict[str, int]:
    """{"_block": 11}, without __init__.py; "." is plugins/module_utils itself."""
    counts: dict[str, int] = {}
    for path in house:
        folder, _slash, name = path.rpartition("/")
        if name != "__init__.py":
            counts[folder or "."] = counts.get(folder or ".", 0) + 1
    return dict(sorted(counts.items()))


def _wide_lines(sources: dict[str, str]) -> dict[str, int]:
    """
    How many lines have more than WIDTH characters, in the house and in all Python and all YAML files;
    licences do not count.
    """
    counts = {"module_utils": 0, "python": 0, "yaml": 0}
    house = {f"plugins/module_utils/{path}" for path in house_of(sources)}
    for path, text in sources.items():
        wide = sum(len(line) > WIDTH and not line.startswith(LICENCE) for line in text.splitlines())
        counts["python" if path.endswith(".py") else "yaml"] += wide
        counts["module_utils"] += wide if path in house else 0
    return counts


def _functions(text: str, path: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(ast.parse(text, path)) if isinstance(node, Function)]


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from "def" to the last one, the docstring included."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _is_annotated(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether the result and all arguments, but for self, cls and mcs, have an annotation."""
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    if named and named[0].arg in ("self", "cls", "mcs"):
        named = named[1:]
    rest = [each for each in (arguments.vararg, arguments.kwarg) if each]
    return all(each.annotation for each in named + rest) and node.returns is not None


def _widest(imports: list[Import]) -> dict[str, int]:
    """{module: how many other modules of the house it imports}, of those that import most."""
    counts = {module: len(imported) for module, imported in graph_of(imports).items()}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:WIDEST])


def circle_text(circle: Sequence[str]) -> str:
    """ "_block.device <-> _block.node"; of a large circle, where it is and how many files it has."""
    if len(circle) <= LISTED:
        return " <-> ".join(circle)
    return f"{len(circle)} files of {', '.join(sorted({room_of(module) for module in circle}))}"


def as_text(numbers: dict[str, Any]) -> str:
    """The numbers as lines to read, with the places that a rule forbids below their count."""
    wide = numbers["lines_over_110"]
    folders = numbers["files_per_folder"]
    lines = [
        f"files: {sum(folders.values())} in {len(folders)} folders",
        *(f"    {folder}: {count}" for folder, count in folders.items()),
        f"floors: {numbers['floors']}",
    ]
    for key, title in (("circles_of_files", "circles of files"), ("circles_of_rooms", "circles of rooms")):
        lines.append(f"{title}: {len(numbers[key])}")
        lines.extend(f"    {circle_text(circle)}" for circle in numbers[key])
    lines.append(f"imports inside functions: {len(numbers['imports_in_functions'])}")
    lines.extend(f"    {place}" for place in numbers["imports_in_functions"])
    lines.append(
        f"lines over {WIDTH} columns: {wide['module_utils']} in plugins/module_utils, "
        f"{wide['python']} in all Python files, {wide['yaml']} in all YAML files"
    )
    lines.append(f"functions over {LENGTH} lines: {len(numbers['functions_over_40_lines'])}")
    lines.extend(f"    {place}" for place in numbers["functions_over_40_lines"])
    lines.append(
        f"functions with full annotations: {numbers['functions_annotated']} of {numbers['functions']}"
    )
    lines.append("widest import lists:")
    lines.extend(f"    {module}: {count}" for module, count in numbers["widest_import_lists"].items())
    return "\n".join(lines) + "\n"
