# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Parse the user's input into targets.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import re
from collections import namedtuple

from .grammar.fields import BAD, Number
from .grammar.limits import Limits
from .grammar.text import cut_comment, find_control, find_not_ascii, split_words, strip_end
from .targets.linear import read_fast
from .targets.registry import TARGETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Protocol

    from .grammar.context import Context
    from .grammar.report import LineReport, Redactor
    from .grammar.target import Target

    class AnyReport(Protocol):
        """A Report, or an object with the same interface."""

        @property
        def context(self) -> Context: ...

        @property
        def redactor(self) -> Redactor: ...

        def line(self, number: int | None, text: Any, target: str | None = None) -> LineReport: ...


START = Number("start", high=Limits.SECTORS, unit="sectors")
LENGTH = Number("length", low=1, high=Limits.SECTORS, unit="sectors")

_HEAD = re.compile(r"[ \t]*(?:([^ \t]+)(?:[ \t]+([^ \t]+)(?:[ \t]+([^ \t]+)[ \t]*)?)?)?")
_CARRIED = ("file:", "path:", "{")

# A line of the table: number (from 1), input, target or None, and start and length, BAD if unreadable.
Line = namedtuple("Line", ("number", "written", "target", "start", "length"))


def entries(value: Any, report: AnyReport) -> Iterator[tuple[int, Any]]:
    """``(number, text or dictionary)`` for every line."""
    if isinstance(value, str):
        for number, text in enumerate(value.split("\n"), 1):
            if "#" in text:
                text = cut_comment(text)
            text = strip_end(text)
            if text and not text.isspace():
                yield number, text
    elif isinstance(value, (list, tuple)):
        for number, entry in enumerate(value, 1):
            if isinstance(entry, str):
                text = cut_comment(entry.rstrip("\n"))
                if text and not text.isspace():
                    yield number, text
            elif isinstance(entry, dict):
                yield number, entry
            else:
                report.line(number, None).error(
                    "table",
                    "(not shown)",
                    "a list in which each target is a line of text or a dictionary",
                )
    else:
        report.line(None, None).error("table", "(not shown)", "text, or a list of lines and dictionaries")


def _check_type(name: str, line: LineReport) -> type[Target] | None:
    """The class of a target type, or None after reporting an error."""
    if name not in TARGETS:
        if len(name) > Limits.TYPE_LENGTH:
            line.error("target", name, f"a target type of at most {Limits.TYPE_LENGTH} bytes")
        else:
            line.error("target", name, f"a known target type, one of {', '.join(TARGETS)}")
        return None
    return TARGETS[name]


def read_line(number: int, text: str, report: AnyReport) -> tuple[Line, LineReport]:
    """Parse one line of text; errors are added to ``report``."""
    line = report.line(number, text)
    position = find_control(text)
    if position is not None:
        line.error("line", text[position], "must not contain control characters except tabs", column=position)
        return Line(number, text, None, BAD, BAD), line
    head = _HEAD.match(text)
    if head is None:
        raise AssertionError
    start, length = _read_range(head, line)
    name = head.group(3)
    line.columns["target"] = len(text) if name is None else head.start(3)
    if name is None:
        line.error("target", None, "is missing: a target type")
        return Line(number, text, None, start, length), line
    kind = _check_type(name, line)
    if kind is None:
        return Line(number, text, None, start, length), line
    line.target = name
    words, columns = split_words(text, head.end())
    if not text.isascii():
        _check_ascii(words, columns, line)
    target = kind.from_words(start, length, words, columns, len(text), line)
    return Line(number, text, target, start, length), line


def _read_range(head: re.Match[str], line: LineReport) -> list[Any]:
    """The start and the length of a line, in sectors; BAD for one that is missing or wrong."""
    values = []
    for index, field in enumerate((START, LENGTH), 1):
        word = head.group(index)
        line.columns[field.name] = len(head.string) if word is None else head.start(index)
        if word is None:
            line.error(field.name, None, f"is missing: {field.rule}")
            values.append(BAD)
        else:
            values.append(field.read(word, field.name, line))
    return values


def _check_ascii(words: Iterable[str], columns: Iterable[int], line: LineReport) -> None:
    for word, column in zip(words, columns):
        if not word.isascii() and not word.startswith(_CARRIED):
            at = column + (find_not_ascii(word) or 0)
            line.error(
                "line", word, "ASCII only, because the kernel splits words at other characters", column=at
            )


def read_dict(number: int, plain: dict[str, Any], report: AnyReport) -> tuple[Line, LineReport]:
    """Parse one target in structured form; errors are added to ``report``."""
    line = report.line(number, plain)
    name = plain.get("target")
    values = []
    for field in (START, LENGTH):
        if plain.get(field.name) is None:
            line.error(field.name, None, f"is missing: {field.rule}")
            values.append(BAD)
        else:
            values.append(field.load(plain[field.name], field.name, line))
    start, length = values
    if not isinstance(name, str):
        line.error("target", name, "a string" if name is not None else "is missing: a target type")
        return Line(number, plain, None, start, length), line
    kind = _check_type(name, line)
    if kind is None:
        return Line(number, plain, None, start, length), line
    line.target = name
    target = kind.from_dict(
        start,
        length,
        {key: value for key, value in plain.items() if key not in ("start", "length", "target")},
        line,
    )
    return Line(number, plain, target, start, length), line


def read(number: int, written: Any, report: AnyReport) -> tuple[Line, LineReport]:
    """Parse one entry in either form."""
    if isinstance(written, str):
        return read_line(number, written, report)
    return read_dict(number, written, report)


def read_all(value: Any, report: AnyReport) -> list[Line]:
    """Parse all lines of a table into ``Line`` objects; errors are added to ``report``."""
    lines: list[Line] = []
    add = lines.append
    for number, written in entries(value, report):
        if isinstance(written, str):
            target = read_fast(written)
            if (
                target is not None
                and target.start <= Limits.SECTORS
                and target.length <= Limits.SECTORS
                and target.offset <= Limits.SECTORS
            ):
                add(Line(number, written, target, target.start, target.length))
                continue
        add(read(number, written, report)[0])
    return lines
