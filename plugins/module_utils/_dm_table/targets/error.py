# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``error``: all I/O fails.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-target.c``.
"""

from __future__ import annotations

from ..grammar.target import Target


class Error(Target):
    """
    Has no fields. Since 6.5 the kernel accepts a device from which to take limits, but does not print it
    back.
    """

    TYPE = "error"
    LAYOUT = ()
