# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The device-mapper table language: parse, check, print and compare tables as pure data.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Nothing here does I/O: facts about devices and kernels are passed in as a ``Context``. ``TARGETS`` maps the
kernel's target type names to classes, which are imported on first use.
"""

from __future__ import annotations

from .grammar.context import Context, DeviceFacts, NoDevice
from .grammar.limits import Limits
from .redact import hide_in_line
from .table import Table, format_table, parse_table
from .targets.registry import TARGETS

__all__ = (
    "Context",
    "DeviceFacts",
    "Limits",
    "NoDevice",
    "TARGETS",
    "Table",
    "format_table",
    "hide_in_line",
    "parse_table",
)
