# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``writecache s|p ORIGIN CACHE BLOCK #n OPTION...``: a write cache.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-writecache.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number, Sectors, Word
from ..grammar.layout import Choice, Flag, Options, Pair
from ..grammar.target import Target, must_differ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts
    from ..grammar.report import LineReport

_HIGH_WATERMARK = 50
_LOW_WATERMARK = 45


class Writecache(Target):
    """
    ``medium`` is s (SSD) or p (persistent memory). ``block_size`` is in bytes, times in milliseconds,
    watermarks in percent.
    """

    TYPE = "writecache"
    OWN = ("cache",)
    LAYOUT = (
        Word("medium", ("s", "p")),
        Device("origin"),
        Device("cache"),
        Number("block_size", low=512, high=65536, power=True, unit="bytes"),
        Options(
            (
                Pair(Sectors("start_sector")),
                Pair(Number("high_watermark", high=100, unit="percent")),
                Pair(Number("low_watermark", high=100, unit="percent")),
                Pair(Number("writeback_jobs")),
                Pair(Number("autocommit_blocks")),
                Pair(Number("autocommit_time", high=3600000, unit="milliseconds")),
                Pair(Number("max_age", high=86400000, unit="milliseconds")),
                Flag("cleaner"),
                Choice("writeback_fua", ("fua", "nofua")),
                Flag("metadata_only"),
                Pair(Number("pause_writeback", high=60000, unit="milliseconds")),
            ),
            high=18,
            required=True,
        ),
    )

    def owns(self, path: str) -> bool:
        # The sectors before the start sector are not the target's.
        return super().owns(path) and not self.start_sector

    def check(self, report: LineReport) -> None:
        if self.block_size > report.context.page_size:
            report.error("block_size", self.block_size, f"at most a page, {report.context.page_size} bytes")
        high = _HIGH_WATERMARK if self.high_watermark is None else self.high_watermark
        low = _LOW_WATERMARK if self.low_watermark is None else self.low_watermark
        if high < low:
            report.error(
                "low_watermark" if self.low_watermark is not None else "high_watermark",
                low if self.low_watermark is not None else high,
                f"such that high_watermark ({high}) is not below low_watermark ({low})",
            )
        if self.writeback_fua is not None and self.medium != "p":
            report.error("writeback_fua", self.writeback_fua, "is allowed only for persistent memory (p)")
        if self.pause_writeback is not None and self.medium != "s":
            report.error("pause_writeback", self.pause_writeback, "is allowed only for an SSD (s)")
        if self.origin == self.cache:
            report.error("cache", self.cache, "a different device from origin")

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"origin": (0, self.length)}

    def logical_block(self) -> int:
        return int(self.block_size)

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        must_differ(facts, "origin", "cache", report)
        for path in ("origin", "cache"):
            device = facts.get(path)
            if device is not None and self.block_size < device.logical_block:
                report.error(
                    "block_size",
                    self.block_size,
                    f"at least the logical block of {path}, {device.logical_block} bytes",
                )
        cache = facts.get("cache")
        if cache is not None and self.start_sector is not None and self.start_sector >= cache.size_sectors:
            report.error(
                "start_sector",
                self.start_sector,
                f"in the cache device, which has {cache.size_sectors} sectors",
            )
