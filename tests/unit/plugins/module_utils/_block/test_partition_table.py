# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of partition tables as bytes: good ones, and those that a hostile guest writes."""

from __future__ import annotations

import random

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import partition_table
from ansible_collections.racefree.block.tests.kernel import partition_images

MIB = 2**20
SIZE = 4 * MIB
BLOCKS = SIZE // 512


def parse(image, block=512):
    """The Table, and what was read: every place must be on the disk, and little of it read."""
    read = []

    def reader(offset, length):
        read.append((offset, length))
        return bytes(image[offset : offset + length])

    table = partition_table.parse(reader, len(image), block)
    assert all(0 <= offset <= 2**63 - 1 for offset, dummy in read)
    assert sum(length for dummy, length in read) <= 4 * MIB + 64 * 1024 and len(read) < 60000
    return table


def rows(table):
    return [(entry.number, entry.start, entry.size) for entry in table.entries]


def problems(table):
    return {entry.number: entry.problem for entry in table.entries if entry.problem}


@pytest.mark.parametrize("block", [512, 4096])
def test_gpt(block):
    first, second = MIB // block, 2 * MIB // block
    parts = {1: (first, second - 1), 3: (second, second + 99)}
    table = parse(partition_images.gpt(bytearray(SIZE), parts, block), block)
    assert (table.format, table.uuid, table.others) == ("gpt", partition_images.DISK, ())
    assert rows(table) == [(1, MIB, MIB), (3, 2 * MIB, 100 * block)] and not problems(table)
    entry = table.entries[1]
    assert (entry.type, entry.uuid) == (partition_images.LINUX, partition_images.part_uuid(3))


def test_a_gpt_of_another_block_size_is_ignored():
    image = partition_images.gpt(bytearray(SIZE), {1: (40, 50)}, 512)
    assert parse(image, 4096) == partition_table.Table()


@pytest.mark.parametrize(
    "wrong",
    [
        {"magic": b"EFI TRAP"},
        {"checksum": 1},
        {"sums": 1},
        {"own": 2},
        {"first": BLOCKS},
        {"last": BLOCKS},
        {"length": 91},
        {"length": 513},
        {"width": 256},
        {"width": 0},
        {"count": 2**16},
        {"count": 2**32 - 1},
        {"at": BLOCKS},
        {"at": 2**64 - 1},
        {"protective": (0, 0xEE, 2, 100)},
        {"protective": (0, 0x83, 1, 100)},
    ],
)
def test_an_invalid_gpt_is_ignored(wrong):
    table = parse(partition_images.gpt(bytearray(SIZE), {1: (40, 50)}, **wrong))
    assert table.format != "gpt" and table.uuid != partition_images.DISK


def test_mbr_with_logical_partitions():
    image = bytearray(SIZE)
    slots = [(0x80, 0x0C, 2048, 100), (0, 0x05, 4096, 2000), (0, 0x82, 7000, 10)]
    partition_images.dos(image, slots)
    partition_images.dos(image, [(0, 0x83, 16, 100), (0, 0x05, 500, 400)], at=4096 * 512)
    partition_images.dos(image, [(0, 0x83, 16, 50)], at=4596 * 512)
    table = parse(image)
    assert (table.format, table.uuid) == ("dos", "12345678")
    assert rows(table) == [
        (1, MIB, 51200),
        (2, 2 * MIB, 1024),
        (3, 7000 * 512, 5120),
        (5, (4096 + 16) * 512, 51200),
        (6, (4596 + 16) * 512, 25600),
    ]
    assert [entry.type for entry in table.entries] == ["0x0c", "0x05", "0x82", "0x83", "0x83"]
    assert table.entries[-1].uuid == "12345678-06"
    assert problems(table) == {2: "it is an extended partition, which only contains others"}
    # Solaris has the type of Linux swap; its own partitions may be in there.
    assert table.others == ((7000 * 512, 7010 * 512),)


def test_sectors_of_4096_bytes():
    table = parse(partition_images.dos(bytearray(SIZE), [(0, 0x83, 256, 100)]), 4096)
    assert rows(table) == [(1, MIB, 100 * 4096)]


def test_no_table():
    for image in (bytearray(SIZE), bytearray(100), bytearray(), bytearray(b"\xeb\x3c\x90" * 1000)):
        assert parse(image) == partition_table.Table()
    boot = partition_images.dos(bytearray(SIZE), [(0x4E, 0x4F, 1, 1)])
    assert parse(boot) == partition_table.Table()


@pytest.mark.parametrize("where, magic", [*partition_table._OTHERS, (512 * 3, b"RDSK")])
def test_the_table_of_another_system_is_left_to_the_kernel(where, magic):
    image = bytearray(SIZE)
    image[where : where + len(magic)] = magic
    assert parse(image) == partition_table.Table(others=((0, SIZE),))


def test_partitions_that_must_not_be_used():
    parts = {
        1: (2048, 4095),
        2: (4000, 5000),  # overlaps 1
        3: (6000, BLOCKS),  # one block too long
        4: (2**64 - 2, 2**64 - 1),
        5: (5500, 5499),
        6: (5600, 5000),
        7: (1, 1),
        8: (5200, 5300),
    }
    found = problems(parse(partition_images.gpt(bytearray(SIZE), parts)))
    assert found == {
        1: "it overlaps partition 2",
        2: "it overlaps partition 1",
        3: f"it ends at byte {SIZE + 512}, beyond the end of the disk, which has {SIZE} bytes",
        4: f"it ends at byte {2**64 * 512}, beyond the end of the disk, which has {SIZE} bytes",
        5: "it is empty: it ends before it begins",
        6: "it is empty: it ends before it begins",
        7: "it begins at byte 512, inside the partition table",
    }


def test_one_partition_over_many():
    parts = {1: (100, 7000), 2: (200, 300), 3: (400, 500), 4: (7001, 7010)}
    found = problems(parse(partition_images.gpt(bytearray(SIZE), parts)))
    assert sorted(found) == [1, 2, 3]


def test_thousands_of_partitions():
    image = bytearray(32 * MIB)
    partition_images.gpt(image, {n: (9000 + n, 9000 + n) for n in range(1, 30000)}, count=30000)
    table = parse(image)
    assert len(table.entries) == 255 and not problems(table)


@pytest.mark.parametrize("first", [(0, 0x83, 1, 1), (0, 0x05, 0, 0)])
def test_logical_partitions_in_a_loop(first):
    image = partition_images.dos(bytearray(SIZE), [(0, 0x05, 2048, 4096)])
    partition_images.dos(image, [first, (0, 0x05, 8, 4000)], at=2048 * 512)
    partition_images.dos(image, [first, (0, 0x05, 8, 4000)], at=2056 * 512)
    table = parse(image)
    assert len(table.entries) == (252 if first[3] else 1)
    assert len([entry for entry in table.entries if not entry.problem]) <= 1


def test_random_tables_never_fail():
    chance = random.Random(17)
    formats = set()
    for dummy in range(300):
        image = partition_images.random_table(chance, bytearray(4 * MIB))
        for dummy2 in range(chance.randrange(3)):
            image[chance.randrange(2048)] = chance.randrange(256)
        table = parse(image)
        formats.add(table.format)
        for entry in table.entries:
            if entry.problem is None:
                assert 512 <= entry.start < entry.end <= len(image)
        good = sorted((entry for entry in table.entries if not entry.problem), key=lambda entry: entry.start)
        assert all(one.end <= other.start for one, other in zip(good, good[1:]))
    assert formats == {"gpt", "dos", None}
