# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``thin-pool META DATA BLOCK LOWWATER [#n FEATURE...]``: a pool for thin volumes.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-thin.c`` (pool_ctr).
"""

from __future__ import annotations

from ..grammar.fields import Device, Number
from ..grammar.layout import Flag, Options
from ..grammar.limits import Limits
from ..grammar.target import Target, must_differ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts
    from ..grammar.fields import Field
    from ..grammar.report import LineReport


class ThinPool(Target):
    """``block_size`` in sectors (64 KiB to 1 GiB), ``low_water_mark`` in blocks."""

    TYPE = "thin-pool"
    OWN = ("metadata", "data")
    LAYOUT = (
        Device("metadata"),
        Device("data", access="rw"),
        Number("block_size", low=128, high=2097152, step=128, unit="sectors"),
        Number("low_water_mark", high=Limits.U64, unit="blocks"),
        Options(
            (
                Flag("skip_block_zeroing"),
                Flag("ignore_discard"),
                Flag("no_discard_passdown"),
                Flag("read_only"),
                Flag("error_if_no_space"),
            ),
            show_zero=True,
        ),
    )

    def check(self, report: LineReport) -> None:
        if self.metadata == self.data:
            report.error("data", self.data, "a different device from metadata")

    def access(self, path: str, field: Field) -> str | None:
        if path == "metadata":
            return "r" if self.read_only else "rw"
        return field.access

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"data": (0, self.length)}

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        must_differ(facts, "metadata", "data", report)
