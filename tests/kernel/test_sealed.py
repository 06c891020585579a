# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The option ``sealed`` of the modules, and how other modules behave on hosts with sealed devices.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block.seal import (
    attachment,
    blkback,
    place,
    reason_text,
    reasons,
    seals,
)
from ansible_collections.racefree.block.plugins.module_utils._dm import load
from conftest import Failed, predict_and_run, read_device, refused, run_module, wait_until
from sealing import is_refused, no_keeper, nothing_sealed

pytestmark = pytest.mark.usefixtures(nothing_sealed.__name__)
MIB = 2**20
SECTORS = 16 * MIB // 512
TABLE = f"0 {SECTORS} zero"


@pytest.mark.sample
def test_a_sealed_mapped_device(name, cleanup):
    cleanup(dm=name)
    made = predict_and_run("dm_device", name=name, table=TABLE, sealed=True)
    assert made["device"]["sealed"] and made["diff"]["after"]["sealed"] is True
    path = made["device"]["path"]
    assert is_refused(path) and is_refused(made["device"]["mapper_path"])
    # Without the option it stays sealed, and it can be changed.
    assert not run_module("dm_device", name=name, table=TABLE)["changed"]
    grown = predict_and_run("dm_device", name=name, table=f"0 {2 * SECTORS} zero")
    assert grown["device"]["size"] == 32 * MIB and is_refused(path)
    assert predict_and_run("dm_device", name=name, state="suspended")["device"]["sealed"]
    predict_and_run("dm_device", name=name)
    lifted = predict_and_run("dm_device", name=name, sealed=False)
    assert (lifted["diff"]["before"]["sealed"], lifted["diff"]["after"]["sealed"]) == (True, False)
    assert not is_refused(path) and not lifted["device"]["sealed"]
    again = predict_and_run("dm_device", name=name, sealed=True)
    assert again["changed"] and is_refused(path)
    gone = predict_and_run("dm_device", name=name, state="absent")
    assert gone["gone"] and not seals.found()


@pytest.mark.sample
def test_a_sealed_loop_device(image, cleanup):
    path = image(content=b"hello")
    cleanup(loop=path)
    made = predict_and_run("loop_device", backing_file=path, sealed=True)
    node = made["device"]["path"]
    assert made["device"]["sealed"] and is_refused(node)
    os.truncate(path, 32 * MIB)
    grown = predict_and_run("loop_device", backing_file=path)
    assert grown["device"]["size"] == 32 * MIB and is_refused(node)
    predict_and_run("loop_device", backing_file=path, sealed=False)
    assert read_device(node, 0, 5) == b"hello"
    predict_and_run("loop_device", backing_file=path, sealed=True)
    gone = predict_and_run("loop_device", backing_file=path, state="absent")
    assert gone["gone"] and not seals.found() and not is_refused(node, os.O_RDONLY | os.O_NONBLOCK)


@pytest.mark.rotated
def test_one_that_goes_with_its_last_user(name, cleanup):
    cleanup(dm=name)
    device = run_module("dm_device", name=name, table=TABLE)["device"]
    with open(device["path"], "rb") as user:
        going = run_module("dm_device", name=name, state="absent", deferred=True, sealed=True)
        assert going["changed"] and going["gone"] is False
        assert is_refused(device["path"]) and user.read(4) == bytes(4)
        again = run_module("dm_device", name=name, state="absent", deferred=True, sealed=True)
        assert not again["changed"]
        # This cancels the removal, and lifts the seal with it.
        kept = predict_and_run("dm_device", name=name, table=TABLE)
        assert kept["changed"] and not kept["device"]["sealed"] and not is_refused(device["path"])
        # With sealed=true, the seal stays.
        run_module("dm_device", name=name, state="absent", deferred=True, sealed=True)
        assert predict_and_run("dm_device", name=name, table=TABLE, sealed=True)["device"]["sealed"]
        # A removal that is already deferred, of a device that is not sealed.
        run_module("dm_device", name=name, sealed=False)
        run_module("dm_device", name=name, state="absent", deferred=True)
        assert run_module("dm_device", name=name, state="absent", deferred=True, sealed=True)["changed"]
        assert is_refused(device["path"])
    wait_until(lambda: not os.path.exists(f"/sys/block/{device['name']}"))
    wait_until(lambda: not seals.found(), 20)


def test_a_loop_device_that_goes_with_its_last_user(image, cleanup):
    path = image(content=b"hello")
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path)["device"]
    with open(device["path"], "rb") as user:
        going = run_module("loop_device", backing_file=path, state="absent", deferred=True, sealed=True)
        assert going["changed"] and is_refused(device["path"]) and user.read(5) == b"hello"
        kept = predict_and_run("loop_device", backing_file=path)
        assert kept["changed"] and not is_refused(device["path"])
        run_module("loop_device", backing_file=path, state="absent", deferred=True, sealed=True)
    wait_until(lambda: not os.path.exists(f"/sys/block/{device['name']}/loop"))
    wait_until(lambda: seals.reap() >= 0 and not seals.found(), 20)


@pytest.mark.parametrize("module", ["dm_device", "loop_device"])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_removal_at_once_takes_no_seal(module, sealed, name):
    which = {"name": name} if module == "dm_device" else {"backing_file": f"/nowhere/{name}"}
    refused(module, "sealed", "must not be set with state=absent", state="absent", sealed=sealed, **which)


def test_a_host_that_cannot_seal_changes_nothing(name, image):
    path = image()
    subprocess.run(["umount", place.BPF_FS], check=True)
    try:
        refused("dm_device", "mount -t bpf bpf", name=name, table=TABLE, sealed=True)
        refused("loop_device", "mount -t bpf bpf", backing_file=path, sealed=True)
        assert run_module("device_info")["features"]["kernel"]["seals"] is False
    finally:
        subprocess.run(["mount", "-t", "bpf", "bpf", place.BPF_FS], check=True)
    assert run_module("device_info")["features"]["kernel"]["seals"] is True


def test_lists_and_a_failure_that_takes_all_back(image, cleanup, name):
    files = [image(f"{number}.raw") for number in range(3)]
    for path in files:
        cleanup(loop=path)
    first = run_module("loop_device", backing_file=files[0])["device"]
    run_module("loop_device", backing_file=files[1], sealed=True)
    dm = f"{name}-taken"
    cleanup(dm=dm)
    run_module("dm_device", name=dm, table=TABLE)
    entries = [
        {"backing_file": files[0], "sealed": True},
        {"backing_file": files[1], "sealed": False},
        {"backing_file": files[2], "sealed": True},
    ]
    made = predict_and_run("loop_devices", devices=entries)
    assert [row["device"]["sealed"] for row in made["devices"]] == [True, False, True]
    assert is_refused(first["path"])
    # Changes are rolled back when another entry fails: its table names a sealed device.
    before = sorted(seals.found())
    with pytest.raises(Failed):
        run_module(
            "dm_devices",
            devices=[
                {"name": dm, "table": TABLE, "sealed": True},
                {"name": f"{name}-x", "table": f"0 8 linear {first['path']} 0"},
            ],
        )
    assert sorted(seals.found()) == before


def test_a_table_over_a_sealed_device_is_refused_and_says_why(image, cleanup, name):
    path = image()
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path, sealed=True)["device"]
    table = f"0 8 linear diskseq:{device['diskseq']} 0"
    refused("dm_device", device["path"], "it is sealed", "sealed=false", name=name, table=table)
    cleanup(dm=name)
    run_module("dm_device", name=name, table="0 8 zero")
    refused("dm_device", device["path"], "it is sealed", "sealed=false", name=name, table=table)


def test_a_stack_whose_lower_device_is_sealed_grows(image, cleanup, name):
    path = image()
    cleanup(loop=path)
    below = run_module("loop_device", backing_file=path)["device"]
    cleanup(dm=name)
    table = f"0 {SECTORS // 2} linear diskseq:{below['diskseq']} 0"
    run_module("dm_device", name=name, table=table, sealed=True)
    run_module("loop_device", backing_file=path, sealed=True)
    wider = f"0 {SECTORS} linear diskseq:{below['diskseq']} 0"
    grown = predict_and_run("dm_device", name=name, table=wider)
    assert grown["device"]["size"] == 16 * MIB
    assert is_refused(below["path"]) and is_refused(grown["device"]["path"])
    # Both are found and reported.
    rows = {row["diskseq"]: row for row in run_module("device_info")["devices"]}
    for diskseq in (below["diskseq"], grown["device"]["diskseq"]):
        seal = rows[diskseq]["seal"]
        assert seal["refused"] >= 1 and 0 <= seal["age"] < 600
    gone = predict_and_run("dm_device", name=name, state="absent")
    assert gone["gone"]


@pytest.fixture
def stack(image, cleanup, name):
    """
    A loop device, a mapped device on it, and a function that runs dm_device for one on top of both; as
    (loop, middle, top).
    """
    path = image()
    cleanup(loop=path)
    lowest = run_module("loop_device", backing_file=path)["device"]
    cleanup(dm=f"{name}-middle")
    table = f"0 {SECTORS // 2} linear diskseq:{lowest['diskseq']} 0"
    middle = run_module("dm_device", name=f"{name}-middle", table=table)["device"]
    cleanup(dm=name)

    def top(run=predict_and_run, length=SECTORS // 4, **options):
        line = f"0 {length} linear diskseq:{middle['diskseq']} 0"
        return run("dm_device", name=name, table=line, **options)

    return lowest, middle, top


def reasons_of(device):
    return seals.reasons_of(device["major"], device["minor"], device["diskseq"])


def test_what_lies_below_is_sealed_with_a_device(stack, image, cleanup):
    lowest, middle, top = stack
    made = top(sealed=True, sealed_below=True)
    assert made["diff"]["after"]["sealed_below"] is True
    paths = [lowest["path"], middle["path"], made["device"]["path"]]
    assert all(is_refused(path) for path in paths)
    assert not top(run_module, sealed=True, sealed_below=True)["changed"]
    assert not top(run_module)["changed"]
    rows = {row["diskseq"]: row for row in run_module("device_info")["devices"]}
    (reason,) = rows[lowest["diskseq"]]["seal"]["reasons"]
    assert reason.startswith(f"below {made['device']['major']}:{made['device']['minor']} ")
    assert rows[made["device"]["diskseq"]]["seal"]["reasons"] == ["own"]
    # All of it can grow.
    os.truncate(lowest["backing_file"], 32 * MIB)
    run_module("loop_device", backing_file=lowest["backing_file"])
    table = f"0 {SECTORS} linear diskseq:{lowest['diskseq']} 0"
    run_module("dm_device", name=middle["mapper_name"], table=table)
    grown = top(length=SECTORS)
    assert grown["device"]["size"] == 16 * MIB and all(is_refused(path) for path in paths)
    # What a new table names is sealed too, and what it no longer names is not.
    other = image("other.raw")
    cleanup(loop=other)
    loop = run_module("loop_device", backing_file=other)["device"]
    table = f"0 {SECTORS} linear diskseq:{loop['diskseq']} 0"
    moved = predict_and_run("dm_device", name=made["device"]["mapper_name"], table=table)
    assert moved["diff"]["after"]["sealed_below"] is True
    assert is_refused(loop["path"]) and is_refused(paths[2])
    seals.reap()
    assert not is_refused(paths[0]) and not is_refused(paths[1])
    lifted = predict_and_run("dm_device", name=made["device"]["mapper_name"], sealed=True, sealed_below=False)
    assert (lifted["diff"]["before"]["sealed_below"], lifted["diff"]["after"]["sealed_below"]) == (
        True,
        False,
    )
    assert is_refused(paths[2]) and not is_refused(loop["path"])
    # The fixtures remove the loop device before this one.
    run_module("dm_device", name=made["device"]["mapper_name"], state="absent")


@pytest.mark.parametrize("how", ["sealed=false", "absent", "dmsetup"])
def test_a_seal_below_ends_with_its_reason_and_no_other(stack, how, name):
    lowest, middle, top = stack
    top()
    # Somebody else's seal of one of them stays.
    run_module("dm_device", name=middle["mapper_name"], sealed=True)
    path = top(sealed=True, sealed_below=True)["device"]["path"]
    assert "own" in reasons_of(middle) and len(reasons_of(middle)) == 2
    if how == "sealed=false":
        assert not top(sealed=False)["device"]["sealed"] and not is_refused(path)
    elif how == "absent":
        assert predict_and_run("dm_device", name=name, state="absent")["gone"]
    else:
        subprocess.run(["dmsetup", "remove", "--retry", name], check=True)
        wait_until(lambda: not is_refused(lowest["path"]), 10)
    assert not is_refused(lowest["path"])
    assert is_refused(middle["path"]) and reasons_of(middle) == {"own"}
    run_module("dm_device", name=middle["mapper_name"], sealed=False)
    assert not is_refused(middle["path"]) and not reasons.recorded()


def test_lifting_an_own_seal_leaves_what_others_need(stack):
    dummy, middle, top = stack
    top(sealed=True, sealed_below=True)
    run_module("dm_device", name=middle["mapper_name"], sealed=True)
    assert predict_and_run("dm_device", name=middle["mapper_name"], sealed=False)["device"]["sealed"]
    assert is_refused(middle["path"])
    assert top(sealed=False) and not is_refused(middle["path"])


def test_others_may_use_what_lies_below(stack, cleanup, name):
    """A device that is sealed only because one above it is can be shared, as the origin of snapshots is."""
    lowest, middle, top = stack
    top(sealed=True, sealed_below=True)
    cleanup(dm=f"{name}-other")
    table = f"0 8 linear diskseq:{lowest['diskseq']} 0"
    predict_and_run("dm_device", name=f"{name}-other", table=table)
    predict_and_run("dm_device", name=f"{name}-other", table=f"0 8 linear diskseq:{middle['diskseq']} 0")
    assert is_refused(lowest["path"]) and is_refused(middle["path"])


def test_options_that_seal_below_alone_are_refused(name):
    for options in ({}, {"sealed": False}, {"sealed": True, "state": "absent", "deferred": True}):
        refused(
            "dm_device",
            "sealed_below",
            "is possible only with sealed=true",
            name=name,
            sealed_below=True,
            **{"table": TABLE, **options},
        )


def test_a_seal_for_a_guest_ends_with_its_disk(image, cleanup):
    """Here blkback has no such disk open, so the next look ends the seal."""
    path = image()
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path, sealed=True)["device"]
    number = device["major"], device["minor"], device["diskseq"]
    reason = reason_text.of_vbd(7, 51712)
    seals.seal(*number, reason=reason)
    assert reasons_of(device) == {"own", reason}
    seals.reap()
    assert reasons_of(device) == {"own"} and is_refused(device["path"])
    seals.seal(*number, reason=reason)
    assert predict_and_run("loop_device", backing_file=path, sealed=False)["changed"]
    # What a run has left that was killed before it sealed the device goes, too.
    reasons.keep(number[:2], 1, {reason})
    seals.seal(*number, reason=reason)
    # The keeper looks at least every ten seconds.
    wait_until(lambda: not os.path.exists(place.DIRECTORY), 30)
    assert not is_refused(device["path"])
    seals.seal(*number)
    seals.lift(*number)
    assert not reasons.recorded()


@pytest.mark.parametrize("state", ["present", "suspended"])
def test_the_old_table_over_sealed_devices_is_restored_if_the_new_one_does_not_start(
    stack, image, cleanup, name, state
):
    """The kernel refuses to take over the store of a live snapshot only at resume."""
    dummy, middle, top = stack
    made = top(sealed=True, sealed_below=True, state=state)["device"]
    slots = []
    for path in (image("origin.raw", MIB), image("store.raw", 4 * MIB)):
        cleanup(loop=path)
        slots.append(f"diskseq:{run_module('loop_device', backing_file=path)['device']['diskseq']}")
    cleanup(dm=f"{name}-snapshot")
    table = f"0 2048 snapshot {slots[0]} {slots[1]} P 8"
    run_module("dm_device", name=f"{name}-snapshot", table=table)
    merge = table.replace("snapshot", "snapshot-merge")
    with pytest.raises(Failed, match="The old table is live again") as caught:
        run_module("dm_device", name=name, table=merge, state=state, allow_shrink=True)
    assert caught.value.result["changed"] is False
    after = run_module("device_info", diskseq=made["diskseq"], features=False)["devices"][0]
    assert after["table"] == made["table"] and after["suspended"] is (state == "suspended")
    assert is_refused(middle["path"]) and is_refused(made["path"])
    # Fixtures remove the devices below in the order in which they were made.
    run_module("dm_device", name=name, state="absent")


@pytest.fixture
def pool(image, cleanup, name):
    """The options of dm_device for a sealed thin pool with one volume."""
    meta, data = image("meta.raw", 4 * MIB), image("data.raw", 64 * MIB)
    for path in (meta, data):
        cleanup(loop=path)
    cleanup(dm=name)
    options = {"name": name, "table": f"0 {4 * SECTORS} thin-pool file:{meta} file:{data} 128 0"}
    run_module("dm_device", sealed=True, sealed_below=True, **options)
    return options


def test_volumes_of_a_sealed_pool(pool):
    assert predict_and_run("dm_device", volumes=[{"id": 1}], **pool)["device"]["sealed"]
    predict_and_run("dm_device", volumes=[{"id": 1}, {"id": 2, "snapshot_of": 1}], **pool)
    gone = [{"id": 2, "state": "absent"}, {"id": 1}]
    assert predict_and_run("dm_device", volumes=gone, **pool)["device"]["sealed"]


def test_an_error_of_looking_for_volumes_names_the_pool(pool, monkeypatch):
    monkeypatch.setattr(load, "sealed_let_in", contextlib.nullcontext)
    result = refused("dm_device", "EPERM", "look for its volume 1", volumes=[{"id": 1}], **pool)
    assert result["error"]["device"] == pool["name"] and result["error"]["kind"] == "KernelError"


@pytest.fixture
def xenwatch(monkeypatch):
    """
    A process with the name of the kernel thread in which blkback opens devices, which takes its place here.
    A function that says whether an open there is refused.
    """
    code = (
        "import ctypes, sys\n"
        "ctypes.CDLL(None).prctl(15, b'xenwatch')\n"
        "for path in sys.stdin:\n"
        "    try:\n"
        "        open(path.strip(), 'rb').close()\n"
        "    except PermissionError:\n"
        "        print('refused', flush=True)\n"
        "    else:\n"
        "        print('opened', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        monkeypatch.setattr(blkback, "_thread", lambda: process.pid)

        def is_refused_there(path):
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            return process.stdout.readline() == "refused\n"

        yield is_refused_there
        process.stdin.close()


def passes():
    with attachment.existing() as maps:
        return maps.passes.keys()


@pytest.mark.sample
def test_blkback_gets_a_pass(image, cleanup, xenwatch, tmp_path, monkeypatch):
    """Only its thread, only for the device, and for a limited time."""
    # On a Xen host, sealing gives it a pass, too, which is another test's subject.
    monkeypatch.setattr(blkback, "_BACKENDS", str(tmp_path / "none"))
    files = [image(f"{number}.raw") for number in range(2)]
    for path in files:
        cleanup(loop=path)
    first, second = (run_module("loop_device", backing_file=path)["device"] for path in files)
    number = first["major"], first["minor"]
    blkback.let_open([number], 60)
    for device in (first, second):
        seals.seal(device["major"], device["minor"], device["diskseq"])
        assert xenwatch(device["path"]) and is_refused(device["path"])
    blkback.let_open([number], 60)
    assert not xenwatch(first["path"]) and xenwatch(second["path"])
    assert is_refused(first["path"])
    # Another attachment of the same device does not shorten it.
    blkback.let_open([number], 0)
    assert not xenwatch(first["path"])
    with attachment.existing() as maps:
        maps.passes.remove(maps.passes.keys()[0])
    assert xenwatch(first["path"])
    blkback.let_open([number], 0)
    assert xenwatch(first["path"]) and len(passes()) == 1
    seals.reap()
    assert not passes()
    for device in (first, second):
        seals.lift(device["major"], device["minor"], device["diskseq"])


def test_a_device_that_is_sealed_while_it_is_attached_can_be_opened(image, cleanup, xenwatch, monkeypatch):
    """When nothing was sealed, the attachment could not ask for a pass."""
    path = image()
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path)["device"]
    monkeypatch.setattr(blkback, "_BACKENDS", "/sys")
    seals.seal(device["major"], device["minor"], device["diskseq"])
    assert is_refused(device["path"]) and not xenwatch(device["path"])
    # Most of the map is left to those who need a pass.
    monkeypatch.setattr(blkback, "_MOST_LATE", 0)
    seals.lift(device["major"], device["minor"], device["diskseq"])
    seals.seal(device["major"], device["minor"], device["diskseq"])
    assert xenwatch(device["path"])
    seals.lift(device["major"], device["minor"], device["diskseq"])


def test_a_seal_for_guests_stays_as_long_as_one_has_the_disk(image, cleanup, tmp_path, monkeypatch):
    path = image()
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path)["device"]
    number = device["major"], device["minor"], device["diskseq"]
    monkeypatch.setattr(blkback, "_BACKENDS", str(tmp_path))
    vbds = [tmp_path / "devices" / f"vbd-{domid}-51712" / "physical_device" for domid in (7, 8)]
    for vbd in vbds:
        vbd.parent.mkdir(parents=True)
        vbd.write_text(f"{number[0]:x}:{number[1]:x}\n")
    # It would look at this host's sysfs.
    with no_keeper():
        for domid in (7, 8):
            seals.seal(*number, reason=reason_text.of_vbd(domid, 51712))
        seals.reap()
        assert len(reasons_of(device)) == 2
        vbds[0].unlink()
        seals.reap()
        assert reasons_of(device) == {reason_text.of_vbd(8, 51712)} and is_refused(device["path"])
        # blkback has another device open for this disk now.
        vbds[1].write_text("7:ff\n")
        seals.reap()
        assert not is_refused(device["path"]) and not reasons.recorded()


def test_ten_sealed_disks_change_nothing_for_others(image, cleanup, name):
    files = [image(f"sealed{number}.raw") for number in range(10)]
    for path in files:
        cleanup(loop=path)
    run_module("loop_devices", devices=[{"backing_file": path, "sealed": True} for path in files])
    path = image("other.raw", content=b"other")
    cleanup(loop=path)
    loop = predict_and_run("loop_device", backing_file=path)["device"]
    cleanup(dm=name)
    made = predict_and_run("dm_device", name=name, table=f"0 8 linear diskseq:{loop['diskseq']} 0")
    assert read_device(made["device"]["path"], 0, 5) == b"other"
    # A task that names all of them changes nothing.
    again = run_module("loop_devices", devices=[{"backing_file": path} for path in files])
    assert not again["changed"]
    rows = run_module("device_info")["devices"]
    assert sum(row["sealed"] for row in rows) == 10
    predict_and_run("dm_device", name=name, state="absent")
    predict_and_run("loop_device", backing_file=path, state="absent")
    gone = predict_and_run(
        "loop_devices", devices=[{"backing_file": path, "state": "absent"} for path in files]
    )
    assert gone["changed"] and not seals.found()
