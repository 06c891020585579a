# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Parse option values as people write them: numbers, sizes, booleans, and option names. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The module re is not used: the hotplug script would take longer to import it than everything here.
"""

from __future__ import annotations

from .digits import is_decimal
from .errors import InvalidValue, one_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

SECTOR = 512
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZES = "must be a number of bytes, or a number with K, M, G or T (powers of 1024)"
_ENDINGS = {unit + end: factor for unit, factor in _UNITS.items() for end in ("", "B", "IB")}
_LONGEST = 15
_LONGEST_SIZE = 19
# The values that Ansible accepts (ansible.module_utils.parsing.convert_bool). As keys, 1 and 1.0 equal True.
_BOOLEANS = {
    **dict.fromkeys(("y", "yes", "on", "1", "true", "t", True), True),
    **dict.fromkeys(("n", "no", "off", "0", "false", "f", False), False),
}


def bytes_of(value: Any, option: str = "size") -> int:
    """
    Convert a size such as ``10G`` (units of 1024) to bytes. Raises InvalidValue unless it is a positive
    number of whole sectors of 512 bytes.
    """
    size = bytes_or_0(value, option, _LONGEST)
    if not size:
        raise InvalidValue(option, one_value(value), _SIZES)
    if size % SECTOR:
        raise InvalidValue(option, value, f"must be a multiple of {SECTOR} bytes")
    return size


def bytes_or_0(value: Any, option: str, longest: int = _LONGEST_SIZE) -> int:
    """
    Convert an offset or size such as ``1MiB`` or ``0`` (units of 1024) to bytes; ``longest``: the number of
    digits allowed. Raises InvalidValue.
    """
    text = str(value)
    rest = text.lstrip("0123456789")
    digits, factor = text[: len(text) - len(rest)], _ENDINGS.get(rest.lstrip(" ").upper())
    if isinstance(value, bool) or factor is None or not is_decimal(digits, longest):
        raise InvalidValue(option, one_value(value), _SIZES)
    return int(digits) * factor


def whole(value: Any, option: str, most: int | None = None) -> int:
    """
    Convert a whole number, also given as text, from 0 to ``most``. Raises InvalidValue for anything else.
    """
    text = str(value)
    if isinstance(value, bool) or not is_decimal(text, _LONGEST) or (most is not None and int(text) > most):
        allowed = "must be a whole number, 0 or more" if most is None else f"a number from 0 to {most}"
        raise InvalidValue(option, one_value(value), allowed)
    return int(text)


def boolean(value: Any, option: str) -> bool:
    """
    Convert a boolean, also given as a word or number that Ansible accepts. Raises InvalidValue for anything
    else.
    """
    key = value.lower().strip() if isinstance(value, str) else value
    if not isinstance(key, (str, int, float)) or key not in _BOOLEANS:
        raise InvalidValue(option, one_value(value), "must be true or false")
    return _BOOLEANS[key]


def check_keys(
    value: Mapping[Any, Any], option: str, allowed: Collection[str], unset: Collection[str] = ()
) -> None:
    """
    Raise InvalidValue if the dictionary has a key that is not ``allowed``.

    Keys in ``unset`` may be present if their value is null, as module options contain the keys of all forms.
    The value is not shown, since it may be a secret under a mistyped key.
    """
    for key, part in value.items():
        if key not in allowed and not (part is None and key in unset):
            wrong = f"there is no such option here; the options are {', '.join(allowed)}"
            raise InvalidValue(f"{option}.{key}", "(not shown)", wrong)
