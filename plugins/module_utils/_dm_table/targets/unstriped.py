# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``unstriped N CHUNK INDEX DEV OFFSET``: one stripe of a striped device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-unstripe.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number, Sectors
from ..grammar.limits import Limits
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts
    from ..grammar.report import LineReport


class Unstriped(Target):
    """
    ``stripes``: the number of stripes. ``index``: which one, from 0. ``chunk_size`` and ``offset`` in
    sectors.
    """

    TYPE = "unstriped"
    LAYOUT = (
        Number("stripes", low=1, high=Limits.INT),
        Number("chunk_size", low=1, unit="sectors"),
        Number("index"),
        Device("device"),
        Sectors("offset"),
    )

    def check(self, report: LineReport) -> None:
        if self.index >= self.stripes:
            report.error("index", self.index, f"less than the number of stripes, {self.stripes}")
        if self.length % self.chunk_size:
            report.error("length", self.length, f"a multiple of the chunk size, {self.chunk_size} sectors")

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"device": (self.offset, self.length)}
