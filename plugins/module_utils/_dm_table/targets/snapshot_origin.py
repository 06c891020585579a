# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``snapshot-origin DEV``: a device that has snapshots.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-snap.c`` (origin_ctr).
"""

from __future__ import annotations

from ..grammar.fields import Device
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts


class SnapshotOrigin(Target):
    """``device`` is mapped from its first sector."""

    TYPE = "snapshot-origin"
    LAYOUT = (Device("device"),)

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"device": (0, self.length)}
