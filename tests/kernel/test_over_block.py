# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loop devices over mapped devices."""

from __future__ import annotations

import os
import subprocess

import pytest
from ansible_collections.racefree.block.plugins.module_utils._source import resources
from ansible_collections.racefree.block.plugins.module_utils._xen import footprint, sharing, stack
from ansible_collections.racefree.block.plugins.plugin_utils import _stack
from conftest import Failed, open_device, predict_and_run, refused, run_module, udev_settle

MIB = 2**20


@pytest.fixture
def mapped(image, cleanup, name):
    """A mapped device, as dm_device returns it."""
    path = image(content=b"below")
    cleanup(loop=path)
    cleanup(dm=name)
    table = [{"start": 0, "length": 32768, "target": "linear", "device": f"file:{path}", "offset": 0}]
    return run_module("dm_device", name=name, table=table)["device"]


def source_of(mapped):
    return {"path": f"/dev/mapper/{mapped['mapper_name']}", "uuid": mapped["uuid"]}


@pytest.mark.sample
def test_life_of_a_device_over_a_mapped_device(mapped):
    source = source_of(mapped)
    made = predict_and_run("loop_device", backing=source, sector_size=4096)["device"]
    assert made["backing"]["diskseq"] == mapped["diskseq"] and made["sector_size"] == 4096
    with open(made["path"], "rb") as device:
        assert device.read(5) == b"below"
    rows = run_module("device_info", features=False)["devices"]
    own = next(row for row in rows if row["diskseq"] == made["diskseq"])
    assert own["slaves"] == [{"name": mapped["name"], "diskseq": mapped["diskseq"]}]
    tree = _stack.tree(_stack.build(rows)).splitlines()
    (at,) = (number for number, line in enumerate(tree) if mapped["mapper_name"] in line)
    assert made["name"] in tree[at + 1] and tree[at + 1].index("└") > tree[at].index("└")
    refused("dm_device", made["name"], name=mapped["mapper_name"], state="absent", timeout=1)
    assert predict_and_run("loop_device", backing=source, state="absent")["gone"]


def test_a_file_that_was_removed_since_is_no_failure(image):
    path = image()
    assert run_module("loop_device", backing={"file": path})["changed"]
    assert run_module("loop_device", backing={"file": path}, state="absent")["gone"]
    os.unlink(path)
    assert predict_and_run("loop_device", backing={"file": path}, state="absent")["gone"]


@pytest.mark.parametrize("what", ["deleted", "replaced"])
def test_a_device_over_a_file_that_is_another_by_now_is_not_gone(image, what):
    path = image()
    made = run_module("loop_device", backing={"file": path})["device"]
    os.unlink(path)
    if what == "replaced":
        image()
    try:
        result = refused("loop_device", what, "its diskseq", backing={"file": path}, state="absent")
        assert result["gone"] is False
    finally:
        removed = run_module("loop_device", diskseq=made["diskseq"], state="absent")
    assert removed["changed"] and removed["gone"]


def test_a_device_over_a_file_that_became_an_image_of_qemu_is_removed(image):
    path = image()
    made = run_module("loop_device", backing={"file": path})["device"]
    with open(path, "r+b") as file:
        file.write(b"QFI\xfb\0\0\0\3")
    removed = predict_and_run("loop_device", backing={"file": path}, state="absent")
    assert removed["changed"] and removed["gone"] and not os.path.exists(f"/sys/block/{made['name']}/loop")


def test_a_device_over_a_read_only_device_of_a_file_is_removed(image):
    path = image()
    below = {"file": path, "read_only": True}
    made = run_module("loop_device", backing=below, read_only=True)["device"]
    removed = predict_and_run("loop_device", backing={"file": path}, state="absent")
    assert removed["changed"] and removed["gone"] and not os.path.exists(f"/sys/block/{made['name']}/loop")


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("offset", 64 * MIB, "inside the device"),
        ("offset", 100, "512"),
        ("size", 64 * MIB, "inside the device"),
        ("size", 1000, "multiple of the sector size"),
        ("sector_size", 1000, "power of 2"),
    ],
)
def test_a_part_of_a_device_that_is_yet_to_be_made_is_checked(image, option, value, word):
    refused("loop_device", option, word, backing={"file": image()}, **{option: value})


def test_another_device_than_the_one_with_this_number_stays(mapped):
    source = source_of(mapped)
    made = run_module("loop_device", backing=source)["device"]
    try:
        for state in ("present", "absent"):
            options = {"backing": source, "diskseq": made["diskseq"] + 1000, "state": state}
            for check in (True, False):
                with pytest.raises(Failed, match=f"disk sequence number.* {made['diskseq']}, not"):
                    run_module("loop_device", check=check, **options)
        assert not run_module("loop_device", backing=source, diskseq=made["diskseq"])["changed"]
    finally:
        removed = run_module("loop_device", backing=source, diskseq=made["diskseq"], state="absent")
    assert removed["changed"] and removed["gone"]


@pytest.mark.parametrize("guard", ["uuid", "diskseq"])
def test_a_device_below_that_was_renamed_is_not_gone(mapped, cleanup, name, guard):
    """Its link is missing, so the device over it cannot be found."""
    source = {"path": f"/dev/mapper/{name}", guard: mapped[guard]}
    made = run_module("loop_device", backing=source)["device"]
    cleanup(dm=f"{name}-moved")
    subprocess.run(["dmsetup", "rename", name, f"{name}-moved"], check=True)
    udev_settle()
    try:
        words = f"{name}-moved" if guard == "uuid" else f"/dev/{mapped['name']}", "no such path"
        assert refused("loop_device", *words, backing=source, state="absent")["gone"] is False
    finally:
        run_module("loop_device", diskseq=made["diskseq"], state="absent")
    run_module("dm_device", uuid=mapped["uuid"], state="absent")
    assert predict_and_run("loop_device", backing=source, state="absent")["gone"]


def test_a_mounted_device_is_only_read(mapped, tmp_path):
    path, where = f"/dev/{mapped['name']}", tmp_path / "mount"
    where.mkdir()
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    subprocess.run(["mount", path, where], check=True)
    try:
        refused(
            "loop_device", "this host itself uses the device", f"mount {where}", backing=source_of(mapped)
        )
    finally:
        subprocess.run(["umount", where], check=True)


def test_what_is_mounted_above_is_refused_to_guests(mapped, tmp_path):
    """The mapped device itself is claimed by nobody: the loop device over it is mounted."""
    made = run_module("loop_device", backing=source_of(mapped))["device"]
    where = tmp_path / "mount"
    where.mkdir()
    subprocess.run(["mkfs.ext4", "-q", made["path"]], check=True)
    subprocess.run(["mount", made["path"], where], check=True)
    try:
        with resources.Resources() as host, open_device(f"/dev/{mapped['name']}") as device:
            questions = stack.questions(host)
            mine = footprint.footprint(device.id.major, device.id.minor, True, questions)
            with pytest.raises(sharing.DeviceBusy, match=f"uses the storage, as {made['path']}"):
                sharing.refuse_mounted(mine, device.path, device, questions)
            subprocess.run(["umount", where], check=True)
            sharing.refuse_mounted(mine, device.path, device, questions)
    finally:
        subprocess.run(["umount", "--quiet", where], check=False)
        run_module("loop_device", backing=source_of(mapped), state="absent")


def test_a_table_over_a_device_over_itself_is_refused(mapped):
    made = run_module("loop_device", backing=source_of(mapped))["device"]
    try:
        source = {"diskseq": made["diskseq"]}
        table = [{"start": 0, "length": 2048, "target": "linear", "device": source, "offset": 0}]
        refused("dm_device", name=mapped["mapper_name"], table=table, allow_shrink=True)
    finally:
        run_module("loop_device", backing=source_of(mapped), state="absent")


def test_the_uuid_is_proved(mapped):
    wrong = dict(source_of(mapped), uuid="another")
    refused("loop_device", "its uuid is", "not another", backing=wrong)
    refused("loop_device", "dm_device first", backing={"table": "0 8 zero"})
