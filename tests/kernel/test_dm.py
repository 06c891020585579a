# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules dm_device and dm_devices on a real kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import (
    XEN,
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
SECTORS = 2048


def zero(name, length=SECTORS, **more):
    return dict({"name": name, "table": f"0 {length} zero"}, **more)


@pytest.mark.sample
def test_life_of_a_device_over_a_file(image, name, cleanup):
    path = image(content=b"x" * 512 + b"second sector")
    cleanup(loop=path)
    cleanup(dm=name)
    table = [{"start": 0, "length": 100, "target": "linear", "device": {"file": path}, "offset": 1}]
    made = predict_and_run("dm_device", name=name, table=table)
    device = made["device"]
    assert device["mapper_name"] == name and device["size"] == 100 * 512
    assert read_device(f"/dev/mapper/{name}", 0, 13) == b"second sector"
    assert os.path.realpath(f"/dev/mapper/{name}") == device["path"]
    with open(f"/sys/block/{device['name']}/diskseq", encoding="ascii") as number:
        assert int(number.read()) == device["diskseq"]
    gone = predict_and_run("dm_device", name=name, state="absent")
    assert gone["changed"] and gone["gone"]
    assert not os.path.exists(f"/dev/mapper/{name}")
    # persist=true: the loop device that was made for the file stays, too
    assert not run_module("loop_device", backing_file=path)["changed"]


def test_sources_in_a_table(image, name, cleanup):
    path = image(content=b"the disk")
    loop = run_module("loop_device", backing_file=path)["device"]
    cleanup(loop=path)
    cleanup(dm=name)
    numbers = f"{loop['major']}:{loop['minor']}"
    first = predict_and_run("dm_device", name=name, table=f"0 {SECTORS} linear diskseq:{loop['diskseq']} 0")[
        "device"
    ]
    assert first["table"] == [f"0 {SECTORS} linear {numbers} 0"]
    for slot in (loop["path"], f"path:{loop['path']}", numbers, f"file:{path}"):
        assert not run_module("dm_device", name=name, table=f"0 {SECTORS} linear {slot} 0")["changed"], slot
    for slot in (
        {"diskseq": loop["diskseq"]},
        {"path": loop["path"], "diskseq": loop["diskseq"]},
        {"file": path},
    ):
        row = {"start": 0, "length": SECTORS, "target": "linear", "device": slot, "offset": 0}
        assert not run_module("dm_device", name=name, table=[row])["changed"], slot


def test_a_device_slot_whose_device_has_changed(image, name, cleanup):
    path = image()
    loop = run_module("loop_device", backing_file=path)["device"]
    cleanup(loop=path)
    gone = loop["diskseq"] + 5000
    refused(
        "dm_device",
        "disk sequence number",
        str(gone),
        name=name,
        table=f"0 {SECTORS} linear diskseq:{gone} 0",
    )
    row = {
        "start": 0,
        "length": SECTORS,
        "target": "linear",
        "device": {"path": loop["path"], "diskseq": gone},
        "offset": 0,
    }
    refused("dm_device", "disk sequence number", name=name, table=[row])


@pytest.mark.sample
def test_reload_keeps_the_identity(image, name, cleanup):
    path = image(content=b"A" * 512 + b"B" * 512)
    cleanup(loop=path)
    cleanup(dm=name)
    first = run_module("dm_device", name=name, table=f"0 1 linear file:{path} 0")["device"]
    second = predict_and_run("dm_device", name=name, table=f"0 2 linear file:{path} 1")
    assert second["changed"] and second["device"]["diskseq"] == first["diskseq"]
    assert second["device"]["size"] == 1024 and read_device(second["device"]["path"], 0, 1) == b"B"


def test_a_reload_that_the_kernel_refuses_leaves_the_old_table(image, name, cleanup):
    path = image(size=MIB)
    cleanup(loop=path)
    cleanup(dm=name)
    run_module("dm_device", name=name, table=f"0 2048 linear file:{path} 0")
    refused("dm_device", "it has 2048 in all", name=name, table=f"0 4096 linear file:{path} 0")


@pytest.mark.sample
def test_rename_by_uuid(name, cleanup):
    uuid = f"TEST-{name}"
    cleanup(dm=name + "-new")
    first = run_module("dm_device", **zero(name, uuid=uuid))["device"]
    renamed = predict_and_run("dm_device", **zero(name + "-new", uuid=uuid))
    assert renamed["changed"] and renamed["device"]["diskseq"] == first["diskseq"]
    udev_settle()
    assert os.path.exists(f"/dev/mapper/{name}-new") and not os.path.exists(f"/dev/mapper/{name}")


def test_suspend_and_resume(name, cleanup):
    cleanup(dm=name)
    made = predict_and_run("dm_device", **zero(name, state="suspended"))
    assert made["device"]["suspended"]
    assert not predict_and_run("dm_device", **zero(name))["device"]["suspended"]


def test_read_only(image, name, cleanup):
    path = image()
    cleanup(loop=path)
    cleanup(dm=name)
    slot = {"file": path, "read_only": True}
    table = [{"start": 0, "length": SECTORS, "target": "linear", "device": slot, "offset": 0}]
    made = predict_and_run("dm_device", name=name, table=table, read_only=True)
    assert made["device"]["read_only"]


def test_an_error_for_a_name_in_use_shows_the_table(name, cleanup):
    cleanup(dm=name)
    made = run_module("dm_device", **zero(name, uuid=f"TEST-{name}"))["device"]
    result = refused(
        "dm_device",
        f"TEST-{name}",
        f"{made['major']}:{made['minor']}",
        f"diskseq {made['diskseq']}",
        f"0 {SECTORS} zero",
        **zero(name, uuid="TEST-other"),
    )
    assert result["error"]["kind"] == "DeviceBusy"
    other = name + "-2"
    cleanup(dm=other)
    run_module("dm_device", **zero(other, uuid=f"TEST-{other}"))
    refused("dm_device", "cannot be renamed", f"TEST-{other}", **zero(other, uuid=f"TEST-{name}"))


def test_a_table_in_an_error_hides_its_key(image, name, cleanup):
    path, key = image(), "c0ffee00" * 16
    cleanup(loop=path)
    cleanup(dm=name)
    run_module(
        "dm_device",
        name=name,
        table=f"0 {SECTORS} crypt aes-xts-plain64 var:data 0 file:{path} 0",
        keys={"data": key},
    )
    result = refused(
        "dm_device", f"0 {SECTORS} crypt aes-xts-plain64 {len(key) * '*'} 0 ", **zero(name, uuid="TEST-other")
    )
    assert "c0ffee" not in str(result)


@pytest.mark.parametrize("bad", ["control", ".", "..", "a/b", "n" * 128, "", "a b", "ü"])
def test_bad_names(bad):
    refused("dm_device", "name", **zero(bad))


def test_guard_by_diskseq(name, cleanup):
    cleanup(dm=name)
    made = run_module("dm_device", **zero(name))["device"]
    wrong = made["diskseq"] + 1000
    refused("dm_device", "disk sequence number", str(made["diskseq"]), **zero(name, diskseq=wrong))
    refused("dm_device", "disk sequence number", name=name, diskseq=wrong, state="absent")
    assert not run_module("dm_device", diskseq=wrong, state="absent")["changed"]
    assert run_module("dm_device", diskseq=made["diskseq"], state="absent")["changed"]
    refused("dm_device", "it does not exist", **zero(name, diskseq=made["diskseq"]))


def test_a_device_in_use_stays(name, cleanup):
    cleanup(dm=name)
    made = run_module("dm_device", **zero(name))["device"]
    with open(made["path"], "rb"):
        refused("dm_device", "in use", name=name, state="absent", timeout=0)
        waits = run_module("dm_device", name=name, state="absent", deferred=True)
        assert waits["changed"] and not waits["gone"]
        # asking for the device again cancels the deferred removal
        again = run_module("dm_device", **zero(name))
        assert (
            again["changed"] and again["device"]["persist"] and again["device"]["diskseq"] == made["diskseq"]
        )
    assert not run_module("dm_device", **zero(name))["changed"]


@pytest.mark.sample
def test_persist_false(image, name):
    path = image()
    made = run_module("dm_device", name=name, table=f"0 8 linear file:{path} 0", persist=False, hold=0)
    assert made["changed"] and not made["device"]["persist"]
    udev_settle()
    assert run_module("dm_device", check=True, name=name, table=f"0 8 linear file:{path} 0")["changed"]


def test_crypt_with_a_key_that_stays_secret(image, name, cleanup):
    path = image()
    cleanup(loop=path)
    cleanup(dm=name)
    key = "0123456789abcdef" * 4
    row = {
        "start": 0,
        "length": SECTORS,
        "target": "crypt",
        "cipher": "aes-xts-plain64",
        "key": "var:data",
        "iv_offset": 0,
        "device": {"file": path},
        "offset": 0,
    }
    made = predict_and_run("dm_device", name=name, table=[row], keys={"data": key})
    assert key not in str(made) and key[:16] not in str(made)
    with open(made["device"]["path"], "r+b") as device:
        device.write(b"plain text")
    subprocess.run(["blockdev", "--flushbufs", made["device"]["path"]], check=True)
    with open(path, "rb") as raw:
        assert b"plain text" not in raw.read(4096)
    line = f"0 {SECTORS} crypt aes-xts-plain64 var:data 0 file:{path} 0"
    assert not run_module("dm_device", name=name, table=line, keys={"data": key})["changed"]
    assert run_module("dm_device", check=True, name=name, table=line, keys={"data": key[::-1]})["changed"]
    result = refused("dm_device", "key", name=name, table=line.replace("var:data", key))
    assert key not in str(result)
    refused("dm_device", "keys", name=name, table=line)
    refused("dm_device", "keys", name=name, table=line, keys={"data": key, "more": key})


@pytest.mark.sample
def test_snapshot(image, name, cleanup):
    origin, cow = image("origin.raw", content=b"golden"), image("cow.raw", 4 * MIB)
    cleanup(loop=origin)
    cleanup(loop=cow)
    cleanup(dm=name)
    table = [
        {
            "start": 0,
            "length": 16 * MIB // 512,
            "target": "snapshot",
            "origin": {"file": origin, "read_only": True},
            "cow": {"file": cow},
            "persistence": "P",
            "chunk_size": 8,
        }
    ]
    made = predict_and_run("dm_device", name=name, table=table)["device"]
    with open(made["path"], "r+b") as device:
        device.write(b"change")
        device.flush()
        os.fsync(device.fileno())
    with open(origin, "rb") as file:
        assert file.read(6) == b"golden"
    assert read_device(made["path"], 0, 6) == b"change"


@pytest.mark.rotated
def test_a_store_belongs_to_one_snapshot_at_a_time(image, name, cleanup):
    """
    A second one waits for the first to be removed, and then has its changes; without the wait it would have
    none.
    """
    origin, cow = image("origin.raw", content=b"golden"), image("cow.raw", 4 * MIB)
    first, second = name, name + "-2"
    for path in (origin, cow):
        run_module("loop_device", backing_file=path)
        cleanup(loop=path)
    cleanup(dm=first)
    cleanup(dm=second)
    table = f"0 {SECTORS} snapshot file:{origin} file:{cow} P 8"
    made = run_module("dm_device", name=first, table=table)["device"]
    with open(made["path"], "r+b", buffering=0) as device:
        device.write(b"change")
        os.fsync(device.fileno())
    before = snapshot()
    with pytest.raises(Failed, match="belongs to another snapshot"):
        run_module("dm_device", name=second, table=table)
    assert_as(before)
    with subprocess.Popen(["sh", "-c", 'sleep 1; exec dmsetup remove "$0"', first]) as remover:
        made = run_module("dm_device", name=second, table=table)["device"]
    assert remover.returncode == 0
    with open(made["path"], "r+b", buffering=0) as device:
        assert device.read(6) == b"change"
        device.write(b"again")
        os.fsync(device.fileno())
    assert read_device(made["path"], 0, 11) == b"changeagain"


def test_thin_pool_and_volume(image, name, cleanup):
    meta, data = image("meta.raw", 4 * MIB), image("data.raw", 64 * MIB)
    cleanup(loop=meta)
    cleanup(loop=data)
    cleanup(dm=name)
    cleanup(dm=name + "-v")
    run_module("dm_device", name=name, table=f"0 {64 * MIB // 512} thin-pool file:{meta} file:{data} 128 0")
    assert not run_module(
        "dm_device", name=name, table=f"0 {64 * MIB // 512} thin-pool file:{meta} file:{data} 128 0"
    )["changed"]
    refused("dm_device", "cannot be replaced", name=name, table="0 8 zero")
    subprocess.run(["dmsetup", "message", name, "0", "create_thin 0"], check=True)
    made = predict_and_run("dm_device", name=name + "-v", table=f"0 {SECTORS} thin path:/dev/mapper/{name} 0")
    assert made["device"]["size"] == MIB


def test_striped_and_error(image, name, cleanup):
    paths = [image(f"{number}.raw") for number in range(2)]
    for path in paths:
        cleanup(loop=path)
    cleanup(dm=name)
    predict_and_run(
        "dm_device",
        name=name,
        table=[
            f"0 {SECTORS} striped 2 8 file:{paths[0]} 0 file:{paths[1]} 0",
            {"start": SECTORS, "length": 8, "target": "error"},
        ],
    )


def test_wrong_tables(image, name):
    path = image(size=MIB)
    for table, words in (
        (f"0 4096 linear file:{path} 0", ("it has 2048 in all",)),
        ("0 8 linear /dev/none 0", ("no such device",)),
        ("0 8 linear /dev/null 0", ("character device",)),
        ("8 8 zero", ("line 1",)),
        ("0 8 zero\n9 8 zero", ("line 2",)),
        ("0 8 nonsense", ("nonsense",)),
        ([3], ("table",)),
        (None, ("table",)),
    ):
        refused("dm_device", *words, name=name, table=table)


def test_many_in_one_task(name):
    devices = [zero(f"{name}-{number}") for number in range(64)]
    made = predict_and_run("dm_devices", devices=devices)
    assert len({row["device"]["diskseq"] for row in made["devices"]}) == 64
    assert all(os.path.exists(row["device"]["mapper_path"]) for row in made["devices"])
    gone = predict_and_run(
        "dm_devices", devices=[{"name": row["name"], "state": "absent"} for row in devices]
    )
    assert gone["changed"] and all(row["gone"] for row in gone["devices"])


@pytest.mark.parametrize("check", [True, False])
def test_what_was_not_looked_for_is_not_gone(name, check):
    """The second entry is not valid, so nobody looked for its device."""
    devices = [{"name": name, "state": "absent"}, {"name": "a/b", "state": "absent"}]
    with pytest.raises(Failed) as caught:
        run_module("dm_devices", check=check, devices=devices)
    assert [row["gone"] for row in caught.value.result["devices"]] == [True, False]


def test_one_failure_rolls_back_the_others(name, image):
    good = [zero(f"{name}-{number}") for number in range(3)]
    # valid as a table: the kernel refuses it because the metadata device holds no such pool
    junk, data = image("junk.raw", 4 * MIB, content=b"junk" * 1024), image("data.raw", 64 * MIB)
    bad = {"name": f"{name}-bad", "table": f"0 {64 * MIB // 512} thin-pool file:{junk} file:{data} 128 0"}
    with pytest.raises(Failed) as caught:
        run_module("dm_devices", devices=[*good, bad])
    assert caught.value.result["changed"] is False
    udev_settle()
    with pytest.raises(Failed):
        run_module("dm_devices", devices=[*good, bad], on_error="keep")
    assert not run_module("dm_devices", devices=good)["changed"]
    run_module("dm_devices", devices=[{"name": row["name"], "state": "absent"} for row in good])


def test_orphans_of_a_killed_run_are_removed(name, control, cleanup):
    """
    The next run removes a device without a live table if the process that made it has ended, and no other
    device.
    """
    from ansible_collections.racefree.block.plugins.module_utils._dm import (
        control as _control,
    )
    from ansible_collections.racefree.block.plugins.module_utils._dm import (
        names as _names,
    )

    script = (
        "import os, sys; sys.path.insert(0, os.environ.get('RACEFREE_SITE', '/root/site'))\n"
        "from ansible_collections.racefree.block.plugins.module_utils._dm import control as _dm_ioctl\n"
        "from ansible_collections.racefree.block.plugins.module_utils._dm import names as _dm_name\n"
        "_dm_ioctl.Control().create(_dm_name.making_name())\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    orphans = {os.fsdecode(entry.name) for entry in control.list_devices(_names.MAKING)}
    assert len(orphans) == 1
    own = _names.making_name()
    control.create(own)
    control.create(f"{name}-theirs", "OTHER-" + name)
    cleanup(dm=name)
    run_module("dm_device", **zero(name))
    names = {os.fsdecode(entry.name) for entry in control.list_devices()}
    assert not orphans & names and {own, f"{name}-theirs"} <= names
    control.remove(_control.by_name(own))
    run_module("dm_device", name=f"{name}-theirs", state="absent")


def test_a_half_made_device_is_completed(name, control, cleanup):
    cleanup(dm=name)
    control.create(name, "TEST-" + name)
    done = run_module("dm_device", **zero(name, uuid="TEST-" + name))
    assert done["changed"] and done["device"]["size"] == SECTORS * 512
    assert not run_module("dm_device", **zero(name, uuid="TEST-" + name))["changed"]


@pytest.mark.sample
def test_info(image, name, cleanup):
    path = image()
    cleanup(loop=path)
    cleanup(dm=name)
    top = run_module("dm_device", name=name, table=f"0 8 linear file:{path} 0")["device"]
    found = run_module("device_info")
    rows = {row["diskseq"]: row for row in found["devices"]}
    below = rows[top["diskseq"]]["slaves"]
    assert len(below) == 1 and rows[below[0]["diskseq"]]["backing_file"] == path
    assert rows[below[0]["diskseq"]]["holders"] == [{"name": top["name"], "diskseq": top["diskseq"]}]
    assert (
        found["features"]["kernel"]["diskseq"]
        and found["features"]["device_mapper"]["strict_version_5"] is False
    )
    assert found["features"]["udev"] is True
    assert (
        bool(found["features"]["xen"] and found["features"]["xen"]["domain_0"]) is XEN
        and found["features"]["udev"] is True
    )
    assert [
        row["name"] for row in run_module("device_info", diskseq=top["diskseq"], features=False)["devices"]
    ] == [top["name"]]
    assert run_module("device_info", diskseq=2**40, features=False)["devices"] == []


def test_info_of_an_empty_path_is_refused():
    refused("device_info", "path", "must be the path of a block device", path="")


def test_info_of_a_loop_device_without_a_file():
    free = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=True).stdout.strip()
    udev_settle()
    for check in (True, False):
        assert run_module("device_info", check=check, path=free, features=False)["devices"] == []


def test_a_table_checked_on_the_host(image, name, cleanup):
    path = image()
    unmade = run_module("dm_table", table=f"0 8 linear file:{path} 0\n8 8 zero")
    assert (
        unmade["valid"]
        and not unmade["changed"]
        and unmade["lines"] == [f"0 8 linear file:{path} 0", "8 8 zero"]
    )
    assert unmade["devices"] == [
        {"target": 1, "field": "device", "value": f"file:{path}", "access": "rw", "device": None}
    ]
    loop = run_module("loop_device", backing_file=path)["device"]
    cleanup(loop=path)
    cleanup(dm=name)
    made = run_module(
        "dm_table",
        table=[
            {
                "start": "0",
                "length": 8,
                "target": "linear",
                "device": {"diskseq": loop["diskseq"]},
                "offset": 0,
            }
        ],
    )
    assert made["lines"] == [f"0 8 linear {loop['major']}:{loop['minor']} 0"]
    assert made["devices"][0]["device"]["diskseq"] == loop["diskseq"]
    assert made["targets"][0]["target"] == "linear"
    for table, field in (
        (f"0 8 linear {loop['path']} 99999999", "device"),
        ("0 8 linear diskseq:99999999 0", "device"),
        (f"0 8 linear {loop['path']} 5x", "offset"),
        ("0 8 nonsense", "target"),
        (f"0 8 flakey {loop['path']} 0 1 1 2 random_read_corrupt x", "random_read_corrupt"),
    ):
        checked = run_module("dm_table", table=table, fail=False)
        assert not checked["valid"] and checked["lines"] is None, table
        assert field in [row["field"] for row in checked["errors"]], checked
        refused("dm_table", name=None, table=table)
    gone = [
        "0 8 linear /dev/none 0",
        "8 8 linear file:/srv/none.raw 0",
        f"16 8 linear {loop['path']} 99999999",
        "24 8 linear diskseq:99999999 5x",
    ]
    checked = run_module("dm_table", table=gone, fail=False)
    assert [(row["line"], row["field"]) for row in checked["errors"]] == [
        (1, "device"),
        (2, "device"),
        (3, "device"),
        (4, "offset"),
    ], checked
    refused("dm_table", "4 errors", "/dev/none", "/srv/none.raw", table=gone)


def test_a_table_checked_for_a_device(image, name, cleanup):
    cleanup(dm=name)
    run_module("dm_device", name=name, table="0 8 zero")
    assert run_module("dm_table", table="0 8 error", name=name)["valid"]
    refused("dm_table", "must not depend on the device", table=f"0 8 linear /dev/mapper/{name} 0", name=name)
    refused("dm_table", "no such mapped device", table="0 8 zero", name=f"{name}-none")
    refused(
        "dm_table",
        "refused by Linux 6.1",
        table=f"0 8 flakey /dev/mapper/{name} 0 1 1 1 error_reads",
        kernels=["6.1"],
    )


def test_a_checked_table_keeps_its_key(image):
    path, key = image(), "0123456789abcdef" * 4
    table = f"0 8 crypt aes-xts-plain64 var:data 0 file:{path} 0"
    checked = run_module("dm_table", table=table, keys={"data": key})
    assert checked["valid"] and key not in str(checked)
    refused("dm_table", "key", table=table.replace("var:data", key))


@pytest.mark.sample
def test_the_kernels_reason_is_in_the_error(image, name):
    junk, data = image("junk.raw", 4 * MIB, content=b"junk" * 1024), image("data.raw", 64 * MIB)
    refused_by_kernel = {
        "name": name,
        "table": f"0 {64 * MIB // 512} thin-pool file:{junk} file:{data} 128 0",
    }
    with pytest.raises(Failed) as caught:
        run_module("dm_device", **refused_by_kernel)
    assert "The kernel's reason: " in str(caught.value) and "thin-pool" in str(caught.value)


def test_a_store_that_has_overflowed(image, name, cleanup):
    """Every later run reports it, and nobody gets the device."""
    from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError
    from ansible_collections.racefree.block.plugins.module_utils._hotplug import target as _target
    from ansible_collections.racefree.block.plugins.module_utils._source import opener, resources, spec

    origin, cow = image("origin.raw", 8 * MIB), image("cow.raw", MIB // 2)
    for path in (origin, cow):
        cleanup(loop=path)
    cleanup(dm=name)
    cleanup(dm=f"{name}-2")
    table = f'0 16384 snapshot {{"file":"{origin}","read_only":true}} file:{cow} P 8'
    assert not run_module("dm_device", name=name, table=table).get("warnings")
    subprocess.run(
        ["dd", "if=/dev/zero", f"of=/dev/mapper/{name}", "bs=64K", "count=32", "conv=fsync"],
        check=False,
        capture_output=True,
    )
    again = run_module("dm_device", name=name, table=table)
    assert not again["changed"] and "store has overflowed" in str(again["warnings"])
    for source in ({"path": f"/dev/mapper/{name}"}, {"diskseq": again["device"]["diskseq"]}):
        with resources.Resources() as host, pytest.raises(KernelError, match="store has overflowed"):
            opener.Opener(host).open(spec.parse(source))
    text = f"diskseq:{again['device']['diskseq']}@{again['device']['boot_id']}"
    for target in (f"/dev/mapper/{name}", f"dm:{name},{again['device']['uuid']}", text):
        with pytest.raises(KernelError, match="store has overflowed"):
            _target.open_device(_target.parse(target, True), 5)
    above = run_module("dm_device", name=f"{name}-2", table=f"0 8 linear path:/dev/mapper/{name} 0")
    assert f"mapped device {name}: store has overflowed" in str(above["warnings"])
    with resources.Resources() as host, pytest.raises(KernelError, match=f"{name}: store has overflowed"):
        opener.Opener(host).open(spec.parse({"path": f"/dev/mapper/{name}-2"}))
    run_module("dm_device", name=f"{name}-2", state="absent")
    run_module("dm_device", name=name, state="absent")
    anew = run_module("dm_device", name=name, table=table)
    assert "store has overflowed" in str(anew["warnings"])
