# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``delay DEV OFFSET MS [DEV OFFSET MS [DEV OFFSET MS]]``: delayed I/O.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-delay.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device, Number, Sectors
from ..grammar.layout import Group
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..grammar.context import Facts
    from ..grammar.report import LineReport


def _class() -> Any:
    return (Device("device"), Sectors("offset"), Number("delay", unit="milliseconds"))


class Delay(Target):
    """
    ``read``, ``write``, ``flush``: device, offset in sectors and delay in milliseconds for each kind of I/O.
    Without ``write``, ``read`` applies to all; without ``flush``, ``write`` also applies to flushes.
    """

    TYPE = "delay"
    LAYOUT = (
        Group("read", _class()),
        Group("write", _class(), optional=True),
        Group("flush", _class(), optional=True),
    )

    def check(self, report: LineReport) -> None:
        if self.flush is not None and self.write is None:
            report.error("write", None, "is missing: flush needs write")

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {
            f"{name}.device": (getattr(self, name).offset, self.length)
            for name in self.NAMES
            if getattr(self, name) is not None
        }
