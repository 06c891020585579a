# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The role boot_devices on a system with systemd: devices declared, refused, failed and removed.
test_boot_devices.py has changed lists.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from role_play import changes, files, run_playbook

UNIT = "racefree-boot-devices.service"
LIBRARY = "/usr/local/lib/racefree-boot-devices"
LIST = "/etc/racefree-block/boot-devices.json"
MIB = 2**20

pytestmark = pytest.mark.systemd


@pytest.fixture
def play(tmp_path):
    """
    A function ``play(*tasks, check=False)`` that runs a play. It returns the changed tasks and the output on
    one line. Each task takes a second, so a play has several checks.
    """

    def run(*tasks, check=False):
        path = tmp_path / "play.yml"
        text = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
        path.write_text(json.dumps(text))
        done = run_playbook(tmp_path, *(["--check"] if check else []), str(path))
        return changes(done), " ".join(done.stdout.split())

    yield run
    # If the test has failed.
    if os.path.exists(LIBRARY):
        program = f"{LIBRARY}/racefree_block/boot_devices_start.py"
        subprocess.run(["python3", "-I", program, "stop"], check=False)


def role(devices=(), state="present"):
    """A task that applies the role. ``devices``: {name: source}, or None: the list is not set."""
    # The option -e of ansible-playbook gives texts, also for numbers.
    variables = {"boot_devices_state": state, "boot_devices_timeout": "1"}
    if devices is not None:
        listed = [{"name": name, "source": source} for name, source in dict(devices).items()]
        variables["boot_devices_list"] = listed
    return {
        "name": "Role",
        "ansible.builtin.include_role": {"name": "racefree.block.boot_devices"},
        "vars": variables,
    }


def refused(devices=(), **more):
    """A task that applies the role, which must fail. What it says is in the output."""
    accepted = {"name": "It was accepted", "ansible.builtin.fail": {}}
    wanted = {"that": "ansible_failed_task.name != 'It was accepted'", "quiet": True}
    rescue = {"name": "It was refused", "ansible.builtin.assert": wanted}
    return {"name": "Refused", "block": [role(devices, **more), accepted], "rescue": [rescue]}


def systemctl(*words):
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


def shown(name):
    return systemctl("show", f"--property={name}", "--value", UNIT)[1]


def mapped():
    """{name: length in sectors}"""
    done = subprocess.run(["dmsetup", "table"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in done.splitlines() if ": " in line]
    return {row[0].rstrip(":"): int(row[2]) for row in rows}


def loops(path):
    return subprocess.run(["losetup", "-j", path], capture_output=True, text=True, check=True).stdout


def linear(path, sectors):
    return {"table": f"0 {sectors} linear file:{path} 0"}


def test_declared_refused_failed_and_removed(play, image):
    one, two = image("one.raw", MIB), image("two.raw", MIB)
    before = files()
    devices = {"one": linear(one, 2048), "two": {"file": two}}
    changed, said = play(role(devices), check=True)
    assert "Say what will be done" in changed and "'one': 'make'" in said.replace('"', "'"), said
    assert not mapped() and not loops(two) and files() == before

    told = {"name": "Told", "ansible.builtin.debug": {"var": "boot_devices_made"}}
    changed, said = play(role(devices), told)
    assert "Have the devices now" in changed and mapped() == {"one": 2048} and loops(two)
    assert '"path": "/dev/mapper/one"' in said and '"made": true' in said, said
    assert systemctl("is-active", UNIT) == (0, "active") and systemctl("is-enabled", UNIT) == (0, "enabled")
    assert shown("StatusText") == "2 devices are there" and oct(os.stat(LIST).st_mode)[-3:] == "600"
    # systemctl quotes words that have a backslash.
    after = shown("After").replace('"', "").replace("\\\\", "\\").split()
    assert {"tmp.mount", r"tmp-pytest\x2dof\x2droot.mount"} <= set(after), after

    # Applied again it changes nothing. What cannot be is refused, and nothing is changed by that either.
    with open("/dev/mapper/one", "rb"):
        changed, said = play(
            role(devices),
            refused({"one": linear(one, 1024), "bad": {"path": "/dev/loop0"}, "../x": {"file": one}}),
            refused(None),
        )
    assert not changed and "TASK [It was refused]" in said, said
    for words in (
        "boot_devices_list is not set",
        "bad.source /dev/loop0: cannot be kept",
        "devices[2].name ../x: must be 1 to 64 characters",
        "one: /dev/dm-",
        "cannot be removed: a program has it open",
        "Nothing was changed",
    ):
        assert words in said, said
    assert mapped() == {"one": 2048} and os.path.exists(LIBRARY)
    with open(LIST, encoding="utf-8") as file:
        assert [device["name"] for device in json.load(file)["devices"]] == ["one", "two"]

    started_again(two)

    again = {"name": "Again", "ansible.builtin.debug": {}}
    dummy, said = play(role(None, state="absent"), again, role(state="absent"))
    # Other parts of the collection use this directory, too.
    before.setdefault("/etc/racefree-block", 0o755)
    assert not mapped() and not loops(two) and files() == before, said
    assert "changed: " not in said.partition("TASK [Again]")[2].partition("PLAY RECAP")[0], said


def started_again(two):
    """Stopped and started by hand, and with a device that fails; ``two``: the file of a good one."""
    assert systemctl("stop", UNIT)[0] == 0 and not mapped() and not loops(two)
    os.rename(two, f"{two}.away")
    assert systemctl("start", UNIT)[0] != 0 and mapped() == {"one": 2048}
    assert systemctl("is-failed", UNIT) == (0, "failed") and shown("ExecMainStatus") == "1"
    assert shown("StatusText") == "failed: two; 1 devices are there"
    journal = ["journalctl", "--quiet", "--priority=err", f"--unit={UNIT}", "--output=cat"]
    said = subprocess.run(journal, capture_output=True, text=True, check=True).stdout
    assert f"racefree-boot-devices: two: source.file {two}: does not exist" in said, said
    os.rename(f"{two}.away", two)
    assert systemctl("start", UNIT)[0] == 0 and mapped() == {"one": 2048} and loops(two)
    # A reload makes what is missing, and keeps the others.
    subprocess.run(["dmsetup", "remove", "--retry", "one"], check=True)
    assert systemctl("reload", UNIT)[0] == 0 and mapped() == {"one": 2048}
