# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``switch N REGION 0 (DEV OFFSET)*N``: a path for each region.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-switch.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number, Sectors
from ..grammar.layout import CountOf, Fixed, Repeat
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts

# KMALLOC_MAX_SIZE (4 MiB) divided by the size of a path, 16 bytes, less the size of the context.
_PATHS = 262139


class Switch(Target):
    """``region_size`` and offsets in sectors."""

    TYPE = "switch"
    LAYOUT = (
        CountOf("paths", high=_PATHS),
        Number("region_size", low=1, unit="sectors"),
        Fixed("#options", "0"),
        Repeat("paths", (Device("device"), Sectors("offset")), high=_PATHS),
    )

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {f"paths[{index}].device": (path.offset, self.length) for index, path in enumerate(self.paths)}
