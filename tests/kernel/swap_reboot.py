# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Reboot while an area of encrypted swap is in use, and see that the shutdown ends, nothing of the area is left
in it, and the area is there again after the boot, with another key.

Devices of the role boot_devices are there, too (boot_reboot.py).

Runs on the kernel tier with systemd (tests/kernel/kernel run --systemd --site -- python3 -B swap_reboot.py),
once before and once after the reboot. The unit is installed without Ansible.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import boot_reboot
import killing
from sealing import is_refused

SITE = "/root/site/ansible_collections/racefree/block"
LIBRARY = "/usr/local/lib/racefree-encrypted-swap"
UNIT = "racefree-encrypted-swap@{}.service"
DEVICE = "racefree-swap-one"
# On the machine: it stays when the kernel reboots.
KEPT = "/racefree/out"
MIB = 2**20
# Uses more memory than its unit may have, until it is ended.
EATER = f"import os, time; kept = [os.urandom({MIB}) for n in range(64)]; time.sleep(10000)"


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def install() -> None:
    """What the role installs, and a unit setting that records what is there after the area was stopped."""
    library = f"{LIBRARY}/racefree_block"
    shutil.copytree(f"{SITE}/plugins/module_utils", library)
    write(f"{library}/__init__.py", "")
    shutil.copy(f"{SITE}/roles/encrypted_swap/files/encrypted_swap_start.py", library)
    shutil.copy(f"{SITE}/roles/encrypted_swap/files/{UNIT.format('')}", "/etc/systemd/system")
    values = {"source": {"file": "/var/swap", "direct_io": False}, "size": 96 * MIB, "priority": 7}
    write("/etc/racefree-block/encrypted-swap/one.json", json.dumps(values))
    seen = "(cat /proc/swaps; dmsetup ls; losetup --all; ls /sys/fs/bpf)"
    setting = f"[Service]\nExecStopPost=/bin/sh -c '{seen} >> {KEPT}/stopped 2>&1'\n"
    write(f"/etc/systemd/system/{UNIT.format('one')}.d/test.conf", setting)
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", UNIT.format("one"))


def write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def swapped() -> int:
    """KiB that are swapped out to the area."""
    ((node, _type, _size, used, priority),) = [line.split() for line in read("/proc/swaps").splitlines()[1:]]
    assert priority == "7" and is_refused(node)
    return int(used)


def key() -> str:
    """A hash of the area's key."""
    shown = run("dmsetup", "table", "--showkeys", DEVICE).split()[4]
    return hashlib.sha256(shown.encode()).hexdigest()


def before() -> None:
    install()
    boot_reboot.install()
    run("systemd-run", "--unit=eater", "--property=MemoryHigh=24M", sys.executable, "-c", EATER)
    killing.until(lambda: swapped() > 16 * 1024, "what is swapped out", 120)
    write(f"{KEPT}/key", key())
    for place in ("/etc/systemd/system", "/etc/racefree-block", LIBRARY):
        shutil.copytree(place, f"/racefree/root{place}", symlinks=True)
    boot_reboot.keep()
    print(f"{swapped() // 1024} MiB are swapped out at the reboot", flush=True)
    write(f"{KEPT}/rebooted", str(time.time()))
    run("systemctl", "reboot")
    time.sleep(1000)


def after() -> None:
    seconds = time.time() - float(read("/proc/uptime").split()[0]) - float(read(f"{KEPT}/rebooted"))
    print(f"the shutdown took about {seconds:.0f} s", flush=True)
    stopped = read(f"{KEPT}/stopped")
    for left in ("/dev/dm-", DEVICE, "/var/swap", "racefree"):
        assert left not in stopped, stopped
    assert run("systemctl", "is-active", UNIT.format("one")) == "active\n"
    assert swapped() == 0 and key() != read(f"{KEPT}/key")
    print("the area is there again, with another key")
    boot_reboot.check()


if __name__ == "__main__":
    sys.exit(after() if os.path.exists(f"{KEPT}/rebooted") else before())
