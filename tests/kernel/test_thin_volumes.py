# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""thin_volumes on a real kernel, with pools that are live and pools that are not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from ansible_collections.racefree.block.plugins.module_utils._module import worker
from conftest import Failed, predict_and_run, read_device, refused, run_module, udev_settle, wait_until

pytestmark = pytest.mark.long

MIB = 2**20
SECTORS = 2048
BLOCK = 128


@pytest.fixture
def pool(image, name):
    """A function that returns a pool's source over two files, and makes missing files."""

    def source(size=16 * SECTORS, data_size=None, **change):
        meta, data = (
            image("meta.raw", 4 * MIB) if not made else made[0],
            image("data.raw", 64 * MIB) if not made else made[1],
        )
        made[:] = [meta, data]
        line = {
            "start": 0,
            "length": size,
            "target": "thin-pool",
            "metadata": {"file": meta},
            "data": {"file": data},
            "block_size": BLOCK,
            "low_water_mark": 0,
        }
        return dict({"name": name, "uuid": f"TEST-{name}", "table": [line]}, **change)

    made = []
    return source


@pytest.fixture(autouse=True)
def gone(name):
    """Check that a pool that was activated for a task is gone again."""
    yield
    wait_until(lambda: not is_live(name))


def is_live(name):
    return subprocess.run(["dmsetup", "info", name], capture_output=True, check=False).returncode == 0


def present(*numbers):
    return [{"id": number} for number in numbers]


def absent(*numbers):
    return [{"id": number, "state": "absent"} for number in numbers]


# A run that was killed before the pool had its name.
KILLED = """
import os, signal, sys
sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))
from ansible_collections.racefree.block.plugins.module_utils._dm import control, names
made = control.by_name(names.making_name())
dm = control.Control()
dm.create(made.name, sys.argv[1])
dm.load(made, [(0, 8, b"zero", b"")])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_was_making_is_removed(pool):
    source = pool()
    assert subprocess.run([sys.executable, "-c", KILLED, source["uuid"]], check=False).returncode == -9
    assert states(run_module("thin_volumes", pool=source, volumes=present(1))) == {1: "present"}


def states(result):
    return {row["id"]: row["state"] for row in result["volumes"]}


def checksums(source):
    line = source["table"][0]
    found = []
    for device in (line["metadata"], line["data"]):
        with open(device["file"], "rb") as file:
            found.append(hashlib.sha256(file.read()).hexdigest())
    return found


def test_volumes_of_a_pool_that_is_not_live(pool, name):
    source = pool()
    assert not run_module("thin_volumes", pool=source, volumes=absent(5))["changed"]
    first = predict_and_run("thin_volumes", pool=source, volumes=[{"id": 5}, {"id": 6, "snapshot_of": 5}])
    assert states(first) == {5: "present", 6: "present"} and first["diff"]["before"] == {
        "size": 0,
        "volumes": {"5": "absent", "6": "absent"},
    }
    wait_until(lambda: not is_live(name))
    second = predict_and_run("thin_volumes", pool=source, volumes=present(5, 7) + absent(6))
    assert second["diff"]["before"]["volumes"] == {"5": "present", "7": "absent", "6": "present"}
    assert states(second) == {5: "present", 7: "present", 6: "absent"}
    predict_and_run("thin_volumes", pool=source, volumes=absent(5, 6, 7))


def test_check_mode_does_not_change_the_pool(pool, name):
    source = pool()
    before = checksums(source)
    run_module("thin_volumes", check=True, pool=source, volumes=present(1))
    assert checksums(source) == before
    run_module("thin_volumes", pool=source, volumes=present(1))
    wait_until(lambda: not is_live(name))
    before = checksums(source)
    assert run_module("thin_volumes", check=True, pool=pool(32 * SECTORS), volumes=present(1, 2))["changed"]
    wait_until(lambda: not is_live(name))
    assert checksums(source) == before


def test_grown(pool, name):
    """By more than a block, because a table may end inside a block."""
    assert states(run_module("thin_volumes", pool=pool(), volumes=present(1))) == {1: "present"}
    assert not run_module("thin_volumes", pool=pool(16 * SECTORS + 8), volumes=present(1))["changed"]
    grown = predict_and_run("thin_volumes", pool=pool(32 * SECTORS), volumes=present(1))
    assert (grown["diff"]["before"]["size"], grown["diff"]["after"]["size"]) == (16 * MIB, 32 * MIB)
    refused("thin_volumes", "never shrunk", str(32 * SECTORS), pool=pool(31 * SECTORS), volumes=present(1))
    wait_until(lambda: not is_live(name))


@pytest.mark.rotated
def test_volumes_of_a_pool_in_use(pool, name, cleanup):
    """
    As the first guest makes it: found by name and UUID, grown while the guest runs, and its volumes stay in
    use.
    """
    user = name + "-user"
    run_module("thin_volumes", pool=pool(), volumes=present(1))
    cleanup(dm=user)
    made = run_module(
        "dm_device",
        name=user,
        persist=False,
        hold=5,
        table=[
            {"start": 0, "length": 4 * SECTORS, "target": "thin", "pool": pool(), "id": 1},
        ],
    )["device"]
    with open(made["path"], "r+b", buffering=0) as disk:
        # End the process that holds it for its first user now, and not while open counts are compared.
        wait_until(lambda: open_count(user) == 1)
        disk.write(b"kept" * 1024)
        os.fsync(disk.fileno())
        check_pool_in_use(pool, user)
        assert read_device(made["path"], 0, 4) == b"kept"
    wait_until(lambda: not is_live(user))


def open_count(name):
    asked = ["dmsetup", "info", "-c", "--noheadings", "-o", "open", name]
    return int(subprocess.run(asked, capture_output=True, check=True).stdout)


def check_pool_in_use(pool, user):
    predict_and_run("thin_volumes", pool=pool(), volumes=[{"id": 2, "snapshot_of": 1}])
    refused("thin_volumes", "in use", user, pool=pool(), volumes=absent(2, 1))
    predict_and_run("thin_volumes", pool=pool(24 * SECTORS), volumes=present(1, 2))
    refused("thin_volumes", "never shrunk", pool=pool(), volumes=present(1))
    other = pool(24 * SECTORS)
    other["table"] = [dict(other["table"][0], block_size=256)]
    refused("thin_volumes", "another table", pool=other, volumes=present(1))
    refused("thin_volumes", "name or uuid", pool=pool(24 * SECTORS, uuid="TEST-other"), volumes=present(1))


def test_a_pool_by_its_path(pool, name, cleanup):
    source = pool()
    cleanup(dm=name)
    run_module("dm_device", name=name, uuid="TEST-path", table=source["table"], persist=True)
    there = {"path": f"/dev/mapper/{name}", "uuid": "TEST-path"}
    predict_and_run("thin_volumes", pool=there, volumes=present(3))
    refused("thin_volumes", "TEST-path", pool=dict(there, uuid="TEST-other"), volumes=present(3))
    refused("thin_volumes", "uuid", pool={"path": there["path"]}, volumes=present(3))
    run_module("dm_device", name=name, state="suspended")
    refused("thin_volumes", "suspended", pool=there, volumes=present(3))
    run_module("dm_device", name=name)
    assert is_live(name)
    run_module("dm_device", name=name, state="absent", timeout=10)
    for file in ("metadata", "data"):
        cleanup(loop=source["table"][0][file]["file"])


def test_a_pool_of_lvm_is_left_to_lvm(pool, name, cleanup):
    """Whichever way names it, also in check mode, and whether its volumes would be made or only looked at."""
    source = pool(uuid=f"LVM-{name}-tpool")
    cleanup(dm=name)
    made = run_module("dm_device", name=name, uuid=source["uuid"], table=source["table"])["device"]
    path = f"/dev/mapper/{name}"
    for volumes in (present(3), absent(3)):
        for there in (
            {"path": path, "uuid": made["uuid"]},
            {"path": path, "diskseq": made["diskseq"]},
            source,
        ):
            refused("thin_volumes", "LVM", "lvcreate", pool=there, volumes=volumes)
        refused("dm_device", "LVM", "lvcreate", name=name, volumes=volumes)
    run_module("dm_device", name=name, state="absent", timeout=10)
    for file in ("metadata", "data"):
        cleanup(loop=source["table"][0][file]["file"])


def test_a_device_that_is_not_a_pool(pool, name, image, cleanup):
    refused("thin_volumes", "name and a uuid", pool={"table": pool()["table"]}, volumes=present(1))
    refused("thin_volumes", "thin-pool", pool=dict(pool(), table="0 8 zero"), volumes=present(1))
    refused(
        "thin_volumes",
        "something else",
        pool=dict(
            pool(),
            table=f"0 {SECTORS} thin-pool file:{image('other.raw', 4 * MIB, b'x' * 5000)} "
            f"file:{image('d.raw')} 128 0",
        ),
        volumes=present(1),
    )
    refused("thin_volumes", "volumes[1].id", pool=pool(), volumes=present(1, 1))
    refused("thin_volumes", "timeout", pool=pool(), volumes=present(1), timeout=0)
    cleanup(dm=name)
    run_module("dm_device", name=name, uuid=f"TEST-{name}", table="0 8 zero")
    there = {"path": f"/dev/mapper/{name}", "uuid": f"TEST-{name}"}
    refused("thin_volumes", "not a thin pool", pool=there, volumes=present(1))
    udev_settle()


def test_a_volume_in_use_keeps_no_other_from_being_rolled_back(pool, name, cleanup, monkeypatch):
    """Another program creates volume 3, so that the task fails, and uses volume 2, which the task made."""
    source, user, send = pool(), f"{name}-user", _control.Control.message
    for file in ("metadata", "data"):
        cleanup(loop=source["table"][0][file]["file"])
    cleanup(dm=name)
    cleanup(dm=user)
    run_module("dm_device", **source)
    there = {"path": f"/dev/mapper/{name}", "uuid": source["uuid"]}

    def attacked(control, address, text, *rest):
        if text == "create_thin 3":
            send(control, address, text)
            table = f"0 {SECTORS} thin /dev/mapper/{name} 2"
            subprocess.run(["dmsetup", "create", user, "--table", table], check=True)
        return send(control, address, text, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(worker, "IN_PROCESS", True)
        patched.setattr(_control.Control, "message", attacked)
        with pytest.raises(Failed, match="create_thin 3"):
            run_module("thin_volumes", pool=there, volumes=present(1, 2, 3))
    run_module("dm_device", name=user, state="absent")
    looked = run_module("thin_volumes", check=True, pool=there, volumes=absent(1, 2, 3))
    assert looked["diff"]["before"]["volumes"] == {"1": "absent", "2": "present", "3": "present"}
    run_module("dm_device", name=name, state="absent", timeout=10)


def test_a_failed_task_leaves_nothing(pool, name):
    source = pool()
    run_module("thin_volumes", pool=source, volumes=present(1))
    wait_until(lambda: not is_live(name))
    refused("thin_volumes", "snapshot_of", pool=source, volumes=[{"id": 2}, {"id": 3, "snapshot_of": 9}])
    wait_until(lambda: not is_live(name))
    assert states(run_module("thin_volumes", check=True, pool=source, volumes=present(2)))[2] == "present"
    assert run_module("thin_volumes", check=True, pool=source, volumes=present(2))["changed"]
