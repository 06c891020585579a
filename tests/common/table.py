# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tools show about their caches: sizes, times, tables."""

from __future__ import annotations

import time


def size(root):
    """MiB that a tree takes on the disk; holes take none."""
    return sum(path.lstat().st_blocks for path in root.rglob("*")) // 2048


def table(rows):
    """Columns in line; the first row is the heads."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


def moment(seconds):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
