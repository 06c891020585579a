# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The configuration of an xl guest: its assignments with their positions, its name and its disks.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. The grammar is that of xl (tools/libs/util/libxlu_cfg_y.y of Xen). ``name = value`` replaces an earlier
value, ``name += value`` adds to it. A list ends at its bracket, over any number of lines and comments.
"""

from __future__ import annotations

from typing import NamedTuple

from . import disk_text
from .disk_text import DiskText
from .tokens import Token, refuse, split, unquoted

MOST_BYTES = 1 << 20
_DEEPEST = 20
_ENDS = ("newline", ";")
_WORDS = {"newline": "the end of the line", "name": "a name", "number": "a number", "string": "a string"}


class Element(NamedTuple):
    """
    One element of a list. ``kind``: that of its token, or ``[`` for a list. ``comma``: the offset of the
    comma after it, or None.
    """

    kind: str
    start: int
    end: int
    line: int
    comma: int | None


class Assignment(NamedTuple):
    """
    ``adds``: whether it says ``+=``. ``start`` and ``end``: of the whole. ``value``: the first token of the
    value. ``elements``: of a list, otherwise None. ``closes``: the offset of the list's closing bracket.
    """

    name: str
    adds: bool
    start: int
    end: int
    value: Token
    elements: list[Element] | None
    closes: int


class Disk(NamedTuple):
    """One disk: the assignment in whose list it is, its position there, and what its text says."""

    place: Assignment
    position: int
    says: DiskText

    @property
    def element(self) -> Element:
        if self.place.elements is None:
            raise AssertionError
        return self.place.elements[self.position]


class Config:
    """
    A configuration that was read. ``text``: its bytes. ``path``: for messages.

    ``lists``: the assignments to ``disk``, all of which count. ``disks``: in the order in which xl reads
    them. DefinitionError, with line and reason, for a text that xl refuses or that can be misread.
    """

    def __init__(self, text: bytes, path: str) -> None:
        if len(text) > MOST_BYTES:
            raise refuse(path, 1, f"the file has {len(text)} bytes, more than {MOST_BYTES}")
        self.text = text
        self.path = path
        self.assignments = _Parser(text, path).assignments()
        self.lists = self._disk_lists()
        self.disks = [
            Disk(place, index, self._says(element))
            for place in self.lists
            for index, element in enumerate(place.elements or ())
        ]
        self._refuse_double()

    @property
    def name(self) -> str | None:
        """The guest's name, or None if the configuration has none, so that xl is told it elsewhere."""
        found = [each for each in self.assignments if each.name == "name"]
        if not found:
            return None
        last = found[-1]
        if last.adds or last.elements is not None or last.value.kind != "string":
            raise refuse(self.path, last.value.line, "name must be a string")
        return self._string(last.value).decode("utf-8", "surrogateescape")

    @property
    def is_hvm(self) -> bool:
        """Whether xl starts an HVM guest: ``type`` counts, or else ``builder`` (xl_parse.c of Xen)."""
        said = {}
        for each in self.assignments:
            if each.name in ("type", "builder") and each.value.kind == "string":
                said[each.name] = self._string(each.value)
        return said.get("type", said.get("builder")) == b"hvm"

    def disk(self, vdev: str) -> Disk | None:
        """The disk with this vdev, whatever way it is written."""
        key = disk_text.key_of(vdev)
        return next((disk for disk in self.disks if disk.says.key == key), None)

    def source_of(self, disk: Disk) -> str:
        """The disk's text as it is in the file, with its quotes."""
        return self.text[disk.element.start : disk.element.end].decode("utf-8", "backslashreplace")

    def _disk_lists(self) -> list[Assignment]:
        found = [each for each in self.assignments if each.name == "disk"]
        for number, each in enumerate(found):
            if number and not each.adds:
                reason = (
                    f"disk is assigned a second time, after line {found[number - 1].value.line}: "
                    "only the last one counts, so it is unclear which one is meant"
                )
                raise refuse(self.path, each.value.line, reason, "Keep one of the two, or write += here")
            if each.elements is None:
                raise refuse(self.path, each.value.line, "disk is not a list, so xl ignores it")
            for element in each.elements:
                if element.kind != "string":
                    reason = "an element of disk is not a string, and xl ignores what follows a list"
                    raise refuse(self.path, element.line, reason)
        return found

    def _says(self, element: Element) -> DiskText:
        raw = self._string(Token("string", element.start, element.end, element.line))
        text = raw.decode("utf-8", "surrogateescape")
        try:
            return disk_text.parse(text)
        except ValueError as error:
            raise refuse(self.path, element.line, f"a disk cannot be read: {error}") from error

    def _string(self, token: Token) -> bytes:
        return unquoted(self.text[token.start : token.end])

    def _refuse_double(self) -> None:
        seen: dict[object, Disk] = {}
        for disk in self.disks:
            other = seen.setdefault(disk.says.key, disk)
            if other is not disk:
                reason = f"{disk.says.vdev} is a disk already, in line {other.element.line}"
                raise refuse(self.path, disk.element.line, reason, "Keep one of the two")


class _Parser:
    def __init__(self, text: bytes, path: str) -> None:
        self._text = text
        self._path = path
        self._tokens = split(text, path)
        self._next = 0
        lines = text.count(b"\n") + 1
        self._end = Token("the end of the file", len(text), len(text), lines)

    def assignments(self) -> list[Assignment]:
        found: list[Assignment] = []
        while True:
            while self._peek().kind in _ENDS:
                self._take()
            if self._peek() is self._end:
                return found
            found.append(self._assignment())
            if self._peek() is not self._end:
                self._need(*_ENDS)

    def _assignment(self) -> Assignment:
        name = self._need("name")
        sign = self._need("=", "+=")
        value = self._need("string", "number", "[")
        elements, last = None, value
        if value.kind == "[":
            elements, last = self._list(1)
        text = self._text[name.start : name.end].decode("ascii")
        return Assignment(text, sign.kind == "+=", name.start, last.end, value, elements, last.start)

    def _list(self, depth: int) -> tuple[list[Element], Token]:
        """The elements and the closing bracket of a list whose opening one was taken."""
        elements: list[Element] = []
        self._skip_newlines()
        while self._peek().kind != "]":
            value = self._need("string", "number", "[", "]")
            last = self._nested(value, depth) if value.kind == "[" else value
            self._skip_newlines()
            comma = self._take() if self._peek().kind == "," else None
            elements.append(
                Element(value.kind, value.start, last.end, value.line, None if comma is None else comma.start)
            )
            self._skip_newlines()
            if comma is None and self._peek().kind != "]":
                self._need(",", "]")
        return elements, self._take()

    def _nested(self, value: Token, depth: int) -> Token:
        if depth == _DEEPEST:
            raise refuse(self._path, value.line, f"lists are nested deeper than {_DEEPEST} levels")
        return self._list(depth + 1)[1]

    def _skip_newlines(self) -> None:
        while self._peek().kind == "newline":
            self._take()

    def _peek(self) -> Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else self._end

    def _take(self) -> Token:
        token = self._peek()
        self._next += 1
        return token

    def _need(self, *kinds: str) -> Token:
        token = self._take()
        if token.kind in kinds:
            return token
        wanted = " or ".join(_WORDS.get(kind, kind) for kind in kinds)
        raise refuse(
            self._path, token.line, f"{_WORDS.get(token.kind, token.kind)} is there instead of {wanted}"
        )
