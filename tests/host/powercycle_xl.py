# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A guest of xl runs on disks by recipe when the power of its host fails; one of its disks is a device that is
made at boot. ``before`` starts it. ``after`` checks that xendomains has started it again, with the right
bytes, and lets xendomains save and restore it.

Run by ``power-cycle``, which turns the host off and on in between.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import hotplug
from ansible_collections.racefree.block.plugins.module_utils._boot_devices import config
from conftest import run_module
from libvirthost import wait_for
from test_hotplug import answers, guest_sum, in_guest, run

NAME = "power"
PLACE = pathlib.Path("/var/tmp/racefree-powercycle-xl")
CONFIG = pathlib.Path(f"/etc/xen/{NAME}.cfg")
AUTO = pathlib.Path(f"/etc/xen/auto/{NAME}.cfg")
SAVED = pathlib.Path("/var/lib/xen/save")
LIBRARY = pathlib.Path("/usr/local/lib/racefree-boot-devices/racefree_block")
UNIT = "racefree-boot-devices.service"
SERVICE = "racefree-block.service"
UNITS = pathlib.Path("/etc/systemd/system")
UUID = "RACEFREE-BOOT-data"
START = f"""name = "{NAME}"
type = "pv"
kernel = "/usr/lib/xenguest/vmlinux"
ramdisk = "/usr/lib/xenguest/initrd"
cmdline = "console=hvc0 quiet loglevel=1 mitigations=off random.trust_cpu=on panic=5"
memory = 128
vif = []
on_crash = "destroy"
"""


def install() -> None:
    """What the roles xen_host and boot_devices install, and xendomains as it is by default."""
    hotplug.install()
    roles = pathlib.Path(hotplug.FILES).parents[1]
    shutil.copytree(f"{hotplug.COLLECTION}/plugins/module_utils", LIBRARY)
    (LIBRARY / "__init__.py").touch()
    shutil.copy(roles / "boot_devices/files/boot_devices_start.py", LIBRARY)
    shutil.copy(roles / "boot_devices/files" / UNIT, UNITS)
    shutil.copy(roles / "xen_host/files" / SERVICE, UNITS)
    # The image has it masked.
    (UNITS / "xendomains.service").unlink(missing_ok=True)
    # libvirtd.service has Conflicts=xendomains.service: systemd starts one of them at boot.
    run("systemctl", "mask", "--now", "libvirtd.service")
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", UNIT, "xendomains.service")
    run("systemctl", "enable", "--now", SERVICE)


def uninstall() -> None:
    run("systemctl", "disable", "--now", UNIT, SERVICE, "xendomains.service")
    (UNITS / "xendomains.service").symlink_to("/dev/null")
    run("systemctl", "unmask", "libvirtd.service")
    for unit in (UNIT, SERVICE):
        (UNITS / unit).unlink()
    shutil.rmtree(LIBRARY.parent)
    os.unlink(config.PATH)
    hotplug.uninstall()
    run("systemctl", "daemon-reload")


def declare(*names: str) -> None:
    """A linear device over the second MiB of each file."""
    devices = [
        {"name": name, "source": {"table": f"0 2048 linear file:{PLACE / name}.raw 2048"}} for name in names
    ]
    os.makedirs(os.path.dirname(config.PATH), exist_ok=True)
    pathlib.Path(config.PATH).write_text(json.dumps({"timeout": 30, "devices": devices}), encoding="utf-8")
    os.chmod(config.PATH, 0o600)


def mapped() -> dict[str, str]:
    """{name: table}"""
    lines = run("dmsetup", "table").splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def sums() -> list[str]:
    return [guest_sum("xvda", NAME), guest_sum("xvdb", NAME)]


def until_in_time(start: Callable[[], str]) -> None:
    """libxl gives a script 40 s, which is not always enough on a busy emulated host."""
    for turn in range(4):
        said = start()
        if run("xl", "domid", NAME, check=False).isdigit():
            return
        print(f"try {turn + 1}:", said, flush=True)
    raise AssertionError("the guest does not start")


def before() -> None:
    PLACE.mkdir()
    for name, size in (("golden", 1), ("data", 2), ("decoy", 2)):
        (PLACE / f"{name}.raw").write_bytes(os.urandom(size << 20))
    with open(PLACE / "store.cow", "wb") as store:
        store.truncate(2 << 20)
    install()
    declare("data")
    run("systemctl", "start", UNIT)
    CONFIG.write_text(START)
    AUTO.parent.mkdir(exist_ok=True)
    AUTO.symlink_to(CONFIG)
    snapshot = {
        "start": 0,
        "length": 2048,
        "target": "snapshot",
        "origin": {"file": str(PLACE / "golden.raw"), "read_only": True},
        "cow": {"file": str(PLACE / "store.cow")},
        "persistence": "P",
        "chunk_size": 8,
    }
    data = {"path": "/dev/mapper/data", "uuid": UUID}
    run_module(
        "xl_disks",
        disks=[
            {"domain": NAME, "vdev": "xvda", "source": {"table": [snapshot]}},
            {"domain": NAME, "vdev": "xvdb", "source": data},
        ],
    )
    until_in_time(lambda: run("xl", "create", "-q", str(CONFIG), check=False, seconds=300))
    assert wait_for(lambda: answers(NAME), 240), "the guest does not answer"
    for vdev in ("xvda", "xvdb"):
        in_guest(f"echo written to {vdev} | dd of=/dev/{vdev} conv=fsync,notrunc 2>/dev/null; sync", NAME)
    (PLACE / "sums").write_text(json.dumps(sums()))
    # The numbers of the devices are others after the boot.
    declare("decoy", "data")
    # The host's own files must survive the power cut; the guest has called fsync itself.
    os.sync()
    print(mapped())


def after() -> None:
    try:
        booted()
        rebooted_saved_and_restored()
    finally:
        with contextlib.suppress(AssertionError):
            run("xl", "destroy", NAME)
        wait_for(lambda: "recipe" not in str(mapped()), 30)
        with contextlib.suppress(AssertionError):
            run_module(
                "xl_disks", disks=[{"domain": NAME, "vdev": v, "state": "absent"} for v in ("xvda", "xvdb")]
            )
        AUTO.unlink()
        CONFIG.unlink()
        uninstall()
        left = mapped(), hotplug.loops()
        shutil.rmtree(PLACE)
    assert not any(left), left
    print("the guest had the right bytes after the power cut, and after each start; nothing is left")


def booted() -> None:
    """xendomains has started the guest, after the devices were made."""
    ended = ("active", "failed")
    assert wait_for(lambda: run("systemctl", "is-active", "xendomains", check=False) in ended, 400, 3)
    assert run("systemctl", "is-active", UNIT) == "active"
    made, started = (
        int(run("systemctl", "show", "--value", f"--property={name}", unit))
        for unit, name in (
            (UNIT, "ActiveEnterTimestampMonotonic"),
            ("xendomains", "InactiveExitTimestampMonotonic"),
        )
    )
    assert 0 < made <= started, (made, started)
    assert {"data", "decoy"} <= set(mapped())
    if not run("xl", "domid", NAME, check=False).isdigit():
        print("xendomains has not started it:", run("journalctl", "-u", "xendomains", "-b", check=False))
        until_in_time(lambda: run("systemctl", "restart", "xendomains", check=False, seconds=500))
    assert wait_for(lambda: answers(NAME), 240), run("journalctl", "-u", "xendomains", check=False)
    assert sums() == json.loads((PLACE / "sums").read_text()), "the guest has other bytes"
    content = (PLACE / "data.raw").read_bytes()[1 << 20 :]
    assert content.startswith(b"written to xvdb") and sums()[1] == hashlib.sha256(content).hexdigest()
    print("after the boot:", mapped())


def rebooted_saved_and_restored() -> None:
    expected = sums()
    domid = run("xl", "domid", NAME)
    run("xl", "reboot", NAME)
    assert wait_for(lambda: run("xl", "domid", NAME, check=False) not in ("", domid) and answers(NAME), 240)
    assert sums() == expected
    # A device that a guest has stays, and the other one goes.
    said = run("systemctl", "stop", UNIT, check=False) + run(
        "journalctl", "-u", UNIT, "-o", "cat", "-n", "20"
    )
    assert "data: /dev/dm-" in said and "cannot be removed" in said, said
    assert "data" in mapped() and "decoy" not in mapped() and sums() == expected
    run("systemctl", "start", UNIT)
    assert "decoy" in mapped()
    in_guest("touch /tmp/before-the-save", NAME)
    run("systemctl", "stop", "xendomains", seconds=500)
    assert not run("xl", "domid", NAME, check=False).isdigit() and (SAVED / NAME).exists()
    run("systemctl", "stop", UNIT)
    assert wait_for(lambda: not mapped() and not hotplug.loops(), 30), mapped()
    run("systemctl", "start", UNIT)
    run("systemctl", "start", "xendomains", seconds=500)
    assert wait_for(lambda: answers(NAME), 240), "the restored guest does not answer"
    assert in_guest("ls /tmp/before-the-save", NAME) == "/tmp/before-the-save"
    assert sums() == expected


if __name__ == "__main__":
    {"before": before, "after": after}[sys.argv[1]]()
