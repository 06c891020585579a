# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes of thin pools, with dm_device, on a real kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from ansible_collections.racefree.block.plugins.module_utils._source import resources
from ansible_collections.racefree.block.plugins.module_utils._volumes import thin
from ansible_collections.racefree.block.plugins.module_utils._xen import footprint, stack
from conftest import (
    Failed,
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
KILLED_WHILE_QUIET = """
import os, signal, sys
sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _dm_ioctl
from ansible_collections.racefree.block.plugins.module_utils._dm import suspended as _dm_quiet
with _dm_ioctl.Control() as control, _device.open_path(sys.argv[1]) as device, \\
        _dm_quiet.quiet(control, [device], 60):
    print(control.status(_dm_ioctl.by_number(device.id.major, device.id.minor)).suspended, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def pool(image, name, cleanup):
    """A function that returns the options of dm_device for a pool of ``size`` sectors."""
    meta, data = image("meta.raw", 4 * MIB), image("data.raw", 64 * MIB)
    cleanup(loop=meta)
    cleanup(loop=data)
    cleanup(dm=name)

    def options(size=64 * SECTORS, features="", **more):
        return dict(
            {"name": name, "table": f"0 {size} thin-pool file:{meta} file:{data} 128 0{features}"}, **more
        )

    return options


def present(*numbers):
    return [{"id": number} for number in numbers]


def is_there(name, number):
    """Whether the pool has the volume, as dmsetup finds it."""
    table = f"0 8 thin /dev/mapper/{name} {number}"
    made = subprocess.run(["dmsetup", "create", "--notable", f"{name}-ask"], capture_output=True, check=True)
    made = subprocess.run(
        ["dmsetup", "load", f"{name}-ask", "--table", table], capture_output=True, text=True, check=False
    )
    subprocess.run(["dmsetup", "remove", "--retry", f"{name}-ask"], check=True)
    assert made.returncode == 0 or "No data available" in made.stderr, made.stderr
    return made.returncode == 0


def pool_status(name):
    return subprocess.run(
        ["dmsetup", "status", "--noflush", name], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.sample
def test_volumes_are_made_and_deleted(pool, name):
    first = predict_and_run("dm_device", **pool(volumes=[{"id": 0}, {"id": 1, "snapshot_of": 0}]))
    assert first["diff"]["after"]["volumes"] == {"0": "present", "1": "present, a snapshot of 0"}
    assert [is_there(name, number) for number in (0, 1, 2)] == [True, True, False]
    before = pool_status(name)
    predicted = run_module("dm_device", check=True, name=name, volumes=present(0, 2))
    assert predicted["changed"] and pool_status(name) == before and not is_there(name, 2)
    # an existing pool needs no table
    second = predict_and_run(
        "dm_device", name=name, volumes=[*present(0, 2**24 - 1), {"id": 1, "state": "absent"}]
    )
    assert second["diff"]["before"]["volumes"] == {"0": "present", "1": "present", "16777215": "absent"}
    assert second["diff"]["after"]["volumes"] == {"0": "present", "1": "absent", "16777215": "present"}
    assert [is_there(name, number) for number in (0, 1, 2**24 - 1)] == [True, False, True]
    # replaced by its own snapshot
    predict_and_run(
        "dm_device", name=name, volumes=[{"id": 0, "state": "absent"}, {"id": 5, "snapshot_of": 0}]
    )
    assert [is_there(name, number) for number in (0, 5)] == [False, True]


def test_what_guests_may_have_of_one_pool(pool, name, cleanup, tmp_path):
    """Two volumes, but not a volume and the pool, or what is below the pool."""
    run_module("dm_device", **pool(volumes=present(0, 1)))
    volumes = [f"{name}-{number}" for number in range(2)]
    for number, volume in enumerate(volumes):
        cleanup(dm=volume)
        run_module("dm_device", name=volume, table=f"0 {SECTORS} thin /dev/mapper/{name} {number}")
    below = [
        run_module("loop_device", backing_file=str(tmp_path / file))["device"]["path"]
        for file in ("meta.raw", "data.raw")
    ]

    def foot(host, path):
        with _device.open_path(path) as device:
            return footprint.footprint(device.id.major, device.id.minor, True, stack.questions(host))

    with resources.Resources() as host:
        one, two = (foot(host, f"/dev/mapper/{volume}") for volume in volumes)
        assert footprint.conflict(one, two) is None and footprint.conflict(one, one)
        for path in (f"/dev/mapper/{name}", *below):
            assert footprint.conflict(one, foot(host, path)) and footprint.conflict(foot(host, path), two)


def test_a_pool_that_is_activated_again_has_its_volumes(pool, name):
    run_module("dm_device", **pool(volumes=present(0)))
    run_module("dm_device", name=name, state="absent")
    assert predict_and_run("dm_device", **pool(volumes=[{"id": 0}, {"id": 1, "snapshot_of": 0}]))["changed"]
    run_module("dm_device", name=name, state="suspended")
    resumed = predict_and_run("dm_device", name=name, volumes=[{"id": 0}, {"id": 1, "state": "absent"}])
    assert not resumed["device"]["suspended"] and is_there(name, 0) and not is_there(name, 1)


def test_wrong_volumes(pool, name, cleanup):
    plain = name + "-plain"
    cleanup(dm=plain)
    run_module("dm_device", **pool(volumes=present(0)))
    run_module("dm_device", name=plain, table="0 8 zero")
    refused("dm_device", "volumes[1].id", "16777216", name=name, volumes=present(1, 2**24))
    refused(
        "dm_device",
        "volumes[0].snapshot_of",
        "2",
        "earlier in the list",
        name=name,
        volumes=[{"id": 1, "snapshot_of": 2}, {"id": 2}],
    )
    assert [is_there(name, number) for number in (0, 1, 2)] == [True, False, False]
    refused("dm_device", "volumes", "thin-pool", name=plain, volumes=present(0))
    refused("dm_device", "volumes", "suspended", name=name, state="suspended", volumes=present(0))
    refused("dm_device", "volumes", "absent", name=name, state="absent", volumes=present(0))
    refused("dm_device", "disk sequence number", name=name, diskseq=2**40, volumes=present(1))


def test_a_volume_in_use_stays(pool, name, cleanup):
    user = name + "-user"
    run_module("dm_device", **pool(volumes=present(0, 1)))
    cleanup(dm=user)
    run_module("dm_device", name=user, table=f"0 {SECTORS} thin /dev/mapper/{name} 1")
    gone = [{"id": 0, "state": "absent"}, {"id": 1, "state": "absent"}, {"id": 2}]
    result = refused("dm_device", "volumes[1]", "in use", user, name=name, volumes=gone)
    assert result["error"]["kind"] == "DeviceBusy"
    assert [is_there(name, number) for number in (0, 1, 2)] == [True, True, False]
    # the same for a table that is not live yet
    run_module("dm_device", name=user, table="0 8 zero")
    subprocess.run(["dmsetup", "load", user, "--table", f"0 8 thin /dev/mapper/{name} 1"], check=True)
    refused("dm_device", "in use", user, name=name, volumes=gone)
    subprocess.run(["dmsetup", "clear", user], check=True)
    predict_and_run("dm_device", name=name, volumes=gone)
    assert [is_there(name, number) for number in (0, 1, 2)] == [False, False, True]


def test_a_probe_that_was_killed_does_not_keep_the_pool(pool, name):
    made = run_module("dm_device", **pool(volumes=present(0)))["device"]
    script = (
        "import os, signal, sys; sys.path.insert(0, os.environ.get('RACEFREE_SITE', '/root/site'))\n"
        "from ansible_collections.racefree.block.plugins.module_utils._dm import control as _dm_ioctl\n"
        "from ansible_collections.racefree.block.plugins.module_utils._dm import names as _dm_name\n"
        "control, name = _dm_ioctl.Control(), _dm_name.making_name()\n"
        "control.create(name)\n"
        f"control.load(_dm_ioctl.by_name(name), ((0, 8, b'thin', b'{made['major']}:{made['minor']} 0'),), "
        "read_only=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert run_module("dm_device", name=name, state="absent")["gone"]


def test_a_failed_task_is_rolled_back(pool, name, image):
    junk, data = image("junk.raw", 4 * MIB, content=b"junk" * 1024), image("more.raw", 64 * MIB)
    bad = {"name": f"{name}-bad", "table": f"0 {64 * SECTORS} thin-pool file:{junk} file:{data} 128 0"}
    made = present(1, 2) + [{"id": 3, "snapshot_of": 0}]
    with pytest.raises(Failed):
        run_module("dm_devices", devices=[pool(volumes=present(0) + made), bad])
    udev_settle()
    run_module("dm_device", **pool(volumes=present(7)))
    assert [is_there(name, number) for number in range(4)] == [False] * 4
    run_module("dm_device", name=name, volumes=[*present(0), {"id": 7}])
    before = snapshot()
    with pytest.raises(Failed) as caught:
        run_module(
            "dm_devices", devices=[{"name": name, "volumes": made + [{"id": 7, "state": "absent"}]}, bad]
        )
    assert caught.value.result["changed"] is False
    # udev has a new device open for a moment
    udev_settle()
    wait_until(lambda: snapshot() == before)
    assert [is_there(name, number) for number in (0, 1, 2, 3, 7)] == [True, False, False, False, True]


def test_a_snapshot_of_an_active_origin_is_of_one_moment(pool, name, cleanup, tmp_path):
    origin, copy = name + "-origin", name + "-copy"
    run_module("dm_device", **pool(volumes=present(0)))
    cleanup(dm=origin)
    cleanup(dm=copy)
    active = run_module(
        "dm_device", name=origin, table=f"0 {32 * SECTORS} thin /dev/mapper/{name} 0", udev="hidden"
    )["device"]
    subprocess.run(["mkfs.ext4", "-q", active["path"]], check=True)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", active["path"], mounted], check=True)
    try:
        # Not written to the device yet: it is written only when the file system is frozen.
        (mounted / "late").write_text("in time", encoding="ascii")
        predict_and_run("dm_device", name=name, volumes=[{"id": 1, "snapshot_of": 0}])
        (mounted / "late").write_text("afterwards", encoding="ascii")
    finally:
        subprocess.run(["umount", mounted], check=True)
    after = run_module("device_info", diskseq=active["diskseq"], features=False)["devices"][0]
    assert not after["suspended"] and after["table"] == active["table"]
    udev_settle()
    assert not os.path.exists(f"/dev/mapper/{origin}"), "a resume has shown the device to udev's rules"
    snap = run_module("dm_device", name=copy, table=f"0 {32 * SECTORS} thin /dev/mapper/{name} 1")["device"]
    subprocess.run(["mount", "-o", "ro", snap["path"], mounted], check=True)
    try:
        assert (mounted / "late").read_text(encoding="ascii") == "in time"
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_an_origin_that_cannot_be_resumed_as_it_is(pool, name, cleanup):
    origin = name + "-origin"
    run_module("dm_device", **pool(volumes=present(0)))
    cleanup(dm=origin)
    run_module("dm_device", name=origin, table=f"0 {SECTORS} thin /dev/mapper/{name} 0")
    subprocess.run(["dmsetup", "load", origin, "--table", f"0 {SECTORS} zero"], check=True)
    refused("dm_device", origin, "another table loaded", name=name, volumes=[{"id": 1, "snapshot_of": 0}])
    subprocess.run(["dmsetup", "clear", origin], check=True)
    # suspended by somebody else: it stays suspended
    run_module("dm_device", name=origin, state="suspended")
    predict_and_run("dm_device", name=name, volumes=[{"id": 1, "snapshot_of": 0}])
    assert not run_module("dm_device", name=origin, state="suspended")["changed"]


def test_killed_while_others_are_suspended(name, cleanup, control):
    cleanup(dm=name)
    made = run_module("dm_device", name=name, table="0 8 zero")["device"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_QUIET, made["path"]], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -9 and killed.stdout == "True\n", killed.stderr
    wait_until(lambda: not control.status(_control.by_name(name)).suspended)


def test_a_pool_that_is_read_only(pool, name):
    run_module("dm_device", **pool(volumes=present(0)))
    run_module("dm_device", **pool(features=" 1 read_only"))
    assert not run_module("dm_device", name=name, volumes=present(0))["changed"]
    refused("dm_device", "read-only", name=name, volumes=present(0, 1))
    refused("dm_device", "read-only", name=name, volumes=[{"id": 0, "state": "absent"}])


def test_a_full_pool_grows_and_no_write_is_lost(pool, name, cleanup, control):
    """
    With noflush, writes that wait for space stay queued while the volume is suspended and the pool grows.
    """
    volume = name + "-volume"
    run_module("dm_device", **pool(size=SECTORS, volumes=present(0)))
    cleanup(dm=volume)
    made = run_module("dm_device", name=volume, table=f"0 {4 * SECTORS} thin /dev/mapper/{name} 0")["device"]
    writer = subprocess.Popen(
        ["dd", "if=/dev/urandom", f"of={made['path']}", "bs=64k", "count=32", "oflag=direct", "conv=fsync"]
    )
    try:
        wait_until(lambda: "out_of_data_space" in pool_status(name))
        with pytest.raises(Failed) as caught:
            run_module("dm_device", name=volume, state="suspended", timeout=1)
        assert caught.value.result["error"]["kind"] == "DeadlineExceeded" and "noflush" in str(caught.value)
        assert not control.status(_control.by_name(volume)).suspended
        assert run_module("dm_device", name=volume, state="suspended", noflush=True)["device"]["suspended"]
        assert writer.poll() is None
        run_module("dm_device", **pool(size=4 * SECTORS))
        run_module("dm_device", name=volume)
        assert writer.wait() == 0
    finally:
        writer.kill()
        writer.wait()
    assert any(read_device(made["path"], 31 * 65536, 65536))


def test_looking_for_a_volume_leaves_nothing(pool, name, control):
    made = run_module("dm_device", **pool(volumes=present(3)))["device"]
    before = snapshot(), pool_status(name)
    with _device.open_path(made["path"]) as device:
        assert thin.existing(control, device, range(6)) == {3}
    assert (snapshot(), pool_status(name)) == before
