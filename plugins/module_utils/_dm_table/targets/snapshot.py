# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``snapshot ORIGIN COW P|PO|N CHUNK [#n FEATURE...]``: the differences from an origin.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Sources: ``drivers/md/dm-snap.c``, ``dm-exception-store.c``, ``dm-snap-persistent.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number, Word, is_power_of_two
from ..grammar.layout import Flag, Options
from ..grammar.limits import Limits
from ..grammar.stops import SMALL_DISCARDS
from ..grammar.target import Target, must_differ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..grammar.context import Facts
    from ..grammar.report import LineReport

# The kernel takes a chunk's number of sectors for a number of bytes, which must be at least a sector.
_BYTES_OF_A_SECTOR = 512
_LARGE_CHUNKS = "at least 512 sectors with discard_zeroes_cow"


class Snapshot(Target):
    """
    ``persistence``: P keeps the exceptions across reboots, PO also reports overflow, N keeps them in memory.
    ``chunk_size`` is in sectors. 0, allowed for P and PO only, takes it from the COW device's header, or the
    kernel's default. The header of a COW device that has been used overrides it.
    """

    TYPE = "snapshot"
    OWN = ("cow",)
    LAYOUT = (
        Device("origin", access="r"),
        Device("cow"),
        Word("persistence", ("P", "PO", "N")),
        Number("chunk_size", high=Limits.INT >> 9, unit="sectors"),
        Options((Flag("discard_zeroes_cow"), Flag("discard_passdown_origin"))),
    )

    def check(self, report: LineReport) -> None:
        if self.chunk_size == 0 and self.persistence == "N":
            report.error(
                "chunk_size",
                0,
                "a power of 2; 0 is allowed only for a persistent snapshot, whose COW device can have it",
            )
        elif self.chunk_size and not is_power_of_two(self.chunk_size):
            report.error("chunk_size", self.chunk_size, f"a power of 2, at most {Limits.INT >> 9} sectors")
        elif self.discard_zeroes_cow and self.chunk_size < _BYTES_OF_A_SECTOR:
            report.stops(SMALL_DISCARDS, "chunk_size", self.chunk_size, _LARGE_CHUNKS)
        if self.discard_passdown_origin and not self.discard_zeroes_cow:
            report.error("discard_passdown_origin", None, "needs discard_zeroes_cow")
        if self.origin == self.cow:
            report.error("cow", self.cow, "a different device from origin")

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        cow = facts.get("cow")
        areas = {"origin": (0, self.length)}
        if cow is not None:
            areas["cow"] = (0, cow.size_sectors)
        return areas

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        must_differ(facts, "origin", "cow", report)
        cow = facts.get("cow")
        if (
            cow is not None
            and self.discard_zeroes_cow
            and self.persistence != "N"
            and self.chunk_size >= _BYTES_OF_A_SECTOR
        ):
            written = cow.cow_chunk()
            if written is not None and written < _BYTES_OF_A_SECTOR:
                rule = f"a device with chunks of {_LARGE_CHUNKS}; its header has {written}, which counts"
                report.stops(SMALL_DISCARDS, "cow", f"{cow.major}:{cow.minor}", rule)
        for path in ("origin", "cow"):
            device = facts.get(path)
            if device is not None and self.chunk_size % (device.logical_block >> 9):
                report.error(
                    "chunk_size",
                    self.chunk_size,
                    f"a multiple of the logical block of {path}, {device.logical_block >> 9} sectors",
                )

    def same_field(self, path: str, mine: Any, theirs: Any) -> bool:
        return path == "chunk_size" and 0 in (mine, theirs)
