# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Partitions of a real loop device, and disk sequence numbers that are bound to a boot."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceGone,
    InvalidValue,
    TableError,
)
from ansible_collections.racefree.block.plugins.module_utils._block import boot as _boot
from ansible_collections.racefree.block.plugins.module_utils._block import (
    partition as _partition,
)
from ansible_collections.racefree.block.plugins.module_utils._dm_table import parse_table
from ansible_collections.racefree.block.plugins.module_utils._hotplug import target
from ansible_collections.racefree.block.plugins.module_utils._source import lookup, resources, spec
from ansible_collections.racefree.block.plugins.modules import device_info, loop_device
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.modulerun import run

OTHER_BOOT = "11111111-2222-3333-4444-555555555555"


def test_a_partition_by_its_disk(disk):
    for number in (1, 3):
        with _partition.open_partition(disk.id.diskseq, number, writable=True) as found:
            assert os.pread(found.fd, 5, 0) == b"part%d" % number and found.writable
            assert found.id.diskseq == disk.id.diskseq and found.id.number != disk.id.number
            assert (found.partition, found.by_diskseq) == (
                number,
                f"/dev/disk/by-diskseq/{disk.id.diskseq}-part{number}",
            )
            plain = found.as_dict()
            assert (plain["partition"], plain["by_diskseq"], plain["boot_id"]) == (
                number,
                found.by_diskseq,
                _boot.boot_id(),
            )
    plain = disk.as_dict()
    assert (plain["partition"], plain["by_diskseq"]) == (None, f"/dev/disk/by-diskseq/{disk.id.diskseq}")


def test_a_missing_partition(disk):
    for diskseq, number, words in (
        (disk.id.diskseq, 2, "no partition 2"),
        (disk.id.diskseq, 13, "no partition 13"),
        (2**62, 1, "no disk has"),
    ):
        with pytest.raises(DeviceGone, match=words):
            _partition.open_partition(diskseq, number)


def test_a_held_partition_that_is_deleted_does_not_become_the_disk(disk):
    with _partition.open_partition(disk.id.diskseq, 3) as held:
        # The kernel does not delete an open partition. If a disk is unplugged, the partition is missing in
        # sysfs, which is simulated here.
        held.id = held.id._replace(minor=1048575)
        assert held.by_diskseq is None
        with pytest.raises(DeviceGone):
            assert held.partition


def test_partitions_in_sources(disk):
    number, boot = disk.id.diskseq, _boot.boot_id()
    with resources.Resources() as host:
        for text, plain, partition in (
            (f"diskseq:{number}", {"diskseq": number}, None),
            (f"diskseq:{number}@{boot}", {"diskseq": number, "boot_id": boot}, None),
            (f"diskseq:{number}-part1", {"diskseq": str(number), "partition": "1"}, 1),
            (
                f"diskseq:{number}-part3@{boot}",
                {"diskseq": number, "partition": 3, "boot_id": boot.upper(), "path": None},
                3,
            ),
        ):
            source = spec.parse(text)
            assert source == spec.parse(plain) and str(source) == text and spec.parse(str(source)) == source
            with lookup.find(source, host) as device:
                assert device.partition == partition and lookup.is_device(source, device, host)
                assert not lookup.is_device(spec.parse({"diskseq": number, "partition": 2}), device, host)
            words = (
                f"0 8 linear {text} 0",
                {
                    "start": 0,
                    "length": 8,
                    "target": "linear",
                    "device": plain,
                    "offset": 0,
                },
            )
            assert [parse_table([line]).to_list()[0]["device"] for line in words] == [text, text]
        assert lookup.is_device(
            spec.parse({"path": disk.path, "diskseq": number, "boot_id": boot}), disk, host
        )


@pytest.mark.parametrize(
    "make",
    [
        lambda number, path: f"diskseq:{number}@{OTHER_BOOT}",
        lambda number, path: f"diskseq:{number}-part1@{OTHER_BOOT}",
        lambda number, path: {"diskseq": number, "boot_id": OTHER_BOOT},
        lambda number, path: {"path": path, "diskseq": number, "boot_id": OTHER_BOOT},
    ],
)
def test_a_diskseq_of_another_boot_is_no_device(disk, make):
    source = spec.parse(make(disk.id.diskseq, disk.path))
    with resources.Resources() as host:
        with pytest.raises(DeviceGone) as caught:
            lookup.find(source, host)
        assert (
            OTHER_BOOT in str(caught.value)
            and "another boot" in str(caught.value)
            and str(disk.id.diskseq) in str(caught.value)
        )
        assert not lookup.is_device(source, disk, host)


@pytest.mark.parametrize(
    "value, option",
    [
        ("diskseq:4@", "x"),
        ("diskseq:4@5", "x"),
        (f"diskseq:4@{OTHER_BOOT}0", "x"),
        (f"diskseq:4@{OTHER_BOOT}@{OTHER_BOOT}", "x"),
        ("diskseq:4-part", "x"),
        ("diskseq:4-part0", "x"),
        ("diskseq:4-part256", "x"),
        ("diskseq:4-part-1", "x"),
        ("diskseq:4-partx", "x"),
        (f"diskseq:@{OTHER_BOOT}", "x"),
        ({"diskseq": 4, "partition": 0}, "x.partition"),
        ({"diskseq": 4, "partition": True}, "x.partition"),
        ({"diskseq": 4, "partition": 2**40}, "x.partition"),
        ({"diskseq": 4, "boot_id": "x"}, "x.boot_id"),
        ({"diskseq": 4, "boot_id": OTHER_BOOT.replace("1", "g")}, "x.boot_id"),
        ({"path": "/dev/a", "boot_id": OTHER_BOOT}, "x.boot_id"),
        ({"path": "/dev/a", "diskseq": 4, "partition": 1}, "x.partition"),
    ],
)
def test_invalid_numbers(value, option):
    with pytest.raises(InvalidValue) as caught:
        spec.parse(value, option="x")
    assert caught.value.option == option
    if isinstance(value, str) or "path" not in value:
        with pytest.raises(TableError):
            parse_table([{"start": 0, "length": 8, "target": "linear", "device": value, "offset": 0}])


@pytest.mark.parametrize(
    "form",
    [
        "diskseq:{n}",
        "diskseq:{n}-part1",
        "/dev/disk/by-diskseq/{n}",
        "path:/dev/disk/by-diskseq/{n}-part1",
        "phy:/dev/disk/by-diskseq/{n}",
        "disk/by-diskseq/{n}",
        "/dev//disk/x/../by-diskseq/{n}",
    ],
)
def test_a_target_without_its_boot_is_refused(disk, form):
    with pytest.raises(InvalidValue) as caught:
        target.parse(form.format(n=disk.id.diskseq), True)
    for word in ("target", "valid until the next boot", "@BOOT", "dm:NAME,UUID"):
        assert word in str(caught.value)


def test_a_target_with_its_boot(disk):
    for suffix, partition in (("", None), ("-part3", 3)):
        text = f"diskseq:{disk.id.diskseq}{suffix}@{_boot.boot_id()}"
        with target.open_device(target.parse(text, True), 5) as device:
            assert device.id.diskseq == disk.id.diskseq and device.partition == partition
        with pytest.raises(DeviceGone, match="another boot"):
            target.open_device(target.parse(f"diskseq:{disk.id.diskseq}{suffix}@{OTHER_BOOT}", True), 5)


def test_return_values_of_a_partition(disk):
    with _partition.open_partition(disk.id.diskseq, 1) as part:
        (row,) = run(device_info.main, path=part.path, features=False)["devices"]
        assert (row["partition"], row["boot_id"], row["by_diskseq"]) == (
            1,
            _boot.boot_id(),
            part.by_diskseq,
        )
        assert row["size"] == 2**20 and row["diskseq"] == disk.id.diskseq
    with loopdevices.directory() as place:
        path = loopdevices.image(place, "other")
        made = run(loop_device.main, backing_file=path, persist=False, hold=0)
        assert made["device"]["boot_id"] == _boot.boot_id() and made["device"]["partition"] is None
        assert loopdevices.nothing_bound(place)


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="mkfs.ext4 is not installed (e2fsprogs)")
def test_removing_a_disk_names_its_mounted_partition(disk, tmp_path):
    """The disk itself is not mounted, and the kernel only reports that somebody has it open exclusively."""
    with _partition.open_partition(disk.id.diskseq, 3) as part:
        node = part.path
    subprocess.run(["mkfs.ext4", "-qF", "-O", "^has_journal", node], check=True, timeout=60)
    subprocess.run(["mount", "-o", "ro", node, str(tmp_path)], check=True, timeout=60)
    try:
        for check in (True, False):
            result = run(loop_device.main, check=check, path=disk.path, state="absent", timeout=1)
            assert result["failed"] and result["error"]["kind"] == "DeviceBusy", result
            assert f"mount {tmp_path} (partition {node[5:]})" in result["msg"], result["msg"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=60)
