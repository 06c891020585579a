# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An XML parser whose elements know their positions in the text, so that a change leaves everything else
unchanged.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. Serializing a parsed tree would lose comments, quoting and namespace prefixes. Replacing a part of the
text does not.
"""

from __future__ import annotations

import functools
import re
from typing import overload
from xml.parsers import expat
from xml.sax.saxutils import escape

from .._base.errors import DefinitionError

# Limits in bytes and in levels of elements. libxml2, which libvirt uses, has limits of 10 MB and 256.
MOST_BYTES = 10_000_000
DEEPEST = 256
_SPACE = b" \t\r\n"
# The separator between a namespace and a name. No document can contain this character.
_SEPARATOR = "\f"
# Matches a well-formed start tag that expat has just accepted.
_TAG = re.compile(rb"<([^\s/>]+)((?:\s+[^\s=/>]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*)\s*(/?)>")
_ATTRIBUTE = re.compile(rb"\s+([^\s=]+)\s*=\s*(\"[^\"]*\"|'[^']*')")
# Characters that XML 1.0 cannot contain, not even as a character reference.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Element:
    """
    One element. ``namespace``: "" for none. ``attributes``: by name, without those that have a prefix.

    Offsets in bytes: ``start`` of its ``<``, ``inside`` and ``outside`` around its content, ``end`` behind
    its last ``>``. For ``<a/>``, ``inside``, ``outside`` and ``end`` are the same. ``text`` is its own
    character data.
    """

    __slots__ = (
        "attributes",
        "children",
        "end",
        "inside",
        "name",
        "namespace",
        "outside",
        "parent",
        "start",
        "text",
    )

    def __init__(
        self,
        namespace: str,
        name: str,
        attributes: dict[str, str],
        parent: Element | None,
        start: int,
        inside: int,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.attributes = attributes
        self.parent = parent
        self.start = start
        self.inside = inside
        self.outside = self.end = inside
        self.children: list[Element] = []
        self.text = ""

    @property
    def is_closed_at_once(self) -> bool:
        return self.inside == self.end

    def all(self, name: str, namespace: str = "") -> list[Element]:
        """The children of this name, in order."""
        return [child for child in self.children if (child.namespace, child.name) == (namespace, name)]

    def first(self, name: str, namespace: str = "") -> Element | None:
        """The first child of this name, or None."""
        return next(iter(self.all(name, namespace)), None)

    def required(self, name: str) -> Element:
        """The first child of this name without a namespace, which must exist."""
        child = self.first(name)
        if child is None:
            raise AssertionError(name)
        return child

    @overload
    def get(self, attribute: str) -> str | None: ...

    @overload
    def get(self, attribute: str, otherwise: str) -> str: ...

    def get(self, attribute: str, otherwise: str | None = None) -> str | None:
        return self.attributes.get(attribute, otherwise)


def parse(raw: bytes) -> Element:
    """
    The root Element of a UTF-8 document (bytes), which nobody changes: edits make new text. DefinitionError
    if it is not XML, or has a document type declaration.
    """
    return _parsed(raw)


# One definition is looked at several times while its disk is planned, and parsing is most of the work then.
@functools.lru_cache(maxsize=4)
def _parsed(raw: bytes) -> Element:
    if len(raw) > MOST_BYTES:
        raise DefinitionError(
            f"the definition has {len(raw)} bytes, more than the {MOST_BYTES} that libvirt takes"
        )
    reader = _Reader(raw)
    try:
        reader.parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise DefinitionError(
            f"the definition is not XML: {expat.ErrorString(error.code)}, line {error.lineno}, "
            f"column {error.offset}"
        ) from error
    # A document without an element is not well-formed.
    if reader.root is None:
        raise AssertionError
    return reader.root


def _tag_at(raw: bytes, at: int) -> re.Match[bytes]:
    """The start tag at this position, which is known to begin there."""
    tag = _TAG.match(raw, at)
    if tag is None:
        raise AssertionError(at)
    return tag


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.root: Element | None = None
        self.stack: list[Element] = []
        # The declared encoding was that of a file. This text is UTF-8.
        self.parser = parser = expat.ParserCreate("utf-8", _SEPARATOR)
        parser.buffer_text = True
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.characters
        # Entities can be declared only there, so none can be expanded or read from elsewhere.
        parser.StartDoctypeDeclHandler = self.doctype

    def doctype(self, *dummy: object) -> None:
        raise DefinitionError(
            f"the definition has a document type declaration (line {self.parser.CurrentLineNumber}), "
            "which no definition needs"
        )

    def start(self, name: str, attributes: dict[str, str]) -> None:
        at = self.parser.CurrentByteIndex
        if len(self.stack) >= DEEPEST:
            raise DefinitionError(f"the definition has more than {DEEPEST} levels of elements")
        namespace, dummy, local = name.rpartition(_SEPARATOR)
        attributes = {key: value for key, value in attributes.items() if _SEPARATOR not in key}
        element = Element(
            namespace,
            local,
            attributes,
            self.stack[-1] if self.stack else None,
            at,
            _tag_at(self.raw, at).end(),
        )
        if self.stack:
            self.stack[-1].children.append(element)
        else:
            self.root = element
        self.stack.append(element)

    def end(self, dummy: object) -> None:
        element = self.stack.pop()
        if self.raw[element.inside - 2 : element.inside] != b"/>":
            element.outside = self.parser.CurrentByteIndex
            element.end = self.raw.index(b">", element.outside) + 1

    def characters(self, text: str) -> None:
        self.stack[-1].text += text


class Edits:
    """Replacements of parts of a document, collected and applied together. Parts do not overlap."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._pieces: list[tuple[int, int, bytes]] = []

    def replace(self, start: int, end: int, text: str) -> None:
        self._pieces.append((start, end, text.encode("utf-8")))

    def insert(self, at: int, text: str) -> None:
        self.replace(at, at, text)

    def remove(self, element: Element) -> None:
        """Remove an element and its indentation, including the line end before it."""
        self.replace(self.space_before(element.start), element.end, "")

    def space_before(self, at: int) -> int:
        """
        Start of the line end and indentation before ``at``; ``at`` itself if it is not the first on its line.
        """
        start = at
        while self._raw[start - 1 : start] in (b" ", b"\t"):
            start -= 1
        if self._raw[start - 1 : start] != b"\n":
            return at
        return start - (2 if self._raw[start - 2 : start - 1] == b"\r" else 1)

    def indent(self, element: Element) -> str:
        """The line end and indentation before an element. Empty if it is not the first on its line."""
        return self._raw[self.space_before(element.start) : element.start].decode()

    def set_attribute(self, element: Element, name: str, value: str) -> None:
        """Set an attribute (without a prefix) of an element. An existing one is replaced in place."""
        tag = _tag_at(self._raw, element.start)
        for found in _ATTRIBUTE.finditer(self._raw, tag.start(2), tag.end(2)):
            if found.group(1) == name.encode():
                self.replace(found.start(2), found.end(2), quoted(value))
                return
        self.insert(tag.end(1), f" {name}={quoted(value)}")

    def fill(self, element: Element, text: str, last_indent: str) -> None:
        """Give an element without content this content."""
        if element.is_closed_at_once:
            tag = _tag_at(self._raw, element.start)
            self.replace(tag.start(3), element.end, f">{text}{last_indent}</{tag.group(1).decode()}>")
        else:
            self.insert(element.inside, text)

    def prefix(self, element: Element) -> str:
        """The prefix of an element's own tag with its colon, or an empty text."""
        prefix, colon, dummy = _tag_at(self._raw, element.start).group(1).decode().rpartition(":")
        return prefix + colon

    def is_blank(self, start: int, end: int) -> bool:
        """Whether only white space is left between two positions after all replacements."""
        at, left = start, b""
        for first, last, text in sorted(self._pieces):
            if start <= first and last <= end:
                left += self._raw[at:first] + text
                at = last
        return not (left + self._raw[at:end]).strip(_SPACE)

    def drop_within(self, start: int, end: int) -> None:
        """Drop the edits inside a part that is removed as a whole."""
        self._pieces = [piece for piece in self._pieces if not (start <= piece[0] and piece[1] <= end)]

    def done(self) -> bytes:
        """The changed document."""
        result, at = [], 0
        # Sorting is stable, so edits at one position keep their order.
        for start, end, text in sorted(self._pieces, key=lambda piece: piece[:2]):
            result += [self._raw[at:start], text]
            at = end
        return b"".join(result + [self._raw[at:]])


def quoted(value: str) -> str:
    """
    A value as the text of an attribute, with its quotes. Line ends and tabs are kept, as character
    references.
    """
    return (
        "'" + text_of(value, {"'": "&apos;", '"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}) + "'"
    )


def text_of(value: str, more: dict[str, str] | None = None) -> str:
    """A value as character data. DefinitionError for characters that XML cannot express."""
    found = _FORBIDDEN.search(value)
    if found:
        raise DefinitionError(f"the character U+{ord(found.group()):04X} cannot be written in XML")
    return escape(value, more or {})
