# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of loop devices over block devices. The lower ones are loop devices, and partitions of them."""

from __future__ import annotations

import contextlib
import os
import stat

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import bound, detach, loop, new_loop
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._xen import footprint, stack
from ansible_collections.racefree.block.plugins.modules import device_info, loop_device, loop_devices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.modulerun import run

MIB = 2**20


def with_diskseq(number):
    return {"diskseq": number}


@pytest.fixture
def lower(place):
    """What loop_device returns of a loop device over a file."""
    path = loopdevices.image(place, "lower", 8 * MIB, content=b"lower")
    yield run(loop_device.main, backing_file=path)["device"]
    remove(backing_file=path)


def make(lower, **options):
    return run(loop_device.main, **dict({"backing": with_diskseq(lower["diskseq"])}, **options))


def remove(**options):
    result = run(loop_device.main, state="absent", **options)
    assert result.get("gone"), result


@contextlib.contextmanager
def upper(lower, **options):
    """A loop device over the lower one."""
    result = make(lower, **options)
    assert not result.get("failed"), result
    try:
        yield result["device"]
    finally:
        remove(diskseq=result["device"]["diskseq"])


def refused(*words, **options):
    for check in (True, False):
        failed = run(loop_device.main, check=check, **options)
        assert failed.get("failed"), failed
        for word in words:
            assert word in failed["msg"], failed["msg"]
        assert "Traceback" not in failed["msg"] and "unexpected" not in failed["msg"]
    return failed


def test_another_sector_size_and_read_only(lower):
    predicted = make(lower, check=True, sector_size="4K", read_only=True)
    with upper(lower, sector_size="4K", read_only=True) as made:
        assert (made["sector_size"], made["read_only"], made["size"]) == (4096, True, 8 * MIB)
        assert made["backing_file"] is None
        backing = {key: lower[key] for key in ("name", "major", "minor", "diskseq", "partition")}
        assert made["backing"] == backing
        with open(made["path"], "rb") as device:
            assert device.read(5) == b"lower"
        again = make(lower, sector_size="4K", read_only=True)
        assert not again["changed"] and again["device"]["diskseq"] == made["diskseq"]
        assert predicted["changed"] and predicted["diff"]["after"]["sector_size"] == 4096
        gone = make(lower, state="absent", check=True)
        assert gone["changed"]
    assert not make(lower, state="absent")["changed"]


def test_it_is_found_by_the_number_below_and_not_by_a_path(lower, place):
    with upper(lower, read_only=True) as made:
        for source in ({"path": lower["path"]}, f"path:{lower['path']}", f"diskseq:{lower['diskseq']}"):
            found = run(loop_device.main, backing=source, read_only=True)
            assert not found["changed"] and found["device"]["diskseq"] == made["diskseq"]
        assert loop.stack_below(made["major"], made["minor"]) == {(lower["major"], lower["minor"])}


def test_another_node_of_the_same_number_is_the_same_device(lower):
    node = f"/dev/racefree-test-{os.getpid()}"
    os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(lower["major"], lower["minor"]))
    try:
        handle, dummy = loopdevices.bind_free(node)
    finally:
        os.unlink(node)
    try:
        found = make(lower, persist=False, hold=0)
        assert found["device"]["diskseq"] == loopdevices.diskseq_of(handle)
        assert found["device"]["backing"]["diskseq"] == lower["diskseq"]
    finally:
        os.close(handle)


def test_both_are_shown_with_each_other(lower):
    with upper(lower, read_only=True) as made:
        rows = {
            name: run(device_info.main, path=device["path"], features=False)["devices"][0]
            for name, device in (("upper", made), ("lower", lower))
        }
        assert rows["upper"]["slaves"] == [{"name": lower["name"], "diskseq": lower["diskseq"]}]
        assert rows["lower"]["holders"] == [{"name": made["name"], "diskseq": made["diskseq"]}]
        assert made["name"] in rows["lower"]["used_by"]
        failed = run(loop_device.main, path=lower["path"], state="absent", timeout=0)
        assert f"it is in use by {made['name']}" in failed["msg"]


def test_two_writers_are_refused(lower):
    with upper(lower, offset=MIB, size=MIB) as made:
        source = with_diskseq(lower["diskseq"])
        words = f"{made['path']} (diskseq {made['diskseq']}) writes the same part of the device"
        refused(words, "set overlap=true", backing=source)
        refused(words, backing=source, offset=MIB + 512, size=4096)
        with upper(lower, offset=2 * MIB), upper(lower, size=MIB), upper(lower, read_only=True):
            pass
        with upper(lower, offset=MIB + 512, size=512, overlap=True):
            pass
        both = run(loop_devices.main, devices=[{"backing": source, "offset": "4M"}] * 2)
        assert both["failed"] and "is in the list twice" in both["msg"]


def test_a_partition_and_its_disk_have_the_same_bytes(disk):
    part = {"diskseq": disk.id.diskseq, "partition": 3}
    made = run(loop_device.main, backing=part, size=65536)["device"]
    try:
        assert made["backing"]["partition"] == 3 and made["backing"]["diskseq"] == disk.id.diskseq
        whole = {"diskseq": disk.id.diskseq}
        refused(made["path"], "writes the same part", backing=whole)
        refused(made["path"], "writes the same part", backing=whole, offset=3 * MIB, size=512)
        for offset in (3 * MIB + 65536, 2 * MIB):
            other = run(loop_device.main, backing=whole, offset=offset, size=65536)["device"]
            remove(diskseq=other["diskseq"])
    finally:
        remove(diskseq=made["diskseq"])


def test_a_device_that_the_host_uses_is_only_read(lower):
    handle = os.open(lower["path"], os.O_RDONLY | os.O_EXCL)
    try:
        source = with_diskseq(lower["diskseq"])
        refused("this host itself uses the device", "read_only=true", backing=source)
        with upper(lower, read_only=True), upper(lower, overlap=True, offset=512):
            pass
    finally:
        os.close(handle)


def test_a_file_becomes_a_device_that_goes_with_the_upper_one(place):
    path = loopdevices.image(place, "own", 4 * MIB, content=b"own")
    source = {"file": path}
    predicted = run(loop_device.main, check=True, backing=source, sector_size=4096)
    assert predicted["changed"] and not loopdevices.bound_files(path)
    made = run(loop_device.main, backing=source, sector_size=4096)
    assert made["diff"] == predicted["diff"] and made["device"]["size"] == 4 * MIB
    assert not run(loop_device.main, backing=source, sector_size=4096)["changed"]
    assert loopdevices.bound_files(path)
    lower = next(iter(loopdevices.bound_files(path)))
    with _device.open_number(7, lower) as device:
        # The upper device uses it, so it is not about to go.
        assert loop.info(device).autoclear and not new_loop.is_going(device, loop.info(device))
    refused("writes the same part of the file", backing_file=path, offset=0, read_only=False, size=4096)
    remove(backing=source)
    assert loopdevices.nothing_bound(path)
    assert not run(loop_device.main, state="absent", backing=source)["changed"]


def test_what_is_below_counts_for_sharing(lower):
    questions = footprint.Questions(
        lambda major, minor: None, stack._loop_file, lambda major, minor: None, lambda major, minor: []
    )
    file = os.stat(loopdevices.bound_files("/")[int(lower["name"][4:])])
    with upper(lower, offset=MIB, size=2 * MIB, read_only=True) as made:
        found = footprint.footprint(made["major"], made["minor"], True, questions)
        leaf = ("file", file.st_dev, file.st_ino)
        assert found == [footprint.Extent(leaf, MIB, 3 * MIB, True)]


def test_a_twin_of_another_program_is_found(lower, monkeypatch):
    """Another program binds the same device between the plan and the end of the task."""
    attach = loop_device.LoopItem._create

    def twice(self):
        attach(self)
        with open(lower["path"], "rb+") as below:
            made.append(loopdevices.bind_free(f"/proc/self/fd/{below.fileno()}")[0])

    made = []
    monkeypatch.setattr(loop_device.LoopItem, "_create", twice)
    failed = make(lower)
    os.close(made[0])
    assert failed["failed"] and "another program bound it" in failed["msg"]


def test_users_know_the_partition(disk):
    part = {"diskseq": disk.id.diskseq, "partition": 1}
    made = run(loop_device.main, backing=part, read_only=True)["device"]
    try:
        assert detach.users(disk) == [f"{made['name']} (partition {disk.name}p1)"]
        assert made["name"] in [name for names in bound.over_block().values() for name in names]
    finally:
        remove(diskseq=made["diskseq"])


@pytest.mark.parametrize(
    "options, words",
    [
        ({"backing": {"diskseq": 2**62}}, ["no disk has the disk sequence number"]),
        ({"backing": {"file": "/no/such"}}, ["/no/such", "does not exist"]),
        ({"backing": "nonsense"}, ["backing nonsense", "must be diskseq:N"]),
        ({"backing": {"diskseq": 1}, "backing_file": "/a"}, ["backing_file /a", "either"]),
        ({"backing": {"diskseq": 1}, "format": "raw"}, ["format raw", "is possible only for a file"]),
        (
            {"backing": {"diskseq": 1}, "trusted_path": True},
            ["trusted_path true", "is possible only for a file"],
        ),
        ({}, ["backing_file, backing"]),
    ],
)
def test_wrong_use(options, words):
    loopdevices.need_loop()
    refused(*words, **options)


def test_more_wrong_use(lower):
    source = with_diskseq(lower["diskseq"])
    refused("sector_size 100", "power of 2", backing=source, sector_size=100)
    refused("must lie inside the device", backing=source, offset=64 * MIB)
    refused(
        "is a regular file, and must be a block device",
        backing={"path": loopdevices.bound_files("/")[int(lower["name"][4:])]},
    )
    with upper(lower, read_only=True):
        refused("is bound read-only already", "read_only=false", backing=source)
        wrong = {"backing": {"path": lower["path"], "diskseq": lower["diskseq"] + 2**40}}
        refused("its disk sequence number is", "nothing was done", **wrong)
    with upper(lower, read_only=True) as reader:
        refused("cannot be opened for writing", "read_only=true", backing=with_diskseq(reader["diskseq"]))
