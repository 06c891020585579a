# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hook in a real libvirtd: what guests get, and what is left after them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import time

import hookkill
import pytest
import swaplibvirt
from ansible_collections.racefree.block.plugins.module_utils._libvirt import domain_xml
from conftest import refused, run_module
from libvirthost import (
    HOOK,
    LIBRARY,
    STATE,
    default_script,
    defined,
    hook,
    in_guest,
    is_off,
    is_running,
    ours,
    restart_daemon,
    run,
    virsh,
    wait_for,
)

pytestmark = [
    pytest.mark.xen,
    pytest.mark.gate("trixie"),
]


@pytest.fixture(scope="module", autouse=True)
def installed():
    with hook():
        yield


@pytest.fixture
def image(tmp_path):
    """A file of 1 MiB with unique contents."""

    def make(name="disk.raw"):
        (tmp_path / name).write_bytes(os.urandom(1 << 20))
        return str(tmp_path / name)

    return make


@pytest.fixture(autouse=True)
def nothing_left_of_ours():
    yield
    assert wait_for(lambda: not ours(), 20), "mapped devices are left"
    # The hook makes this directory when the first guest starts.
    assert [name for name in (os.listdir(STATE) if os.path.isdir(STATE) else []) if name != "lock"] == []


def checksum(path):
    return run("sha256sum", path).split()[0]


def in_guest_checksum(name, vdev="xvda"):
    return in_guest(name, f"sha256sum < /dev/{vdev}").split()[0]


def hook_call(*words, text, **more):
    return subprocess.run(
        [HOOK, *words], input=text.encode(), capture_output=True, timeout=120, check=False, **more
    )


def refusal(name):
    """virsh's message when the guest must not start."""
    done = subprocess.run(
        ["virsh", "-q", "-c", "xen:///system", "start", name], capture_output=True, timeout=600, check=False
    )
    assert done.returncode and not is_running(name)
    return done.stderr.decode()


@pytest.mark.long
def test_a_whole_life(tmp_path, image):
    """
    Start, reboot, daemon restart, shutdown, start, destroy: the right bytes each time, nothing left at the
    end.
    """
    root, data = image("root.raw"), image("data.raw")
    with defined(tmp_path, "hk1") as name:
        run_module(
            "libvirt_disks",
            disks=[
                {"domain": name, "vdev": "xvda", "source": {"file": root}},
                {"domain": name, "vdev": "xvdb", "source": {"file": data, "offset": 4096}, "mode": "r"},
            ],
        )
        assert ours() == []
        virsh("start", name)
        assert in_guest_checksum(name) == checksum(root)
        assert (
            in_guest(name, "head -c 4096 /dev/xvdb | sha256sum").split()[0]
            == run("sh", "-c", f"tail -c +4097 {data} | head -c 4096 | sha256sum").split()[0]
        )
        assert len(ours()) == 2 and not [file for file in os.listdir(STATE) if file.endswith(".holder")]
        shown = virsh("domblklist", name)
        assert all(
            f"/dev/mapper/racefree-{virsh('domuuid', name).strip()}-{target}" in shown
            for target in ("xvda", "xvdb")
        )
        assert len(run("xl", "block-list", name).splitlines()) == 3
        in_guest(
            name, "echo written | dd of=/dev/xvda conv=fsync 2>/dev/null; ! echo x 2>/dev/null > /dev/xvdb"
        )

        restart_daemon()
        assert is_running(name) and len(ours()) == 2 and in_guest(name, "head -n 1 /dev/xvda") == "written"
        before = run("xl", "domid", name)
        virsh("reboot", name)
        # Xen gives each of its own scripts 40 s, which is not enough where each query takes seconds.
        assert wait_for(
            lambda: run("xl", "domid", name, check=False) not in ("", before), 300, 10
        ) and wait_for(lambda: is_running(name), 180, 5)
        assert in_guest(name, "head -n 1 /dev/xvda") == "written" and len(ours()) == 2

        virsh("shutdown", name)
        assert wait_for(lambda: is_off(name), pause=3)
        assert wait_for(lambda: not ours() and run("losetup", "-a") == "", 20)
        virsh("start", name)
        assert in_guest_checksum(name) == checksum(root)
        virsh("destroy", name)
    assert wait_for(lambda: run("losetup", "-a") == "", 20)


def recipes(name, *words):
    """Of the running definition, or of the other one with ``--inactive``."""
    return domain_xml.Domain(virsh("dumpxml", name, *words)).recipes()


@pytest.mark.long
@pytest.mark.parametrize("config, managed", [(True, False), (False, True)])
def test_a_saved_guest(tmp_path, image, config, managed):
    """
    With a disk of its definition and one that was attached while it ran: both have the right bytes after the
    restore, saved to a file or managed by libvirt.

    With the collection's hotplug script, because under emulation Xen's own script took more than its 40 s for
    two disks at every second try.
    """
    root, data, saved = image("root.raw"), image("data.raw"), str(tmp_path / "saved")
    save, restore = (
        (["managedsave", "hk10"], ["start", "hk10"])
        if managed
        else (["save", "hk10", saved], ["restore", saved])
    )
    with default_script(), defined(tmp_path, "hk10") as name:
        run_module("libvirt_disk", domain=name, vdev="xvda", source={"file": root})
        virsh("start", name)
        in_guest(name, "echo kept > /kept")
        arguments = {
            "domain": name,
            "vdev": "xvdb",
            "source": {"file": data},
            "config": config,
            "live": True,
            "timeout": 120,
        }
        assert run_module("libvirt_disk", **arguments)["changed"]
        assert (
            json.loads(recipes(name)["xvdb"]) == {"file": data, "format": "raw"}
            and ("xvdb" in recipes(name, "--inactive")) == config
        )
        assert not run_module("libvirt_disk", **arguments)["changed"]
        virsh(*save)
        assert wait_for(lambda: is_off(name)) and wait_for(
            lambda: not ours() and run("losetup", "-a") == "", 20
        )
        virsh(*restore)
        # It continued, and did not start again.
        assert in_guest(name, "cat /kept") == "kept"
        assert in_guest_checksum(name) == checksum(root) and in_guest_checksum(name, "xvdb") == checksum(data)
        assert sorted(recipes(name)) == ["xvda", "xvdb"] and len(ours()) == 2
        assert not run_module("libvirt_disk", **arguments)["changed"]
        assert run_module("libvirt_disk", **dict(arguments, state="absent"))["changed"]
        assert sorted(recipes(name)) == ["xvda"] and sorted(recipes(name, "--inactive")) == ["xvda"]


@pytest.mark.long
def test_swapped(tmp_path):
    """See swaplibvirt.py for larger runs, such as 500 tries."""
    directory = str(tmp_path)
    recipe = swaplibvirt.swap(30, 3, "recipe", directory)
    plain = swaplibvirt.swap(15, 0, "plain", directory)
    assert recipe["wrong"] == 0 and recipe["right"] >= 10 and recipe["refused"] >= 10
    # For comparison: without the hook, the attack succeeds.
    assert plain["wrong"] >= 5


@pytest.mark.long
def test_the_link_is_turned_elsewhere(tmp_path, image):
    """
    If somebody replaces the link itself between the hook and the hotplug script, the domain is ended at once.
    """
    other = image("other.raw")
    loop = run("losetup", "--show", "-f", other)
    second = os.path.join(os.path.dirname(HOOK), "60-evil")
    with open(second, "w", encoding="utf-8") as file:
        # The hooks of `start` run after those of `prepare` and before the path is opened.
        file.write(f'#!/bin/sh\n[ "$2" != start ] || ln -sf {loop} /dev/mapper/racefree-*-xvda\n')
    os.chmod(second, 0o755)
    try:
        with defined(tmp_path, "hk2") as name:
            run_module("libvirt_disk", domain=name, vdev="xvda", source={"file": image()})
            assert "blkback opened" in refusal(name)
    finally:
        os.unlink(second)
        run("losetup", "-d", loop)
        for link in os.listdir("/dev/mapper"):
            if link.startswith("racefree-"):
                os.unlink(f"/dev/mapper/{link}")


@pytest.mark.long
def test_other_scripts_of_the_folder_run(tmp_path, image):
    """In order, with the same input. What they refuse is refused, and then the hook leaves nothing."""
    log, second = tmp_path / "log", os.path.join(os.path.dirname(HOOK), "70-other")
    with open(second, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\necho "$2 $(grep -c racefree)" >> {log}\n[ "$2" != start ]\n')
    os.chmod(second, 0o755)
    try:
        with defined(tmp_path, "hk3") as name:
            run_module("libvirt_disk", domain=name, vdev="xvda", source={"file": image()})
            refusal(name)
            assert wait_for(lambda: not ours(), 20)
        said = log.read_text().split("\n")
        assert said[0].startswith("prepare ") and said[0] != "prepare 0" and said[1].startswith("start ")
    finally:
        os.unlink(second)


@pytest.mark.long
@pytest.mark.parametrize(
    "change, words",
    [
        (os.unlink, ["does not exist"]),
        (lambda path: os.truncate(path, 0), ["empty"]),
        (lambda path: (os.unlink(path), os.mkdir(path)), ["directory"]),
        (lambda path: (os.unlink(path), os.mkfifo(path)), ["FIFO"]),
    ],
)
def test_what_the_recipe_names_is_not_there(tmp_path, image, change, words):
    path = image()
    with defined(tmp_path, "hk4") as name:
        run_module("libvirt_disk", domain=name, vdev="xvda", source={"file": image("first.raw")})
        run_module("libvirt_disk", domain=name, vdev="xvdb", source={"file": path})
        change(path)
        said = refusal(name)
        for word in ["racefree.block", *words]:
            assert word in said, said
        # The device of the first disk is removed, too.
        assert wait_for(lambda: not ours() and run("losetup", "-a") == "", 20)
    journal = run("journalctl", "-t", "racefree-libvirt-hook", "-n", "5", "--no-pager")
    assert words[0] in journal


@pytest.mark.long
def test_a_snapshot_whose_store_has_overflowed_starts_no_guest(tmp_path):
    origin, store = tmp_path / "origin.raw", tmp_path / "store.raw"
    for path, size in ((origin, 8 * 2**20), (store, 2**19)):
        path.touch()
        os.truncate(path, size)
    table = [f'0 16384 snapshot {{"file":"{origin}","read_only":true}} file:{store} P 8']
    run_module("dm_device", name="overflown", table=table)
    try:
        words = ["dd", "if=/dev/urandom", "of=/dev/mapper/overflown", "bs=64K", "count=32", "conv=fsync"]
        subprocess.run(words, stderr=subprocess.DEVNULL, check=False)
    finally:
        run_module("dm_device", name="overflown", state="absent")
        for path in (origin, store):
            run_module("loop_device", backing_file=str(path), state="absent")
    run_module("snapshot_stores", stores=[{"path": str(store), "image": str(origin), "adopt": True}])
    with defined(tmp_path, "hk8") as name:
        run_module("libvirt_disk", domain=name, vdev="xvda", source={"table": table})
        assert "store has overflowed" in refusal(name)
        assert wait_for(lambda: not ours() and run("losetup", "-a") == "", 20)


def test_an_image_of_another_format_is_refused(tmp_path):
    """By the driver that the definition names, although the file has no header, and by the file's header."""
    named, begun = tmp_path / "named.img", tmp_path / "begun.img"
    for path, start in ((named, b""), (begun, bytes.fromhex("514649fb00000003"))):
        path.write_bytes(start + bytes(2**20 - len(start)))
    disk = (
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source file='{named}'/><target dev='xvda' bus='xen'/></disk>"
    )
    with defined(tmp_path, "hk9", devices=disk) as name:
        refused("libvirt_disk", "qcow2", domain=name, vdev="xvda", source={"file": str(named)})
        refused("libvirt_disk", "qcow2", domain=name, vdev="xvdb", source={"file": str(begun)})
        assert "type='qcow2'" in virsh("dumpxml", name)


@pytest.mark.long
def test_an_uuid_that_is_another_device_now(tmp_path, image):
    one, two = image("one.raw"), image("two.raw")
    loops = [run("losetup", "--show", "-f", path) for path in (one, two)]
    try:
        run("dmsetup", "create", "vol", "-u", "VOL-1", "--table", f"0 2048 linear {loops[0]} 0")
        with defined(tmp_path, "hk5") as name:
            run_module("libvirt_disk", domain=name, vdev="xvda", source="/dev/mapper/vol")
            virsh("start", name)
            assert in_guest_checksum(name) == checksum(one)
            virsh("destroy", name)
            wait_for(lambda: not ours(), 20)
            run("dmsetup", "remove", "--retry", "vol")
            run("dmsetup", "create", "vol", "-u", "VOL-2", "--table", f"0 2048 linear {loops[1]} 0")
            assert "VOL-1" in refusal(name)
    finally:
        run("dmsetup", "remove", "--retry", "vol", check=False)
        for loop in loops:
            run("losetup", "-d", loop)


@pytest.mark.long
def test_two_guests_want_one_file(tmp_path, image):
    path = image()
    with defined(tmp_path, "hk6") as one, defined(tmp_path, "hk7") as two:
        for name in (one, two):
            run_module("libvirt_disk", domain=name, vdev="xvda", source={"file": path})
        virsh("start", one)
        assert "in use as" in refusal(two)
        virsh("destroy", one)
        assert wait_for(lambda: not ours(), 20)
        virsh("start", two)
        assert in_guest_checksum(two) == checksum(path)


@pytest.mark.long
def test_a_copied_definition(tmp_path, image):
    """A clone has another UUID, and must not start with the disk of the original."""
    with defined(tmp_path, "hk8") as name:
        run_module("libvirt_disk", domain=name, vdev="xvda", source={"file": image()})
        uuid = virsh("domuuid", name).strip()
        text = virsh("dumpxml", name, "--inactive").replace(
            f"<uuid>{uuid}</uuid>", "<uuid>11111111-2222-3333-4444-555555555555</uuid>"
        )
        (tmp_path / "copy.xml").write_text(text.replace("<name>hk8<", "<name>hk9<"))
        virsh("define", str(tmp_path / "copy.xml"))
        try:
            assert "define the disk again" in refusal("hk9")
            run_module("libvirt_disk", domain="hk9", vdev="xvda", source={"file": image("second.raw")})
            virsh("start", "hk9")
            virsh("destroy", "hk9")
        finally:
            virsh("undefine", "hk9")


# The program, called as libvirt calls it


@pytest.fixture
def text(tmp_path, image):
    with defined(tmp_path, "hk0") as name:
        run_module("libvirt_disk", domain=name, vdev="xvda", source={"file": image()})
        yield virsh("dumpxml", name, "--inactive")


def test_prepare_and_release(text):
    assert hook_call("hk0", "prepare", "begin", "-", text=text).returncode == 0
    (line,) = ours()
    path = "/dev/mapper/" + line.partition(":")[0]
    assert stat.S_ISBLK(os.stat(path).st_mode)
    # While it waits for the guest, nobody can remove it. (The kernel allows a rename; `started` detects it.)
    assert "busy" in run("dmsetup", "remove", path, check=False) and ours() == [line]
    again = hook_call("hk0", "prepare", "begin", "-", text=text)
    assert again.returncode == 0 and len(ours()) == 1
    assert hook_call("hk0", "release", "end", "-", text=text).returncode == 0
    assert ours() == [] and run("losetup", "-a") == ""
    assert hook_call("hk0", "release", "end", "-", text=text).returncode == 0


@pytest.mark.long
def test_udev_keeps_its_hands_off(tmp_path):
    """
    udev also ignores the tables below the guest's device: three here, one of them over a file with an LVM
    signature.
    """
    with hookkill.guest(str(tmp_path)) as nested:
        with open(tmp_path / "b.raw", "r+b") as file:
            file.seek(512)
            file.write(b"LABELONE" + bytes(16) + b"LVM2 001")
        assert hook_call(hookkill.NAME, "prepare", "begin", "-", text=nested).returncode == 0
        try:
            names = run("dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname").split()
            assert len(names) == 4
            for name in names:
                told = run("udevadm", "info", "--query=property", f"--name={name}").splitlines()
                assert {
                    f"DM_UDEV_DISABLE_{what}_RULES_FLAG=1" for what in ("DISK", "OTHER", "SUBSYSTEM")
                } <= set(told), (name, told)
                assert not any(line.startswith("ID_FS_TYPE=") for line in told), told
        finally:
            assert hook_call(hookkill.NAME, "release", "end", "-", text=nested).returncode == 0


@pytest.mark.long
def test_killed_in_the_middle(tmp_path):
    """See hookkill.py for larger runs."""
    with hookkill.guest(str(tmp_path)) as nested:
        kills, bad = hookkill.at_random(12, nested, 1)
        more = hookkill.at_calls({"ioctl": 40, "rename": 1}, 20, nested)
    assert bad == more[1] == [] and kills >= 6 and more[0] >= 2


@pytest.mark.long
def test_a_killed_holder(text):
    """
    Nothing holds the device any more: it is removed, the path leads nowhere, and the next start makes it
    again.
    """
    assert hook_call("hk0", "prepare", "begin", "-", text=text).returncode == 0
    (record,) = [name for name in os.listdir(STATE) if name.endswith(".holder")]
    with open(f"{STATE}/{record}", encoding="ascii") as file:
        os.kill(int(file.read().partition("-")[0]), signal.SIGKILL)
    assert wait_for(lambda: not ours(), 20)
    assert hook_call("hk0", "started", "begin", "-", text=text).returncode == 1
    assert hook_call("hk0", "prepare", "begin", "-", text=text).returncode == 0
    assert hook_call("hk0", "stopped", "end", "-", text=text).returncode == 0


@pytest.mark.long
def test_somebody_elses_device_under_the_name(text):
    """A device made by hand with the name of the guest's device is refused and left unchanged."""
    name = next(part for part in text.split("'") if part.startswith("/dev/mapper/racefree-")).rpartition("/")[
        2
    ]
    run("dmsetup", "create", name, "--table", "0 2048 zero")
    try:
        done = hook_call("hk0", "prepare", "begin", "-", text=text)
        assert done.returncode == 1 and b"its name is taken by" in done.stderr
        assert name in run("dmsetup", "ls")
        assert run("losetup", "-a") == ""
    finally:
        run("dmsetup", "remove", "--retry", name)


def test_a_leftover_of_ours(text):
    """An unused device with the right name and UUID, but another table, is made again."""
    name = next(part for part in text.split("'") if part.startswith("/dev/mapper/racefree-")).rpartition("/")[
        2
    ]
    run(
        "dmsetup",
        "create",
        name,
        "-u",
        name.replace("racefree-", "RACEFREE-LIBVIRT-"),
        "--table",
        "0 2048 zero",
    )
    assert hook_call("hk0", "prepare", "begin", "-", text=text).returncode == 0
    assert "linear" in run("dmsetup", "table", name)
    hook_call("hk0", "release", "end", "-", text=text)


@pytest.mark.long
@pytest.mark.parametrize(
    "operation, code, unreadable",
    [
        ("prepare", 1, 1),
        ("started", 1, 1),
        # Not done for Xen's guests, but nobody can see that this is one.
        ("migrate", 0, 1),
        ("restore", 0, 1),
        ("reconnect", 0, 0),
        ("stopped", 0, 0),
        ("release", 0, 0),
        ("start", 0, 0),
        ("x\ny", 0, 0),
    ],
)
def test_nonsense(text, operation, code, unreadable):
    """
    Exit codes for a wrong definition, and for what is none. Only what starts or moves a guest is refused, and
    nothing is written to the output that libvirt reads as a definition.
    """
    broken = text.replace("<devices>", "<devices><disk><target dev='xvda'/></disk>")
    none = ("<!DOCTYPE d>" + text, text[:-20], "urn:ansible:racefree.block:disks:1 \xff")
    for nonsense, expected in ((broken, code), *((each, unreadable) for each in none)):
        done = hook_call("x", operation, "begin", "-", text=nonsense)
        assert done.stdout == b"" and b"Traceback" not in done.stderr
        assert done.returncode == expected, done.stderr


@pytest.mark.long
def test_without_the_library(text):
    os.rename(f"{LIBRARY}/racefree_block", f"{LIBRARY}/away")
    try:
        assert hook_call("hk0", "prepare", "begin", "-", text=text).returncode == 1
        assert hook_call("hk0", "stopped", "end", "-", text=text).returncode == 0
        assert hook_call("x", "prepare", "begin", "-", text="<domain/>").returncode == 0
    finally:
        os.rename(f"{LIBRARY}/away", f"{LIBRARY}/racefree_block")


@pytest.mark.long
def test_it_gives_up_in_time(text, tmp_path):
    """xenstored is stopped: the start is refused at the hook's own time limit, and nothing is left."""
    pids = [
        int(pid)
        for pid in run("pidof", "xenstored", check=False).split() or run("pidof", "oxenstored").split()
    ]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        done = hook_call("hk0", "prepare", "begin", "-", text=text)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert done.returncode == 1 and b"timed out" in done.stderr
    assert time.monotonic() - began < 110
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not ours(), 20)
    assert run("losetup", "-a") == ""
