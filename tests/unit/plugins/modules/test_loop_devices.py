# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries of one list that are about the same loop device. Other tests: tests/kernel/test_loop.py."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.modules import loop_device, loop_devices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices, modulerun


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_device_that_is_found_elsewhere_is_not_kept_open(state):
    """Another entry, which names it rightly, removes it."""
    loopdevices.need_loop()
    with loopdevices.directory() as place:
        path, other = (loopdevices.image(place, name, 65536) for name in ("disk", "other"))
        device = modulerun.run(loop_device.main, False, backing_file=path)["device"]
        refused = {"backing_file": other, "diskseq": device["diskseq"], "state": state}
        removed = {"backing_file": path, "state": "absent", "timeout": 2}
        try:
            done = modulerun.run(loop_devices.main, False, devices=[refused, removed], on_error="keep")
            assert device["path"] in done["devices"][0]["msg"]
            assert done["devices"][1]["gone"] and "msg" not in done["devices"][1], done
        finally:
            modulerun.run(loop_device.main, False, backing_file=path, state="absent")
