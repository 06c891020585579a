# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``striped N CHUNK (DEV OFFSET)*N``: chunks striped across several devices.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-stripe.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number, Sectors
from ..grammar.layout import CountOf, Repeat
from ..grammar.limits import Limits
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts
    from ..grammar.report import LineReport


class Striped(Target):
    """``chunk_size`` in sectors. Each stripe is a device and an offset in sectors."""

    TYPE = "striped"
    LAYOUT = (
        CountOf("stripes"),
        Number("chunk_size", low=1, high=Limits.U32, unit="sectors"),
        Repeat("stripes", (Device("device"), Sectors("offset"))),
    )

    def check(self, report: LineReport) -> None:
        count = len(self.stripes)
        if self.length % count:
            report.error("length", self.length, f"a multiple of the number of stripes, {count}")
        elif (self.length // count) % self.chunk_size:
            report.error(
                "length",
                self.length,
                f"a multiple of the number of stripes times the chunk size, {count} * {self.chunk_size}",
            )

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        width = self.length // len(self.stripes)
        return {
            f"stripes[{index}].device": (stripe.offset, width) for index, stripe in enumerate(self.stripes)
        }
