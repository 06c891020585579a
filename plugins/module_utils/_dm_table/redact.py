# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Redact a table, valid or not, for display: hide keys and nothing else, also in tables inside device slots.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Nothing here parses a table. A word or field is hidden because of its position in a line of its target type,
or because it contains as many hex digits as a key, in any position. A table that cannot be parsed is
therefore redacted by the same rules.
"""

from __future__ import annotations

import json

from .grammar.slot import slot_text
from .grammar.text import HIDDEN, LONG_HEX, cut_comment, hide_secrets, join_words, names_key, split_words
from .targets.registry import TARGETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any

    from .grammar.slot import Slot
    from .grammar.target import Target

_HEAD = ("start", "length", "target")
# Number of words in a line before its parameters.
_WORDS_BEFORE = len(_HEAD)
# The keys that make plain data a source, and a source's texts: a UUID may contain 32 hex digits and is not a
# key.
_SOURCE = frozenset(("diskseq", "path", "file", "table"))
_SOURCE_TEXTS = frozenset(("path", "file", "uuid", "name", "boot_id"))
_DEVICE_TEXTS = ("/", "path:/", "file:", "dm:")
# A number with as many digits as a key.
_LONG_NUMBER = 10**31


def shown(slot: Slot) -> str:
    """The text of a device slot, redacted for messages and results."""
    return slot_text(redact(slot.value))


def target(original: Target) -> Target:
    """A copy of a target that is safe to print."""
    if not original.secret_fields() and all(isinstance(slot.value, str) for slot in original.devices()):
        return original
    return original.map_values(
        lambda path, field, value: redact(value) if field.is_device else field.redact(value)
    )


def redact(value: Any) -> Any:
    """
    Redact the keys in plain data of a slot, field or target, including those of nested tables.

    Data that cannot be parsed is hidden where it may contain a key.
    """
    if isinstance(value, dict):
        kind = _kind(value.get("target"))
        secrets = ("key",) if kind is None else kind.secret_fields()
        return {
            name: HIDDEN if name in secrets else _table(part) if name == "table" else redact(part)
            for name, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact(part) for part in value]
    if isinstance(value, str) and value.startswith("{"):
        try:
            plain = json.loads(value)
            safe = redact(plain)
        except (ValueError, RecursionError):
            return HIDDEN if "table" in value else hide_secrets(value)
        return value if safe == plain else slot_text(safe)
    return value


# For errors (``grammar.report.Redactor``)


def error_value(value: Any, name: str | None, field: str) -> Any:
    """The invalid value of a field, redacted for an error. ``name`` is the target type."""
    kind = _kind(name)
    value = redact(value)
    if kind is not None and field in kind.PUBLIC_HEX:
        return value
    return hide_secrets(value) if isinstance(value, str) else _hide_long(value)


def error_line(written: Any) -> str | None:
    """A line or a target in structured form, redacted for an error; None if it cannot be shown at all."""
    if isinstance(written, str):
        return hide_in_line(written)
    kind = _kind(written.get("target"))
    public = () if kind is None else kind.PUBLIC_HEX
    try:
        return "".join(_json_parts(redact(written), public))
    except (TypeError, ValueError, RecursionError):
        return None


def _json_parts(plain: dict[str, Any], public: Collection[str]) -> Iterator[str]:
    yield "{"
    for index, (name, part) in enumerate(plain.items()):
        text = json.dumps(part, default=repr)
        yield ", " if index else ""
        yield f"{hide_secrets(json.dumps(str(name)))}: {text if name in public else hide_secrets(text)}"
    yield "}"


def hide_in_line(text: str) -> str:
    """
    Table lines with every secret replaced by ``*``, also in invalid lines. Column positions are preserved.
    """
    return "\n".join([_hide_in_line(line) for line in text.split("\n")])


def _hide_in_line(text: str) -> str:
    words, columns = split_words(text)
    kind = _kind(words[2]) if len(words) > 2 else None
    secrets = {} if kind is None else dict(kind.secret_words(words[_WORDS_BEFORE:]))
    public = () if kind is None else kind.public_words()
    stops = [column - 1 for column in columns[1:]] + [len(text)]
    for index, (word, start, stop) in enumerate(zip(words, columns, stops)):
        place = index - _WORDS_BEFORE
        if place in secrets:
            start += secrets[place]
        elif place < 0 or redact(word) == word:
            if place in public or not LONG_HEX.search(word):
                continue
            if "\\" not in text[start:stop]:
                text = text[:start] + hide_secrets(text[start:stop]) + text[stop:]
                continue
        text = text[:start] + "*" * (stop - start) + text[stop:]
    return text


# Tables inside device slots


def _kind(name: object) -> type[Target] | None:
    """The class of a target type, or None."""
    return TARGETS[name] if isinstance(name, str) and name in TARGETS else None


def _table(value: Any) -> Any:
    """
    Redact a table inside a source. Lines without secrets are unchanged; a line of an unknown target type is
    hidden.
    """
    try:
        if isinstance(value, str):
            return "\n".join([_text_line(line) for line in value.split("\n")])
        if isinstance(value, (list, tuple)):
            return [_table(line) if isinstance(line, str) else _plain_line(line) for line in value]
        return HIDDEN
    except RecursionError:
        return HIDDEN


def _text_line(text: str) -> str:
    line = cut_comment(text)
    words = split_words(line)[0]
    if not words:
        return hide_secrets(text)
    kind = _kind(words[2]) if len(words) > 2 else None
    if kind is None:
        return HIDDEN
    secrets, public = dict(kind.secret_words(words[_WORDS_BEFORE:])), kind.public_words()
    safe = [
        _secret_word(word, secrets[place])
        if place in secrets
        else word
        if place in public
        else _hide_long(redact(word))
        for place, word in enumerate(words, -_WORDS_BEFORE)
    ]
    if safe != words:
        return join_words(safe)
    return line if LONG_HEX.search(text[len(line) :]) else text


def _secret_word(word: str, start: int) -> str:
    """A word in which a key begins at ``start``, with the key hidden unless it is a keyring reference."""
    return word if names_key(word[start:]) else word[:start] + HIDDEN


def _plain_line(plain: Any) -> Any:
    kind = _kind(plain.get("target")) if isinstance(plain, dict) else None
    if kind is None:
        return HIDDEN
    result = {}
    for name, part in plain.items():
        if name in kind.secret_fields():
            result[name] = kind.SECRETS[name].redact(part) if isinstance(part, str) else HIDDEN
        elif name in kind.PUBLIC_HEX:
            result[name] = redact(part)
        elif name in _HEAD or name in kind.NAMES:
            result[name] = _hide_long(redact(part))
        else:
            result[_hide_long(name)] = HIDDEN
    return result


def _hide_long(value: Any) -> Any:
    """Plain data with everything hidden that is as long as a key, except texts that name a device."""
    if isinstance(value, str):
        if value.startswith(_DEVICE_TEXTS) or (value.startswith("{") and _is_json(value)):
            return value
        return hide_secrets(value)
    if isinstance(value, dict):
        texts = _SOURCE_TEXTS if _SOURCE & value.keys() else ()
        return {
            _hide_long(name): part if name in texts or name == "table" else _hide_long(part)
            for name, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_hide_long(part) for part in value]
    if isinstance(value, int):
        return HIDDEN if abs(value) >= _LONG_NUMBER else value
    return HIDDEN if LONG_HEX.search(repr(value)) else value


def _is_json(text: str) -> bool:
    # ``redact`` has already removed the keys from valid JSON.
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
