# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A copy of the hotplug script that keeps its device open if the script itself is killed at the worst moment.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Between the write of a device's number to XenStore and blkback's open, an open descriptor is all that keeps the number from being given
to another device. ``_hold`` does the same with a program of its own; here that would take longer than all the rest.
"""

from __future__ import annotations

import _signal as signal  # what the module signal adds are enumerations, which take longer to make than all the rest
import os
import time

_LOOK_SECONDS = 0.25


class Keeper:
    """
    A context; leaving it ends the copy unless it is still ``needed``: blkback may be about to open the device.

    By itself it ends when blkback has nothing to do with the vbd any more, or has the device and the script is gone.
    """

    def __init__(self, device, key, seconds):
        """``seconds`` from now it ends in any case."""
        self._device = device
        self._key = key
        self._seconds = seconds
        self._pid = None
        self.needed = False

    def __enter__(self):
        parent = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            try:
                _keep(parent, self._device.fd, self._key.sysfs, time.monotonic() + self._seconds)
            finally:
                os._exit(0)
        return self

    def __exit__(self, *exc):
        if self.needed:
            return
        # It is our own child and not yet waited for, so the id cannot be another process's.
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _keep(parent, fd, sysfs, until):
    # A session of its own: what interrupts the script from a terminal must not end this one too. Of the descriptors only the device: whoever
    # reads what the script prints must not wait for this, and xenstored drops the script's transaction with its connection.
    os.setsid()
    os.closerange(0, fd)
    os.closerange(fd + 1, 1 << 16)
    while time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        if not os.path.exists(sysfs) or (os.getppid() != parent and os.path.exists(f"{sysfs}/physical_device")):
            return
