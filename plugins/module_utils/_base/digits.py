# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Check for decimal integers.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time. Pure.
"""

from __future__ import annotations


def is_decimal(text: str, longest: int) -> bool:
    """Whether ``text`` consists of 1 to ``longest`` digits 0 to 9 and nothing else."""
    return 1 <= len(text) <= longest and text.isascii() and text.isdigit()
