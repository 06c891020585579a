# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``zero``: reads return zeros, writes are discarded.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-zero.c``.
"""

from __future__ import annotations

from ..grammar.target import Target


class Zero(Target):
    """Has no fields."""

    TYPE = "zero"
    LAYOUT = ()
