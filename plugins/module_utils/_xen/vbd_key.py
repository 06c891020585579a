# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Which virtual block device (vbd), and where its nodes are. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base.record import Record


class Key(Record):
    """Which vbd: the guest's domain id, the disk's number there, and the domain that serves it."""

    domid: int
    devid: int
    backend_domid: int = 0

    @property
    def backend(self) -> str:
        return f"/local/domain/{self.backend_domid}/backend/vbd/{self.domid}/{self.devid}"

    @property
    def frontend(self) -> str:
        return f"/local/domain/{self.domid}/device/vbd/{self.devid}"

    @property
    def libxl(self) -> str:
        return f"/libxl/{self.domid}/device/vbd/{self.devid}"

    @property
    def backend_error(self) -> str:
        """Where the backend's kernel writes why it failed (xenbus_dev_error)."""
        return f"/local/domain/{self.backend_domid}/error/backend/vbd/{self.domid}/{self.devid}"

    @property
    def frontend_error(self) -> str:
        """Where the guest's kernel writes why it failed; the guest's words, not to be trusted."""
        return f"/local/domain/{self.domid}/error/device/vbd/{self.devid}/error"

    @property
    def sysfs(self) -> str:
        """
        The device of blkback itself; it is there for as long as blkback has anything to do with the vbd.
        """
        return f"/sys/bus/xen-backend/devices/vbd-{self.domid}-{self.devid}"
