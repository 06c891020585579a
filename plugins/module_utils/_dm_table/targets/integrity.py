# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``integrity DEV OFFSET TAG|- J|B|D|R|I #n OPTION...``: a checksum for every block.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-integrity.c``. The kernel takes omitted options from the superblock or chooses them,
and prints them back.
"""

from __future__ import annotations

import re

from ..grammar import kernels
from ..grammar.fields import BAD, Device, Field, Number, Secret, Sectors, Word
from ..grammar.layout import Colon, Flag, Options
from ..grammar.limits import Limits
from ..grammar.target import Target, must_differ
from ..grammar.text import HIDDEN, hide_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from ..grammar.context import Facts
    from ..grammar.report import LineReport

_ALGORITHM = re.compile(r"([!-9;-~]{1,127})(?::((?:[0-9A-Fa-f]{2})+))?\Z")
_TAG = Number("tag_size", low=1, high=255, unit="bytes")
# Filled in by the kernel if they are omitted.
_CHOSEN = (
    "journal_sectors",
    "interleave_sectors",
    "buffer_sectors",
    "journal_watermark",
    "commit_time",
    "sectors_per_bit",
    "bitmap_flush_interval",
    "recalculate",
    "fix_padding",
    "fix_hmac",
)
# Rounded by the kernel or taken from the superblock.
_ROUNDED = (
    "journal_sectors",
    "interleave_sectors",
    "buffer_sectors",
    "journal_watermark",
    "sectors_per_bit",
    "bitmap_flush_interval",
)


class _TagField(Field):
    rule = _TAG.rule + ", or - for the size of the internal hash"

    def read(self, word: str, path: str, report: LineReport) -> Any:
        return 0 if word == "-" else _TAG.read(word, path, report)

    def load(self, plain: Any, path: str, report: LineReport) -> Any:
        return 0 if plain == "-" else _TAG.load(plain, path, report)

    def show(self, value: Any) -> Any:
        return "-" if value == 0 else str(value)

    def dump(self, value: Any) -> Any:
        return "-" if value == 0 else value


class _AlgorithmField(Secret):
    rule = "ALGORITHM or ALGORITHM:KEY, the key as an even number of hex digits"

    def read(self, word: str, path: str, report: LineReport) -> Any:
        found = _ALGORITHM.match(word)
        if not found:
            report.error(path, HIDDEN, self.rule)
            return BAD
        return word if found.group(2) is None else f"{found.group(1)}:{found.group(2).lower()}"

    def load(self, plain: Any, path: str, report: LineReport) -> Any:
        if not isinstance(plain, str):
            report.error(path, HIDDEN, self.rule)
            return BAD
        return self.read(plain, path, report)

    def redact(self, value: Any) -> Any:
        algorithm, colon, key = value.partition(":")
        return f"{algorithm}:{HIDDEN}" if colon else hide_secrets(value)


_ALGORITHMS = tuple(_AlgorithmField(name) for name in ("internal_hash", "journal_crypt", "journal_mac"))
# SB_SECTORS
_SUPERBLOCK = 8


class Integrity(Target):
    """
    ``offset`` and the options with ``sectors`` in their names in sectors, ``tag_size`` and ``block_size`` in
    bytes, times in milliseconds. A key in one of the algorithms is secret.
    """

    TYPE = "integrity"
    SECRETS = {field.name: field for field in _ALGORITHMS}
    LAYOUT = (
        Device("device"),
        Sectors("offset"),
        _TagField("tag_size"),
        Word("mode", ("J", "B", "D", "R", "I"), fold=False),
        Options(
            (
                Colon(Device("meta_device")),
                Colon(Number("block_size", low=512, high=4096, power=True, unit="bytes", implied=512)),
                Flag("recalculate"),
                Flag("reset_recalculate"),
                Flag("allow_discards"),
                Flag("allow_discards_keyed"),
                Colon(Number("journal_sectors", unit="sectors")),
                Colon(Number("interleave_sectors", unit="sectors")),
                Colon(Number("buffer_sectors", unit="sectors")),
                Colon(Number("journal_watermark", high=100, unit="percent")),
                Colon(Number("commit_time", unit="milliseconds")),
                Colon(Number("sectors_per_bit", high=Limits.U64, unit="sectors")),
                Colon(Number("bitmap_flush_interval", unit="milliseconds")),
                Flag("fix_padding"),
                Flag("fix_hmac"),
                Flag("legacy_recalculate"),
                *map(Colon, _ALGORITHMS),
            ),
            high=18,
            required=True,
            fold=False,
        ),
    )

    @classmethod
    def secret_words(cls, words: Sequence[str]) -> Iterable[tuple[int, int]]:
        heads = tuple(f"{name}:" for name in cls.secret_fields())
        return [
            (index, word.index(":", word.index(":") + 1) + 1)
            for index, word in enumerate(words)
            if word.startswith(heads) and word.count(":") > 1
        ]

    def check(self, report: LineReport) -> None:
        if self.mode == "I":
            report.need(kernels.OPTIONS[("integrity", "mode I")], "mode", "I", "one of J, B, D, R")
            for name in ("meta_device", "journal_crypt", "journal_mac"):
                if getattr(self, name) is not None:
                    report.error(name, HIDDEN, "is not allowed in mode I")
            for name in ("allow_discards", "allow_discards_keyed"):
                if getattr(self, name):
                    report.error(name, None, "is not allowed in mode I")
        if self.internal_hash is None:
            if self.tag_size == 0:
                report.error("tag_size", "-", "a size unless an internal_hash implies it")
            if self.mode in ("B", "I"):
                report.error("mode", self.mode, "J, D or R without internal_hash")
            for name in ("allow_discards", "allow_discards_keyed", "recalculate", "reset_recalculate"):
                if getattr(self, name):
                    report.error(name, None, "needs internal_hash")
        elif self.allow_discards_keyed and ":" not in self.internal_hash:
            report.error("allow_discards_keyed", None, "needs an internal_hash that has a key")
        for name in ("recalculate", "reset_recalculate"):
            if self.mode == "R" and getattr(self, name):
                report.error(name, None, "is not allowed in mode R: the kernel stops with a BUG")
        sectors = (self.block_size or 512) >> 9
        if self.length % sectors:
            report.error("length", self.length, f"a multiple of block_size, {sectors} sectors")
        if self.meta_device is None and self.offset % sectors:
            report.error("offset", self.offset, f"a multiple of block_size, {sectors} sectors")
        if self.meta_device is not None and self.meta_device == self.device:
            report.error("meta_device", self.meta_device, "a different device from device")

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        # Without a metadata device, the data start after the metadata, at an offset that only the superblock
        # tells.
        return {} if self.meta_device is None else {"device": (0, self.length)}

    def logical_block(self) -> int:
        return self.block_size or 512

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        must_differ(facts, "device", "meta_device", report)
        place = "device" if self.meta_device is None else "meta_device"
        device = facts.get(place)
        size = 0 if device is None else device.size_sectors
        if size and self.offset + _SUPERBLOCK > size:
            report.error(
                "offset",
                self.offset,
                f"such that the superblock, {_SUPERBLOCK} sectors, fits in {place}, which has {size}",
            )

    def canonical(self) -> Any:
        target = super().canonical()
        return target.replace(allow_discards=False) if target.allow_discards_keyed else target

    def same_field(self, path: str, mine: Any, theirs: Any) -> bool | None:
        if path in _CHOSEN and (mine is None or theirs is None):
            return True
        if path == "tag_size" and "-" in (mine, theirs):
            return True
        if path in _ROUNDED:
            return None
        if path in self.secret_fields() and mine and theirs:
            names = [value.partition(":") for value in (mine, theirs)]
            if (
                names[0][0] == names[1][0]
                and len(mine) == len(theirs)
                and not all(name[2].strip("0") for name in names)
            ):
                return None
        return False
