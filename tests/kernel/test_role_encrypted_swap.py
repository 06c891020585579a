# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The role encrypted_swap on a system with systemd: areas created, changed, stopped and removed.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from conftest import run_module
from role_play import changed_tasks, play_role

UNIT = "racefree-encrypted-swap@{}.service"
LIBRARY = "/usr/local/lib/racefree-encrypted-swap"
MIB = 2**20

pytestmark = pytest.mark.systemd


@pytest.fixture
def role(tmp_path):
    """
    A function ``role(areas, check=False, state="present")`` that applies the role. It returns the exit code,
    the changed tasks and the output.
    """

    def apply(areas=(), check=False, state="present"):
        variables = {"encrypted_swap_areas": list(areas), "encrypted_swap_state": state}
        done = play_role(tmp_path, "encrypted_swap", check, variables)
        return done.returncode, changed_tasks(done.stdout), done.stdout + done.stderr

    yield apply
    apply(state="absent")
    # A second removal changes nothing.
    code, changed, said = apply(state="absent")
    assert code == 0 and not changed, said


def systemctl(*words):
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


def swaps():
    """{size in KiB: priority}"""
    with open("/proc/swaps", encoding="ascii") as file:
        return {int(line.split()[2]): int(line.split()[4]) for line in file.readlines()[1:]}


def test_made_changed_and_removed(role, tmp_path):
    one = {"name": "one", "file": str(tmp_path / "one"), "size": "16M", "priority": 3, "direct_io": False}
    two = {"name": "two", "file": str(tmp_path / "two"), "size": "32M", "discard": True, "direct_io": False}
    code, dummy, said = role([one, two], check=True)
    assert code == 0, said
    assert not swaps() and not os.path.exists(LIBRARY)
    code, dummy, said = role([one, two])
    assert code == 0, said
    assert sorted(swaps()) == [16 * 1024 - 4, 32 * 1024 - 4] and swaps()[16 * 1024 - 4] == 3
    for name in ("one", "two"):
        assert systemctl("is-active", UNIT.format(name)) == (0, "active")
        assert systemctl("is-enabled", UNIT.format(name)) == (0, "enabled")
    # The unit's description says how to stop it, and swapoff is refused.
    assert "systemctl stop" in systemctl("show", "--property=Description", UNIT.format("one"))[1]
    assert (
        subprocess.run(["swapoff", "--all"], capture_output=True, check=False).returncode
        and len(swaps()) == 2
    )
    code, changed, said = role([one, two])
    assert code == 0 and not changed, said
    key = subprocess.run(
        ["dmsetup", "table", "--showkeys", "racefree-swap-one"], capture_output=True, text=True, check=True
    ).stdout.split()[4]
    journal = subprocess.run(["journalctl", "--quiet"], capture_output=True, text=True, check=True).stdout
    assert len(key) == 128 and key not in journal and key not in said
    # One area is stopped by hand, and the other gets another size.
    assert systemctl("stop", UNIT.format("two"))[0] == 0 and len(swaps()) == 1
    mapped = subprocess.run(["dmsetup", "ls"], capture_output=True, text=True, check=True).stdout
    assert "racefree-swap-two" not in mapped
    code, changed, said = role([dict(one, size="24M"), two])
    assert code == 0 and changed, said
    assert sorted(swaps()) == [24 * 1024 - 4, 32 * 1024 - 4]
    code, changed, said = role([{"name": "two", "state": "absent"}])
    assert code == 0 and len(swaps()) == 1 and os.path.exists(two["file"]), said
    code, changed, said = role(state="absent")
    assert code == 0 and not swaps() and not os.path.exists(LIBRARY), said


@pytest.mark.parametrize(
    "areas, words",
    [
        ([{"name": "One", "file": "/x", "size": "16M"}], "a name of its own"),
        ([{"name": "one", "file": "/x"}, {"name": "one", "file": "/y"}], "a name of its own"),
        ([{"name": "one"}], "exactly one of file, path and source"),
        ([{"name": "one", "path": "/dev/x", "size": "16M"}], "a size only together with file"),
    ],
)
def test_areas_that_cannot_be(role, areas, words):
    code, changed, said = role(areas)
    assert code and not changed and words in " ".join(said.split()), said


def test_what_is_on_a_device_is_not_overwritten(role, image, cleanup):
    path = image("disk.raw", 32 * MIB)
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path)["device"]
    subprocess.run(["mkfs.ext4", "-q", device["path"]], check=True)
    code, changed, said = role([{"name": "disk", "path": device["path"]}])
    assert code and not changed and "wipefs --all" in said, said
    subprocess.run(["wipefs", "--quiet", "--all", device["path"]], check=True)
    code, changed, said = role([{"name": "disk", "path": device["path"]}])
    assert code == 0 and len(swaps()) == 1, said
    # The device now contains random data, but the area is known.
    code, changed, said = role([{"name": "disk", "path": device["path"]}])
    assert code == 0 and not changed, said
