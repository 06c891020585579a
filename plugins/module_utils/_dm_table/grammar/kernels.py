# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Differences between the target constructors of the known kernels, as data.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Every row lists the kernels that accept something. A table is checked against the kernels that the ``Context``
names. If it names none, the table is rejected only if no known kernel accepts it. Target versions cannot be
used for this: flakey is 1.5.0 in both 6.1 and 6.12, although the grammar differs. Sources: ``drivers/md/*.c``
of 6.1.192, 6.12.117 and mainline.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

V6_1 = "6.1"
V6_12 = "6.12"
V7_2 = "7.2"

KERNELS = (V6_1, V6_12, V7_2)

_SINCE_6_12 = (V6_12, V7_2)
_SINCE_7_2 = (V7_2,)

# Kernels that have the target type. Types that are not listed are in all of them.
TARGETS = {
    "vdo": _SINCE_6_12,
}

# Kernels in which the target must be the only one in its table.
SINGLETON = {
    "integrity": KERNELS,
    "multipath": KERNELS,
    "thin-pool": KERNELS,
    "verity": _SINCE_6_12,
    "zoned": KERNELS,
    "vdo": _SINCE_6_12,
}

# A table with one of these types must not contain any other type.
IMMUTABLE = frozenset(("multipath", "thin-pool", "verity"))

# The type that may replace an immutable one.
WILDCARD = "error"

# Types that are not allowed in a read-only table, and the type that is allowed only in one.
ALWAYS_WRITABLE = frozenset(("thin-pool",))
READ_ONLY = frozenset(("verity",))

# (target, option): kernels that know the option. Options that are not listed are known to all.
OPTIONS = {
    ("flakey", "error_reads"): _SINCE_6_12,
    ("flakey", "random_read_corrupt"): _SINCE_6_12,
    ("flakey", "random_write_corrupt"): _SINCE_6_12,
    ("crypt", "high_priority"): _SINCE_6_12,
    ("crypt", "integrity_key_size"): _SINCE_6_12,
    ("verity", "restart_on_error"): _SINCE_6_12,
    ("verity", "panic_on_error"): _SINCE_6_12,
    ("integrity", "mode I"): _SINCE_6_12,
    # Added to 6.12 by a stable update: 6.12.117 has it.
    ("integrity", "allow_discards_keyed"): _SINCE_6_12,
}

# (target, group): the largest number of words that the group's count may have.
COUNTS = {
    ("flakey", "features"): {V6_1: 6, V6_12: 11, V7_2: 11},
    ("snapshot", "features"): {V6_1: 2, V6_12: 2, V7_2: 2},
    ("snapshot-merge", "features"): {V6_1: 2, V6_12: 2, V7_2: 2},
    ("thin-pool", "features"): {V6_1: 4, V6_12: 4, V7_2: 4},
    ("crypt", "features"): {V6_1: 8, V6_12: 9, V7_2: 9},
    ("verity", "features"): {V6_1: 14, V6_12: 15, V7_2: 15},
}

# (target, rule): kernels that enforce the rule.
RULES = {
    ("flakey", "corruption-conflict"): _SINCE_7_2,
}


def refusing(takes: Collection[str]) -> tuple[str, ...]:
    """The known kernels that are not in ``takes``, in order."""
    return tuple(kernel for kernel in KERNELS if kernel not in takes)


def version_of(release: str) -> tuple[int, int] | None:
    """
    ``(major, minor)`` of a release (``uname -r``) or of a name in ``KERNELS``; None if it does not start with
    one.
    """
    found = re.match(r"([0-9]+)\.([0-9]+)(?![0-9])", release)
    return (int(found.group(1)), int(found.group(2))) if found else None


def same_grammar(release: str) -> str | None:
    """
    The known kernel with the same table grammar as a release (``uname -r``). None for other versions, also
    between two known ones, whose grammar was not examined.
    """
    found = re.match(r"([0-9]+\.[0-9]+)(?![0-9])", release)
    return found.group(1) if found and found.group(1) in KERNELS else None
