# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Known failures of the small size, so that they do not fail the gate before they are fixed.

The file expected.txt has one line for each, ``family: row: kind: tries: reason``. The failure must show
within that many tries of the small size.
"""

from __future__ import annotations

from pathlib import Path

import results

FILE = Path(__file__).with_name("expected.txt")
TODAY = "today: "


def read(text):
    """Parse the file to {(family, row, kind): tries}."""
    listed = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split(":", 4)]
        if len(parts) != 5 or parts[2] not in results.BAD or not parts[3].isdigit() or not parts[4]:
            raise ValueError(
                f"{FILE.name}, line {number}: 'family: row: {'|'.join(results.BAD)}: tries: reason' is wanted"
            )
        listed[tuple(parts[:3])] = int(parts[3])
    return listed


def judge(found, listed):
    """
    Judge the results; returns problems as texts: each failure that is not listed, and each listed failure
    that did not show. Existing tools may fail as they do.
    """
    said = []
    for result in found:
        family = result["family"]
        for row, counts in result["rows"].items():
            for kind in results.BAD:
                at = (family, row, kind)
                if counts[kind] and at not in listed and not row.startswith(TODAY):
                    examples = "\n  ".join(
                        str(example) for example in result["examples"].get(f"{row}: {kind}", [])
                    )
                    said.append(
                        f"{family}: {row}: {counts[kind]} of {counts['tries']} tries: {kind}\n  {examples}"
                    )
                elif at in listed and not counts[kind] and counts["tries"] >= listed[at]:
                    said.append(
                        f"{family}: {row}: {kind}: none in {counts['tries']} tries: "
                        f"is it mended? Take it out of {FILE.name}"
                    )
    return said
