# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``log-writes DEV LOGDEV``: logs all writes to a device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-log-writes.c``.
"""

from __future__ import annotations

from ..grammar.fields import Device
from ..grammar.target import Target, must_differ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..grammar.context import Facts
    from ..grammar.report import LineReport


class LogWrites(Target):
    """``device`` is mapped from its first sector."""

    TYPE = "log-writes"
    OWN = ("log_device",)
    LAYOUT = (Device("device"), Device("log_device"))

    def check(self, report: LineReport) -> None:
        if self.device == self.log_device:
            report.error("log_device", self.log_device, "a different device from device")

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"device": (0, self.length)}

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        must_differ(facts, "device", "log_device", report)
