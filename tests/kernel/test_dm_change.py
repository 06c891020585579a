# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of live mapped devices on a real kernel: reload, suspend, merge, devices hidden from udev, keys."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeadlineExceeded, KernelError
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from ansible_collections.racefree.block.plugins.module_utils._dm import suspended as _suspended
from conftest import (
    Failed,
    assert_as,
    predict_and_run,
    read_device,
    refused,
    run_module,
    snapshot,
    udev_settle,
    wait_until,
)

MIB = 2**20
SECTORS = 2048

# Only this process is killed, not the standby process.
KILLED_IN_A_RELOAD = """
import os, signal, sys
sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._dm import load, reload, udev
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _dm_ioctl

def killed_before(call):
    def method(self, address, *more):
        if os.getpid() == first and self.status(address).has_inactive_table:
            print(self.status(address).suspended, flush=True)
            os.kill(first, signal.SIGKILL)
        return getattr(_dm_ioctl.Control, call)(self, address, *more)
    return method

Control = type("Control", (_dm_ioctl.Control,), {sys.argv[2]: killed_before(sys.argv[2])})

first = os.getpid()
with Control() as control, _device.open_path(sys.argv[1]) as device:
    reload.reload(control, device, load.Table(((0, 16, b"zero", b""),)), udev.Cookie())
"""

# The child that stands by acts only when it is told to, or after some seconds.
LATE_STANDBY = """
import os, select, signal, sys
sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._dm import load, reload, udev
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _dm_ioctl

class Control(_dm_ioctl.Control):
    told = False

    def _on(self, *words, **more):
        if os.getpid() != first and not self.told:
            self.told = True
            print("late", flush=True)
            select.select([sys.stdin], [], [], 3)
        return super()._on(*words, **more)

first = os.getpid()
reload.suspended.suspend = lambda *words: os.kill(first, signal.SIGKILL)
with Control() as control, _device.open_path(sys.argv[1]) as device:
    reload.reload(control, device, load.Table(((0, 16, b"zero", b""),)), udev.Cookie())
"""


@pytest.fixture
def origin_and_store(image, cleanup):
    """``(diskseq:N, diskseq:N)`` of loop devices, one with 1 MiB of content and one for the changes to it."""
    slots = []
    for path in (image("origin.raw", MIB, content=b"golden" * 20000), image("store.raw", 4 * MIB)):
        cleanup(loop=path)
        slots.append(f"diskseq:{run_module('loop_device', backing_file=path)['device']['diskseq']}")
    return slots


@pytest.mark.rotated
@pytest.mark.parametrize("has_loop", [False, True])
def test_another_file_is_put_where_the_one_of_a_table_was(image, name, cleanup, tmp_path, has_loop):
    """A user that has the device open would continue on the other file."""
    path = image("disk.raw", MIB, content=b"old")
    cleanup(loop=path)
    cleanup(loop=path + ".was")
    cleanup(dm=name)
    line = {"start": 0, "length": SECTORS, "target": "linear", "device": {"file": path}, "offset": 0}
    made = run_module("dm_device", name=name, table=[line])["device"]
    assert not run_module("dm_device", name=name, table=[line])["changed"]
    os.rename(path, path + ".was")
    image("disk.raw", MIB, content=b"new")
    if has_loop:
        run_module("loop_device", backing_file=path)
    with open(made["path"], "rb"):
        words = (
            "it is in use over /dev/loop",
            path + ".was",
            "another file",
            "name its loop device by diskseq",
        )
        refused("dm_device", *words, name=name, table=[line])
    assert read_device(made["path"], size=3) == b"old"
    done = run_module("dm_device", name=name, table=[line])
    assert done["changed"] and "it is over another file" in str(done["warnings"])
    assert read_device(made["path"], size=3) == b"new"
    other = run_module("loop_device", backing_file=path + ".was")["device"]
    with open(made["path"], "rb"):
        told = [dict(line, device={"diskseq": other["diskseq"]})]
        assert run_module("dm_device", name=name, table=told)["changed"]
    assert read_device(made["path"], size=3) == b"old"


def test_a_device_in_use_does_not_shrink(name, cleanup):
    """It shrinks if nobody has it open, and otherwise only with allow_shrink."""
    cleanup(dm=name)
    made = run_module("dm_device", name=name, table="0 64 zero")["device"]
    assert predict_and_run("dm_device", name=name, table="0 56 zero")["changed"]
    with open(made["path"], "rb"):
        refused(
            "dm_device",
            "from 56 to 48 sectors while it is in use",
            "allow_shrink=true",
            name=name,
            table="0 48 zero",
        )
        assert run_module("dm_device", name=name, table="0 72 zero")["changed"]
        assert predict_and_run("dm_device", name=name, table="0 48 zero", allow_shrink=True)["changed"]
        assert not run_module("dm_device", name=name, table="0 48 zero")["changed"]


def write(path, offset, data):
    with open(path, "r+b") as device:
        device.seek(offset)
        device.write(data)
        device.flush()
        os.fsync(device.fileno())


def is_merged(name):
    """
    Whether the store holds nothing but its own metadata
    (Documentation/admin-guide/device-mapper/snapshot.rst).
    """
    status = run_module("device_info", path=f"/dev/mapper/{name}", features=False)["devices"][0]["status"]
    assert len(status) == 1 and " snapshot-merge " in status[0]
    allocated, metadata = status[0].split()[3:5]
    return allocated.split("/")[0] == metadata


def test_a_snapshot_is_merged(origin_and_store, image, name, cleanup):
    origin, store = origin_and_store
    trial, base = name + "-trial", name + "-base"
    cleanup(dm=base)
    cleanup(dm=trial)
    run_module("dm_device", name=base, table=f"0 {SECTORS} snapshot-origin {origin}")
    made = predict_and_run("dm_device", name=trial, table=f"0 {SECTORS} snapshot {origin} {store} P 8")[
        "device"
    ]
    assert made["status"][0].startswith(f"0 {SECTORS} snapshot ")
    for offset in (0, 12345, MIB - 5):
        write(made["path"], offset, b"trial")
    expected = read_device(made["path"], 0, MIB)
    assert expected[12345:12350] == b"trial" and expected[6:12] == b"golden"
    assert b"trial" not in read_device(f"/dev/mapper/{base}", 0, MIB)
    run_module("dm_device", name=trial, state="absent")
    merging = predict_and_run(
        "dm_device", name=base, table=f"0 {SECTORS} snapshot-merge {origin} {store} P 8"
    )["device"]
    assert read_device(merging["path"], 0, MIB) == expected
    wait_until(lambda: is_merged(base))
    predict_and_run("dm_device", name=base, table=f"0 {SECTORS} linear {origin} 0")
    assert read_device(merging["path"], 0, MIB) == expected
    run_module("dm_device", name=base, state="absent")
    merged = run_module("device_info", diskseq=int(origin.split(":")[1]), features=False)["devices"][0]
    assert read_device(merged["path"], 0, MIB) == expected


@pytest.mark.parametrize("suspended", [False, True])
def test_the_old_table_is_restored_if_the_new_one_does_not_start(origin_and_store, name, cleanup, suspended):
    """
    The kernel refuses to take over the store of a live snapshot only at resume, when the old table is gone
    already.
    """
    origin, store = origin_and_store
    trial, base = name + "-trial", name + "-base"
    cleanup(dm=base)
    cleanup(dm=trial)
    run_module("dm_device", name=trial, table=f"0 {SECTORS} snapshot {origin} {store} P 8")
    made = run_module(
        "dm_device",
        name=base,
        table=f"0 {SECTORS} snapshot-origin {origin}",
        state="suspended" if suspended else "present",
    )["device"]
    before = snapshot()
    merge = {
        "name": base,
        "table": f"0 {SECTORS} snapshot-merge {origin} {store} P 8",
        "state": "suspended" if suspended else "present",
    }
    assert run_module("dm_device", check=True, **merge)["changed"]
    with pytest.raises(Failed) as caught:
        run_module("dm_device", **merge)
    for words in ("EINVAL", "The old table is live again", "until source is suspended"):
        assert words in str(caught.value), str(caught.value)
    udev_settle()
    assert_as(before)
    after = run_module("device_info", diskseq=made["diskseq"], features=False)["devices"][0]
    assert after["table"] == made["table"] and after["suspended"] == suspended
    if not suspended:
        assert read_device(made["path"], 0, 12) == b"goldengolden"


def test_devices_of_the_old_table_stay_during_a_reload(image, origin_and_store, name, cleanup):
    """As above, with an old table over a loop device that is removed with its last user."""
    origin, store = origin_and_store
    trial, base = name + "-trial", name + "-base"
    alone = image("alone.raw", MIB, content=b"alone")
    cleanup(dm=base)
    cleanup(dm=trial)
    run_module("dm_device", name=trial, table=f"0 {SECTORS} snapshot {origin} {store} P 8")
    made = run_module("dm_device", name=base, table=f"0 {SECTORS} linear file:{alone} 0")["device"]
    run_module("loop_device", backing_file=alone, persist=False, hold=0)
    with pytest.raises(Failed) as caught:
        run_module("dm_device", name=base, table=f"0 {SECTORS} snapshot-merge {origin} {store} P 8")
    assert "The old table is live again" in str(caught.value)
    assert read_device(made["path"], 0, 5) == b"alone"


@pytest.mark.parametrize(
    "state, call, told",
    [("present", "resume", "True"), ("present", "suspend", "False"), ("suspended", "resume", "True")],
)
def test_killed_in_a_reload(name, cleanup, control, state, call, told):
    """The old table stays, and nothing of the new table is left."""
    cleanup(dm=name)
    made = run_module("dm_device", name=name, table="0 8 zero", state=state)["device"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_RELOAD, made["path"], call],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -9 and killed.stdout == told + "\n", killed.stderr

    def is_as_before():
        status = control.status(_control.by_name(name))
        return status.suspended == (state == "suspended") and not status.has_inactive_table

    wait_until(is_as_before)
    assert not run_module("dm_device", name=name, table="0 8 zero", state=state)["changed"]


@pytest.fixture
def late_standby(name, cleanup):
    """
    A run that was killed when it had loaded ``0 16 zero`` in place of ``0 8 zero``; the child that stands by
    for it has woken up, and does nothing until something is written to ``stdin``, or for three seconds.
    """
    cleanup(dm=name)
    made = run_module("dm_device", name=name, table="0 8 zero")["device"]
    with subprocess.Popen(
        [sys.executable, "-c", LATE_STANDBY, made["path"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as killed:
        assert killed.stdout.readline() == "late\n" and killed.wait() == -9
        yield killed


def test_a_late_standby_leaves_the_table_of_another_program(name, control, late_standby):
    address = _control.by_name(name)
    control.load(address, ((0, 24, b"zero", b""),))
    late_standby.communicate("now", timeout=60)
    assert control.table(address, inactive=True)[1][0].length == 24
    control.clear(address)


def test_a_late_standby_leaves_the_table_of_another_run(name, late_standby, monkeypatch):
    """Even if it has the same content."""
    as_usual = _suspended.suspend

    def suspend(control, device, how):
        as_usual(control, device, how)
        late_standby.communicate("now", timeout=60)

    monkeypatch.setattr(_suspended, "suspend", suspend)
    assert run_module("dm_device", name=name, table="0 16 zero")["device"]["table"] == ["0 16 zero"]


@pytest.mark.parametrize("state", ["present", "suspended"])
@pytest.mark.parametrize("new", [{"table": "0 16 zero"}, {"table": "0 8 zero", "read_only": True}])
@pytest.mark.parametrize("command", [("clear",), ("load", "--table", "0 24 zero")])
def test_another_program_drops_or_replaces_the_new_table(name, cleanup, monkeypatch, state, new, command):
    """Just before it becomes live: the resume succeeds, with another table than the one that was loaded."""
    cleanup(dm=name)
    made = run_module("dm_device", name=name, table="0 8 zero", state=state)["device"]
    before = snapshot()
    as_usual = _suspended.suspend
    commands = [["dmsetup", command[0], name, *command[1:]]]

    def suspend(control, device, how):
        as_usual(control, device, how)
        while commands:
            subprocess.run(commands.pop(), check=True)

    monkeypatch.setattr(_suspended, "suspend", suspend)
    with pytest.raises(Failed) as caught:
        run_module("dm_device", name=name, state=state, **new)
    result = caught.value.result
    assert result["error"]["kind"] == "DeviceBusy" and "another program" in result["msg"]
    after = run_module("device_info", diskseq=made["diskseq"], features=False)["devices"][0]
    assert after["suspended"] is (state == "suspended")
    if command == ("clear",):
        assert_as(before)
        assert after["table"] == made["table"] and not after["read_only"]
        assert result["changed"] is False and "the old table is live" in result["msg"]
    else:
        assert after["table"] == ["0 24 zero"] and result["changed"] is True
        assert "not rolled back" in str(result["warnings"]) and "another program" in str(result["warnings"])


def test_a_path_fails_as_soon_as_the_device_is_live(image, name, cleanup, monkeypatch):
    """Then the kernel shows another path group as the first one. It is still the table that was loaded."""
    file = image("a.raw", 8 * MIB)
    dead = f"{name}-dead"
    for clean in ({"loop": file}, {"dm": dead}, {"dm": name}):
        cleanup(**clean)
    good = run_module("loop_device", backing_file=file)["device"]["path"]
    run_module("dm_device", name=dead, table="0 8192 error")
    paths = " ".join(f"round-robin 0 1 1 {path} 1" for path in (f"/dev/mapper/{dead}", good))
    resume = _control.Control.resume

    def resumed(self, address, *arguments, **options):
        done = resume(self, address, *arguments, **options)
        status = self.status(address)
        if status.name == name:
            # As udev's blkid does a little later.
            path = f"/dev/dm-{status.minor}"
            subprocess.run(["dd", f"if={path}", "of=/dev/null", "iflag=direct", "count=8"], check=True)
        return done

    monkeypatch.setattr(_control.Control, "resume", resumed)
    for features in ("2 queue_mode bio", "3 queue_if_no_path queue_mode bio"):
        table = f"0 8192 multipath {features} 0 2 1 {paths}"
        device = run_module("dm_device", name=name, table=table)["device"]
        assert " 2 2 round-robin" in device["table"][0]


@pytest.mark.parametrize("call", ["suspend", "resume"])
def test_udev_cookies_are_removed_while_the_device_is_suspended(name, cleanup, monkeypatch, call):
    """With ``dmsetup udevcomplete_all``. A resume fails at that moment, or nothing does."""
    cleanup(dm=name)
    run_module("dm_device", name=name, table="0 8 zero")
    suspend, resume = _suspended.suspend, _control.Control.resume
    commands = [["dmsetup", "udevcomplete_all", "-y"]]

    def suspended(*arguments):
        suspend(*arguments)
        subprocess.run(commands.pop(), check=True)

    def resumed(*arguments, **options):
        if commands:
            subprocess.run(commands.pop(), check=True)
            raise KernelError("it fails", errno=errno.EIO)
        return resume(*arguments, **options)

    if call == "suspend":
        monkeypatch.setattr(_suspended, "suspend", suspended)
        assert run_module("dm_device", name=name, table="0 16 zero")["changed"]
    else:
        monkeypatch.setattr(_control.Control, "resume", resumed)
        with pytest.raises(Failed, match="The old table is live again"):
            run_module("dm_device", name=name, table="0 16 zero")
    device = run_module("device_info", path=f"/dev/mapper/{name}", features=False)["devices"][0]
    assert not device["suspended"]
    assert device["table"] == ["0 16 zero" if call == "suspend" else "0 8 zero"]


@pytest.mark.parametrize("error", ["killed", "failed"])
def test_the_inactive_table_cannot_be_looked_at(name, cleanup, control, monkeypatch, error):
    """When a run is killed, or a suspend fails: the device is resumed all the same, with the old table."""
    cleanup(dm=name)
    run_module("dm_device", name=name, table="0 8 zero")
    suspend, table = _suspended.suspend, _control.Control.table

    def suspended(*arguments):
        suspend(*arguments)
        if error == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KernelError("it fails", errno=errno.EIO)

    def cannot_look(self, address, inactive=False, secure=False):
        if inactive:
            raise KernelError("cannot look", errno=errno.ENOMEM)
        return table(self, address, inactive=inactive, secure=secure)

    monkeypatch.setattr(_suspended, "suspend", suspended)
    monkeypatch.setattr(_control.Control, "table", cannot_look)
    child = os.fork()
    if not child:
        try:
            run_module("dm_device", name=name, table="0 16 zero")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    monkeypatch.undo()

    def is_as_before():
        status, lines = control.table(_control.by_name(name))
        return not status.suspended and not status.has_inactive_table and lines[0].length == 8

    wait_until(is_as_before)


@pytest.mark.parametrize(
    "new",
    [
        f"0 {SECTORS} flakey {{0}} 0 1 0",
        f"0 {SECTORS} raid raid1 2 0 sync 2 - {{0}} - {{1}}",
        f"0 {SECTORS} raid raid1 3 0 rebuild 1 2 - {{0}} - {{1}}",
        f"0 {SECTORS} mirror core 1 1024 2 {{0}} 0 {{1}} 0",
    ],
)
def test_a_table_that_the_kernel_prints_differently_is_the_one_that_was_loaded(
    origin_and_store, name, cleanup, new
):
    cleanup(dm=name)
    run_module("dm_device", name=name, table=f"0 {SECTORS} zero")
    assert run_module("dm_device", name=name, table=new.format(*origin_and_store))["changed"]


def test_a_table_is_rolled_back_if_its_device_cannot_be_suspended_again(name, cleanup, monkeypatch):
    cleanup(dm=name)
    run_module("dm_device", name=name, table="0 8 zero", state="suspended")
    before, calls = snapshot(), []
    as_usual = _suspended.suspend

    def suspend(*words):
        calls.append(words)
        if len(calls) == 2:
            raise DeadlineExceeded("the reads and writes of this test", 1)
        as_usual(*words)

    monkeypatch.setattr(_suspended, "suspend", suspend)
    with pytest.raises(Failed, match="of this test") as caught:
        run_module("dm_device", name=name, table="0 16 zero", state="suspended")
    assert_as(before)
    assert caught.value.result["changed"] is False


def test_a_table_that_somebody_else_loaded_is_not_made_live(name, cleanup):
    """A resume would make it live, so it is refused, unless this task has a table itself."""
    cleanup(dm=name)
    run_module("dm_device", name=name, table="0 8 zero", state="suspended")
    subprocess.run(["dmsetup", "load", name, "--table", "0 16 zero"], check=True)
    refused("dm_device", "another table loaded", name=name)
    refused("dm_device", "another table loaded", name=name, table="0 8 zero")
    assert run_module("dm_device", name=name, table="0 24 zero")["device"]["table"] == ["0 24 zero"]


@pytest.mark.rotated
def test_a_rolled_back_reload_has_the_old_devices(image, name, cleanup):
    """Without a holder, the old loop device would be removed together with the old table."""
    old, new, other = (image(f"{word}.raw", MIB, content=word.encode()) for word in ("old", "new", "other"))
    junk, data = image("junk.raw", 4 * MIB, content=b"junk" * 1024), image("data.raw", 64 * MIB)
    cleanup(dm=name)
    before = snapshot()
    made = run_module(
        "dm_device", name=name, table=f"0 {SECTORS} linear file:{old} 0", persist=False, hold=25
    )["device"]
    rows = [
        {"name": name, "table": f"0 {SECTORS} linear file:{new} 0", "persist": False, "hold": 25},
        {"name": name + "-other", "table": f"0 {SECTORS} linear file:{other} 0", "persist": False},
        {"name": name + "-bad", "table": f"0 {64 * MIB // 512} thin-pool file:{junk} file:{data} 128 0"},
    ]
    with pytest.raises(Failed):
        run_module("dm_devices", devices=rows)
    after = run_module("device_info", diskseq=made["diskseq"], features=False)["devices"][0]
    assert after["table"] == made["table"] and read_device(made["path"], 0, 3) == b"old"
    # Nothing is left once nobody holds it.
    wait_until(lambda: snapshot() == before)


def test_suspend_has_a_time_limit(name, cleanup):
    """A suspend waits for the I/O of the device, which is stuck in a device below."""
    low, top = name + "-low", name + "-top"
    cleanup(dm=low)
    cleanup(dm=top)
    run_module("dm_device", name=low, table=f"0 {SECTORS} zero")
    made = run_module("dm_device", name=top, table=f"0 {SECTORS} linear /dev/mapper/{low} 0")["device"]
    subprocess.run(["dmsetup", "suspend", low], check=True)
    reader = subprocess.Popen(
        ["dd", f"if={made['path']}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct"]
    )
    try:
        with open(f"/sys/block/{made['name']}/inflight", encoding="ascii") as inflight:
            wait_until(lambda: inflight.seek(0) or inflight.read().split() != ["0", "0"])
        other = {"table": f"0 8 linear /dev/mapper/{low} 0", "allow_shrink": True}
        for change in ({"state": "suspended"}, other):
            with pytest.raises(Failed) as caught:
                run_module("dm_device", name=top, timeout=1, **change)
            assert caught.value.result["error"]["kind"] == "DeadlineExceeded"
            after = run_module("device_info", diskseq=made["diskseq"], features=False)["devices"][0]
            assert not after["suspended"] and after["table"] == made["table"]
        info = subprocess.run(
            ["dmsetup", "info", "-c", "--noheadings", "-o", "attr", top],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert info.strip() == "L--w", info
    finally:
        subprocess.run(["dmsetup", "resume", low], check=True)
        assert reader.wait() == 0


def test_a_file_system_is_frozen_unless_told_otherwise(image, name, cleanup, tmp_path):
    path = image(size=16 * MIB)
    cleanup(loop=path)
    cleanup(dm=name)
    made = run_module("dm_device", name=name, table=f"0 {16 * SECTORS} linear file:{path} 0")["device"]
    subprocess.run(["mkfs.ext4", "-q", made["path"]], check=True)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", made["path"], mounted], check=True)
    try:
        for nolockfs, option, answer in (
            (False, "--freeze", "Device or resource busy"),
            (True, "--unfreeze", "Invalid argument"),
        ):
            run_module("dm_device", name=name, state="suspended", nolockfs=nolockfs)
            asked = subprocess.Popen(["fsfreeze", option, mounted], stderr=subprocess.PIPE, text=True)
            try:
                # At once, and a wrong state is never reported while the device is suspended.
                told = asked.communicate(timeout=60)[1]
            finally:
                run_module("dm_device", name=name)
                asked.wait()
            assert answer in told, nolockfs
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_read_only_and_back(image, name, cleanup):
    path = image()
    cleanup(loop=path)
    cleanup(dm=name)
    table = f"0 {SECTORS} linear file:{path} 0"
    made = run_module("dm_device", name=name, table=table)["device"]
    assert predict_and_run("dm_device", name=name, table=table, read_only=True)["device"]["read_only"]
    with pytest.raises(OSError):
        write(made["path"], 0, b"x")
    back = predict_and_run("dm_device", name=name, table=table)["device"]
    assert not back["read_only"] and back["diskseq"] == made["diskseq"]
    write(made["path"], 0, b"x")


def test_a_suspended_device_is_suspended_after_a_rollback(image, name, cleanup):
    """It also has its old table, after another device of the task failed."""
    cleanup(dm=name)
    made = run_module("dm_device", name=name, table="0 8 zero", state="suspended")["device"]
    # valid as a table: the kernel refuses it because the metadata device holds no such pool
    junk, data = image("junk.raw", 4 * MIB, content=b"junk" * 1024), image("data.raw", 64 * MIB)
    failing = {
        "name": name + "-other",
        "table": f"0 {64 * MIB // 512} thin-pool file:{junk} file:{data} 128 0",
    }
    before = snapshot()
    with pytest.raises(Failed):
        run_module(
            "dm_devices", devices=[{"name": name, "table": "0 16 zero", "state": "suspended"}, failing]
        )
    assert_as(before)
    after = run_module("device_info", diskseq=made["diskseq"], features=False)["devices"][0]
    assert after["suspended"] and after["table"] == made["table"]


def test_the_guard_holds_for_every_change(name, cleanup):
    uuid = f"TEST-{name}"
    cleanup(dm=name)
    made = run_module("dm_device", name=name, uuid=uuid, table="0 8 zero")["device"]
    before = snapshot()
    for change in (
        {"name": name, "table": "0 16 zero"},
        {"name": name + "-new", "uuid": uuid, "table": "0 8 zero"},
        {"name": name, "table": "0 8 zero", "read_only": True},
        {"name": name, "state": "suspended"},
        {"name": name, "persist": False, "hold": 0},
        {"name": name, "state": "absent", "deferred": True},
    ):
        with pytest.raises(Failed) as caught:
            run_module("dm_device", diskseq=made["diskseq"] + 1000, **change)
        assert caught.value.result["error"]["kind"] == "WrongDevice" and str(made["diskseq"]) in str(
            caught.value
        )
        assert_as(before, change)
    assert run_module("dm_device", diskseq=made["diskseq"], name=name, table="0 16 zero")["changed"]


def test_hidden_from_udev(name, cleanup):
    cleanup(dm=name)
    made = predict_and_run("dm_device", name=name, table="0 8 zero", udev="hidden")["device"]
    udev_settle()
    told = subprocess.run(
        ["udevadm", "info", "--query=property", made["path"]], capture_output=True, text=True, check=True
    ).stdout
    for flag in ("DM", "SUBSYSTEM", "DISK", "OTHER"):
        assert f"DM_UDEV_DISABLE_{flag}_RULES_FLAG=1" in told.split()
    assert not os.path.exists(f"/dev/mapper/{name}")
    run_module("dm_device", name=name, table="0 16 zero", udev="hidden")
    udev_settle()
    assert not os.path.exists(f"/dev/mapper/{name}")


@pytest.mark.sample
def test_a_key_is_shown_nowhere(image, name, cleanup, system_log):
    """Neither in the output of -vvv, nor in a diff, an error, or the host's log."""
    path = image()
    cleanup(loop=path)
    cleanup(dm=name)
    key = os.urandom(64).hex()
    row = {
        "name": name,
        "table": f"0 {SECTORS} crypt aes-xts-plain64 var:data 0 file:{path} 0",
        "keys": {"data": key},
    }
    longer = f"0 8 zero\n8 {SECTORS} crypt aes-xts-plain64 var:data 0 file:{path} 0"
    told = [
        run_module("dm_device", invocation=True, **row),
        run_module(
            "dm_devices",
            invocation=True,
            devices=[dict(row, table=row["table"].replace("crypt", "crypt ", 1))],
        ),
        run_module("dm_device", invocation=True, check=True, name=name, table=longer, keys=row["keys"]),
        run_module("device_info"),
    ]
    inside = {
        "start": 0,
        "length": SECTORS,
        "target": "linear",
        "device": {"table": row["table"], "name": f"{name}-inside"},
        "offset": 0,
    }
    check = f"0 8 integrity file:{path} 0 - J 1 internal_hash:hmac(sha256):var:data"
    for table in ([inside], check):
        told.append(
            run_module(
                "dm_device",
                invocation=True,
                check=True,
                name=f"{name}-outside",
                table=table,
                keys=row["keys"],
            )
        )
        told.append(run_module("dm_table", invocation=True, table=table, keys=row["keys"]))
        assert "hidden" in str(told[-2]["diff"]["after"]) and "hidden" in str(told[-1]["targets"])
    assert "hidden" not in str(told[-1]["devices"]) and "hidden" in str(told[-3]["devices"])
    assert told[0]["invocation"]["module_args"]["table"] == row["table"] and told[2]["diff"]["before"]
    for broken in (
        f"{row['table']} x",
        row["table"].replace(path, "/dev/none"),
        row["table"].replace("aes-xts", "aes-xxx"),
    ):
        with pytest.raises(Failed) as caught:
            run_module("dm_devices", invocation=True, devices=[dict(row, table=broken)])
        told.append(caught.value.result)
    log = system_log()
    assert "Invoked with" in log and name in log
    for text in (*map(str, told), log):
        assert key not in text and key[:16] not in text and key[-16:] not in text


def test_a_key_from_a_keyring(image, name, cleanup):
    path, description = image(), f"racefree:{name}"
    cleanup(loop=path)
    cleanup(dm=name)
    number = (
        subprocess.run(
            ["keyctl", "padd", "logon", description, "@s"],
            input=os.urandom(32),
            capture_output=True,
            check=True,
        )
        .stdout.decode("ascii")
        .strip()
    )
    try:
        table = f"0 {SECTORS} crypt aes-xts-plain64 :32:logon:{description} 0 file:{path} 0"
        made = predict_and_run("dm_device", name=name, table=table)["device"]
        write(made["path"], 0, b"plain text")
        subprocess.run(["blockdev", "--flushbufs", made["path"]], check=True)
        with open(path, "rb") as raw:
            assert b"plain text" not in raw.read(4096)
        with pytest.raises(Failed) as caught:
            run_module("dm_device", name=name, table=table.replace(":32:", ":64:"))
        assert "key" in str(caught.value) and not run_module("dm_device", name=name, table=table)["changed"]
    finally:
        subprocess.run(["keyctl", "unlink", number, "@s"], check=True)
