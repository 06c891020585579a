# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``thin POOL ID [ORIGIN]``: a thin volume.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-thin.c`` (thin_ctr).
"""

from __future__ import annotations

from ..grammar.fields import Device, Number
from ..grammar.target import Target, must_differ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts
    from ..grammar.report import LineReport


class Thin(Target):
    """
    ``id``: the volume's number in the pool. ``origin``: an external device from which unprovisioned blocks
    are read.
    """

    TYPE = "thin"
    LAYOUT = (Device("pool"), Number("id", high=16777215), Device("origin", access="r", default=None))

    def check(self, report: LineReport) -> None:
        if self.origin is not None and self.origin == self.pool:
            report.error("origin", self.origin, "a different device from pool")

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        pool = facts.get("pool")
        if pool is not None and pool.dm_uuid is None:
            report.error("pool", f"{pool.major}:{pool.minor}", "an active mapped device with a thin-pool")
        must_differ(facts, "pool", "origin", report)
