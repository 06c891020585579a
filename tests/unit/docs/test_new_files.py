# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No page or playbook makes a disk's file that every user of the host can read."""

from __future__ import annotations

import re

from ansible_collections.racefree.block.tests.unit.docs import pages

PLACES = (
    "README.md",
    "docs/**/*.md",
    "playbooks/*.yml",
    "roles/*/README.md",
    "roles/**/tasks/*.yml",
    "plugins/modules/*.py",
)
MAKES = re.compile(
    r"\b(truncate|fallocate)\b.*(--size|-s |--length|-l )|\bqemu-img\b.*\bcreate\b|\bdd\b.*\bof=/(srv|var)"
)
# The file exists.
GROWS = {
    (
        "docs/grow-a-disk.md",
        "| file | `size` of the task, or `truncate --size='>20G' FILE`, which never makes it smaller "
        "| run the task |",
    )
}


def test_new_files_are_for_root_only():
    found = {
        (str(path.relative_to(pages.TOP)), line.strip())
        for place in PLACES
        for path in pages.TOP.glob(place)
        for line in path.read_text(encoding="utf-8").splitlines()
        if MAKES.search(line)
    }
    assert GROWS < found
    assert not {row for row in found - GROWS if "umask 077" not in row[1]}
