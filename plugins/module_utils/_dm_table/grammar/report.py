# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Collect the errors of a table and their positions.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from ..._base.errors import TableError, shown
from .context import Context
from .text import hide_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any, Protocol

    from .stops import Stop

    class Redactor(Protocol):
        """Redacts input for display: ``_dm_table.redact``."""

        def error_value(self, value: Any, name: str | None, field: str) -> Any: ...

        def error_line(self, written: Any) -> str | None: ...


_SHOWN = 20
# A rule that begins with one of these is a predicate; any other completes "must be".
_PREDICATES = ("is ", "must ", "needs ", "cannot ")
_WIDTH = 140


class Report:
    """
    The errors of one table. ``context`` is never None.

    ``redactor`` redacts the input: ``error_value(value, target type, field)`` and ``error_line(line or
    dictionary)``. Errors contain only redacted input.
    """

    __slots__ = ("context", "redactor", "errors")

    def __init__(self, context: Context | None, redactor: Redactor) -> None:
        self.context = context or Context(read_only=None)
        self.redactor = redactor
        self.errors: list[dict[str, Any]] = []

    def line(self, number: int | None, text: Any, target: str | None = None) -> LineReport:
        return LineReport(self, number, text, target)

    def raise_if_any(self) -> None:
        if self.errors:
            self.errors.sort(
                key=lambda error: (error["line"] or 0, -1 if error["column"] is None else error["column"])
            )
            raise TableError(message(self.errors), self.errors)


class LineReport:
    """
    The errors of one target.

    ``text``: the line as it was written, or a dictionary. ``columns`` maps a field's path to its column.
    ``failed``: whether an error was found.
    """

    __slots__ = ("table", "number", "text", "target", "columns", "failed")

    def __init__(self, table: Report, number: int | None, text: Any, target: str | None) -> None:
        self.table = table
        self.number = number
        self.text = text
        self.target = target
        self.columns: dict[str, int] = {}
        self.failed = False

    @property
    def context(self) -> Context:
        return self.table.context

    def error(
        self, field: str, value: Any, rule: str, column: int | None = None, kernels: Sequence[str] = ()
    ) -> None:
        """
        Report an error. ``rule`` is what the value must be, such as "at most 5 sectors", or says what is
        wrong in words that follow the name of the field, such as "is missing". ``kernels`` lists those that
        reject the value.
        """
        self.failed = True
        if column is None:
            column = self.columns.get(field)
        redactor = self.table.redactor
        if not rule.startswith(_PREDICATES):
            rule = f"must be {rule}"
        if kernels:
            rule = f"{rule} (refused by Linux {', '.join(kernels)})"
        entry = {
            "line": self.number,
            "target": self.target,
            "field": hide_secrets(field),
            "value": redactor.error_value(value, self.target, field),
            "rule": hide_secrets(rule),
            "column": column,
            "text": None if self.text is None else redactor.error_line(self.text),
        }
        if kernels:
            entry["kernels"] = list(kernels)
        self.table.errors.append(entry)

    def stops(self, stop: Stop, field: str, value: Any, rule: str) -> None:
        """
        Report that the table contains ``stop`` (``_dm_table.grammar.stops.Stop``): an error if it would stop
        a kernel in question, a warning if the kernel is unknown. ``rule`` describes what is allowed.
        """
        stopped = self.context.stopped_since(stop.since)
        since = f"Linux {stop.since[0]}.{stop.since[1]} and newer"
        if stopped:
            self.error(field, value, f"{rule}: Linux {', '.join(stopped)} {stop.happens} ({stop.name})")
            self.table.errors[-1]["stops"] = stop.name
        elif stopped is None and self.context.warn is not None:
            value = shown(self.table.redactor.error_value(value, self.target, field))
            self.context.warn(
                f"line {self.number}: {self.target}: {field} {value}: {since} {stop.happens} ({stop.name} in "
                f"docs/device-mapper-tables.md). Safe there: {rule}"
            )

    def need(self, takes: Collection[str], field: str, value: Any, rule: str) -> None:
        """Report an error unless the context's kernels are in ``takes``."""
        refused = self.context.refused_by(takes)
        if refused:
            self.error(field, value, rule, kernels=refused)


def _window(text: str, column: int) -> tuple[str, int]:
    """The part of a long line around ``column``, and the position of ``column`` in it."""
    if len(text) <= _WIDTH:
        return text, column
    start = max(0, min(column - _WIDTH // 2, len(text) - _WIDTH))
    head = "..." if start else ""
    tail = "..." if start + _WIDTH < len(text) else ""
    return head + text[start : start + _WIDTH] + tail, column - start + len(head)


def message(errors: list[dict[str, Any]]) -> str:
    """All errors as text, each with its line and a caret below the position."""
    count = len(errors)
    lines = [f"the table is not valid: {count} error{'' if count == 1 else 's'}"]
    for error in errors[:_SHOWN]:
        place = f"line {error['line']}: " if error["line"] else ""
        target = f"{error['target']}: " if error["target"] else ""
        value = "" if error["value"] is None else f" {shown(error['value'])}"
        lines.append(f"{place}{target}{error['field']}{value}: {error['rule']}")
        if error["text"] is not None:
            text, column = _window(error["text"].replace("\t", " "), error["column"] or 0)
            lines.append(f"    {text}")
            if error["column"] is not None:
                lines.append("    " + " " * column + "^")
    if count > _SHOWN:
        lines.append(f"and {count - _SHOWN} more")
    return "\n".join(lines)
