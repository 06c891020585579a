# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What may be shown of a table that was written, valid or not: anything but keys, also those of tables inside device slots.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import json
import re

from .._base.errors import TableError
from .grammar.slot import slot_text
from .grammar.text import split_words
from .targets.registry import TARGETS

HIDDEN = "<hidden>"
# A key in a line that could not be parsed must not be shown either; no other field of this length is of use in a message.
_LONG_HEX = re.compile(r"[0-9A-Fa-f]{32,}")


def hide_secrets(text):
    """``text`` with everything that could be a key replaced by ``*``, so that columns stay where they are."""
    return _LONG_HEX.sub(lambda found: "*" * len(found.group()), text)


def hide_in_line(text):
    """A table line with ``*`` in the place of every secret, whatever else is wrong with the line."""
    words, columns = split_words(text)
    if len(words) < 4:
        return text
    stops = [column - 1 for column in columns[1:]] + [len(text)]
    known = words[2] in TARGETS
    spans = [(3 + index, skip) for index, skip in TARGETS[words[2]].secret_words(words[3:])] if known else []
    spans.extend((index, 0) for index, word in enumerate(words) if index > 2 and redact(word) != word)
    for index, skip in spans:
        start, stop = columns[index] + skip, stops[index]
        text = text[:start] + "*" * (stop - start) + text[stop:]
    return text if known else hide_secrets(text)


def dict_text(plain):
    """A target in structured form as text for messages."""
    try:
        return json.dumps({str(key): value for key, value in redact(plain).items()}, default=repr)
    except (TypeError, ValueError, RecursionError):
        return None


def redact(value):
    """Plain data of a target, of one of its fields or of a slot, without secrets. What is not understood is hidden where a key may be in it."""
    if isinstance(value, dict):
        name = value.get("target")
        secrets = TARGETS[name].secret_fields() if isinstance(name, str) and name in TARGETS else ("key",)
        return {
            key: HIDDEN if key in secrets else _redact_table(part) if key == "table" else redact(part)
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact(part) for part in value]
    if isinstance(value, str) and value.startswith("{"):
        try:
            plain = json.loads(value)
            shown = redact(plain)
        except (ValueError, RecursionError):
            return HIDDEN if "table" in value else value
        return value if shown == plain else slot_text(shown)
    return value


def _redact_table(value):
    """A nested table, as it was written if there is nothing to hide in it."""
    from .table import parse_table

    try:
        table = parse_table(value)
    except (TableError, RecursionError):
        return HIDDEN
    shown = table.redacted()
    if shown == table:
        return value
    return (
        shown.lines()
        if isinstance(value, str) or all(isinstance(line, str) for line in value)
        else shown.to_list()
    )
