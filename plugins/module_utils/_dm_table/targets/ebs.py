# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``ebs DEV OFFSET EMULATED [UNDERLYING]``: emulates a smaller logical block size than the device's.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-ebs-target.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number, Sectors
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts
    from ..grammar.report import LineReport


class Ebs(Target):
    """``offset`` and the block sizes ``emulated`` and ``underlying`` in sectors."""

    TYPE = "ebs"
    LAYOUT = (
        Device("device"),
        Sectors("offset"),
        Number("emulated", low=1, high=128, power=True, unit="sectors"),
        Number("underlying", low=1, high=32768, power=True, unit="sectors", default=None),
    )

    def check(self, report: LineReport) -> None:
        if self.emulated * 512 > report.context.page_size:
            report.error(
                "emulated", self.emulated, f"at most a page, {report.context.page_size >> 9} sectors"
            )
        if self.underlying and self.offset % self.underlying:
            report.error(
                "offset", self.offset, f"a multiple of the underlying block size, {self.underlying} sectors"
            )

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"device": (self.offset, self.length)}

    def logical_block(self) -> int:
        return int(self.emulated) * 512

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        device = facts.get("device")
        if device is not None and self.underlying is None and self.offset % (device.logical_block >> 9):
            report.error(
                "offset",
                self.offset,
                f"a multiple of the device's logical block, {device.logical_block >> 9} sectors",
            )
