# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``clone META DEST SOURCE REGION [#n FEATURE... [#m (KEY VALUE)...]]``: a copy that is usable while it is being
made.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-clone-target.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number
from ..grammar.layout import Flag, Options, Pair
from ..grammar.target import Target, must_differ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts
    from ..grammar.report import LineReport

_DEVICES = ("metadata", "destination", "source")


class Clone(Target):
    """``region_size`` in sectors (4 KiB to 1 GiB), the hydration parameters in regions."""

    TYPE = "clone"
    OWN = ("metadata",)
    LAYOUT = (
        Device("metadata", access="rw"),
        Device("destination", access="rw"),
        Device("source", access="r"),
        Number("region_size", low=8, high=2097152, power=True, unit="sectors"),
        Options((Flag("no_hydration"), Flag("no_discard_passdown")), high=2, show_zero=True),
        Options(
            (Pair(Number("hydration_threshold")), Pair(Number("hydration_batch_size"))), name="core", high=4
        ),
    )

    def check(self, report: LineReport) -> None:
        if len({str(getattr(self, name)) for name in _DEVICES}) != 3:
            report.error("source", self.source, "a different device from the other two")
        if -(-self.length // self.region_size) > 1 << 31:
            report.error(
                "region_size", self.region_size, "so large that there are at most 2147483648 regions"
            )

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"destination": (0, self.length), "source": (0, self.length)}

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        must_differ(facts, "metadata", "destination", report)
        must_differ(facts, "metadata", "source", report)
        must_differ(facts, "destination", "source", report)
        for path in ("destination", "source"):
            device = facts.get(path)
            if device is not None and self.region_size % (device.logical_block >> 9):
                report.error(
                    "region_size",
                    self.region_size,
                    f"a multiple of the logical block of {path}, {device.logical_block >> 9} sectors",
                )
