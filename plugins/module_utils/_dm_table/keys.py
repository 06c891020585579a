# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Insert keys into a table in place of ``var:NAME``.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A table is logged and shown, whereas the option ``keys`` is not. The table therefore contains ``var:NAME``
instead of a key, and a plain key in it is rejected.
"""

from __future__ import annotations

import json
import re

from .._base.errors import InvalidValue
from .grammar.slot import slot_text
from .grammar.text import cut_comment, join_words, split_words
from .targets.registry import TARGETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Callable

_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+\Z", re.ASCII)
_KEYRING = re.compile(r":[0-9]+:[a-z]+:[!-~]+\Z", re.ASCII)
_CLEAR = "left out of the table, which is logged: write var:NAME and give the key in the option keys"


def with_keys(lines: Iterable[Any], keys: Mapping[str, Any]) -> list[Any]:
    """
    Replace every ``var:NAME`` that stands for a key by ``keys[NAME]``, also in tables inside device slots.
    Raises InvalidValue for a plain key and for a name that is missing or unused.
    """
    return _Keys(keys).put(lines)


class _Keys:
    def __init__(self, keys: Mapping[str, Any]) -> None:
        self.keys = keys
        self.unused = set(keys)

    def put(self, lines: Iterable[Any]) -> list[Any]:
        try:
            result = [self.line(line) for line in lines]
        except RecursionError as error:
            raise InvalidValue("table", "(not shown)", "has too many tables inside tables") from error
        if self.unused:
            raise InvalidValue(
                "keys",
                min(self.unused, key=str),
                "is not used: no crypt or integrity target of the table names this key as var:NAME",
            )
        return result

    def line(self, line: Any) -> Any:
        if isinstance(line, dict):
            return self.plain(line)
        # A text in a list may have several lines; the parser rejects that.
        return "\n".join(map(self.text, line.split("\n"))) if isinstance(line, str) else line

    def plain(self, line: Any) -> dict[str, Any]:
        result = {name: self.slots(value) for name, value in line.items()}
        if line.get("target") == "crypt" and line.get("key") is not None:
            result["key"] = self.crypt(line["key"])
        elif line.get("target") == "integrity":
            result.update(
                (name, self.algorithm(line[name]))
                for name in TARGETS["integrity"].secret_fields()
                if isinstance(line.get(name), str)
            )
        return result

    def text(self, line: str) -> str:
        if "crypt" not in line and "integrity" not in line and "{" not in line:
            return line
        words = split_words(cut_comment(line))[0]
        kind, changed = words[2] if len(words) > 2 else None, list(words)
        for index, word in enumerate(words):
            if kind == "crypt" and index == 4:
                changed[index] = self.crypt(word)
            elif kind == "integrity" and word.startswith(
                tuple(f"{name}:" for name in TARGETS["integrity"].secret_fields())
            ):
                option, _colon, algorithm = word.partition(":")
                changed[index] = f"{option}:{self.algorithm(algorithm)}"
            elif index > 2:
                changed[index] = self.slots(word)
        return line if changed == words else join_words(changed)

    def slots(self, value: Any) -> Any:
        """A field's value with the keys inserted into the tables of its device slots."""
        if isinstance(value, list):
            return [self.slots(part) for part in value]
        if isinstance(value, dict):
            # Only ``table`` of a source can contain keys; a dictionary without it is a group of fields.
            return (
                dict(value, table=self.table(value["table"]))
                if "table" in value
                else {name: self.slots(part) for name, part in value.items()}
            )
        if isinstance(value, str) and value.startswith("{"):
            try:
                plain = json.loads(value)
            except (ValueError, RecursionError):
                return value
            changed = self.slots(plain)
            return value if changed == plain else slot_text(changed)
        return value

    def table(self, value: Any) -> Any:
        return [self.line(line) for line in value] if isinstance(value, list) else self.line(value)

    def crypt(self, value: Any) -> str:
        text = str(value)
        if text == "-" or text.startswith(":"):
            return text
        if not text.startswith("var:"):
            raise InvalidValue(
                "table", "(a crypt key)", f"must be {_CLEAR}, or use a keyring key (:SIZE:TYPE:DESCRIPTION)"
            )
        return self.named(
            text,
            lambda key: _HEX.match(key) or _KEYRING.match(key),
            " or a keyring key, :SIZE:TYPE:DESCRIPTION",
        )

    def algorithm(self, value: str) -> str:
        algorithm, colon, key = value.partition(":")
        if not colon:
            return value
        if not key.startswith("var:"):
            raise InvalidValue("table", f"{algorithm}:(a key)", f"must be {_CLEAR}")
        return f"{algorithm}:{self.named(key, _HEX.match)}"

    def named(self, text: str, is_right: Callable[[str], object], more: str = "") -> str:
        """
        The key that ``text``, ``var:NAME``, stands for. Anything other than a key is rejected: it could
        change how the following words are parsed, or be shown.
        """
        name = text[4:]
        if name not in self.keys:
            raise InvalidValue(
                "table",
                text,
                "names no key of the option keys, which has "
                + (", ".join(sorted(map(str, self.keys))) or "none"),
            )
        self.unused.discard(name)
        key = self.keys[name].strip() if isinstance(self.keys[name], str) else ""
        if not is_right(key):
            raise InvalidValue(
                f"keys.{name}",
                "(not shown)",
                f"must be an even number of hexadecimal digits{more}; as text, in quotes",
            )
        return key
