# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Whether a mapped device stays when its last user goes.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A file of its own: the journal of every module needs this, and nothing else of what makes mapped devices.
"""

from __future__ import annotations

from . import control as _control

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .._block import device as _device


def set_persist(control: _control.Control, device: _device.Device, wanted: bool) -> None:
    """
    Set whether a held mapped device stays when its last user goes (message ``@cancel_deferred_remove``,
    interface 4.27).
    """
    if control.status(_control.by_device(device)).deferred_remove != wanted:
        return
    if wanted:
        control.message(_control.by_device(device), "@cancel_deferred_remove")
    else:
        control.remove(_control.by_device(device), deferred=True)
