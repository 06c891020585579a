# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests/quickstart takes from README.md. The playbooks themselves run on an emulated Xen host."""

from __future__ import annotations

import pathlib

import pytest
import yaml

HERE = pathlib.Path(__file__).resolve().parents[2] / "quickstart"


@pytest.fixture
def quickstart(programs):
    return programs(HERE)("quickstart")


def test_the_readme_has_the_quick_starts(quickstart):
    found = quickstart.blocks()
    for heading in ("A guest of `xl`", "A libvirt Xen guest", "A KVM guest"):
        ((play,),) = [yaml.safe_load(block) for block in found[heading]]
        assert play["become"] is True and len(play["tasks"]) == 1
    playbook, removal = map(yaml.safe_load, found["Loop and device-mapper devices in a play"])
    assert len(playbook) == 1 and len(removal) == 2
    for heading in ("A disk for a running guest", "Any other tool"):
        assert len(yaml.safe_load(found[heading][0])) == 1


def test_how_a_playbook_is_undone(quickstart):
    (text,) = quickstart.blocks()["A libvirt Xen guest"]
    (play,) = yaml.safe_load(quickstart.changed_play(text, state="absent"))
    assert play["tasks"][0]["racefree.block.libvirt_disk"]["state"] == "absent"
    (play,) = yaml.safe_load(quickstart.changed_play(text, variables={"xen_host_state": "absent"}))
    assert "tasks" not in play and play["hosts"] == "xen_hosts"
    assert play["roles"] == [{"role": "racefree.block.xen_host", "xen_host_state": "absent"}]
