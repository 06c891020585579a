# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The role encrypted_swap on a system with systemd: areas created, changed, stopped and removed.
"""

from __future__ import annotations

import contextlib
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
    disk = {"name": "disk", "source": mapped(image("disk.raw", 64 * MIB), "d", cleanup), "discard": True}
    full = {"name": "full", "path": mapped(image("full.raw", 16 * MIB), "f", cleanup)["path"]}
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
        # A known area that is described otherwise.
        refused(dict(full, name="disk")),
        # One area is renamed, two in the list have the same file, and one has a path that any disk can get.
        refused(
            full,
            dict(disk, name="other"),
            {"name": "a", "file": "/x"},
            {"name": "b", "file": "/x"},
            {"name": "c", "path": "/dev/loop0"},
        ),
    )
    assert not changed and len(swaps()) == 2, said
    said = " ".join(said.split())
    assert said.count("TASK [It was refused]") == 6, said
    for name, why in (
        ("One", "item.name is match"),
        ("one", "map(attribute='name')"),
        ("one", "[item.file, item.path, item.source]"),
        ("one", "item.size is none"),
    ):
        assert f"encrypted_swap_areas, {name}: needs a name of its own" in said and why in said, said
    overwritten = f"{full['path']}: it contains something that swap would overwrite: ext4"
    for words in (
        f"full: {overwritten}",
        f"disk: {overwritten}",
        "other and disk: both areas are on path:/dev/mapper/t-swap-d",
        "a and b: both areas are on file:/x",
        "c: source /dev/loop0: cannot be kept",
    ):
        assert words in said, said

    # One gets another size, and the other one is removed.
    changed, said = play(role(dict(one, size="24M"), {"name": "disk", "state": "absent"}))
    assert changed and list(swaps()) == [24 * 1024 - 4], said

    dummy, said = play(
        role(state="absent"), {"name": "Again", "ansible.builtin.debug": {}}, role(state="absent")
    )
    assert not swaps() and not os.path.exists(LIBRARY) and os.path.exists(one["file"]), said
    assert "changed: " not in said.partition("TASK [Again]")[2].partition("PLAY RECAP")[0], said


def test_what_the_kernel_does_counts(play, tmp_path, image, cleanup):
    one = {"name": "one", "file": str(tmp_path / "one"), "size": "16M", "priority": 3, "direct_io": False}
    doubtful = {"name": "disk", "path": mapped(image("disk.raw", 32 * MIB), "d", cleanup)["path"]}
    dummy, said = play(role(one, doubtful))
    assert len(swaps()) == 2 and "can name another disk after the next boot" in " ".join(said.split()), said

    # An earlier play was killed after it had written the description.
    edited("one", priority=9)
    changed, said = play(role(dict(one, priority=9)))
    assert swaps()[16 * 1024 - 4] == 9 and len(swaps()) == 2, said
    # Only how it may start is described otherwise.
    before = swaps()
    changed, said = play(role(dict(one, priority=9, overwrite=True)))
    assert changed == {"Describe the areas"} and swaps() == before, said

    # On a file, however it is given, the unit needs the file system, and on another device no more.
    place = tmp_path / "a%b"
    place.mkdir()
    (place / "swap").write_bytes(os.urandom(16 * MIB))
    source = {"file": str(place / "swap"), "direct_io": False}
    changed, said = play(role({"name": "disk", "source": source, "overwrite": True}))
    assert needed("disk") == [str(place)] and needed("one") == [str(tmp_path)], said
    changed, said = play(role(doubtful))
    assert needed("disk") == [] and needed("one") == [str(tmp_path)], said
    assert "racefree-boot-devices.service" in systemctl("show", "--property=After", UNIT.format("disk"))[1]

    # Removed, although its unit does not stop it.
    with setting("disk", "ExecStopPost="):
        dummy, said = play(role({"name": "disk", "state": "absent"}))
    assert list(swaps()) == [16 * 1024 - 4], said
    play(role(state="absent"))


def needed(name):
    """The paths whose file systems the area's unit requires, without that of its own directories."""
    shown = systemctl("show", "--property=RequiresMountsFor", "--value", UNIT.format(name))[1]
    return [path for path in shown.split() if path not in ("/var/tmp", "/tmp")]


def mapped(path, letter, cleanup):
    """The source of a mapped device over a loop device with this file."""
    cleanup(loop=path)
    disk = run_module("loop_device", backing_file=path)["device"]["path"]
    name = f"t-swap-{letter}"
    table = f"0 {os.path.getsize(path) // 512} linear {disk} 0"
    subprocess.run(["dmsetup", "create", name, "--uuid", f"U-{name}", "--table", table], check=True)
    cleanup(dm=name)
    return {"path": f"/dev/mapper/{name}", "uuid": f"U-{name}"}


def edited(name, **values):
    """Change the description of an area on the host."""
    path = f"/etc/racefree-block/encrypted-swap/{name}.json"
    with open(path, encoding="utf-8") as file:
        known = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(dict(known, **values), indent=4, sort_keys=True) + "\n")


@contextlib.contextmanager
def setting(name, line):
    """A setting of the area's unit."""
    directory = f"/run/systemd/system/{UNIT.format(name)}.d"
    os.makedirs(directory)
    try:
        with open(f"{directory}/test.conf", "w", encoding="ascii") as file:
            file.write(f"[Service]\n{line}\n")
        assert systemctl("daemon-reload")[0] == 0
        yield
    finally:
        shutil.rmtree(directory)
        assert systemctl("daemon-reload")[0] == 0


def stopped_by_hand():
    """Stop an area, and let a start fail after the area is in use: nothing of it is left."""
    assert systemctl("stop", UNIT.format("disk"))[0] == 0
    with setting("disk", "ExecStartPost=/bin/false"):
        assert systemctl("start", UNIT.format("disk"))[0] != 0 and len(swaps()) == 1
        there = subprocess.run(["dmsetup", "ls"], capture_output=True, text=True, check=True).stdout
        assert "racefree-swap-disk" not in there and "racefree-swap-one" in there
