# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The graph of files, devices and disks of guests, from the results of device_info and xen_vbd_info. Pure.

Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class Node(NamedTuple):
    """``key``: unique in the graph; the first part is its kind. ``label``: one line of text for people."""

    key: tuple[str, ...]
    label: str


class Graph:
    """
    ``nodes``: by key, in the order in which they were found. ``above``: the keys of the nodes directly above
    each node.
    """

    def __init__(self) -> None:
        self.nodes: dict[tuple[str, ...], Node] = {}
        self.above: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        self._has_below: set[tuple[str, ...]] = set()

    def add(self, node: Node) -> None:
        """Add a node, or replace the label of one that is known only by name."""
        self.nodes[node.key] = node
        self.above.setdefault(node.key, [])

    def connect(self, lower: tuple[str, ...], upper: tuple[str, ...]) -> None:
        """Both nodes were added."""
        if upper not in self.above[lower]:
            self.above[lower].append(upper)
        self._has_below.add(upper)

    def lowest(self) -> list[tuple[str, ...]]:
        """The keys of the nodes that stand on nothing, sorted by label."""
        keys = [key for key in self.nodes if key not in self._has_below]
        return sorted(keys, key=lambda key: self.nodes[key].label)

    def edges(self) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        """All pairs (lower key, upper key)."""
        for lower, uppers in self.above.items():
            for upper in uppers:
                yield lower, upper


def build(devices: Iterable[Mapping[str, Any]], vbds: Iterable[Mapping[str, Any]] = ()) -> Graph:
    """
    The Graph of ``devices`` (as device_info returns them) and ``vbds`` (as xen_vbd_info does). Raises
    ValueError if a row lacks what such a row has.
    """
    graph = Graph()
    try:
        rows = list(devices)
        for row in rows:
            graph.add(Node(_device(row["name"], row["diskseq"]), _device_label(row)))
        for row in rows:
            _connect(graph, row)
        for row in vbds:
            _add_vbd(graph, row)
    except (KeyError, TypeError, AttributeError) as error:
        wrong = "these are not rows as device_info and xen_vbd_info return them"
        raise ValueError(f"{wrong} ({type(error).__name__}: {error})") from error
    return graph


def _device(name: str, diskseq: int | None) -> tuple[str, ...]:
    return "device", name, str(diskseq)


def _device_label(row: Mapping[str, Any]) -> str:
    details = [f"diskseq {row['diskseq']}", _size(row["size"])]
    if row.get("read_only"):
        details.append("read-only")
    if row.get("sealed"):
        details.append("sealed")
    if row.get("suspended"):
        details.append("suspended")
    table = row.get("table") or ()
    targets = list(dict.fromkeys(line.split(" ")[2] for line in table))
    title = row["name"] if row.get("mapper_name") is None else f"{row['mapper_name']} ({row['name']})"
    return f"{title}: {', '.join([*targets, *details])}"


def _connect(graph: Graph, row: Mapping[str, Any]) -> None:
    own = _device(row["name"], row["diskseq"])
    file = row.get("backing_file")
    if file is not None:
        lower = Node(("file", file), file)
        graph.add(lower)
        graph.connect(lower.key, own)
    for other in row.get("slaves") or ():
        graph.connect(_known(graph, other), own)
    for other in row.get("holders") or ():
        graph.connect(own, _known(graph, other))
    for user in row.get("used_by") or ():
        if user.startswith("mount "):
            mount = Node(("mount", user), f"mounted at {user[6:]}")
            graph.add(mount)
            graph.connect(own, mount.key)


def _known(graph: Graph, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The key of a neighbour, which may have no row of its own, such as a physical disk."""
    key = _device(row["name"], row["diskseq"])
    if key not in graph.nodes:
        graph.add(Node(key, f"{row['name']}: diskseq {row['diskseq']}"))
    return key


def _add_vbd(graph: Graph, row: Mapping[str, Any]) -> None:
    guest = row["domain"] or f"domain {row['domid']}"
    state = "connected" if row["connected"] else "not connected"
    wrong = f", {row['problem']}" if row["problem"] else ""
    name = row["vdev"] or str(row["devid"])
    node = Node(
        ("vbd", str(row["domid"]), str(row["devid"])),
        f"{name} of guest {guest}: mode {row['mode']}, {state}{wrong}",
    )
    graph.add(node)
    device = row["device"]
    if device is not None and device["name"] is not None:
        graph.connect(_known(graph, device), node.key)


def _size(size: int) -> str:
    """A size in bytes with a unit of 1024, exact or with one decimal."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if value == int(value) else f"{value:.1f} {_UNITS[unit]}"


def tree(graph: Graph) -> str:
    """
    The graph as an indented tree, files and disks first, guests last. What stands on several devices appears
    below each of them; what is above it is shown only once.
    """
    lines: list[str] = []
    shown: set[tuple[str, ...]] = set()
    for key in graph.lowest():
        _branch(graph, key, "", "", lines, shown)
    return "\n".join(lines)


def _branch(
    graph: Graph,
    key: tuple[str, ...],
    first: str,
    rest: str,
    lines: list[str],
    shown: set[tuple[str, ...]],
) -> None:
    above = sorted(graph.above[key], key=lambda other: graph.nodes[other].label)
    is_repeated = key in shown and bool(above)
    lines.append(first + graph.nodes[key].label + (" (see above)" if is_repeated else ""))
    if is_repeated:
        return
    shown.add(key)
    for other in above:
        is_last = other == above[-1]
        corner, line = ("└── ", "    ") if is_last else ("├── ", "│   ")
        _branch(graph, other, rest + corner, rest + line, lines, shown)


def mermaid(graph: Graph) -> str:
    """The graph as a flow chart of Mermaid, from files and disks to guests."""
    numbers = {key: f"n{number}" for number, key in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    lines += [f'    {numbers[key]}["{_for_mermaid(node.label)}"]' for key, node in graph.nodes.items()]
    lines += [f"    {numbers[lower]} --> {numbers[upper]}" for lower, upper in graph.edges()]
    return "\n".join(lines)


def _for_mermaid(text: str) -> str:
    """Mermaid has entity codes for characters with a meaning of their own."""
    for character, code in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("&", "#amp;")):
        text = text.replace(character, code)
    return text.replace("\n", " ")


def dot(graph: Graph) -> str:
    """The graph in the language of Graphviz, from files and disks to guests."""
    numbers = {key: f"n{number}" for number, key in enumerate(graph.nodes)}
    lines = ["digraph stack {", "    rankdir=LR;", "    node [shape=box];"]
    lines += [f'    {numbers[key]} [label="{_for_dot(node.label)}"];' for key, node in graph.nodes.items()]
    lines += [f"    {numbers[lower]} -> {numbers[upper]};" for lower, upper in graph.edges()]
    return "\n".join([*lines, "}"])


def _for_dot(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
