# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``verity VERSION DATA HASH DBS HBS NBLOCKS HASHSTART ALGORITHM ROOT SALT|- [#n OPTION...]``: detects changes
of read-only data.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Sources: ``drivers/md/dm-verity-target.c``, ``dm-verity-fec.c``, ``dm-verity-verify-sig.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Hex, Number, Text
from ..grammar.layout import Choice, Flag, Options, Pair
from ..grammar.limits import Limits
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..grammar.context import Facts
    from ..grammar.report import LineReport

# Digest sizes in bytes, by name in the kernel's crypto API.
DIGESTS = {
    "md5": 16,
    "sha1": 20,
    "sha224": 28,
    "sha256": 32,
    "sha384": 48,
    "sha512": 64,
    "sha3-224": 28,
    "sha3-256": 32,
    "sha3-384": 48,
    "sha3-512": 64,
    "sm3": 32,
    "blake2b-160": 20,
    "blake2b-256": 32,
    "blake2b-384": 48,
    "blake2b-512": 64,
    "rmd160": 20,
    "wp256": 32,
    "wp384": 48,
    "wp512": 64,
    "streebog256": 32,
    "streebog512": 64,
}
_FEC = ("use_fec_from_device", "fec_blocks", "fec_start", "fec_roots")


class Verity(Target):
    """
    ``data_block_size`` and ``hash_block_size`` in bytes, ``data_blocks`` and ``fec_blocks`` in data blocks,
    ``hash_start`` in hash blocks. ``salt`` is ``-`` for none.
    """

    TYPE = "verity"
    PUBLIC_HEX = ("root_digest", "salt")
    LAYOUT = (
        Number("version", high=1),
        Device("data", access="r"),
        Device("hash", access="r"),
        Number("data_block_size", low=512, high=65536, power=True, unit="bytes"),
        Number("hash_block_size", low=512, high=1 << 30, power=True, unit="bytes"),
        Number("data_blocks", high=Limits.U64, unit="blocks"),
        Number("hash_start", high=Limits.U64, unit="blocks"),
        Text("algorithm", r"[!-~]{1,127}\Z", "the name of a hash algorithm of the kernel"),
        Hex("root_digest"),
        Hex("salt", dash=True),
        Options(
            (
                Choice(
                    "on_corruption", ("ignore_corruption", "restart_on_corruption", "panic_on_corruption")
                ),
                Choice("on_error", ("restart_on_error", "panic_on_error")),
                Flag("ignore_zero_blocks"),
                Flag("check_at_most_once"),
                Flag("try_verify_in_tasklet"),
                Pair(Device("use_fec_from_device", access="r")),
                Pair(Number("fec_blocks", high=Limits.U64, unit="blocks")),
                Pair(Number("fec_start", high=Limits.U64, unit="blocks")),
                Pair(Number("fec_roots", low=2, high=24)),
                Pair(Text("root_hash_sig_key_desc", r"[!-~]+\Z", "the description of a key")),
            )
        ),
    )

    def hash_blocks(self, digest: int) -> int:
        """The number of blocks of the hash tree, for digests of ``digest`` bytes."""
        bits = (self.hash_block_size // digest).bit_length() - 1
        levels = 0
        while bits * levels < 64 and self.data_blocks and (self.data_blocks - 1) >> (bits * levels):
            levels += 1
        return sum(
            (self.data_blocks + (1 << ((level + 1) * bits)) - 1) >> ((level + 1) * bits)
            for level in range(levels)
        )

    def _tree(self) -> int | None:
        digest = DIGESTS.get(self.algorithm)
        return None if digest is None else self.hash_blocks(digest)

    def check(self, report: LineReport) -> None:
        if self.data_block_size > report.context.page_size:
            report.error(
                "data_block_size", self.data_block_size, f"at most a page, {report.context.page_size} bytes"
            )
        data_sectors = self.data_block_size >> 9
        hash_sectors = self.hash_block_size >> 9
        if self.data_blocks * data_sectors > Limits.U64:
            report.error("data_blocks", self.data_blocks, "a number of blocks whose sectors fit in 64 bits")
        elif self.length > self.data_blocks * data_sectors:
            report.error(
                "data_blocks",
                self.data_blocks,
                f"at least the length of the target, {-(-self.length // data_sectors)} blocks",
            )
        if self.hash_start * hash_sectors > Limits.U64:
            report.error("hash_start", self.hash_start, "a number of blocks whose sectors fit in 64 bits")
        digest = DIGESTS.get(self.algorithm)
        if digest is not None:
            if len(self.root_digest) != digest * 2:
                report.error(
                    "root_digest",
                    self.root_digest,
                    f"{digest * 2} hex digits for {self.algorithm}, not {len(self.root_digest)}",
                )
        if self.check_at_most_once and self.data_blocks > Limits.INT:
            report.error("check_at_most_once", None, f"is allowed only with at most {Limits.INT} data blocks")
        self._check_fec(report)

    def _check_fec(self, report: LineReport) -> None:
        given = [name for name in _FEC if getattr(self, name) is not None]
        if not given:
            return
        for name in _FEC:
            # The kernel assumes 0 if fec_start is omitted, and always prints it back.
            if getattr(self, name) is None and name != "fec_start":
                report.error(name, None, f"is missing: {given[0]} needs it")
        if self.data_block_size != self.hash_block_size:
            report.error(
                "hash_block_size", self.hash_block_size, "the same as data_block_size, for error correction"
            )
        tree = self._tree()
        if self.fec_blocks is not None and tree is not None and self.fec_blocks < self.data_blocks + tree:
            report.error(
                "fec_blocks",
                self.fec_blocks,
                f"at least the data and hash blocks together, {self.data_blocks + tree}",
            )
        if self.fec_blocks == 0:
            report.error("fec_blocks", 0, "more than 0")

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"data": (0, self.length)}

    def logical_block(self) -> int:
        return int(self.data_block_size)

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        for path, name in (("data", "data_block_size"), ("hash", "hash_block_size")):
            device = facts.get(path)
            if device is not None and getattr(self, name) < device.logical_block:
                report.error(
                    name,
                    getattr(self, name),
                    f"at least the logical block of {path}, {device.logical_block} bytes",
                )
        tree = self._tree()
        device = facts.get("hash")
        if tree is not None and device is not None:
            needed = (self.hash_start + tree) * (self.hash_block_size >> 9)
            if needed > device.size_sectors:
                report.error(
                    "hash",
                    f"{device.major}:{device.minor}",
                    f"a device of at least {needed} sectors; it has {device.size_sectors}",
                )

    def canonical(self) -> Any:
        target = super().canonical()
        if target.use_fec_from_device is not None and target.fec_start is None:
            target = target.replace(fec_start=0)
        return target
