# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``snapshot-merge ORIGIN COW P|PO CHUNK [#n FEATURE...]``: merges a snapshot back into its origin.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-snap.c``.
"""

from __future__ import annotations

from ..grammar.target import Target
from .snapshot import Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.fields import Field
    from ..grammar.report import LineReport


class SnapshotMerge(Snapshot):
    """
    The fields are the same as for ``snapshot``. The origin is written to, and the exceptions must be
    persistent.
    """

    TYPE = "snapshot-merge"

    def check(self, report: LineReport) -> None:
        super().check(report)
        if self.persistence == "N":
            report.error("persistence", "N", "P or PO, because only persistent exceptions can be merged")

    def access(self, path: str, field: Field) -> str | None:
        # The kernel opens the origin for writing only.
        return "w" if path == "origin" else Target.access(self, path, field)
