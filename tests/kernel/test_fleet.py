# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ten guests of one golden image, from its conversion to their removal: a sample of fleet.py."""

from __future__ import annotations

import os

import fleet
import pytest

pytestmark = pytest.mark.qemu


@pytest.mark.rotated
def test_a_fleet_of_one_golden_image():
    with fleet.Fleet("/var/tmp/fleet", 10) as guests:
        first = guests.run()
        assert first.changed == {
            "convert the image",
            "make the files",
            "record the images",
            "define the disks",
        }
        assert guests.run().changed == set()
        guests.run("absent")
        assert not [name for name in os.listdir(guests.place) if ".cow" in name]
