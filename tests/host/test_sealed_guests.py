# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Guests whose disks are sealed, on a host with ten more sealed disks: by xen_vbd, by the hotplug script, and by
recipes of libvirt.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import time

import hotplug
import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import run_directory
from ansible_collections.racefree.block.plugins.module_utils._block.seal import place, reasons, seals
from conftest import Failed, predict_and_run, run_module, wait_until
from libvirthost import (
    default_script,
    defined,
    hook,
    in_guest,
    is_off,
    is_running,
    ours,
    run,
    virsh,
    wait_for,
)
from sealing import is_refused

pytestmark = [pytest.mark.xen, pytest.mark.long]

MIB = 2**20
GUESTS = ("sealed1", "sealed2")


@pytest.fixture
def script(ten):
    """The hotplug script with its service. Not for the whole module: the hook's tests install it, too."""
    with hotplug.installed(), hotplug.Service():
        yield


@pytest.fixture
def libvirt(ten):
    """libvirt's hook, and the hotplug script as the default one."""
    with hook(), default_script():
        yield


@pytest.fixture(scope="module", autouse=True)
def ten(tmp_path_factory):
    """Ten sealed loop devices beside those of the tests. Their seals are checked at the end."""
    directory = tmp_path_factory.mktemp("ten")
    files = [str(directory / f"{number}.raw") for number in range(10)]
    for path in files:
        with open(path, "wb") as file:
            file.truncate(MIB)
    rows = run_module("loop_devices", devices=[{"backing_file": path, "sealed": True} for path in files])
    yield [row["device"] for row in rows["devices"]]
    assert all(is_refused(row["device"]["path"]) for row in rows["devices"])
    run_module("loop_devices", devices=[{"backing_file": path, "state": "absent"} for path in files])
    assert not os.path.exists(place.DIRECTORY) and not reasons.recorded()


@pytest.fixture(autouse=True)
def only_ten_are_sealed(ten):
    yield
    wait_until(lambda: len(seals.found()) == len(ten), 20)


@pytest.fixture(scope="module")
def guests(ten):
    for name in GUESTS:
        run("xenguest", "stop", name, check=False)
        run("xenguest", "start", name, "--memory", "128")
    yield GUESTS
    for name in GUESTS:
        run("xenguest", "stop", name)


@pytest.fixture
def raw(tmp_path):
    """A function that makes a file that begins with a text."""

    def make(name="disk.raw", mebibytes=2):
        path = tmp_path / name
        path.write_bytes(name.encode().ljust(mebibytes * MIB, b"\0"))
        return str(path)

    return make


def first_words(guest, vdev):
    return in_guest(guest, f"head -c 8 /dev/{vdev}")


def refuse_all(path):
    """What an administrator and udev's rules might run."""
    for command in (
        ["blkid", "-p", path],
        ["mount", path, "/mnt"],
        ["dd", f"if={path}", "of=/dev/null", "count=1"],
        ["losetup", "-f", path],
        ["dmsetup", "create", "over", "--table", f"0 8 linear {path} 0"],
    ):
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode, command
    run("dmsetup", "remove", "over", check=False)
    assert is_refused(path)


def test_xen_vbd(guests, raw):
    """Attached, shared with another guest, grown, lifted, sealed again, detached."""
    file = raw()
    one, other = guests
    disk = {"domain": one, "vdev": "xvdb", "source": {"file": file}}
    made = predict_and_run("xen_vbd", **disk, mode="w", sealed=True, wait_connected=True)
    assert made["vbd"]["sealed"] and made["diff"]["after"]["sealed"] is True
    path = made["device"]["path"]
    refuse_all(path)
    assert not run_module("xen_vbd", **disk, sealed=True)["changed"]
    assert first_words(one, "xvdb") == "disk.raw"
    in_guest(one, "echo written | dd of=/dev/xvdb conv=fsync 2>/dev/null")
    # The same sealed disk for another guest, and other disks for both.
    shared = {"domain": other, "vdev": "xvdc", "source": {"diskseq": made["device"]["diskseq"]}}
    run_module("xen_vbd", **shared, mode="r", shared=True, wait_connected=True)
    assert first_words(other, "xvdc") == "written"
    run_module("xen_vbd", domain=other, vdev="xvdd", source={"file": raw("other.raw")}, persist=False)
    os.truncate(file, 4 * MIB)
    run_module("loop_device", backing_file=file)
    wait_until(lambda: in_guest(one, "blockdev --getsize64 /dev/xvdb") == str(4 * MIB), 60)
    rows = {row["diskseq"]: row for row in run_module("device_info")["devices"]}
    seal = rows[made["device"]["diskseq"]]["seal"]
    assert seal["refused"] >= 5 and len(seal["reasons"]) == 1 and seal["reasons"][0].startswith("vbd ")
    lifted = run_module("xen_vbd", **disk, sealed=False)
    assert lifted["changed"] and not lifted["vbd"]["sealed"] and not is_refused(path)
    assert run_module("xen_vbd", **disk, sealed=True)["changed"] and is_refused(path)
    run_module("xen_vbd", domain=one, vdev="xvdb", state="detached")
    assert not is_refused(path)
    for vdev in ("xvdc", "xvdd"):
        run_module("xen_vbd", domain=other, vdev=vdev, state="detached")
    run_module("loop_device", backing_file=file, state="absent")


def test_a_guest_that_is_destroyed_leaves_no_seal(raw, name, cleanup):
    """The keeper lifts the seals of a device that stays, and of those below it."""
    file = raw()
    cleanup(loop=file)
    cleanup(dm=name)
    lower = run_module("loop_device", backing_file=file)["device"]
    table = f"0 4096 linear diskseq:{lower['diskseq']} 0"
    device = run_module("dm_device", name=name, table=table)["device"]
    run("xenguest", "start", "sealed3", "--memory", "128")
    try:
        disk = {"domain": "sealed3", "vdev": "xvdb", "source": {"diskseq": device["diskseq"]}}
        run_module("xen_vbd", **disk, sealed=True, sealed_below=True)
        assert is_refused(device["path"]) and is_refused(lower["path"])
    finally:
        run("xl", "destroy", "sealed3")
    wait_until(lambda: not is_refused(device["path"]) and not is_refused(lower["path"]), 20)
    run("xenguest", "stop", "sealed3", check=False)


def test_an_attachment_that_cannot_be_sealed_is_rolled_back(guests, raw):
    file = raw()
    disk = {"domain": guests[0], "vdev": "xvdb", "source": {"file": file}, "persist": False}
    with no_directory():
        # Check mode does not try to write there.
        with pytest.raises(Failed, match="record why the device is sealed"):
            run_module("xen_vbd", **disk, sealed=True)
    assert not run_module("xen_vbd", domain=guests[0], vdev="xvdb", state="detached")["changed"]
    wait_until(lambda: file not in run("losetup", "-a"), 20)


@contextlib.contextmanager
def no_directory():
    """Put a file where the directory of the reasons is."""
    run_directory.make(reasons.DIRECTORY)
    os.rename(reasons.DIRECTORY, f"{reasons.DIRECTORY}.away")
    with open(reasons.DIRECTORY, "w", encoding="ascii"):
        pass
    try:
        yield
    finally:
        os.unlink(reasons.DIRECTORY)
        os.rename(f"{reasons.DIRECTORY}.away", reasons.DIRECTORY)


@pytest.mark.parametrize("way", ["with service", "alone"])
def test_the_hotplug_script(script, way, raw, name, cleanup):
    """Created, written, rebooted, destroyed. The device mapper's device stays, the loop device does not."""
    root, data = raw("root.raw"), raw("data.raw")
    cleanup(loop=data)
    cleanup(dm=name)
    lower = run_module("loop_device", backing_file=data)["device"]
    table = f"0 4096 linear diskseq:{lower['diskseq']} 0"
    device = run_module("dm_device", name=name, uuid=f"U-{name}", table=table)["device"]
    disks = (
        f"vdev=xvda,access=w,script=block-racefree,target=sealed:file:{root}",
        f"vdev=xvdb,access=w,script=block-racefree,target=sealed-below:dm:{name},U-{name}",
    )
    guest = "sealed4"
    with hotplug.alone() if way == "alone" else contextlib.nullcontext():
        words = [word for disk in disks for word in ("--disk", disk)]
        run("xenguest", "start", guest, "--memory", "128", *words)
        try:
            check_sealed(guest, root, device, lower)
            in_guest(guest, "echo written | dd of=/dev/xvda conv=fsync 2>/dev/null")
            before = run("xl", "domid", guest)
            run("xl", "reboot", guest)
            wait_until(lambda: run("xl", "domid", guest, check=False) not in ("", before), 240)
            wait_until(lambda: first_words(guest, "xvda") == "written", 120)
            check_sealed(guest, root, device, lower)
            run("xl", "destroy", guest)
        finally:
            run("xenguest", "stop", guest, check=False)
    wait_until(lambda: not is_refused(device["path"]) and not is_refused(lower["path"]), 20)
    wait_until(lambda: root not in run("losetup", "-a"), 20)


def loop_over(file):
    """The loop device over the file. losetup 2.41 marks one that it cannot open as lost."""
    found = [
        path.parents[1].name
        for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file")
        if path.read_text(encoding="utf-8").strip() == file
    ]
    (name,) = found
    return f"/dev/{name}"


def check_sealed(guest, root, device, lower):
    assert in_guest(guest, "head -c 8 /dev/xvdb") == "data.raw"
    refuse_all(loop_over(root))
    assert is_refused(device["path"]) and is_refused(lower["path"])


def test_a_recipe_of_libvirt(libvirt, tmp_path, raw):
    """Defined, started, written, grown while it is off, rebooted, and its seal taken back while it runs."""
    file = raw()
    with defined(tmp_path, "sealed5") as guest:
        disk = {"domain": guest, "vdev": "xvda", "source": {"file": file}}
        made = predict_and_run("libvirt_disk", **disk, sealed=True, sealed_below=True)
        assert '"sealed": true' in made["disk"]["recipe"]
        assert not run_module("libvirt_disk", **disk)["changed"]
        virsh("start", guest)
        assert first_words(guest, "xvda") == "disk.raw"
        refuse_both(guest, file)
        in_guest(guest, "echo written | dd of=/dev/xvda conv=fsync 2>/dev/null")
        before = run("xl", "domid", guest)
        virsh("reboot", guest)
        assert wait_for(lambda: run("xl", "domid", guest, check=False) not in ("", before), 300, 5)
        assert wait_for(lambda: is_running(guest), 180, 5) and first_words(guest, "xvda") == "written"
        refuse_both(guest, file)
        lifted = predict_and_run("libvirt_disk", **disk, sealed=False, live=True)
        assert lifted["changed"] and len(reasons.recorded()) == 0
        assert predict_and_run("libvirt_disk", **disk, sealed=True, live=True)["changed"]
        virsh("destroy", guest)
        assert wait_for(lambda: is_off(guest) and not ours(), 60)


def refuse_both(guest, file):
    loop = loop_over(file)
    mapped = f"/dev/mapper/racefree-{virsh('domuuid', guest).strip()}-xvda"
    wait_until(lambda: is_refused(mapped), 20)
    assert is_refused(loop)


def test_what_sealing_adds_to_an_attachment(guests, raw):
    """Printed, side by side."""
    times = {}
    for sealed in (False, True):
        began = time.monotonic()
        disk = {"domain": guests[0], "vdev": "xvde", "source": {"file": raw()}, "persist": False}
        run_module("xen_vbd", **disk, sealed=sealed)
        times[sealed] = time.monotonic() - began
        run_module("xen_vbd", domain=guests[0], vdev="xvde", state="detached")
    print(f"seconds to attach: {times[False]:.2f}, and sealed {times[True]:.2f}")
