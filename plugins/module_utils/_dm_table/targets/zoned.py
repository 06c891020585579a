# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``zoned DEV`` or ``zoned REGULAR ZONED...``: random writes on zoned devices.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-zoned-target.c``. The kernel derives the length from the zones.
"""

from __future__ import annotations

from ..grammar.fields import Device
from ..grammar.layout import Repeat
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.report import LineReport


class Zoned(Target):
    """One zoned device, or a regular device for the metadata followed by zoned ones."""

    TYPE = "zoned"
    LAYOUT = (Repeat("members", (Device("device"),)),)

    def check(self, report: LineReport) -> None:
        values = [member.device for member in self.members]
        for index, value in enumerate(values):
            if value in values[:index]:
                report.error(f"members[{index}].device", value, "must not repeat a device")
