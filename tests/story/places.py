# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The names of what the story makes, and of the ways to tell it.
"""

from __future__ import annotations

import os
from pathlib import Path

HERE = os.path.dirname(os.path.abspath(__file__))
DIRECTORY = "/var/tmp/story"
NAME, UUID = "story", "STORY-1"
GOLDEN, IMAGE, OTHER = (os.path.join(DIRECTORY, name) for name in ("golden.raw", "story.raw", "other.raw"))
# The UUID of somebody else's mapped device.
OTHER_UUID = "OTHER-1"
BYTES = 16 << 20
# The mapped device is the first half of the image.
SECTORS = BYTES // 512 // 2
VARIABLES = {
    "story_name": NAME,
    "story_uuid": UUID,
    "story_golden": GOLDEN,
    "story_image": IMAGE,
    "story_sectors": SECTORS,
    "story_definition": os.path.join(HERE, "plays/guest.xml.j2"),
}
# {directory of the playbooks: name on the page}
WAYS = {
    "recipe": "racefree.block, a recipe",
    "devices": "racefree.block, each device",
    "community": "community.libvirt and commands",
    "commands": "commands",
}
PRESENT, ABSENT = "present", "absent"


def playbook(way, phase):
    return Path(HERE, "plays", way, f"{phase}.yml")
