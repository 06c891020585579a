# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Split the configuration of an xl guest into the tokens that xl itself reads, with their positions.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. The rules are those of xl's scanner (tools/libs/util/libxlu_cfg_l.l of Xen). A configuration is bytes:
xl knows no encoding, and strings and comments may contain any bytes but NUL.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .._base.errors import DefinitionError

# A comment includes its newline, and counts as one. In a string, a backslash escapes any byte but a newline.
_TOKEN = re.compile(
    rb"""(?P<blank>[ \t]+)
    |(?P<name>[a-z][._0-9a-z]*)
    |(?P<number>[0-9][0-9a-fx]*)
    |(?P<newline>\n|\#[^\n]*\n)
    |(?P<string>'(?:[^'\\\n]|\\[^\n])*'|"(?:[^"\\\n]|\\[^\n])*")
    |(?P<sign>\+=|[,\[\]=;])""",
    re.VERBOSE,
)
_HINT = "Correct the file. xl -N create FILE says what xl itself reads, and starts nothing"
_ESCAPES = {ord(letter): ord(meant) for letter, meant in zip("\"'\\abfnrtv", "\"'\\\a\b\f\n\r\t\v")}


class Token(NamedTuple):
    """
    ``kind``: ``name``, ``number``, ``string``, ``newline``, or for a sign its text. ``start`` and ``end``:
    offsets in bytes, ``end`` exclusive. ``line``: from 1.
    """

    kind: str
    start: int
    end: int
    line: int


def refuse(path: str, line: int, reason: str, hint: str = _HINT) -> DefinitionError:
    """The error to raise for a configuration that cannot be read safely."""
    return DefinitionError(f"line {line}: {reason}", device=path, hint=hint)


def split(text: bytes, path: str) -> list[Token]:
    """The tokens without blanks. DefinitionError for what xl's scanner refuses."""
    found, start, line = [], 0, 1
    while start < len(text):
        match = _TOKEN.match(text, start)
        if match is None or b"\0" in match.group():
            raise refuse(path, line, _reason(text, start))
        kind = match.lastgroup or ""
        if kind == "string":
            _check_escapes(match.group(), path, line)
        if kind != "blank":
            sign = match.group().decode("ascii") if kind == "sign" else kind
            found.append(Token(sign, start, match.end(), line))
        line += kind == "newline"
        start = match.end()
    return found


def unquoted(raw: bytes) -> bytes:
    """
    The content of a string (with its quotes). ValueError for an escape that xl does not read, or not always
    alike: numbers after a backslash.
    """
    if b"\\" not in raw:
        return raw[1:-1]
    found, rest = bytearray(), iter(raw[1:-1])
    for byte in rest:
        if byte == ord("\\"):
            letter = next(rest)
            if letter not in _ESCAPES:
                raise ValueError(f"\\{chr(letter)} in a string is not an escape that xl reads reliably")
            byte = _ESCAPES[letter]
        found.append(byte)
    return bytes(found)


def _check_escapes(raw: bytes, path: str, line: int) -> None:
    try:
        unquoted(raw)
    except ValueError as error:
        raise refuse(path, line, str(error)) from error


def _reason(text: bytes, start: int) -> str:
    letter = text[start : start + 1]
    if letter == b"\r":
        return "there is a carriage return at its end (as Windows writes it), which xl refuses: run dos2unix"
    if letter == b"#":
        return "the file ends in a comment without a newline, which xl refuses"
    if letter in (b"'", b'"'):
        return "a string is not closed on the line where it begins, or has a NUL byte"
    if letter in b"+-.():":
        return f"{letter.decode()} is there: xl does not run Python in a configuration"
    if letter.isalpha():
        return f"{letter.decode()} is there, outside of a string: names of options are in lower case"
    return f"the byte {letter!r} is there, outside of a string, which xl refuses"
