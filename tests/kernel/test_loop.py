# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules loop_device and loop_devices on a real kernel."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import stat
import subprocess
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import detach, device, loop
from ansible_collections.racefree.block.plugins.module_utils._kernel import uapi_plain
from ansible_collections.racefree.block.plugins.module_utils._module import loop_device, worker
from conftest import (
    Failed,
    assert_as,
    predict_and_run,
    read_device,
    refused,
    run_module,
    snapshot,
    udev_settle,
)

MIB = 2**20


@pytest.mark.sample
def test_life_of_a_device(image, cleanup):
    path = image(content=b"hello")
    cleanup(loop=path)
    made = predict_and_run("loop_device", backing_file=path)
    assert made["changed"]
    device = made["device"]
    assert device["size"] == 16 * MIB and device["persist"] and not device["read_only"]
    assert read_device(device["path"], 0, 5) == b"hello"
    with open(f"/sys/block/{device['name']}/diskseq", encoding="ascii") as number:
        assert int(number.read()) == device["diskseq"]
    gone = predict_and_run("loop_device", backing_file=path, state="absent")
    assert gone["changed"] and gone["gone"]
    assert not os.path.exists(f"/sys/block/{device['name']}/loop")


def test_a_device_is_identified_by_its_file_not_by_the_path(image, cleanup, tmp_path):
    path = image()
    cleanup(loop=path)
    made = run_module("loop_device", backing_file=path)["device"]
    link, hard = tmp_path / "link", tmp_path / "hard"
    link.symlink_to(path)
    os.link(path, hard)
    for other in (link, hard, tmp_path / "." / "x" / ".." / "disk.raw"):
        os.makedirs(tmp_path / "x", exist_ok=True)
        again = run_module("loop_device", backing_file=str(other))
        assert not again["changed"] and again["device"]["diskseq"] == made["diskseq"]


def test_another_file_under_the_same_name_is_another_device(image, cleanup, tmp_path):
    path = image(content=b"old")
    old = run_module("loop_device", backing_file=path)["device"]
    os.rename(path, tmp_path / "moved")
    cleanup(loop=str(tmp_path / "moved"))
    image(content=b"new")
    cleanup(loop=path)
    new = run_module("loop_device", backing_file=path)
    assert new["changed"] and new["device"]["diskseq"] != old["diskseq"]
    assert read_device(new["device"]["path"], 0, 3) == b"new"


@pytest.mark.sample
def test_a_file_that_is_bound_right_after_the_detach_stays(image, cleanup, monkeypatch):
    """Before Linux 6.11, others can bind a file while the process that detached one holds the device."""
    path, other = image("a.raw"), image("b.raw")
    cleanup(loop=path)
    cleanup(loop=other)
    made = run_module("loop_device", backing_file=path)["device"]
    held, ioctl, bound = device.open_path(made["path"]), fcntl.ioctl, []

    def clear_and_bind(fd, request, *arguments):
        result = ioctl(fd, request, *arguments)
        if request == uapi_plain.LOOP_CLR_FD and not bound:
            code = subprocess.run(
                ["losetup", made["path"], other], check=False, capture_output=True
            ).returncode
            bound.append(code == 0)
        return result

    monkeypatch.setattr(fcntl, "ioctl", clear_and_bind)
    assert detach.detach(held)
    monkeypatch.undo()
    status = loop.read_status(made["name"])
    assert bound == [status is not None]
    if status is not None:
        assert not status["lo_flags"]
        assert (
            pathlib.Path(f"/sys/block/{made['name']}/loop/backing_file").read_text("utf-8").strip() == other
        )


def test_offset_and_size_are_part_of_the_identity(image, cleanup):
    path = image(content=b"\0" * MIB + b"second")
    whole = run_module("loop_device", backing_file=path)["device"]
    cleanup(loop=path)
    part = predict_and_run("loop_device", backing_file=path, offset=MIB, size=2 * MIB, overlap=True)["device"]
    assert part["diskseq"] != whole["diskseq"] and part["size"] == 2 * MIB
    assert read_device(part["path"], 0, 6) == b"second"
    predict_and_run("loop_device", backing_file=path, offset=MIB, size=2 * MIB, state="absent")
    assert not run_module("loop_device", backing_file=path)["changed"]


def test_sizes_with_units(image, cleanup):
    """They identify the same device as the numbers of bytes do, and results are in bytes."""
    path = image(content=b"\0" * MIB + b"second")
    cleanup(loop=path)
    made = predict_and_run("loop_device", backing_file=path, offset="1MiB", size="2M", sector_size="4K")[
        "device"
    ]
    assert (made["offset"], made["size"], made["sector_size"]) == (MIB, 2 * MIB, 4096)
    again = run_module("loop_device", backing_file=path, offset=MIB, size=str(2 * MIB))
    assert not again["changed"] and again["device"]["diskseq"] == made["diskseq"]
    for wrong in ({"offset": "1.5M"}, {"size": "-1"}, {"sector_size": "4 KK"}):
        refused(
            "loop_device",
            f"{next(iter(wrong))}",
            "must be a number of bytes, or a number with K",
            backing_file=path,
            **wrong,
        )
    run_module("loop_device", backing_file=path, offset="1024K", size="2MiB", state="absent")


@pytest.mark.parametrize(
    "options",
    [
        {"sector_size": 4096},
        {"read_only": True},
        {"partitions": True},
        {"direct_io": False},
    ],
)
def test_the_kernel_reports_the_options(image, cleanup, options):
    path = image()
    made = predict_and_run("loop_device", backing_file=path, **options)["device"]
    cleanup(loop=path)
    for option, value in options.items():
        assert made[option] == value


def test_changed_options(image, cleanup):
    path = image()
    cleanup(loop=path)
    first = run_module("loop_device", backing_file=path)["device"]
    changed = predict_and_run("loop_device", backing_file=path, partitions=True)
    assert (
        changed["changed"]
        and changed["device"]["partitions"]
        and changed["device"]["diskseq"] == first["diskseq"]
    )
    os.truncate(path, 32 * MIB)
    grown = predict_and_run("loop_device", backing_file=path)
    assert (
        grown["changed"]
        and grown["device"]["size"] == 32 * MIB
        and grown["device"]["diskseq"] == first["diskseq"]
    )
    refused("loop_device", "sector_size", "4096", backing_file=path, sector_size=4096)
    refused("loop_device", "partitions", backing_file=path, partitions=False)
    refused("loop_device", "read_only", "remove it first", backing_file=path, read_only=True)


@pytest.mark.parametrize("moment", ["made", "changed", "unchanged"])
def test_a_device_that_is_detached_meanwhile_is_not_called_present(image, cleanup, monkeypatch, moment):
    """It is there as long as the run itself has it open, and goes when the run ends."""
    path = image()
    cleanup(loop=path)
    if moment != "made":
        run_module("loop_device", backing_file=path)
    place, step = {
        "made": (loop, "set_autoclear"),
        "changed": (loop, "set_direct_io"),
        "unchanged": (loop_device.LoopItem, "result"),
    }[moment]
    original = getattr(place, step)

    def attacked(*args):
        """The step, and then the other process; before it where the step is the last look."""
        answer = None if moment == "unchanged" else original(*args)
        monkeypatch.setattr(place, step, original)
        device = args[0].device if moment == "unchanged" else args[0]
        subprocess.run(["losetup", "--detach", device.path], check=True)
        return original(*args) if moment == "unchanged" else answer

    monkeypatch.setattr(worker, "IN_PROCESS", True)
    monkeypatch.setattr(place, step, attacked)
    wanted = {"direct_io": True} if moment == "changed" else {}
    with pytest.raises(Failed, match="has detached it") as caught:
        run_module("loop_device", backing_file=path, **wanted)
    assert caught.value.result["changed"] is (moment != "unchanged")
    assert run_module("loop_device", backing_file=path, **wanted)["changed"] is True


def test_guard_by_diskseq(image, cleanup):
    path = image()
    made = run_module("loop_device", backing_file=path)["device"]
    cleanup(loop=path)
    assert not run_module("loop_device", backing_file=path, diskseq=made["diskseq"])["changed"]
    refused(
        "loop_device",
        "disk sequence number",
        str(made["diskseq"]),
        backing_file=path,
        diskseq=made["diskseq"] + 1000,
    )
    refused(
        "loop_device",
        "disk sequence number",
        path=made["path"],
        diskseq=made["diskseq"] + 1000,
        state="absent",
    )
    assert not run_module("loop_device", diskseq=made["diskseq"] + 1000, state="absent")["changed"]
    assert run_module("loop_device", path=made["path"], diskseq=made["diskseq"], state="absent")["changed"]
    # another device may have the name by now; the requested one is gone
    assert not run_module("loop_device", diskseq=made["diskseq"], state="absent")["changed"]


def test_guard_by_the_right_diskseq_of_a_read_only_device(image, cleanup):
    path = image()
    cleanup(loop=path)
    made = run_module("loop_device", backing_file=path, read_only=True)["device"]
    words = "is bound read-only already", "remove it first"
    result = refused("loop_device", *words, backing_file=path, diskseq=made["diskseq"])
    assert "disk sequence number" not in result["msg"]


def test_a_device_in_use_stays(image, cleanup, tmp_path):
    path = image(size=4 * MIB)
    made = run_module("loop_device", backing_file=path)["device"]
    cleanup(loop=path)
    subprocess.run(["mkfs.ext4", "-q", made["path"]], check=True)
    point = tmp_path / "mnt"
    point.mkdir()
    subprocess.run(["mount", made["path"], point], check=True)
    try:
        refused("loop_device", "in use", str(point), backing_file=path, state="absent", timeout=0)
        assert run_module("loop_device", backing_file=path)["device"]["persist"]
    finally:
        subprocess.run(["umount", point], check=True)
    with open(made["path"], "rb"):
        with pytest.raises(Failed, match="in use"):
            run_module("loop_device", backing_file=path, state="absent", timeout=0)
        assert run_module("loop_device", backing_file=path)["device"]["persist"]
        waits = run_module("loop_device", backing_file=path, state="absent", deferred=True)
        assert waits["changed"] and not waits["gone"]


@pytest.mark.sample
def test_persist_false_goes_with_its_last_user(image):
    path = image()
    made = run_module("loop_device", backing_file=path, persist=False, hold=0)
    assert made["changed"] and not made["device"]["persist"]
    assert run_module("loop_device", check=True, backing_file=path)["changed"]


def test_persist_false_is_held_for_its_first_user(image):
    path = image()
    made = run_module("loop_device", backing_file=path, persist=False, hold=3)["device"]
    with open(made["path"], "rb") as user:
        subprocess.run(["sleep", "4"], check=True)
        assert not run_module("loop_device", backing_file=path, persist=False, diskseq=made["diskseq"])[
            "changed"
        ]
        user.read(1)


def test_wrong_use(image, tmp_path):
    path = image()
    refused("loop_device", "backing_file", "does not exist", backing_file=str(tmp_path / "none"))
    refused("loop_device", "backing_file", "directory", backing_file=str(tmp_path))
    refused("loop_device", "backing_file", "character device", backing_file="/dev/null")
    refused("loop_device", "backing_file", "empty", backing_file=image("empty", 0))
    refused(
        "loop_device",
        "backing_file",
        "not a multiple of the sector size 512",
        backing_file=image("odd", 1000),
    )
    refused("loop_device", "sector_size", "power of 2", backing_file=path, sector_size=1000)
    refused("loop_device", "sector_size", "power of 2", backing_file=path, sector_size=65536)
    refused("loop_device", "size", "multiple of the sector size", backing_file=path, size=1000)
    refused("loop_device", "offset", "512", backing_file=path, offset=100)
    refused("loop_device", "offset", "inside the file", backing_file=path, offset=64 * MIB)
    refused("loop_device", "size", "inside the file", backing_file=path, size=64 * MIB)
    refused("loop_device", "diskseq", "1 to 2^64-1", backing_file=path, diskseq=0)
    refused("loop_device", "backing_file", backing_file=None, state="present")
    refused("loop_device", "backing_file", path="/dev/loop0")
    refused(
        "loop_device", "either backing_file or path", backing_file=path, path="/dev/loop0", state="absent"
    )


def test_file_on_a_read_only_file_system(tmp_path, image, cleanup):
    outer = image("outer.raw", 4 * MIB)
    subprocess.run(["mkfs.ext4", "-q", outer], check=True)
    point = tmp_path / "ro"
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", outer, point], check=True)
    try:
        with open(point / "inner.raw", "wb") as inner:
            inner.truncate(MIB)
        subprocess.run(["mount", "-o", "remount,ro", point], check=True)
        refused(
            "loop_device", "backing_file", "EROFS", "read_only=true", backing_file=str(point / "inner.raw")
        )
        made = predict_and_run("loop_device", backing_file=str(point / "inner.raw"), read_only=True)
        assert made["device"]["read_only"]
        run_module("loop_device", backing_file=str(point / "inner.raw"), state="absent")
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_device_over_a_deleted_file_is_named_and_unchanged(image, cleanup):
    path = image()
    made = run_module("loop_device", backing_file=path)["device"]
    os.unlink(path)
    refused("loop_device", "deleted", made["path"], backing_file=path, state="absent")
    assert run_module("loop_device", path=made["path"], diskseq=made["diskseq"], state="absent")["changed"]


def test_not_root(image):
    path = image()
    # Everything is imported first: the collection is in a directory that only root can search.
    run_module("loop_device", backing_file=path, state="absent")
    directories = [parent for parent in pathlib.Path(path).parents if str(parent).startswith("/tmp/")]
    modes = {directory: stat.S_IMODE(directory.stat().st_mode) for directory in directories}
    child = os.fork()
    if not child:
        os.chmod(path, 0o666)
        for directory in directories:
            os.chmod(directory, 0o777)
        os.setgid(65534)
        os.setuid(65534)
        code = 1
        with contextlib.suppress(BaseException):
            with pytest.raises(Failed, match="become: true"):
                run_module("loop_device", backing_file=path)
            code = 0
        os._exit(code)
    status = os.waitpid(child, 0)[1]
    for directory, mode in modes.items():
        os.chmod(directory, mode)
    assert status == 0


def losetup(*options):
    """What losetup prints."""
    return subprocess.run(["losetup", *options], capture_output=True, text=True, check=True).stdout.strip()


def diskseq_of(path):
    return int(pathlib.Path(f"/sys/block/{os.path.basename(path)}/diskseq").read_text("ascii"))


def test_a_path_that_others_can_redirect_removes_nothing(image, cleanup, tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    path = image("open/disk.raw")
    cleanup(loop=path)
    made = run_module("loop_device", backing_file=path)["device"]
    refused("loop_device", "open", "can", backing_file=path, trusted_path=True, state="absent")
    assert not run_module("loop_device", backing_file=path, diskseq=made["diskseq"])["changed"]
    (tmp_path / "open").chmod(0o755)
    assert run_module("loop_device", backing_file=path, trusted_path=True, state="absent")["gone"]


@pytest.mark.parametrize("now", ["nothing", "another file"])
def test_a_device_whose_file_was_renamed_is_not_gone(image, cleanup, tmp_path, now):
    path, moved = image(), str(tmp_path / "moved")
    cleanup(loop=moved)
    made = run_module("loop_device", backing_file=path)["device"]
    os.rename(path, moved)
    if now == "another file":
        image()
    options = {"backing_file": path, "diskseq": made["diskseq"], "state": "absent"}
    result = refused("loop_device", made["path"], moved, "diskseq and state=absent only", **options)
    assert result["gone"] is False
    assert not run_module("loop_device", backing_file=moved, diskseq=made["diskseq"])["changed"]
    present = {"backing_file": path, "diskseq": made["diskseq"]}
    if now == "another file":
        refused("loop_device", made["path"], moved, "say where it is now", **present)
    assert run_module("loop_device", diskseq=made["diskseq"], state="absent")["gone"]
    assert predict_and_run("loop_device", **options)["gone"]
    if now == "another file":
        refused("loop_device", "that had this number is gone", **present)


def test_a_device_over_another_part_of_the_file_is_not_gone(image):
    path = image()
    made = run_module("loop_device", backing_file=path, offset=MIB, size=MIB)["device"]
    options = {"backing_file": path, "size": MIB, "diskseq": made["diskseq"]}
    for state in ("present", "absent"):
        refused("loop_device", made["path"], f"{path} from byte {MIB} on", state=state, **options)
    assert run_module("loop_device", diskseq=made["diskseq"], state="absent")["gone"]


@pytest.mark.parametrize("option", ["diskseq", "read_only"])
def test_one_of_two_devices_of_a_file_is_removed(image, cleanup, option):
    path = image()
    cleanup(loop=path)
    made = run_module("loop_device", backing_file=path)["device"]
    twin = losetup("--find", "--show", "--read-only", path)
    # udev may have it open for a moment.
    udev_settle()
    value = True if option == "read_only" else diskseq_of(twin)
    removed = run_module("loop_device", backing_file=path, state="absent", **{option: value})
    assert removed["changed"] and removed["gone"]
    assert [row["path"] for row in removed["diff"]["before"]["devices"]] == [twin]
    assert losetup("--noheadings", "--output", "NAME", "--associated", path) == made["path"]
    assert diskseq_of(made["path"]) == made["diskseq"]
    assert not run_module("loop_device", backing_file=path, state="absent", read_only=True)["changed"]


@pytest.mark.parametrize("option", ["offset", "size"])
def test_a_part_belongs_to_a_file_only(image, cleanup, option):
    path = image()
    cleanup(loop=path)
    made = run_module("loop_device", backing_file=path)["device"]
    for way in ("path", "diskseq"):
        options = {way: made[way], option: MIB, "state": "absent"}
        refused("loop_device", option, "must be left out", **options)


def test_a_removal_that_waits_already_is_no_change(image):
    path = image()
    made = run_module("loop_device", backing_file=path)["device"]
    options = {"backing_file": path, "state": "absent", "deferred": True}
    with open(made["path"], "rb"):
        assert run_module("loop_device", check=True, **options)["changed"]
        waits = run_module("loop_device", **options)
        assert waits["changed"] and not waits["gone"]
        for check in (True, False):
            again = run_module("loop_device", check=check, **options)
            assert not again["changed"] and not again["gone"]
            assert again["diff"]["before"] == again["diff"]["after"]
        assert diskseq_of(made["path"]) == made["diskseq"]
    udev_settle()
    assert not os.path.exists(f"/sys/block/{made['name']}/loop")
    assert predict_and_run("loop_device", **options)["gone"]


@pytest.mark.parametrize("doubled", [0, 1])
def test_a_double_of_one_of_two_parts_is_found(image, monkeypatch, doubled):
    """Another program binds a part of the file right before the module does."""
    path, create, twins = image(), loop_device.LoopItem._create, []

    def attacked(item):
        if not twins:
            offset = f"--offset={doubled * MIB}"
            twins.append(losetup("--find", "--show", offset, f"--sizelimit={MIB}", path))
        create(item)

    monkeypatch.setattr(worker, "IN_PROCESS", True)
    monkeypatch.setattr(loop_device.LoopItem, "_create", attacked)
    devices = [{"backing_file": path, "offset": number * MIB, "size": MIB} for number in range(2)]
    with pytest.raises(Failed, match="another program bound it to") as caught:
        run_module("loop_devices", devices=devices)
    udev_settle()
    assert twins[0] in str(caught.value) and not caught.value.result["changed"]
    assert [bool(row.get("failed")) for row in caught.value.result["devices"]].index(True) == doubled
    assert losetup("--noheadings", "--output", "NAME", "--associated", path) == twins[0]
    losetup("--detach", twins[0])


def test_persist_false_for_a_device_that_stayed(image):
    path = image()
    made = run_module("loop_device", backing_file=path)["device"]
    changed = run_module("loop_device", backing_file=path, persist=False, hold=2)
    assert (
        changed["changed"]
        and not changed["device"]["persist"]
        and changed["device"]["diskseq"] == made["diskseq"]
    )
    assert not run_module("loop_device", backing_file=path, persist=False, hold=2, diskseq=made["diskseq"])[
        "changed"
    ]
    time.sleep(3)


def test_many_in_one_task(image):
    paths = [image(f"{number}.raw", MIB) for number in range(64)]
    devices = [{"backing_file": path} for path in paths]
    made = predict_and_run("loop_devices", devices=devices)
    assert len({row["device"]["diskseq"] for row in made["devices"]}) == 64
    gone = predict_and_run("loop_devices", devices=[dict(row, state="absent") for row in devices])
    assert gone["changed"] and all(row["gone"] for row in gone["devices"])


@pytest.mark.parametrize("check", [True, False])
def test_what_was_not_looked_for_is_not_gone(image, check):
    """The second entry is not valid, so nobody looked for its device."""
    devices = [{"backing_file": image(), "state": "absent"}, {"diskseq": 0, "state": "absent"}]
    with pytest.raises(Failed) as caught:
        run_module("loop_devices", check=check, devices=devices)
    assert [row["gone"] for row in caught.value.result["devices"]] == [True, False]


def test_one_failure_rolls_back_the_others_or_not(image, tmp_path):
    good = [{"backing_file": image(f"{number}.raw", MIB)} for number in range(3)]
    bad = {"backing_file": str(tmp_path / "none")}
    result = refused(
        "loop_devices", "1 of 4 failed", "does not exist", "rollback", devices=[good[0], bad, *good[1:]]
    )
    assert [row.get("failed", False) for row in result["devices"]] == [False, True, False, False]
    with pytest.raises(Failed) as caught:
        run_module("loop_devices", devices=[good[0], bad, *good[1:]], on_error="keep")
    kept = caught.value.result
    assert kept["changed"] and [row["changed"] for row in kept["devices"]] == [True, False, True, True]
    run_module("loop_devices", devices=[dict(row, state="absent") for row in good])


def test_an_error_while_devices_are_made_rolls_them_back(image, tmp_path):
    """
    The second one fails when it is bound: its disk has sectors of 4096 bytes, so direct I/O cannot begin at
    512.
    """
    good = {"backing_file": image("good.raw", MIB)}
    outer = run_module("loop_device", backing_file=image("outer.raw"), sector_size=4096)["device"]["path"]
    subprocess.run(["mkfs.ext4", "-q", outer], check=True)
    point = tmp_path / "mnt"
    point.mkdir()
    subprocess.run(["mount", outer, point], check=True)
    try:
        with open(point / "inner.raw", "wb") as inner:
            inner.truncate(MIB)
        before = snapshot()
        with pytest.raises(Failed, match="direct I/O") as caught:
            run_module(
                "loop_devices",
                devices=[good, {"backing_file": str(point / "inner.raw"), "offset": 512, "direct_io": True}],
            )
        assert not caught.value.result["changed"] and caught.value.result["devices"][0]["rolled_back"]
        # udev may have a device open for a moment; the device is removed when udev closes it.
        until = time.monotonic() + 30
        while snapshot() != before and time.monotonic() < until:
            udev_settle()
        assert_as(before)
    finally:
        subprocess.run(["umount", point], check=True)
        run_module("loop_device", path=outer, state="absent")


def test_the_same_twice_in_a_list(image):
    path = image()
    refused("loop_devices", "twice", devices=[{"backing_file": path}, {"backing_file": path}])
