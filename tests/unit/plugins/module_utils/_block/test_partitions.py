# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of partitions of real loop devices. It does not matter whether the kernel here can read tables."""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeviceBusy, KernelError
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._block import partition_table, partitions
from ansible_collections.racefree.block.plugins.modules import device_info, loop_device
from ansible_collections.racefree.block.tests.kernel import partition_images
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.modulerun import run

MIB = 2**20
FIRST, SECOND, THIRD = (2048, 4095), (4096, 6143), (6144, 8100)


@pytest.fixture
def present(place):
    """A function that runs loop_device for one image; ``tables`` to write to it."""

    class Image:
        path = loopdevices.image(place, "disk", 4 * MIB)

        def write(self, parts, **wrong):
            image = partition_images.gpt(bytearray(4 * MIB), parts, **wrong)
            with open(self.path, "rb+") as file:
                file.write(image)

        def run(self, **options):
            return run(loop_device.main, backing_file=self.path, **dict({"partitions": True}, **options))

    image = Image()
    yield image
    image.run(state="absent", partitions=None)


def shown(result):
    device = result["device"]
    return device["partition_table"], [
        (row["number"], row["start"] // 512, row["size"] // 512, row["path"] is not None)
        for row in device["partition_list"]
    ]


def test_partitions_are_returned(present):
    present.write({1: FIRST, 3: SECOND})
    assert present.run(check=True)["diff"]["after"]["partition_list"] == [
        {"number": 1, "start": MIB, "size": MIB},
        {"number": 3, "start": 2 * MIB, "size": MIB},
    ]
    done = present.run()
    assert shown(done) == ("gpt", [(1, 2048, 2048, True), (3, 4096, 2048, True)])
    row = done["device"]["partition_list"][1]
    assert row["path"] == done["device"]["path"] + "p3" and row["problem"] is None
    assert (row["type"], row["uuid"]) == (partition_images.LINUX, partition_images.part_uuid(3))
    assert not present.run()["changed"] and not present.run(check=True)["changed"]
    (found,) = run(device_info.main, path=done["device"]["path"], partitions=True, features=False)["devices"]
    assert found["partition_list"] == done["device"]["partition_list"] and found["partition_error"] is None
    (part,) = run(device_info.main, path=row["path"], partitions=True, features=False)["devices"]
    assert part["partition"] == 3 and part["partition_list"] == []


def test_without_the_option_nothing_is_read(present):
    present.write({1: FIRST})
    assert "partition_list" not in present.run(partitions=None)["device"]


def test_a_changed_table_is_read_again(present):
    present.write({1: FIRST, 2: SECOND})
    diskseq = present.run()["device"]["diskseq"]
    present.write({1: FIRST, 3: THIRD})
    predicted = present.run(check=True)
    done = present.run()
    assert predicted["changed"] and done["changed"] and predicted["diff"] == done["diff"]
    assert shown(done) == ("gpt", [(1, 2048, 2048, True), (3, 6144, 1957, True)])
    assert done["device"]["diskseq"] == diskseq and not present.run()["changed"]
    present.write({}, magic=b"no table")
    assert shown(present.run()) == (None, [])


def test_older_pages_of_a_device_that_is_open_are_not_trusted(present):
    present.write({1: FIRST})
    path = present.run()["device"]["path"]
    with open(path, "rb") as held:
        assert held.read(MIB)
        present.write({2: SECOND})
        assert shown(present.run()) == ("gpt", [(2, 4096, 2048, True)])


def test_a_partition_in_use_stays_unless_it_has_changed(present):
    present.write({1: FIRST, 2: SECOND})
    path = present.run()["device"]["path"]
    with open(path + "p1", "rb") as held:
        present.write({1: FIRST, 2: (4096, 5000)})
        assert shown(present.run()) == ("gpt", [(1, 2048, 2048, True), (2, 4096, 905, True)])
        os.pread(held.fileno(), 512, 0)
    handle = os.open(path + "p2", os.O_RDONLY | os.O_EXCL)
    try:
        present.write({2: (4096, 6000), 1: FIRST})
        for check in (True, False):
            failed = present.run(check=check)
            assert failed["failed"] and failed["error"]["kind"] == "DeviceBusy"
            assert "partition 2" in failed["msg"] and "End that use first" in failed["msg"]
    finally:
        os.close(handle)
    assert present.run()["changed"]


def extents(disk):
    """``[(number, start, size)]`` of the partitions that the kernel has."""
    return [(part.number, part.start, part.size) for part in partitions.known(disk)]


def test_a_plain_opener_is_in_the_way_too(present, monkeypatch):
    monkeypatch.setattr(partitions, "_BRIEF_SECONDS", 0.1)
    present.write({1: FIRST, 2: SECOND})
    path = present.run()["device"]["path"]
    with _device.open_path(path) as disk, open(path + "p2", "rb"):
        present.write({3: THIRD})
        before = extents(disk)
        with pytest.raises(DeviceBusy, match=r"partition 2 \(.*\), which is in use by a program"):
            partitions.update(disk, partitions.read_table(disk))
        # What was removed before the one in use is back, perhaps with another minor number.
        assert extents(disk) == before and [number for number, _start, _size in before] == [1, 2]


def test_hostile_entries_make_no_partitions(present):
    present.write({1: FIRST, 2: (4000, 4100), 3: (5000, 2**63), 4: THIRD, 5: (8000, 7000)})
    done = present.run()
    problems = {row["number"]: row["problem"] for row in done["device"]["partition_list"] if row["problem"]}
    assert sorted(problems) == [1, 2, 3, 4, 5]
    for number, words in ((1, "overlaps"), (2, "overlaps"), (3, "beyond the end"), (5, "empty")):
        assert words in problems[number]
    assert not present.run()["changed"]


def test_a_disk_that_cannot_be_read_is_reported(monkeypatch, present):
    present.write({1: FIRST})
    path = present.run()["device"]["path"]

    def broken(fd, length, offset):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(partitions.os, "pread", broken)
    with _device.open_path(path) as disk, pytest.raises(KernelError, match="cannot read the partition table"):
        partitions.read_table(disk)
    monkeypatch.undo()


def test_partitions_that_another_system_may_have_stay(disk):
    """The disk has partitions of a table that only the kernel knows."""
    there = partitions.known(disk)
    assert [part.number for part in there] == [1, 3]
    foreign = partition_table.Table(others=((0, disk.size),))
    assert partitions.changes(there, foreign) == partitions.Changes((), ())
    inside = partition_table.Table("dos", "1", (), ((2 * MIB, 4 * MIB),))
    assert [part.number for part in partitions.changes(there, inside).remove] == [1]
