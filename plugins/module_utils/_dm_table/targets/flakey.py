# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``flakey DEV OFFSET UP DOWN [#n FEATURE...]``: a device that fails periodically.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-flakey.c``.
"""

from __future__ import annotations

from ..grammar import kernels
from ..grammar.fields import Device, Number, Sectors, Word
from ..grammar.layout import Flag, Options, Pair, Several
from ..grammar.limits import Limits
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..grammar.context import Facts
    from ..grammar.report import LineReport

_PROBABILITY = 1000000000


class Flakey(Target):
    """
    ``up_interval`` and ``down_interval`` in seconds. Without features, all I/O fails while the device is
    down.
    """

    TYPE = "flakey"
    LAYOUT = (
        Device("device"),
        Sectors("offset"),
        Number("up_interval", unit="seconds"),
        Number("down_interval", unit="seconds"),
        Options(
            (
                Flag("error_reads"),
                Flag("drop_writes"),
                Flag("error_writes"),
                Several(
                    "corrupt_bio_byte",
                    (
                        Number("nth_byte", low=1),
                        Word("direction", ("r", "w")),
                        Number("value", high=255),
                        Number("flags"),
                    ),
                ),
                Pair(Number("random_read_corrupt", high=_PROBABILITY)),
                Pair(Number("random_write_corrupt", high=_PROBABILITY)),
            )
        ),
    )

    def check(self, report: LineReport) -> None:
        if self.up_interval + self.down_interval == 0:
            report.error("down_interval", 0, "more than 0 if the interval up is 0")
        elif self.up_interval + self.down_interval > Limits.U32:
            report.error(
                "down_interval",
                self.down_interval,
                f"at most {Limits.U32} seconds together with the interval up",
            )
        if self.drop_writes and self.error_writes:
            report.error("error_writes", None, "cannot be combined with drop_writes")
        corrupt = self.corrupt_bio_byte
        for name in ("drop_writes", "error_writes"):
            if not getattr(self, name):
                continue
            if corrupt is not None and corrupt.direction == "w":
                report.error(name, None, "cannot be combined with corrupt_bio_byte for writes")
            if self.random_write_corrupt:
                self._newest(name, "cannot be combined with random_write_corrupt", report)
        if self.error_reads:
            if corrupt is not None and corrupt.direction == "r":
                self._newest("error_reads", "cannot be combined with corrupt_bio_byte for reads", report)
            if self.random_read_corrupt:
                self._newest("error_reads", "cannot be combined with random_read_corrupt", report)

    @staticmethod
    def _newest(name: str, rule: str, report: LineReport) -> None:
        report.need(kernels.refusing(kernels.RULES[("flakey", "corruption-conflict")]), name, None, rule)

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"device": (self.offset, self.length)}

    def canonical(self) -> Any:
        target = super().canonical()
        changes: dict[str, Any] = {
            name: None
            for name in ("random_read_corrupt", "random_write_corrupt")
            if getattr(target, name) == 0
        }
        others = (
            target.drop_writes
            or target.corrupt_bio_byte
            or target.random_read_corrupt
            or target.random_write_corrupt
        )
        if target.error_reads and target.error_writes and not others:
            # Since 6.5 the kernel prints these for a device without features; the effect is the same.
            changes.update(error_reads=False, error_writes=False)
        return target.replace(**changes) if changes else target
