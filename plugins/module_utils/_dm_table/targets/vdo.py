# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``vdo V4 DEV PHYSBLOCKS 512|4096 CACHEBLOCKS ERA (KEY VALUE)...``: deduplication and compression.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-vdo/dm-vdo-target.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number, Word
from ..grammar.layout import Pair, Pairs, Positional
from ..grammar.limits import Limits
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..grammar.layout import Words
    from ..grammar.report import LineReport

_USER_VIOS = 2048
_THREADS = 100
_SWITCH = ("on", "off")


class _Version(Positional):
    """The version of the table line, a constant that must be present."""

    def __init__(self) -> None:
        super().__init__(Word("version", ("V4",), fold=False, default="V4"))

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        out["version"] = self.field.read(words.take("version") or "", "version", words.report)

    def dump(self, target: Any, out: dict[str, Any]) -> Any:
        pass


class Vdo(Target):
    """
    ``physical_blocks``, ``cache_blocks`` and ``max_discard`` in blocks of 4096 bytes, ``logical_block_size``
    in bytes, ``era`` in journal blocks.
    """

    TYPE = "vdo"
    LAYOUT = (
        _Version(),
        Device("device"),
        Number("physical_blocks", high=Limits.U64, unit="blocks"),
        Word("logical_block_size", ("512", "4096")),
        Number("cache_blocks", low=1, unit="blocks"),
        Number("era", low=1, high=16380, unit="journal blocks"),
        Pairs(
            (
                Pair(Number("ack", high=_THREADS)),
                Pair(Number("bio", low=1, high=_THREADS)),
                Pair(Number("bio_rotation_interval", low=1, high=1024), word="bioRotationInterval"),
                Pair(Number("cpu", low=1, high=_THREADS)),
                Pair(Number("hash", high=_THREADS)),
                Pair(Number("logical", high=60)),
                Pair(Number("physical", high=16)),
                Pair(Number("max_discard", low=1, high=Limits.U32 // 4096, unit="blocks"), word="maxDiscard"),
                Pair(Word("deduplication", _SWITCH, fold=False)),
                Pair(Word("compression", _SWITCH, fold=False)),
            ),
            fold=False,
        ),
    )

    @classmethod
    def from_dict(cls, start: Any, length: Any, plain: dict[str, Any], report: LineReport) -> Any:
        # In YAML, 512 and 4096 are numbers.
        size = plain.get("logical_block_size")
        if isinstance(size, int) and not isinstance(size, bool):
            plain = dict(plain, logical_block_size=str(size))
        return super().from_dict(start, length, plain, report)

    def to_dict(self) -> dict[str, Any]:
        out = super().to_dict()
        out["logical_block_size"] = int(out["logical_block_size"])
        return out

    def check(self, report: LineReport) -> None:
        if self.length % 8:
            report.error("length", self.length, "a multiple of 8 sectors")
        zones = [getattr(self, name) or 0 for name in ("logical", "physical", "hash")]
        if any(zones) and not all(zones):
            report.error(
                "logical",
                self.logical,
                "0 if the threads physical and hash are 0, and more than 0 if they are",
            )
        needed = 2 * _USER_VIOS * zones[0]
        if self.cache_blocks < needed:
            report.error(
                "cache_blocks",
                self.cache_blocks,
                f"at least {needed}, which is {2 * _USER_VIOS} for each of the logical threads",
            )

    def logical_block(self) -> int:
        return int(self.logical_block_size)
