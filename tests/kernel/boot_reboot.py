# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Devices of the role boot_devices over a real reboot: taken down by the shutdown, and there again before the
units that start guests, although one of them fails. The unit is installed without Ansible.

``swap_reboot.py`` calls this before and after its reboot.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess

SITE = "/root/site/ansible_collections/racefree/block"
LIBRARY = "/usr/local/lib/racefree-boot-devices"
UNIT = "racefree-boot-devices.service"
UNITS = "/etc/systemd/system"
LIST = "/etc/racefree-block/boot-devices.json"
FILES = "/srv/boot"
# On the machine: they stay when the kernel reboots.
KEPT, ROOT = "/racefree/out", "/racefree/root"
MIB = 2**20
# Stands for each unit that starts guests, and sees what there is then.
GUESTS = f"""[Service]
Type=oneshot
ExecStart=/bin/sh -c 'sha256sum /dev/mapper/data > {KEPT}/seen-by-%N'
[Install]
WantedBy=multi-user.target
"""
STARTERS = ("virtqemud", "virtxend")


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def write(path: str, text: str, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def declare(path: str, *others: dict[str, object]) -> None:
    data = {"name": "data", "source": {"table": f"0 2048 linear file:{FILES}/data.raw 0"}}
    loop = {"name": "loop", "source": {"file": f"{FILES}/loop.raw"}}
    write(path, json.dumps({"timeout": 1, "devices": [*others, data, loop]}), 0o600)


def install() -> None:
    """Install it, have the devices, and describe one that cannot be for the next boot."""
    library = f"{LIBRARY}/racefree_block"
    shutil.copytree(f"{SITE}/plugins/module_utils", library)
    write(f"{library}/__init__.py", "")
    shutil.copy(f"{SITE}/roles/boot_devices/files/boot_devices_start.py", library)
    shutil.copy(f"{SITE}/roles/boot_devices/files/{UNIT}", UNITS)
    for name in ("data", "loop"):
        os.makedirs(ROOT + FILES, exist_ok=True)
        with open(f"{ROOT}{FILES}/{name}.raw", "wb") as file:
            file.write(os.urandom(MIB))
    shutil.copytree(ROOT + FILES, FILES)
    declare(LIST)
    # Only the first stop: the unit fails after the boot.
    seen = f"[ -e {KEPT}/boot-stopped ] || (dmsetup ls; losetup --all) > {KEPT}/boot-stopped 2>&1"
    write(f"{UNITS}/{UNIT}.d/test.conf", f"[Service]\nExecStopPost=/bin/sh -c '{seen}'\n")
    for name in STARTERS:
        write(f"{UNITS}/{name}.service", GUESTS)
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", UNIT)
    run("systemctl", "enable", *(f"{name}.service" for name in STARTERS))
    assert os.path.exists("/dev/mapper/data") and "loop.raw" in run("losetup", "--all")


def keep() -> None:
    """What is installed is there after the boot, with a list in which one device fails."""
    shutil.copytree(LIBRARY, f"{ROOT}{LIBRARY}")
    declare(f"{ROOT}{LIST}", {"name": "missing", "source": {"file": "/nowhere/x.raw"}})


def check() -> None:
    """After the boot."""
    with open(f"{KEPT}/boot-stopped", encoding="utf-8") as file:
        stopped = file.read()
    assert "data" not in stopped and FILES not in stopped, stopped
    with open(f"{FILES}/data.raw", "rb") as file:
        expected = hashlib.sha256(file.read()).hexdigest()
    for name in STARTERS:
        with open(f"{KEPT}/seen-by-{name}", encoding="utf-8") as file:
            assert file.read().split() == [expected, "/dev/mapper/data"], name
    assert "loop.raw" in run("losetup", "--all")
    shown = run("systemctl", "show", "--property=ActiveState,StatusText,ExecMainStatus", UNIT).split("\n")
    assert {
        "ActiveState=failed",
        "StatusText=failed: missing; 2 devices are there",
        "ExecMainStatus=1",
    } <= set(shown)
    assert "missing: source.file /nowhere/x.raw: does not exist" in run("journalctl", "--quiet", "-u", UNIT)
    print("the devices were there before guests start, and the one that failed is named")
