# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Add, change and remove one disk in the configuration of an xl guest. All else stays byte for byte, and
removing what was added gives the same bytes as before.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. A disk is written after the last one, in its style: on the same line or on one of its own. Each result
is read again and compared before it is returned.
"""

from __future__ import annotations

from . import disk_text
from .config import Assignment, Config, Disk, Element
from .disk_text import DiskText

# The line before a list that the collection has added, which is removed with the list's last disk.
MARK = b"# The collection racefree.block has added the following list, and removes it when it is empty.\n"
_BLANK = b" \t"


def put(config: Config, says: DiskText) -> bytes:
    """The configuration with this disk, in place of one with the same vdev."""
    text = disk_text.written(says).encode("ascii")
    there = config.disk(says.vdev)
    if there is not None:
        quote = config.text[there.element.start : there.element.start + 1]
        after = _replaced(config.text, [(there.element.start, there.element.end, quote + text + quote)])
    elif config.lists:
        after = _appended(config.text, config.lists[-1], text)
    else:
        after = _with_list(config.text, text)
    kept = [disk.says for disk in config.disks]
    if there is None:
        kept.append(says)
    else:
        kept[config.disks.index(there)] = says
    return _checked(config, after, kept)


def drop(config: Config, vdev: str) -> bytes:
    """The configuration without the disk with this vdev, if there is one."""
    there = config.disk(vdev)
    if there is None:
        return config.text
    after = _replaced(config.text, [(start, end, b"") for start, end in _cuts(config.text, there)])
    kept = [disk.says for disk in config.disks if disk is not there]
    if not kept:
        after = _without_list(Config(after, config.path))
    return _checked(config, after, kept)


def _checked(config: Config, after: bytes, kept: list[DiskText]) -> bytes:
    """The new text, once it is known that it has these disks and that all other assignments are unchanged."""
    again = Config(after, config.path)
    if [disk.says for disk in again.disks] != kept or _others(again) != _others(config):
        raise AssertionError("the configuration would not be read as it was meant")
    return after


def _others(config: Config) -> list[bytes]:
    return [config.text[each.start : each.end] for each in config.assignments if each.name != "disk"]


def _replaced(text: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """The text with each ``(start, end, new)`` replaced."""
    for start, end, new in sorted(changes, reverse=True):
        text = text[:start] + new + text[end:]
    return text


# Adding


def _with_list(text: bytes, disk: bytes) -> bytes:
    added = MARK + b"disk = [\n  '" + disk + b"',\n]"
    return text + added + b"\n" if text.endswith(b"\n") or not text else text + b"\n" + added


def _appended(text: bytes, place: Assignment, disk: bytes) -> bytes:
    """The text with a disk at the end of the list."""
    if not place.elements:
        start = place.value.end
        if text[start : start + 1] == b"\n":
            return text[:start] + b"\n  '" + disk + b"'," + text[start:]
        blank = b" " if text[start : start + 1] == b" " else b""
        return text[:start] + blank + b"'" + disk + b"'" + text[start:]
    last = place.elements[-1]
    quote = text[last.start : last.start + 1]
    disk, comma = quote + disk + quote, b"" if last.comma is None else b","
    # The end of the list as it is: that of the last disk, or of the comma after it.
    end = last.end if last.comma is None else last.comma + 1
    separator = b"," if last.comma is None else b""
    if not _begins_line(text, last.start):
        return text[:end] + separator + b" " + disk + comma + text[end:]
    line = b"\n" + text[_line_of(text, last.start) : last.start] + disk + comma
    newline = _line_end(text, end)
    if newline is None:
        return text[:end] + separator + line + text[end:]
    return text[:end] + separator + text[end:newline] + line + text[newline:]


def _begins_line(text: bytes, start: int) -> bool:
    return not text[_line_of(text, start) : start].strip(_BLANK)


def _line_of(text: bytes, start: int) -> int:
    return text.rfind(b"\n", 0, start) + 1


def _line_end(text: bytes, start: int) -> int | None:
    """The offset of the newline, if only blanks and a comment are between it and ``start``; or None."""
    newline = text.find(b"\n", start)
    rest = text[start:newline].lstrip(_BLANK)
    return newline if newline >= 0 and (not rest or rest.startswith(b"#")) else None


# Removing


def _cuts(text: bytes, disk: Disk) -> list[tuple[int, int]]:
    """What to cut out: the disk with a comma and the blanks that belong to it. Comments stay."""
    elements = disk.place.elements or []
    own = elements[disk.position]
    before = elements[disk.position - 1] if disk.position else None
    comma_before = None if before is None else before.comma
    line = _own_line(text, own)
    if own.comma is not None:
        return _cuts_with_comma(text, own, comma_before, line)
    if comma_before is None:
        return [line] if line is not None else [_only(text, disk, own)]
    if line is not None:
        return [(comma_before, comma_before + 1), line]
    if not _has_comment(text, comma_before, own.start):
        return [(comma_before, own.end)]
    return [(comma_before, comma_before + 1), (own.start, own.end)]


def _cuts_with_comma(
    text: bytes, own: Element, comma_before: int | None, line: tuple[int, int] | None
) -> list[tuple[int, int]]:
    if own.comma is None:
        raise AssertionError
    if line is not None:
        return [line]
    if _has_comment(text, own.end, own.comma):
        return [(own.start, own.end), (own.comma, own.comma + 1)]
    if comma_before is not None and not _has_comment(text, comma_before, own.start):
        return [(comma_before + 1, own.comma + 1)]
    end = own.comma + 1
    while text[end : end + 1] in (b" ", b"\t"):
        end += 1
    return [(own.start, end)]


def _only(text: bytes, disk: Disk, own: Element) -> tuple[int, int]:
    """
    The list's only disk, with the blank before it if that was written with it: ``[ ]`` and ``[]`` have to
    come back.
    """
    start = own.start
    if start == disk.place.value.end + 1 and text[start - 1 : start] == b" " == text[own.end : own.end + 1]:
        start -= 1
    return start, own.end


def _own_line(text: bytes, own: Element) -> tuple[int, int] | None:
    """The span of its line, with the newline before it, if only blanks are there beside it; or None."""
    end = own.end if own.comma is None else own.comma + 1
    newline = text.find(b"\n", end)
    if not _begins_line(text, own.start) or b"\n" in text[own.start : end] or newline < 0:
        return None
    if text[end:newline].strip(_BLANK) or text[own.end : end].strip(_BLANK) not in (b"", b","):
        return None
    return _line_of(text, own.start) - 1, newline


def _has_comment(text: bytes, start: int, end: int) -> bool:
    """Between two elements of a list there are only commas, blanks, newlines and comments."""
    return b"#" in text[start:end]


def _without_list(config: Config) -> bytes:
    """The configuration without the list that the collection has added, if it is empty and alone."""
    text = config.text
    if len(config.lists) != 1:
        return text
    place = config.lists[0]
    start, end = place.start - len(MARK), place.end
    is_ours = start >= 0 and text[start : place.start] == MARK and _line_of(text, start) == start
    if not is_ours or text[place.value.end : place.closes].strip(b" \n"):
        return text
    if text[end : end + 1] == b"\n":
        return text[:start] + text[end + 1 :]
    # The file had no newline at its end.
    return text[: max(start - 1, 0)] if end == len(text) else text
