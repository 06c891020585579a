# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``error``: every access fails.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-target.c``.
"""

from __future__ import annotations

from ..grammar.target import Target


class Error(Target):
    """Has no fields; from 6.5 on the kernel takes a device for its limits, which it does not print back."""

    TYPE = "error"
    LAYOUT = ()
