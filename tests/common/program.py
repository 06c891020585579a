# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which program is running: its name before messages, and its cache. Set by its first file, before anything else happens."""

from __future__ import annotations

import os
from pathlib import Path

name = "xenhost"
# Names the environment variable and the directory: XENHOST_CACHE, ~/.cache/racefree-block/xenhost.
cache_name = "xenhost"
setup_command = "xenhost setup"


def cache_variable():
    return f"{cache_name.upper()}_CACHE"


def cache():
    """The directory of images, builds and locks; on a file system with space."""
    chosen = os.environ.get(cache_variable())
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "racefree-block" / cache_name


def locks():
    return cache() / "locks"
