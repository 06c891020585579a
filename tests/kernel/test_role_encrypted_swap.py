# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The role encrypted_swap on a system with systemd: areas created, changed, stopped and removed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from conftest import run_module
from role_play import changes, run_playbook

UNIT = "racefree-encrypted-swap@{}.service"
LIBRARY = "/usr/local/lib/racefree-encrypted-swap"
MIB = 2**20

pytestmark = pytest.mark.systemd


@pytest.fixture
def play(tmp_path):
    """
    A function ``play(*tasks, check=False)`` that runs a play. It returns the changed tasks and the output.
    Each task takes a second, so a play has several checks.
    """

    def run(*tasks, check=False):
        path = tmp_path / "play.yml"
        text = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
        path.write_text(json.dumps(text))
        done = run_playbook(tmp_path, *(["--check"] if check else []), str(path))
        return changes(done), done.stdout

    yield run
    # If the test has failed.
    systemctl("stop", UNIT.format("*"))


def role(*areas, state="present"):
    """A task that applies the role."""
    return {
        "name": "Role",
        "ansible.builtin.include_role": {"name": "racefree.block.encrypted_swap"},
        "vars": {"encrypted_swap_areas": list(areas), "encrypted_swap_state": state},
    }


def refused(*areas):
    """A task that applies the role, which must fail. What it says is in the output."""
    accepted = {"name": "It was accepted", "ansible.builtin.fail": {}}
    wanted = {"that": "ansible_failed_task.name != 'It was accepted'", "quiet": True}
    rescue = {"name": "It was refused", "ansible.builtin.assert": wanted}
    return {"name": "Refused", "block": [role(*areas), accepted], "rescue": [rescue]}


def systemctl(*words):
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


def swaps():
    """{size in KiB: priority}"""
    with open("/proc/swaps", encoding="ascii") as file:
        return {int(line.split()[2]): int(line.split()[4]) for line in file.readlines()[1:]}


def test_made_changed_and_removed(play, tmp_path, image, cleanup):
    one = {"name": "one", "file": str(tmp_path / "one"), "size": "16M", "priority": 3, "direct_io": False}
    disk = {"name": "disk", "path": device_of(image("disk.raw", 64 * MIB), cleanup), "discard": True}
    full = {"name": "full", "path": device_of(image("full.raw", 16 * MIB), cleanup)}
    subprocess.run(["mkfs.ext4", "-q", full["path"]], check=True)

    play(role(one, disk), check=True)
    assert not swaps() and not os.path.exists(LIBRARY)

    dummy, said = play(role(one, disk))
    assert sorted(swaps()) == [16 * 1024 - 4, 64 * 1024 - 4] and swaps()[16 * 1024 - 4] == 3
    for name in ("one", "disk"):
        assert systemctl("is-active", UNIT.format(name)) == (0, "active")
        assert systemctl("is-enabled", UNIT.format(name)) == (0, "enabled")
    # The unit's description says how to stop it, and swapoff is refused.
    assert "systemctl stop" in systemctl("show", "--property=Description", UNIT.format("one"))[1]
    off = subprocess.run(["swapoff", "--all"], capture_output=True, check=False)
    assert off.returncode and len(swaps()) == 2
    shown = ["dmsetup", "table", "--showkeys", "racefree-swap-one"]
    key = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split()[4]
    journal = subprocess.run(["journalctl", "--quiet"], capture_output=True, text=True, check=True).stdout
    assert len(key) == 128 and key not in journal and key not in said
    stopped_by_hand()
    assert systemctl("start", UNIT.format("disk"))[0] == 0

    # Applied again it changes nothing, even on a device that now contains random data.
    changed, said = play(
        role(one, disk),
        refused({"name": "One", "file": "/x", "size": "16M"}),
        refused({"name": "one", "file": "/x"}, {"name": "one", "file": "/y"}),
        refused({"name": "one"}),
        refused({"name": "one", "path": "/dev/x", "size": "16M"}),
        refused(full),
    )
    assert not changed and len(swaps()) == 2, said
    said = " ".join(said.split())
    assert said.count("TASK [It was refused]") == 5, said
    for name, why in (
        ("One", "item.name is match"),
        ("one", "map(attribute='name')"),
        ("one", "[item.file, item.path, item.source]"),
        ("one", "item.size is none"),
    ):
        assert f"encrypted_swap_areas, {name}: needs a name of its own" in said and why in said, said
    assert f"{full['path']}: there is something on it (ext4)" in said, said

    # One gets another size, and the other one is removed.
    changed, said = play(role(dict(one, size="24M"), {"name": "disk", "state": "absent"}))
    assert changed and list(swaps()) == [24 * 1024 - 4], said

    dummy, said = play(
        role(state="absent"), {"name": "Again", "ansible.builtin.debug": {}}, role(state="absent")
    )
    assert not swaps() and not os.path.exists(LIBRARY) and os.path.exists(one["file"]), said
    assert "changed: " not in said.partition("TASK [Again]")[2].partition("PLAY RECAP")[0], said


def device_of(path, cleanup):
    cleanup(loop=path)
    return run_module("loop_device", backing_file=path)["device"]["path"]


def stopped_by_hand():
    """Stop an area, and let a start fail after the area is in use: nothing of it is left."""
    assert systemctl("stop", UNIT.format("disk"))[0] == 0
    directory = f"/run/systemd/system/{UNIT.format('disk')}.d"
    os.makedirs(directory)
    with open(f"{directory}/fails.conf", "w", encoding="ascii") as file:
        file.write("[Service]\nExecStartPost=/bin/false\n")
    assert systemctl("daemon-reload")[0] == 0
    assert systemctl("start", UNIT.format("disk"))[0] != 0 and len(swaps()) == 1
    mapped = subprocess.run(["dmsetup", "ls"], capture_output=True, text=True, check=True).stdout
    assert "racefree-swap-disk" not in mapped and "racefree-swap-one" in mapped
    shutil.rmtree(directory)
    assert systemctl("daemon-reload")[0] == 0
