# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``dust DEV OFFSET BYTES``: a device with simulated bad blocks.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-dust.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number, Sectors
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts
    from ..grammar.report import LineReport


class Dust(Target):
    """``offset`` in sectors, ``block_size`` in bytes."""

    TYPE = "dust"
    LAYOUT = (
        Device("device"),
        Sectors("offset"),
        Number("block_size", low=512, high=1 << 30, power=True, unit="bytes"),
    )

    def check(self, report: LineReport) -> None:
        if self.block_size >> 9 > self.length:
            report.error(
                "block_size", self.block_size, f"at most the length of the target, {self.length * 512} bytes"
            )

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"device": (self.offset, self.length)}
