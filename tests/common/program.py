# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The running program: its name for messages, and its cache. Its first file sets these before anything else
happens.
"""

from __future__ import annotations

import os
from pathlib import Path

name = "xenhost"
# Gives the environment variable and the directory their names: XENHOST_CACHE,
# ~/.cache/racefree-block/xenhost.
cache_name = "xenhost"
setup_command = "xenhost setup"


def cache_variable():
    return f"{cache_name.upper()}_CACHE"


def cache():
    """The directory of images, builds and locks, on a file system with enough space."""
    chosen = os.environ.get(cache_variable())
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "racefree-block" / cache_name


def locks():
    return cache() / "locks"
