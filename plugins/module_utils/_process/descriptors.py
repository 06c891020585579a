# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
How many descriptors a process may have.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import resource

# For each of some thousand disks a few; fs.nr_open, which nobody gets more than, is 1048576 unless it was
# changed.
WANTED = 65536


def raise_limit() -> None:
    """Let this process have WANTED descriptors, or as many as it may, if it has fewer now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in ((WANTED, max(WANTED, hard)), (min(WANTED, hard), hard)):
        if soft >= limit[0]:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            return
        except (ValueError, OSError):
            # More than the hard limit takes CAP_SYS_RESOURCE. With fewer, what runs out of them says so.
            continue
