# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The uevent that makes udev examine a device again.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os

from ..._base import gone


def send(major: int, minor: int) -> None:
    """Trigger a "change" uevent of the device. Does nothing if the device is missing. Raises KernelError."""
    path = f"/sys/dev/block/{major}:{minor}/uevent"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, b"change")
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in gone.SYSFS:
            raise gone.not_seen(error, path) from error
