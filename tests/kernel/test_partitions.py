# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Partitions on a real kernel, which reads tables itself. RACEFREE_TABLES: how many random tables are compared
with what the kernel makes of them.
"""

from __future__ import annotations

import os
import random
import subprocess

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import backing, bind, partitions
from conftest import predict_and_run, refused, run_module, udev_settle
from partition_images import random_table

MIB = 2**20


@pytest.fixture
def disk(image, cleanup):
    """An image with two partitions, made by sgdisk."""
    path = image(size=16 * MIB)
    cleanup(loop=path)
    sgdisk(path, "--new=1:2048:+4M", "--new=2:0:+4M")
    return path


def sgdisk(path, *changes):
    subprocess.run(["sgdisk", *changes, path], check=True, stdout=subprocess.DEVNULL)


def numbers(result):
    return [row["number"] for row in result["device"]["partition_list"]]


def test_partitions_are_those_of_the_tools(disk):
    device = predict_and_run("loop_device", backing_file=disk, partitions=True)["device"]
    assert device["partition_table"] == "gpt"
    udev_settle()
    for row in device["partition_list"]:
        facts = dict(
            line.split("=", 1)
            for line in subprocess.run(
                ["blkid", "--probe", "--output", "udev", row["path"]],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.splitlines()
        )
        assert facts["ID_PART_ENTRY_UUID"] == row["uuid"] and facts["ID_PART_ENTRY_TYPE"] == row["type"]
        assert int(facts["ID_PART_ENTRY_OFFSET"]) * 512 == row["start"]
        assert int(facts["ID_PART_ENTRY_SIZE"]) * 512 == row["size"] == 4 * MIB


def test_a_table_of_parted_with_logical_partitions(image, cleanup):
    path = image(size=16 * MIB)
    cleanup(loop=path)
    command = "mklabel msdos mkpart primary 1MiB 4MiB mkpart extended 4MiB 15MiB mkpart logical 5MiB 8MiB"
    subprocess.run(["parted", "--script", path, *command.split()], check=True)
    device = run_module("loop_device", backing_file=path, partitions=True)["device"]
    rows = {row["number"]: row for row in device["partition_list"]}
    assert device["partition_table"] == "dos" and sorted(rows) == [1, 2, 5]
    assert (rows[5]["start"], rows[5]["size"], rows[5]["type"]) == (5 * MIB, 3 * MIB, "0x83")
    assert "only contains others" in rows[2]["problem"]


def test_a_table_that_was_changed_in_the_file(disk):
    assert numbers(run_module("loop_device", backing_file=disk, partitions=True)) == [1, 2]
    sgdisk(disk, "--delete=2", "--new=3:0:0")
    done = predict_and_run("loop_device", backing_file=disk, partitions=True)
    assert done["changed"] and numbers(done) == [1, 3]


def test_a_mounted_partition_is_in_the_way(disk, tmp_path):
    device = run_module("loop_device", backing_file=disk, partitions=True)["device"]
    where = tmp_path / "mount"
    where.mkdir()
    subprocess.run(["mkfs.ext4", "-q", device["partition_list"][1]["path"]], check=True)
    subprocess.run(["mount", device["partition_list"][1]["path"], where], check=True)
    try:
        sgdisk(disk, "--delete=2")
        result = refused("loop_device", f"mount {where}", "partition 2", backing_file=disk, partitions=True)
        assert result["error"]["kind"] == "DeviceBusy"
        sgdisk(disk, "--new=2:10240:+4M", "--delete=1")
        # The partition in use is as it was again.
        done = predict_and_run("loop_device", backing_file=disk, partitions=True)
        assert done["changed"] and numbers(done) == [2]
    finally:
        subprocess.run(["umount", where], check=True)


def test_the_kernel_has_no_partitions_of_a_mapped_device(disk, cleanup, name):
    cleanup(dm=name)
    table = [{"start": 0, "length": 32768, "target": "linear", "device": f"file:{disk}", "offset": 0}]
    made = run_module("dm_device", name=name, table=table)["device"]
    (row,) = run_module("device_info", path=made["path"], partitions=True, features=False)["devices"]
    assert [(part["number"], part["path"]) for part in row["partition_list"]] == [(1, None), (2, None)]
    run_module("dm_device", name=name, state="suspended", table=table)
    (row,) = run_module("device_info", path=made["path"], partitions=True, features=False)["devices"]
    assert row["partition_list"] is None and "suspended" in row["partition_error"]
    run_module("dm_device", name=name, state="absent")
    cleanup(loop=disk)


@pytest.fixture
def no_udev():
    """udev probes nothing meanwhile: a hostile table has hundreds of partitions."""
    subprocess.run(["udevadm", "control", "--stop-exec-queue"], check=True)
    yield
    subprocess.run(["udevadm", "control", "--start-exec-queue"], check=True)


def test_random_tables_are_what_the_kernel_takes_them_for(image, no_udev):
    chance = random.Random(int(os.environ.get("RACEFREE_SEED") or 17))
    path, seen = image(size=2 * MIB), 0
    for dummy in range(int(os.environ.get("RACEFREE_TABLES", "25"))):
        with open(path, "rb+") as file:
            file.write(random_table(chance, bytearray(2 * MIB)))
        with backing.Backing(path) as opened, bind.attach(opened, partitions=True) as device:
            there, table = partitions.known(device), partitions.read_table(device)
            # What the kernel has made of it needs no change.
            assert partitions.changes(there, table) == partitions.Changes((), ())
            by_number = {entry.number: entry for entry in table.entries}
            seen += len(there)
            for part in there:
                assert part.number in by_number or table.others
    assert seen > 10


def test_a_partition_of_a_file_in_a_table(disk, cleanup, name):
    cleanup(dm=name)
    with open(disk, "rb+") as file:
        file.seek(5 * MIB)
        file.write(b"second")
    source = {"file": disk, "partition": 2}
    table = [{"start": 0, "length": 8192, "target": "linear", "device": source, "offset": 0}]
    made = predict_and_run("dm_device", name=name, table=table)["device"]
    with open(made["path"], "rb") as device:
        assert device.read(6) == b"second"
    wrong = [dict(table[0], device=dict(source, partition=9))]
    refused("dm_device", "is not in", "has the partitions 1, 2", name=f"{name}-2", table=wrong)
    too_long = [dict(table[0], length=8193)]
    refused("dm_device", name=f"{name}-3", table=too_long)
    run_module("dm_device", name=name, state="absent")
    part = {"offset": 5 * MIB, "size": 4 * MIB}
    assert run_module("loop_device", backing_file=disk, state="absent", **part)["gone"]
