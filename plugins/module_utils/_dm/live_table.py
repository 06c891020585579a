# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Conversions between parsed tables and the kernel: the live table of a mapped device, and a table to load.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .. import _dm_table
from .._base.errors import TableError
from . import codec, load
from . import control as _control

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .._block.device import Device


def loadable(table: _dm_table.Table, read_only: bool) -> load.Table:
    """The Table to pass to ``_dm.mapped.make`` and ``_dm.reload.reload``."""
    return load.Table(tuple(table.kernel_targets()), read_only, has_secrets(table))


def has_secrets(table: _dm_table.Table) -> bool:
    """Whether the table contains a key."""
    return bool(table.redacted() != table)


def live_table(control: _control.Control, device: Device) -> _dm_table.Table | None:
    """
    The parsed live table of a held mapped device; None if it has no table, or one that cannot be parsed.
    Raises KernelError.
    """
    lines = control.table(_control.by_device(device), secure=True)[1]
    try:
        return _dm_table.parse_table([codec.line_text(line) for line in lines]) if lines else None
    except TableError:
        return None
