# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``cache META CACHE ORIGIN BLOCK #f FEATURE... POLICY #a (KEY VALUE)...``: a fast device caches a slow one.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Sources: ``drivers/md/dm-cache-target.c``, ``dm-cache-policy-smq.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number, Word
from ..grammar.layout import Choice, Flag, Options, Pair
from ..grammar.limits import Limits
from ..grammar.target import Target, must_differ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..grammar.context import Facts
    from ..grammar.report import LineReport

_DEVICES = ("metadata", "cache", "origin")
# The policy mq is an alias of smq that accepts and ignores these keys.
_MQ = (
    "random_threshold",
    "sequential_threshold",
    "discard_promote_adjustment",
    "read_promote_adjustment",
    "write_promote_adjustment",
)


class Cache(Target):
    """``block_size`` (32 KiB to 1 GiB) and ``migration_threshold`` in sectors."""

    TYPE = "cache"
    OWN = ("metadata", "cache")
    LAYOUT = (
        Device("metadata", access="rw"),
        Device("cache", access="rw"),
        Device("origin", access="rw"),
        Number("block_size", low=64, high=2097152, step=64, unit="sectors"),
        Options(
            (
                Flag("metadata2"),
                Choice("mode", ("writeback", "writethrough", "passthrough")),
                Flag("no_discard_passdown"),
            ),
            high=3,
            required=True,
        ),
        Word("policy", ("smq", "mq", "default", "cleaner"), fold=False),
        Options(
            (Pair(Number("migration_threshold", high=Limits.U64, unit="sectors")),)
            + tuple(Pair(Number(name)) for name in _MQ),
            name="policy_arguments",
            high=1024,
            required=True,
        ),
    )

    def check(self, report: LineReport) -> None:
        if len({str(getattr(self, name)) for name in _DEVICES}) != 3:
            report.error("origin", self.origin, "a different device from the other two")
        for name in _MQ:
            if getattr(self, name) is not None and self.policy != "mq":
                report.error(name, None, "is allowed only with the policy mq")

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        cache = facts.get("cache")
        areas = {"origin": (0, self.length)}
        if cache is not None:
            areas["cache"] = (0, cache.size_sectors)
        return areas

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        must_differ(facts, "metadata", "cache", report)
        must_differ(facts, "metadata", "origin", report)
        must_differ(facts, "cache", "origin", report)
        cache = facts.get("cache")
        if cache is not None and self.block_size > cache.size_sectors:
            report.error(
                "block_size",
                self.block_size,
                f"at most the size of the cache device, {cache.size_sectors} sectors",
            )

    def canonical(self) -> Any:
        target = super().canonical()
        return target.replace(
            mode=target.mode or "writeback",
            policy="smq" if target.policy == "default" else target.policy,
        )
