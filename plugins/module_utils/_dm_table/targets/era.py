# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``era META ORIGIN BLOCK``: tracks which blocks were written since a given time.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-era-target.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number
from ..grammar.target import Target, must_differ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts
    from ..grammar.report import LineReport


class Era(Target):
    """``block_size`` in sectors."""

    TYPE = "era"
    OWN = ("metadata",)
    LAYOUT = (
        Device("metadata", access="rw"),
        Device("origin", access="rw"),
        Number("block_size", low=8, step=8, unit="sectors"),
    )

    def check(self, report: LineReport) -> None:
        if self.metadata == self.origin:
            report.error("origin", self.origin, "a different device from metadata")

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        origin = facts.get("origin")
        return {} if origin is None else {"origin": (0, origin.size_sectors)}

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        must_differ(facts, "metadata", "origin", report)
