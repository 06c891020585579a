# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Reboot while an area of encrypted swap is in use, and see that the shutdown ends, nothing of the area is left
in it, and the area is there again after the boot, with another key.

Devices of the role boot_devices are there, too, on the kernel tier (boot_reboot.py).

Runs on the kernel tier with systemd (tests/kernel/kernel run --systemd --site -- python3 -B swap_reboot.py)
and on an emulated host (tests/host/swap-reboot), once before and once after the reboot. The unit is installed
without Ansible.
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
SETTING = f"/etc/systemd/system/{UNIT.format('one')}.d"
DEVICE = "racefree-swap-one"
CONFIGURATION = "/etc/racefree-block/encrypted-swap"
FILE = "/var/swap"
# What stays when the system reboots: on the kernel tier only directories of the machine do.
MACHINE = "/racefree"
IS_HOST = not os.path.isdir(MACHINE)
KEPT = "/var/tmp/racefree-swap-reboot" if IS_HOST else f"{MACHINE}/out"
MIB = 2**20
# Uses more memory than its unit may have, until it is ended.
EATER = f"import os, time; kept = [os.urandom({MIB}) for n in range(64)]; time.sleep(10000)"


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def install() -> None:
    """What the role installs, and the unit started."""
    library = f"{LIBRARY}/racefree_block"
    shutil.copytree(f"{SITE}/plugins/module_utils", library)
    write(f"{library}/__init__.py", "")
    shutil.copy(f"{SITE}/roles/encrypted_swap/files/encrypted_swap_start.py", library)
    shutil.copy(f"{SITE}/roles/encrypted_swap/files/{UNIT.format('')}", "/etc/systemd/system")
    values = {"source": {"file": FILE, "direct_io": IS_HOST}, "size": 96 * MIB, "priority": 7}
    write(f"{CONFIGURATION}/one.json", json.dumps(values))
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", UNIT.format("one"))


def uninstall() -> None:
    run("systemctl", "disable", "--now", UNIT.format("one"))
    for path in (LIBRARY, CONFIGURATION, SETTING):
        shutil.rmtree(path, ignore_errors=True)
    os.unlink(f"/etc/systemd/system/{UNIT.format('')}")
    os.unlink(FILE)
    run("systemctl", "daemon-reload")


def record_what_is_left() -> None:
    """A setting of the unit: it records what is there after the area was stopped."""
    seen = "(cat /proc/swaps; dmsetup ls; losetup --all; ls /sys/fs/bpf)"
    write(f"{SETTING}/test.conf", f"[Service]\nExecStopPost=/bin/sh -c '{seen} >> {KEPT}/stopped 2>&1'\n")
    run("systemctl", "daemon-reload")


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
    """The area's key, in hexadecimal digits."""
    return run("dmsetup", "table", "--showkeys", DEVICE).split()[4]


def digest() -> str:
    """A hash of the area's key."""
    return hashlib.sha256(key().encode()).hexdigest()


def swap_out() -> None:
    """Start a unit ``eater`` whose memory is swapped out, and wait until much of it is."""
    run("systemd-run", "--unit=eater", "--property=MemoryHigh=24M", sys.executable, "-c", EATER)
    killing.until(lambda: swapped() > 16 * 1024, "what is swapped out", 300)


def keep() -> None:
    """Put what was installed where the next boot finds it."""
    for place in ("/etc/systemd/system", "/etc/racefree-block", LIBRARY):
        shutil.copytree(place, f"{MACHINE}/root{place}", symlinks=True)
    boot_reboot.keep()


def before() -> None:
    install()
    record_what_is_left()
    if not IS_HOST:
        boot_reboot.install()
    swap_out()
    write(f"{KEPT}/key", digest())
    if not IS_HOST:
        keep()
    print(f"{swapped() // 1024} MiB are swapped out at the reboot", flush=True)
    write(f"{KEPT}/rebooted", str(time.time()))
    if not IS_HOST:
        run("systemctl", "reboot")
        time.sleep(1000)


def after() -> None:
    seconds = time.time() - float(read("/proc/uptime").split()[0]) - float(read(f"{KEPT}/rebooted"))
    print(f"the shutdown took about {seconds:.0f} s", flush=True)
    stopped = read(f"{KEPT}/stopped")
    assert "Filename" in stopped, stopped
    for left in ("/dev/dm-", DEVICE, FILE, "racefree"):
        assert left not in stopped, stopped
    assert run("systemctl", "is-active", UNIT.format("one")) == "active\n"
    assert swapped() == 0 and digest() != read(f"{KEPT}/key")
    print("the area is there again, with another key")
    if not IS_HOST:
        boot_reboot.check()


if __name__ == "__main__":
    sys.exit(after() if os.path.exists(f"{KEPT}/rebooted") else before())
