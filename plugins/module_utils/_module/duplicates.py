# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Find two entries of one list that are about the same device, by identity and not by spelling.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .._base.errors import InvalidValue, KernelError, shown
from .item import Identities


def find(
    entries: Sequence[tuple[tuple[str, Any], Identities]], list_option: str
) -> list[tuple[int, InvalidValue]]:
    """
    Return ``[(index, InvalidValue)]`` for all entries that share an identity with another entry.

    ``entries``: for each entry ``((option, value), {identity: description})``, as returned by
    ``_module.item.Item``.
    """
    owners: dict[Any, int] = {}
    clashes: dict[int, tuple[int, str]] = {}
    for index, (dummy, identities) in enumerate(entries):
        for identity, words in identities.items():
            first = owners.setdefault(identity, index)
            if first != index:
                # Only the first shared identity is reported: the identity of a device comes first and says
                # more than a name.
                clashes.setdefault(index, (first, words))
                clashes.setdefault(first, (index, words))
    names = [(f"{list_option}[{index}].{key[0]}", key[1]) for index, (key, dummy) in enumerate(entries)]
    found = sorted(clashes.items())
    return [(index, _error(names[index], names[other], words)) for index, (other, words) in found]


def file_identity(status: os.stat_result) -> tuple[tuple[int, int], str]:
    """
    ``(identity, description)`` of a file by its ``os.stat_result``; the same for every path and hard link.
    """
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    return (status.st_dev, status.st_ino), f"the file with the inode {status.st_ino} on {device}"


def path_identity(path: str) -> tuple[Any, str]:
    """:func:`file_identity` of the file at a path. For a missing file, the path where it would be created."""
    try:
        return file_identity(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        place = os.path.realpath(path)
        return place, f"the file {place}, which is not there yet"
    except OSError as error:
        raise KernelError.from_oserror(error, f"look at {path}", device=path) from error


def _error(entry: tuple[str, Any], other: tuple[str, Any], words: str) -> InvalidValue:
    means = f": both mean {words}" if words else ""
    wrong = f"is in the list twice, also as {other[0]} {shown(other[1])}{means}"
    return InvalidValue(*entry, wrong, hint="Keep one of the two entries")
