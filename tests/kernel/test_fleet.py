# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ten guests of one golden image, from its conversion to their removal: a sample of fleet.py."""

from __future__ import annotations

import os

import fleet
import pytest
import qemuhost
from conftest import Failed, run_module

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
        # A guest that is not in a role's list keeps its file.
        name, path = guests.names[0], guests.changes(guests.names[0])
        with pytest.raises(Failed, match=f"vda of {name}, in its definition of libvirt names it"):
            run_module("unused_storage", files=[path], uri=qemuhost.URI)
        assert os.path.exists(path)
        guests.run("absent")
        assert not [name for name in os.listdir(guests.place) if ".cow" in name]
