# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Compare two tables.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from . import redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .grammar.target import Target


class Comparison:
    """
    The result of a comparison; true if the tables are equal. ``differences`` are dictionaries with ``line``
    (from 1), ``target``, ``field``, ``old`` and ``new``, with secrets hidden. ``unknown`` lists ``(line,
    field)`` of values that cannot be compared because one side hides them.
    """

    __slots__ = ("differences", "unknown")

    def __init__(self) -> None:
        self.differences: list[dict[str, Any]] = []
        self.unknown: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        return not self.differences

    def __repr__(self) -> str:
        return f"Comparison(differences={self.differences!r}, unknown={self.unknown!r})"


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested plain data to ``{path: value}``; device sources are kept whole."""
    result: dict[str, Any] = {}
    for key, value in plain.items():
        _flatten(value, f"{prefix}{key}", result)
    return result


def _flatten(value: Any, path: str, result: dict[str, Any]) -> None:
    if isinstance(value, list) and value and all(isinstance(member, dict) for member in value):
        for index, member in enumerate(value):
            for key, part in member.items():
                _flatten(part, f"{path}[{index}].{key}", result)
    elif isinstance(value, dict) and not {"path", "file", "table", "diskseq"} & set(value):
        for key, part in value.items():
            _flatten(part, f"{path}.{key}", result)
    else:
        result[path] = value


def compare(old: Sequence[Target], new: Sequence[Target]) -> Comparison:
    """Compare two sequences of targets; a ``Comparison``."""
    result = Comparison()
    for index in range(max(len(old), len(new))):
        mine = old[index] if index < len(old) else None
        theirs = new[index] if index < len(new) else None
        if mine == theirs:
            continue
        _compare_targets(index + 1, mine, theirs, result)
    return result


def _line(target: Target | None) -> str | None:
    return None if target is None else redact.target(target).line()


def _compare_targets(number: int, old: Any, new: Any, result: Comparison) -> None:
    if old is None or new is None or type(old) is not type(new):
        known = new if new is not None else old
        result.differences.append(
            {"line": number, "target": known.TYPE, "field": "target", "old": _line(old), "new": _line(new)}
        )
        return
    old, new = old.canonical(), new.canonical()
    if old == new:
        return
    before, after = flatten(old.to_dict()), flatten(new.to_dict())
    shown_before, shown_after = flatten(redact.target(old).to_dict()), flatten(redact.target(new).to_dict())
    for path in list(before) + [path for path in after if path not in before]:
        mine, theirs = before.get(path), after.get(path)
        if mine == theirs:
            continue
        same = new.same_field(path, mine, theirs)
        if same is None:
            result.unknown.append((number, path))
        elif not same:
            result.differences.append(
                {
                    "line": number,
                    "target": old.TYPE,
                    "field": path,
                    "old": shown_before.get(path),
                    "new": shown_after.get(path),
                }
            )
