# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The words of a table line: splitting, escaping, joining.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``dm_split_args()`` in ``drivers/md/dm-table.c`` splits at white space and takes ``\\x`` as a literal ``x``.
There is no other quoting, so an empty word cannot be written. The kernel's isspace() also takes the byte 0xA0
for white space, which occurs in UTF-8 characters, so only ASCII may be passed to it.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_WORD = re.compile(r"(?:\\.|[^\\ \t\r\n\v\f])+\\?|\\", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL = re.compile(r"([\\ \t#])")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_COMMENT = re.compile(r"(?:\\.|[^\\#])*", re.DOTALL)

# Replaces a secret.
HIDDEN = "<hidden>"
# A key must not be shown either if its line cannot be parsed. No other field of this length is useful in a
# message.
LONG_HEX = re.compile(r"[0-9A-Fa-f]{32,}")
_KEYRING = re.compile(r":[0-9]{1,5}:[a-z]+:")


def hide_secrets(text: str) -> str:
    """``text`` with every possible key replaced by ``*``. Column positions are preserved."""
    return LONG_HEX.sub(lambda found: "*" * len(found.group()), text)


def names_key(text: str) -> bool:
    """
    Whether the text in a key's place is no key (``-``) or refers to a key in a keyring, which may be shown.
    """
    return text == "-" or _KEYRING.match(text) is not None


def cut_comment(line: str) -> str:
    """The line up to an unescaped ``#``, without trailing white space."""
    if "#" in line:
        found = _COMMENT.match(line)
        line = found.group() if found else line
    return strip_end(line)


def strip_end(line: str) -> str:
    """The line without trailing white space, except an escaped character that belongs to the last word."""
    stripped = line.rstrip(" \t\r\n")
    escapes = len(stripped) - len(stripped.rstrip("\\"))
    return (
        line[: len(stripped) + 1]
        if escapes % 2 and line[len(stripped) : len(stripped) + 1] in (" ", "\t")
        else stripped
    )


def find_control(text: str) -> int | None:
    """The position of the first control character other than a tab, or None."""
    found = _CONTROL.search(text)
    return found.start() if found else None


def find_not_ascii(text: str) -> int | None:
    """The position of the first non-ASCII character, or None."""
    found = _NOT_ASCII.search(text)
    return found.start() if found else None


def split_words(text: str, start: Any = 0) -> tuple[list[str], list[int]]:
    """
    Split ``text`` from ``start`` on into words, as the kernel does: a list of words and a list of their
    columns (from 0).
    """
    words = []
    columns = []
    for found in _WORD.finditer(text, start):
        word = found.group()
        if "\\" in word:
            word = _ESCAPE.sub(r"\1", word)
        words.append(word)
        columns.append(found.start())
    return words, columns


def escape(word: str) -> str:
    """``word`` as written in a line: white space, ``\\`` and ``#`` are escaped by a backslash."""
    return _SPECIAL.sub(r"\\\1", word)


def join_words(words: Iterable[str]) -> str:
    """The inverse of ``split_words``."""
    return " ".join([escape(word) for word in words])
