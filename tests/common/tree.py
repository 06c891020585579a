# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trees of files: their contents, for a hash, and their removal."""

from __future__ import annotations

import subprocess
from pathlib import Path

from common.errors import Failed


def remove_tree(tree):
    """Delete a tree, never across a mount point."""
    tree = Path(tree)
    if not tree.exists():
        return
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounted = [line.split()[4] for line in file]
    inside = [point for point in mounted if point == str(tree) or point.startswith(f"{tree}/")]
    if inside:
        raise Failed(f"{inside[0]} is mounted: unmount it, then delete {tree}")
    subprocess.run(["rm", "-rf", "--one-file-system", str(tree)], check=True)


def image_files(root):
    """(relative path, is executable, content) of each file below ``root``, in a fixed order."""
    for path in sorted(Path(root).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield str(path.relative_to(root)), bool(path.stat().st_mode & 0o100), path.read_bytes()
