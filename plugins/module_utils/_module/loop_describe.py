# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
How the modules show a loop device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any

from .._block import loop
from .._block.device import Device
from . import sealing


def describe(device: Device, status: loop.LoopInfo) -> dict[str, Any]:
    """What the modules return of a loop device: its identity and its settings."""
    return dict(
        device.as_dict(),
        backing_file=loop.backing_path(device),
        offset=status.offset,
        size_limit=status.sizelimit,
        direct_io=status.direct_io,
        partitions=status.partitions,
        persist=not status.autoclear,
        sealed=sealing.described(device) is not None,
    )
