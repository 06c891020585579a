# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The identity of a virtual block device (vbd) and the paths of its XenStore nodes. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base.record import Record


class Key(Record):
    """
    Identifies a vbd by the guest's domain id, the disk's number in the guest, and the backend's domain id.
    """

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
        """Where the backend's kernel writes its errors (xenbus_dev_error)."""
        return f"/local/domain/{self.backend_domid}/error/backend/vbd/{self.domid}/{self.devid}"

    @property
    def frontend_error(self) -> str:
        """
        Where the guest's kernel writes its errors. The guest controls the text, so it is not to be trusted.
        """
        return f"/local/domain/{self.domid}/error/device/vbd/{self.devid}/error"

    @property
    def sysfs(self) -> str:
        """blkback's device for the vbd. It exists for as long as blkback serves the vbd."""
        return f"/sys/bus/xen-backend/devices/vbd-{self.domid}-{self.devid}"
