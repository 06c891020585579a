# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Device slots: fields of a target that name a device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A slot's value is a text, which is ``MAJ:MIN`` in decimal, an absolute path, ``diskseq:N``, ``file:/path``,
``path:/path`` or ``dm:NAME,UUID``, or a source as plain data, which is not interpreted here. In a line, such
a source is one word of JSON. Before a table is loaded, every slot is resolved to ``MAJ:MIN``, which
``dm_devt_from_path()`` in ``drivers/md/dm-table.c`` parses without looking up a name.
"""

from __future__ import annotations

import json
import re
from collections import namedtuple

from .limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RULE = (
    "a device: MAJ:MIN in decimal (major to 4095, minor to 1048575), an absolute path, diskseq:N, "
    "file:/PATH, path:/PATH, "
    "dm:NAME,UUID, or in structured form a source with one of the keys diskseq, path, file, table"
)
_NUMBERS = re.compile(r"([0-9]{1,10}):([0-9]{1,10})\Z")
_DISKSEQ_RULE = (
    "diskseq: and a whole number from 1 to 18446744073709551615, optionally with -partP for a partition and "
    "with @BOOT for the boot of the number"
)
_LIKE_NUMBERS = re.compile(r"[0-9]+:")
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_DISKSEQ = re.compile(rf"([1-9][0-9]{{0,19}})(?:-part([1-9][0-9]{{0,2}}))?(?:@{_UUID})?\Z")
# Neither may contain a comma (_dm.names).
_MAPPED = re.compile(r"dm:([A-Za-z0-9#+.:=@_-]{1,127}),[A-Za-z0-9#+.:=@_-]{1,128}\Z")
_MAPPED_RULE = "dm:NAME,UUID, both of the characters A-Z a-z 0-9 # + - . : = @ _"
_MOST_PARTITIONS = 255  # DISK_MAX_PARTS - 1 in include/linux/blkdev.h
_OF_DISKSEQ = {"diskseq", "partition", "boot_id"}
_KEYS = ("diskseq", "path", "file", "table")


# ``field``: the field's path in the target. ``value``: the device, as text or plain data. ``access``: the
# mode in which the kernel opens it. ``area``: (offset, length) in sectors that must lie inside the device, or
# None. ``own``: whether the target keeps its own records on the device.
class Slot(namedtuple("Slot", ("field", "value", "access", "area", "own"))):
    __slots__ = ()

    @property
    def text(self) -> str:
        """
        The word, without escapes, for the slot in a line. For messages and results use
        ``_dm_table.redact.shown``.
        """
        return slot_text(self.value)

    def __repr__(self) -> str:
        # A nested table may contain keys.
        value = self.value if isinstance(self.value, str) else "{...}"
        rest = f"access={self.access!r}, area={self.area!r}, own={self.own!r}"
        return f"Slot(field={self.field!r}, value={value!r}, {rest})"


def parse_numbers(text: str) -> tuple[int, int] | None:
    """Parse ``MAJ:MIN`` into ``(major, minor)``; None if it is invalid."""
    found = _NUMBERS.match(text)
    if not found:
        return None
    major, minor = int(found.group(1)), int(found.group(2))
    if major > Limits.MAJOR or minor > Limits.MINOR:
        return None
    return major, minor


def _path_rule(path: str) -> str | None:
    if not path.startswith("/"):
        return "an absolute path"
    try:
        # U+DC80 to U+DCFF represent bytes that are not valid UTF-8 (PEP 383). File names cannot contain other
        # surrogates.
        size = len(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return "a path without lone surrogates"
    if size > Limits.PATH:
        return f"a path of at most {Limits.PATH} bytes"
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        return "a path without control characters"
    return None


def check_word(word: str) -> tuple[Any, str | None]:
    """``(value, None)`` for a slot given as text, or ``(None, rule)`` if it is invalid."""
    if word.startswith("/"):
        rule = _path_rule(word)
        if rule is None and not word.isascii():
            rule = "ASCII only, because the kernel splits words at other characters; write path:/PATH"
        return (word, None) if rule is None else (None, rule)
    if _LIKE_NUMBERS.match(word):
        numbers = parse_numbers(word)
        return (None, RULE) if numbers is None else (f"{numbers[0]}:{numbers[1]}", None)
    if word.startswith("diskseq:"):
        found = _DISKSEQ.match(word[8:])
        if not found or int(found.group(1)) > Limits.U64 or int(found.group(2) or 0) > _MOST_PARTITIONS:
            return None, _DISKSEQ_RULE
        return word.lower(), None
    for start in ("file:raw:", "file:", "path:"):
        if word.startswith(start):
            rule = _path_rule(word[len(start) :])
            return (word, None) if rule is None else (None, f"{start} and {rule}")
    if word.startswith("dm:"):
        found = _MAPPED.match(word)
        return (None, _MAPPED_RULE) if not found or found.group(1) in (".", "..", "control") else (word, None)
    if word.startswith("{"):
        try:
            plain = json.loads(word)
        except (ValueError, RecursionError):
            return None, "a source as one word of valid JSON"
        return check_plain(plain)
    return None, RULE


def _diskseq_text(plain: Any) -> str:
    partition, boot = plain.get("partition"), plain.get("boot_id")
    ending = "" if partition is None else f"-part{partition}"
    return f"diskseq:{plain['diskseq']}{ending}" + ("" if boot is None else f"@{boot}")


def check_plain(plain: Any) -> tuple[Any, str | None]:
    """``(value, None)`` for a slot in structured form, or ``(None, rule)`` if it is invalid."""
    if isinstance(plain, str):
        return check_word(plain)
    if isinstance(plain, dict):
        keys = [key for key in _KEYS if key in plain]
        if not keys:
            return None, RULE
        given = {key: value for key, value in plain.items() if value is not None}
        if "diskseq" in given and not set(given) - _OF_DISKSEQ:
            return check_word(_diskseq_text(given))
        if len(plain) == 1 and keys[0] != "table" and not str(plain[keys[0]]).startswith("raw:"):
            return check_word(f"{keys[0]}:{plain[keys[0]]}")
        try:
            # Copy the data through JSON: this rejects what a line cannot represent, and isolates the table
            # from later changes by the caller.
            return json.loads(json.dumps(plain, sort_keys=True, allow_nan=False)), None
        except (TypeError, ValueError, RecursionError):
            return None, "a source of plain data: text, numbers, lists and dictionaries"
    if isinstance(plain, int) and not isinstance(plain, bool):
        return None, f"{RULE}; write MAJ:MIN in quotes, because YAML 1.1 reads 253:4 as a number"
    return None, RULE


def slot_text(value: Any) -> str:
    """The word, without escapes, for a slot's value in a line."""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def canonical_slot(value: Any) -> Any:
    """The value in a canonical form, so that equivalent spellings are equal."""
    if isinstance(value, str) and value.startswith("path:/") and value.isascii():
        return value[5:]
    return value
