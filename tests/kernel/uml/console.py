# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a kernel itself printed, and what it was doing when it ended."""

from __future__ import annotations

import re

# The first words of a panic, then those of a kernel that gives up earlier.
REASONS = (
    r"Kernel panic - not syncing: .*",
    r"Kernel mode (?:signal|fault).*",
    r".*ptrace set fp regs failed.*",
)
# Printed at every start; nothing is wrong.
USUAL = re.compile(r"check_one_sigio failed|Failed to initialize ubd device|epollctl add err|^Aborted$")


def text(work):
    """The console, without control characters and without what is printed at every start."""
    try:
        raw = (work / "console").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    printed = re.sub(r"\x1b\[[0-9;]*m|[^\x20-\x7e\n]+", "", raw)
    return "".join(line + "\n" for line in printed.splitlines() if not USUAL.search(line))


def reason(work):
    """The line that most likely says why it ended."""
    printed = text(work)
    for pattern in REASONS:
        found = re.search(pattern, printed)
        if found:
            return found.group(0).strip()
    lines = [line for line in printed.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"


def tail(work, lines=15):
    """The last lines, indented."""
    return _indented(text(work).strip().splitlines()[-lines:])


def stack(work, lines=40):
    """The panic and what follows it, or the last lines if there was none."""
    printed = text(work).splitlines()
    for number, line in enumerate(printed):
        if re.search(REASONS[0], line):
            return _indented(printed[max(0, number - 3) : number + lines])
    return tail(work)


def doing(work):
    """For a message: what the command last wrote to the file that $RACEFREE_NOW names, before it tried it."""
    try:
        words = (work / "share" / "out" / "now").read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""
    return f"; it was working on {words}" if words else ""


def _indented(lines):
    return "\n".join("  " + line for line in lines)
