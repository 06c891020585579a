# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Names and UUIDs of mapped devices: validation, and unique ones.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os

from .._base.errors import InvalidValue
from .._process import identity

# Prefixes of the names of devices that do not have a live table yet, and of claimed devices, which were found
# without a table. The prefix is followed by the process (_process.identity.own_mark), "-", a random number,
# and ":NAME" if the device had another name before.
MAKING = "racefree-making-"
CLAIMED = "racefree-claimed-"
UUID_PREFIX = "RACEFREE-"
# Prefix of the UUIDs of LVM's devices. LVM records the volumes of its pools itself, and would use numbers
# again that others gave to volumes.
LVM = "LVM-"
_HEXADECIMAL = frozenset("0123456789abcdef")
_LONGEST_NAME = 127
_FORBIDDEN = ("control", ".", "..")
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789#+-.:=@_")


def check_name(name: object, option: str = "name") -> str:
    """The name; InvalidValue if a kernel rejects it, or if udev and libdm would mangle it."""
    if not isinstance(name, str) or not _is_plain(name, _LONGEST_NAME) or name in _FORBIDDEN:
        raise InvalidValue(
            option,
            name,
            "must be 1 to 127 characters out of A-Z a-z 0-9 # + - . : = @ _, and not 'control', '.' or '..'",
        )
    return name


def check_uuid(uuid: object, option: str = "uuid") -> str:
    """The UUID of a mapped device; InvalidValue if libdm would mangle it."""
    if not isinstance(uuid, str) or not _is_plain(uuid, 128):
        raise InvalidValue(option, uuid, "must be 1 to 128 characters out of A-Z a-z 0-9 # + - . : = @ _")
    return uuid


def making_name() -> str:
    """A unique name for a device that this process is creating."""
    return f"{MAKING}{identity.own_mark()}-{os.urandom(8).hex()}"


def claimed_name(name: str) -> str:
    """
    A unique name for a device that this process claims for a moment. It contains the old name, unless that is
    too long.
    """
    private = f"{CLAIMED}{identity.own_mark()}-{os.urandom(8).hex()}"
    return f"{private}:{name}" if len(private) + 1 + len(name) <= _LONGEST_NAME else private


def holder_of(name: str) -> str | None:
    """
    The process mark (:func:`_process.identity.own_mark`) in a name of :func:`making_name` or
    :func:`claimed_name`; None for other names.
    """
    for prefix in (MAKING, CLAIMED):
        if name.startswith(prefix):
            mark, dash, rest = name[len(prefix) :].partition(":")[0].rpartition("-")
            if (
                dash
                and len(rest) == 16
                and _HEXADECIMAL.issuperset(rest)
                and identity.parse_mark(mark) is not None
            ):
                return mark
    return None


def is_held(name: str) -> bool:
    """
    Whether it is a name of :func:`making_name` or :func:`claimed_name` whose process may still be running.
    """
    holder = holder_of(name)
    return holder is not None and not identity.has_ended(holder)


def name_before(name: str) -> str:
    """The earlier name in a :func:`claimed_name`; empty if it is not known."""
    return name.partition(":")[2] if name.startswith(CLAIMED) else ""


def unused_name() -> str:
    """A unique name for a device whose name does not matter."""
    return f"racefree-{os.urandom(8).hex()}"


def new_uuid() -> str:
    """A unique UUID."""
    return f"{UUID_PREFIX}{os.urandom(16).hex()}"


def _is_plain(text: str, longest: int) -> bool:
    return 1 <= len(text) <= longest and _PLAIN.issuperset(text)
