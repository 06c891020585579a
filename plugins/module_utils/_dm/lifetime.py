# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Whether a mapped device stays after its last close.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A separate file: the journal of every module needs this, but not the code that creates mapped devices.
"""

from __future__ import annotations

from . import control as _control

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .._block import device as _device


def set_persist(control: _control.Control, device: _device.Device, wanted: bool) -> None:
    """
    Set whether a held mapped device stays after its last close: message ``@cancel_deferred_remove``
    (interface 4.27), or a deferred remove.
    """
    if control.status(_control.by_device(device)).deferred_remove != wanted:
        return
    if wanted:
        control.message(_control.by_device(device), "@cancel_deferred_remove")
    else:
        control.remove(_control.by_device(device), deferred=True)
