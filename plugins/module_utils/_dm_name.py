# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Names and uuids of mapped devices: which are taken. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from ._errors import InvalidValue

_FORBIDDEN = ("control", ".", "..")
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789#+-.:=@_")


def check_name(name, option="name"):
    """The name, or InvalidValue: what some kernel refuses, or udev and libdm would write in another way."""
    if not _is_plain(name, 127) or name in _FORBIDDEN:
        raise InvalidValue(
            option, name, "must be 1 to 127 characters out of A-Z a-z 0-9 # + - . : = @ _, and not 'control', '.' or '..'",
        )
    return name


def check_uuid(uuid, option="uuid"):
    """The uuid of a mapped device, any text that libdm does not have to mangle, or InvalidValue."""
    if not _is_plain(uuid, 128):
        raise InvalidValue(option, uuid, "must be 1 to 128 characters out of A-Z a-z 0-9 # + - . : = @ _")
    return uuid


def _is_plain(text, longest):
    return isinstance(text, str) and 1 <= len(text) <= longest and _PLAIN.issuperset(text)
