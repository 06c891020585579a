# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Where xenhost keeps things.

Images, snapshots and the disks of running hosts are in the cache, which must be on a file system with enough
space. Sockets are in the run-time directory, whose path is short enough for the name of a socket.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from common.program import cache

HERE = Path(__file__).resolve().parent.parent
IMAGE_FILES = HERE / "image"
BLKBACK_FILES = HERE / "blkback"


def instances():
    return cache() / "instances"


def runtime(name):
    """Directory of one host's sockets; two caches do not share it."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base or not os.access(base, os.W_OK):
        base = "/run" if os.access("/run", os.W_OK) else f"/tmp/xenhost-{os.getuid()}"
    tag = hashlib.sha256(str(cache()).encode()).hexdigest()[:8]
    return Path(base) / "racefree-xenhost" / f"{name}-{tag}"
