# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The limit of open file descriptors.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import resource

# Enough for several descriptors of each of a few thousand disks. The maximum of a process, fs.nr_open, is
# 1048576 by default.
WANTED = 65536


def raise_limit() -> None:
    """Raise this process's soft limit to WANTED descriptors, or as close as it may, if it is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in ((WANTED, max(WANTED, hard)), (min(WANTED, hard), hard)):
        if soft >= limit[0]:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            return
        except (ValueError, OSError):
            # Raising the hard limit requires CAP_SYS_RESOURCE. Code that runs out of descriptors reports
            # that.
            continue
