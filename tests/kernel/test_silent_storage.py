# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Storage that does not answer: a frozen file system, with a pending write that waits for it; and storage that
has failed for good: a FUSE file system whose server was killed.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time

import fuse_server
import pytest
from conftest import Failed, predict_and_run, refused, run_module, state_of, udev_settle, wait_until

# include/uapi/linux/fs.h
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


def ioctl_of(path, request):
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(handle, request, 0)
    finally:
        os.close(handle)


@pytest.fixture
def silent(image, tmp_path):
    """
    The path of a file on a frozen file system, and the returned values of its loop device, which is being
    written. The file system is thawed at the end.
    """
    base, point = image("fs.raw", 64 * 2**20), tmp_path / "mounted"
    point.mkdir()
    subprocess.run(["mkfs.ext4", "-q", base], check=True)
    subprocess.run(["mount", "-o", "loop", base, point], check=True)
    path = str(point / "disk.raw")
    with open(path, "wb") as file:
        file.write(bytes(2**20))
    device = run_module("loop_device", backing_file=path)["device"]
    os.sync()
    ioctl_of(point, FIFREEZE)
    writer = subprocess.Popen(
        ["dd", "if=/dev/zero", f"of={device['path']}", "bs=4096", "count=16", "oflag=direct", "status=none"]
    )
    try:
        wait_until(lambda: state_of(writer.pid) == "D", 20)
        yield path, device
    finally:
        ioctl_of(point, FITHAW)
        writer.wait(60)
        wait_until(lambda: not_busy(path), 60)
        subprocess.run(["umount", point], check=True)


def not_busy(path):
    """Whether the device is gone; a process that was given up may hold it for another moment."""
    try:
        run_module("loop_device", backing_file=path, state="absent", timeout=1)
    except Failed:
        return False
    return True


@pytest.mark.rotated
def test_a_task_gives_up_on_silent_storage(silent):
    path, device = silent
    started = time.monotonic()
    words = f"^{re.escape(path)}: timed out after 2 s waiting for the storage to answer, for which process"
    with pytest.raises(Failed, match=words) as caught:
        run_module("loop_device", backing_file=path, state="absent", timeout=1)
    assert (
        caught.value.result["error"]["kind"] == "DeadlineExceeded"
        and "run the task again" in caught.value.result["error"]["hint"]
    )
    # The device is being removed now, so whoever opens it waits, too, in check mode as well.
    with pytest.raises(Failed, match="the storage to answer"):
        run_module("loop_device", path=device["path"], state="absent", timeout=1, check=True)
    assert time.monotonic() - started < 60


@pytest.mark.rotated
def test_silent_storage_does_not_stop_work_on_other_storage(silent, image, cleanup):
    """
    Neither while the device exists, nor when it begins not to answer, nor through the locks of the run that
    was given up.
    """
    path, dead = silent
    healthy, other = image("healthy.raw"), image("other.raw")
    cleanup(loop=healthy)
    cleanup(loop=other)
    assert run_module("loop_device", backing_file=healthy, timeout=1)["changed"]
    with pytest.raises(Failed, match="the storage to answer"):
        run_module("loop_device", backing_file=path, state="absent", timeout=1)
    made = run_module("loop_devices", devices=[{"backing_file": healthy}, {"backing_file": other}])
    assert [row["changed"] for row in made["devices"]] == [False, True]
    assert dead["diskseq"] not in [row["device"]["diskseq"] for row in made["devices"]]
    assert run_module("loop_device", backing_file=healthy, state="absent")["changed"]
    with pytest.raises(Failed, match="the storage to answer|could not be looked at"):
        run_module("loop_device", backing_file=path, state="absent", timeout=1)


@pytest.fixture
def silent_mapped(silent):
    """A mapped device over the silent loop device, with a write on its way, too."""
    path, device = silent
    name = f"silent-{os.getpid()}"
    # Nobody waits for udev, which reads from it.
    table = f"0 1024 linear {device['path']} 0"
    subprocess.run(["dmsetup", "create", name, "--noudevsync", "--table", table], check=True)
    asked = ["dmsetup", "info", "--columns", "--noheadings", "-o", "minor", name]
    minor = subprocess.run(asked, stdout=subprocess.PIPE, check=True, encoding="ascii").stdout.strip()
    writer = subprocess.Popen(
        ["dd", "if=/dev/zero", f"of=/dev/dm-{minor}", "bs=4096", "count=16", "oflag=direct", "status=none"]
    )
    point = os.path.dirname(path)
    try:
        wait_until(lambda: state_of(writer.pid) == "D", 20)
        yield name
    finally:
        ioctl_of(point, FITHAW)
        writer.wait(60)
        run_module("dm_device", name=name, state="absent", timeout=60)
        ioctl_of(point, FIFREEZE)


@pytest.mark.rotated
def test_others_are_not_kept_from_their_work_by_a_mapped_device_that_does_not_answer(
    silent_mapped, image, cleanup
):
    """The same after a failed attempt to suspend or to remove it."""
    healthy, name = image("healthy.raw"), f"healthy-{os.getpid()}"
    cleanup(loop=healthy)
    table = [{"start": 0, "length": 8, "target": "linear", "device": {"file": healthy}, "offset": 0}]
    for state, words in (
        ("present", None),
        ("suspended", "outstanding reads and writes"),
        ("absent", "in use"),
    ):
        if words is not None:
            with pytest.raises(Failed, match=words):
                run_module("dm_device", name=silent_mapped, state=state, timeout=1)
        assert silent_mapped in str(run_module("device_info", features=False)["devices"])
        assert run_module("dm_device", name=name, table=table, timeout=1)["changed"]
        assert not run_module("dm_device", name=name, table=table, timeout=1)["changed"]
        assert run_module("dm_device", name=name, state="absent")["changed"]


@pytest.fixture
def dead(tmp_path):
    """
    A function that makes a loop device over a file on a FUSE file system, and kills its server. It returns
    the path of the file, and the returned values of the device.
    """
    point, devices = tmp_path / "fuse", []

    def make(**options):
        point.mkdir()
        server = subprocess.Popen(
            [sys.executable, fuse_server.__file__, str(point), str(2**20)], stdout=subprocess.PIPE
        )
        assert server.stdout.readline() == b"mounted\n"
        path = str(point / "disk.raw")
        devices.append(run_module("loop_device", backing_file=path, **options)["device"])
        udev_settle()
        server.kill()
        server.communicate()
        return path, devices[0]

    yield make
    for device in devices:
        run_module("loop_device", diskseq=device["diskseq"], state="absent")
    subprocess.run(["umount", "--lazy", point], check=False)


@pytest.mark.rotated
@pytest.mark.parametrize("is_mounted", [True, False])
def test_a_dead_file_system_does_not_stop_work_on_others(dead, image, cleanup, name, is_mounted):
    """Also after its mount was taken away: the kernel then shows a path as if the file were in the root."""
    one, two = image("one.raw"), image("two.raw")
    cleanup(loop=one)
    cleanup(loop=two)
    run_module("loop_device", backing_file=one)
    path, device = dead()
    if not is_mounted:
        subprocess.run(["umount", "--lazy", os.path.dirname(path)], check=True)
    assert not run_module("loop_device", backing_file=one)["changed"]
    assert predict_and_run("loop_device", backing_file=two)["changed"]
    assert predict_and_run("loop_device", backing_file=one, state="absent")["changed"]
    table = [{"start": 0, "length": 8, "target": "linear", "device": {"file": one}, "offset": 0}]
    cleanup(dm=name)
    assert run_module("dm_device", name=name, table=table)["changed"]
    assert run_module("dm_device", name=name, state="absent")["changed"]
    told = {row["diskseq"]: row for row in run_module("device_info", features=False)["devices"]}
    assert told[device["diskseq"]]["backing_file"] == (path if is_mounted else "/disk.raw")


def test_a_task_about_the_dead_file_itself_is_refused(dead):
    path, device = dead()
    refused("loop_device", "ENOTCONN", path, backing_file=path)
    # Another file that has its path now.
    subprocess.run(["mount", "-i", "-t", "tmpfs", "test", os.path.dirname(path)], check=True)
    try:
        with open(path, "wb") as file:
            file.truncate(2**20)
        words = "the storage of its file has failed", device["path"], f"diskseq={device['diskseq']}"
        refused("loop_device", *words, backing_file=path)
        refused("loop_device", *words, backing_file=path, state="absent")
    finally:
        subprocess.run(["umount", os.path.dirname(path)], check=True)


def test_a_device_over_a_dead_file_system_is_removed_by_its_number(dead):
    path, device = dead()
    number = device["diskseq"]
    refused("loop_device", "has failed", f"diskseq={number}", path=device["path"], state="absent")
    refused("loop_device", f"not {number + 9}", path=device["path"], diskseq=number + 9, state="absent")
    done = predict_and_run("loop_device", path=device["path"], diskseq=number, state="absent")
    assert done["changed"] and done["gone"]
    row = {"path": device["path"], "diskseq": number, "backing_file": path, "offset": 0}
    assert done["diff"]["before"] == {"devices": [row]}


@pytest.mark.parametrize("options", [{}, {"offset": 4096, "size": 8192}])
def test_a_device_in_use_over_a_dead_file_system(dead, options):
    """It stays as it is, or goes with its last user."""
    _path, device = dead(**options)
    directory = f"/sys/block/{device['name']}"
    told = ("loop/autoclear", "loop/offset", "loop/sizelimit", "loop/partscan", "size", "diskseq")

    def settings():
        return [open(f"{directory}/{name}", encoding="ascii").read() for name in told]

    handle, before = os.open(device["path"], os.O_RDONLY), settings()
    try:
        with pytest.raises(Failed, match="in use"):
            run_module("loop_device", diskseq=device["diskseq"], state="absent", timeout=0)
        assert settings() == before
        going = {"diskseq": device["diskseq"], "state": "absent", "deferred": True}
        assert not run_module("loop_device", **going)["gone"]
        assert settings() == ["1\n", *before[1:]]
    finally:
        os.close(handle)
    wait_until(lambda: not os.path.exists(f"{directory}/loop"), 20)
