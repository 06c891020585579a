# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
How the constructors of the known kernels differ, as data.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Every row says what a kernel takes; a table is held against the kernels that the ``Context`` names, or, when
it names none, against all of them, and is then refused only if none of them would take it. Target versions do
not serve: flakey is 1.5.0 in 6.1 and in 6.12 although the grammar differs. Sources: ``drivers/md/*.c`` of
6.1.192, 6.12.117 and mainline.
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

# Kernels that have the target at all; a type that is not listed is in all of them.
TARGETS = {
    "vdo": _SINCE_6_12,
}

# Kernels in which the target must be alone in its table.
SINGLETON = {
    "integrity": KERNELS,
    "multipath": KERNELS,
    "thin-pool": KERNELS,
    "verity": _SINCE_6_12,
    "zoned": KERNELS,
    "vdo": _SINCE_6_12,
}

# A table that holds one of these holds nothing else.
IMMUTABLE = frozenset(("multipath", "thin-pool", "verity"))

# The type that may take the place of an immutable one.
WILDCARD = "error"

# Types that cannot be in a read-only table, and the type that must be in one.
ALWAYS_WRITABLE = frozenset(("thin-pool",))
READ_ONLY = frozenset(("verity",))

# (target, option): the kernels that know the word; an option that is not listed is known to all.
OPTIONS = {
    ("flakey", "error_reads"): _SINCE_6_12,
    ("flakey", "random_read_corrupt"): _SINCE_6_12,
    ("flakey", "random_write_corrupt"): _SINCE_6_12,
    ("crypt", "high_priority"): _SINCE_6_12,
    ("crypt", "integrity_key_size"): _SINCE_6_12,
    ("verity", "restart_on_error"): _SINCE_6_12,
    ("verity", "panic_on_error"): _SINCE_6_12,
    ("integrity", "mode I"): _SINCE_6_12,
    # Came to 6.12 with a stable update: 6.12.117 has it.
    ("integrity", "allow_discards_keyed"): _SINCE_6_12,
}

# (target, group): the most words that the group's count may announce.
COUNTS = {
    ("flakey", "features"): {V6_1: 6, V6_12: 11, V7_2: 11},
    ("snapshot", "features"): {V6_1: 2, V6_12: 2, V7_2: 2},
    ("snapshot-merge", "features"): {V6_1: 2, V6_12: 2, V7_2: 2},
    ("thin-pool", "features"): {V6_1: 4, V6_12: 4, V7_2: 4},
    ("crypt", "features"): {V6_1: 8, V6_12: 9, V7_2: 9},
    ("verity", "features"): {V6_1: 14, V6_12: 15, V7_2: 15},
}

# Rules that only some kernels enforce: (target, rule): the kernels that do.
RULES = {
    ("flakey", "corruption-conflict"): _SINCE_7_2,
}


def refusing(takes: Collection[str]) -> tuple[str, ...]:
    """The kernels that are not in ``takes``, in order."""
    return tuple(kernel for kernel in KERNELS if kernel not in takes)


def version_of(release: str) -> tuple[int, int] | None:
    """
    ``(major, minor)`` of a release (``uname -r``), or of a name out of ``KERNELS``; None when it does not
    begin so.
    """
    found = re.match(r"([0-9]+)\.([0-9]+)(?![0-9])", release)
    return (int(found.group(1)), int(found.group(2))) if found else None


def same_grammar(release: str) -> str | None:
    """
    The known kernel that a running one (``uname -r``) takes the same tables as, or None: between two known
    ones nobody has looked.
    """
    found = re.match(r"([0-9]+\.[0-9]+)(?![0-9])", release)
    return found.group(1) if found and found.group(1) in KERNELS else None
