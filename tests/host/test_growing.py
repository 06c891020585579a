# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Disks that grow while a real guest has them. tests/kernel/test_growth.py has what is below blkback;
test_xl_disk.py and test_libvirt_disk.py have guests of xl and libvirt.
"""

from __future__ import annotations

import os
import subprocess
import time

import hotplug
import ptrace
import pytest
from ansible_collections.racefree.block.plugins.module_utils._block.seal import place
from ansible_collections.racefree.block.plugins.module_utils._source import recipe_file
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.plugins.modules import xen_vbd
from conftest import Failed, predict_and_run, refused, run_module, wait_until
from sealing import is_refused

pytestmark = [pytest.mark.xen, pytest.mark.long]

MIB = 2**20
GUEST = "growtest"
# Imported here, so that a process that is killed at a system call need not import it.
PRELOADED = xen_vbd


def xenguest(*words, check=True):
    return subprocess.run(["xenguest", *words], capture_output=True, text=True, check=check, timeout=180)


def in_guest(command):
    return xenguest("run", GUEST, "--timeout", "90", "--", command).stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def guest():
    xenguest("stop", GUEST, check=False)
    xenguest("start", GUEST, "--memory", "128")
    yield
    xenguest("stop", GUEST)


@pytest.fixture
def attached():
    """``attached(options)``: the options of xen_vbd for the disk xvdb, which is attached."""

    def attach(**options):
        options = {"domain": GUEST, "vdev": "xvdb", "persist": False, **options}
        run_module("xen_vbd", **options, wait_connected=True)
        return options

    yield attach
    run_module("xen_vbd", domain=GUEST, vdev="xvdb", state="detached", force=True)
    time.sleep(0.5)


def size_in_guest():
    return int(in_guest("cat /sys/block/xvdb/size")) * 512


def write_at(mib, text):
    in_guest(f"echo {text} | dd of=/dev/xvdb bs=1M seek={mib} conv=notrunc 2>/dev/null; sync")


def read_at(mib, size):
    return in_guest(f"dd if=/dev/xvdb bs=1M skip={mib} count=1 2>/dev/null | head -c {size}")


def backend_key():
    domid = subprocess.run(["xl", "domid", GUEST], capture_output=True, text=True, check=True).stdout
    return Key(int(domid), 51712 + 16)


def test_the_file_and_the_guest(attached, image):
    path = image("a.raw", 4 * MIB)
    options = attached(source={"file": path})
    write_at(1, "before")
    done = predict_and_run("xen_vbd", **options, size="8M")
    assert done["changed"] and done["device"]["size"] == size_in_guest() == 8 * MIB
    assert done["diff"]["after"]["size"] == 8 * MIB
    write_at(7, "grown")
    with open(path, "rb") as file:
        file.seek(7 * MIB)
        assert file.read(5) == b"grown"
    assert read_at(1, 6) == "before"
    refused("xen_vbd", "size", "must be 8388608 or more", **options, size="4M")
    assert run_module("xen_vbd_info", domain=GUEST, vdev="xvdb")["vbds"][0]["size"] == 8 * MIB


def test_a_disk_by_recipe(image, tmp_path):
    """With xl_disk: the table of the recipe, and of the device that the hotplug script has made."""
    config = tmp_path / "growtest.cfg"
    config.write_text(f'name = "{GUEST}"\ndisk = []\n')
    path = image("a.raw", 16 * MIB)

    def options(size):
        line = {"start": 0, "length": size // 512, "target": "linear", "device": {"file": path}, "offset": 0}
        return {"config_file": str(config), "vdev": "xvdb", "source": {"table": [line]}}

    with hotplug.installed():
        try:
            text = run_module("xl_disk", **options(4 * MIB))["disk"]["text"]
            subprocess.run(["xl", "block-attach", GUEST, text], check=True, timeout=120)
            write_at(1, "before")
            done = predict_and_run("xl_disk", **options(8 * MIB), live=True)
            assert done["changed"] and size_in_guest() == 8 * MIB
            write_at(7, "grown")
            assert read_at(7, 5) == "grown" and read_at(1, 6) == "before"
            (kept,) = recipe_file.read(f"{GUEST}-xvdb").source.table
            assert kept["length"] == 8 * MIB // 512
            subprocess.run(["xl", "block-detach", GUEST, "xvdb"], check=True, timeout=120)
        finally:
            run_module("xl_disk", config_file=str(config), vdev="xvdb", state="absent")
            time.sleep(0.5)


def test_a_guest_that_makes_no_requests_is_told(attached, image):
    """blkback's thread compares the sizes every 100 ms. A paused guest cannot make a request."""
    path = image("a.raw", 4 * MIB)
    options = attached(source={"file": path})
    device = run_module("xen_vbd", **options)["device"]["path"]
    key = backend_key()
    subprocess.run(["xl", "pause", GUEST], check=True)
    try:
        os.truncate(path, 8 * MIB)
        subprocess.run(["losetup", "--set-capacity", device], check=True)
        with Store() as store:
            wait_until(lambda: store.read(f"{key.backend}/sectors") == str(8 * MIB // 512), 60)
    finally:
        subprocess.run(["xl", "unpause", GUEST], check=True)
    assert size_in_guest() == 8 * MIB
    assert not run_module("xen_vbd", **options)["changed"]


def encrypted_snapshot(image, size):
    """A snapshot of an image, longer than the image, and encrypted; all files are large enough."""
    golden = {"file": image("golden.raw", MIB), "read_only": True}
    origin = {
        "read_only": True,
        "table": [
            {"start": 0, "length": 2048, "target": "linear", "device": golden, "offset": 0},
            {"start": 2048, "length": size // 512 - 2048, "target": "zero"},
        ],
    }
    snapshot = {
        "start": 0,
        "length": size // 512,
        "target": "snapshot",
        "origin": origin,
        "cow": {"file": image("store.cow", 16 * MIB), "format": "raw"},
        "persistence": "P",
        "chunk_size": 8,
    }
    return {
        "table": [
            {
                "start": 0,
                "length": size // 512,
                "target": "crypt",
                "cipher": "aes-xts-plain64",
                "key": "00" * 64,
                "iv_offset": 0,
                "device": {"table": [snapshot]},
                "offset": 0,
            }
        ]
    }


def test_a_sealed_stack(attached, image):
    made = {}

    def once(name, size):
        if name not in made:
            made[name] = image(name, size)
        return made[name]

    if not os.path.ismount(place.BPF_FS):
        subprocess.run(["mount", "-t", "bpf", "bpf", place.BPF_FS], check=True)
    options = attached(source=encrypted_snapshot(once, 4 * MIB), sealed=True, sealed_below=True)
    write_at(1, "before")
    options["source"] = encrypted_snapshot(once, 8 * MIB)
    done = predict_and_run("xen_vbd", **options)
    assert done["changed"] and size_in_guest() == 8 * MIB and is_refused(done["device"]["path"])
    write_at(7, "grown")
    assert read_at(7, 5) == "grown" and read_at(1, 6) == "before"
    refused(
        "xen_vbd", "must be 16384 sectors or more", **dict(options, source=encrypted_snapshot(once, 6 * MIB))
    )


def test_killed_while_it_grows(attached, image):
    """After each kill the disk works, and the next run finishes."""
    path = image("a.raw", 64 * MIB)

    def source(size):
        line = {"start": 0, "length": size // 512, "target": "linear", "device": {"file": path}, "offset": 0}
        return {"table": [line]}

    size, kills = 4 * MIB, 0
    options = attached(source=source(size))
    write_at(1, "before")
    # The module's own process waits for the one that works.
    for count in (4, 12, 20, 28):
        size += MIB
        options["source"] = source(size)

        def run(source=options["source"]):
            try:
                run_module("xen_vbd", **{**options, "source": source})
            except Failed:
                return 1
            return 0

        kills += ptrace.run_killed(run, 1, count)[0]
        assert read_at(1, 6) == "before"
        run_module("xen_vbd", **options)
        assert size_in_guest() == size
        write_at(size // MIB - 1, f"grown{count}")
        assert read_at(size // MIB - 1, 5) == "grown"
    assert kills >= 2
    assert not run_module("xen_vbd", **options)["changed"]


def test_over_another_disk_of_a_guest(attached, image):
    """A second line of the table would be what another disk has."""
    paths = [image("a.raw", 4 * MIB), image("b.raw", 4 * MIB)]
    sectors = 4 * MIB // 512
    lines = [
        {"start": start, "length": sectors, "target": "linear", "device": {"file": path}, "offset": 0}
        for start, path in zip((0, sectors), paths)
    ]
    options = attached(source={"table": lines[:1]})
    other = {"domain": GUEST, "vdev": "xvdc"}
    run_module("xen_vbd", **other, source={"file": paths[1]}, persist=False, wait_connected=True)
    options["source"] = {"table": lines}
    refused("xen_vbd", "is in use as disk xvdc", **options)
    run_module("xen_vbd", **other, state="detached")
    assert run_module("xen_vbd", **options)["changed"] and size_in_guest() == 8 * MIB
