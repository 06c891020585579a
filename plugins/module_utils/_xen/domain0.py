# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Whether this host is domain 0 of Xen, where guests' disks are in XenStore.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._block import sysfs

_CONTROLS = "control_d"


def is_here() -> bool:
    """
    Whether XenStore has to be asked what guests use. Also True on a host of Xen without xenfs, which alone
    tells domain 0 from others. Raises KernelError.
    """
    if sysfs.read("/sys/hypervisor/type") != "xen":
        return False
    capabilities = sysfs.read("/proc/xen/capabilities")
    return capabilities is None or _CONTROLS in capabilities
