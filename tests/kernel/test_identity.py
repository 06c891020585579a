# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The identity of a device, on a real kernel with udev: duplicates in a list of mapped devices, partitions, and
the boot to which a number belongs.
"""

from __future__ import annotations

import os
import struct

import pytest
from conftest import Failed, predict_and_run, read_device, refused, run_module, udev_settle

SECTORS = 2048
OTHER_BOOT = "11111111-2222-3333-4444-555555555555"


def zero(name, **more):
    return dict({"name": name, "table": f"0 {SECTORS} zero"}, **more)


def test_duplicates_of_a_mapped_device_by_any_name(name, cleanup):
    cleanup(dm=name)
    uuid = "U-" + name
    device = run_module("dm_device", **zero(name, uuid=uuid))["device"]
    entries = [
        {"name": name, "state": "absent"},
        {"uuid": uuid, "state": "absent"},
        {"diskseq": device["diskseq"], "state": "absent"},
        zero(name, uuid=uuid),
    ]
    for first in entries:
        for second in entries:
            result = refused(
                "dm_devices", "devices[0].", "devices[1].", "in the list twice", devices=[first, second]
            )
            assert [row["error"]["kind"] for row in result["devices"]] == ["InvalidValue"] * 2, result
    with pytest.raises(Failed):
        run_module("dm_devices", devices=entries[:3], on_error="keep")
    assert not run_module("dm_device", **zero(name, uuid=uuid))["changed"], "it is as it was"


def test_a_name_that_is_anothers_uuid_is_no_duplicate(name, cleanup):
    rows = [zero(name, uuid=f"{name}-x"), zero(f"{name}-x", uuid=name)]
    cleanup(dm=rows[0]["name"])
    cleanup(dm=rows[1]["name"])
    done = predict_and_run("dm_devices", devices=rows)
    assert done["changed"] and len({row["device"]["diskseq"] for row in done["devices"]}) == 2


@pytest.fixture
def disk(image, cleanup):
    """A loop device with two partitions, whose first bytes are their numbers."""
    path = image(content=b"the disk")
    with open(path, "r+b") as file:
        file.seek(446)
        for start in (2048, 10240):
            file.write(struct.pack("<8BII", 0, 0, 0, 0, 0x83, 0, 0, 0, start, 8192))
        file.seek(510)
        file.write(b"\x55\xaa")
        for number, start in ((1, 2048), (2, 10240)):
            file.seek(start * 512)
            file.write(b"part%d" % number)
    cleanup(loop=path)
    made = run_module("loop_device", backing_file=path, partitions=True)["device"]
    udev_settle()
    return made


def test_the_returned_paths_of_a_partition_lead_to_it(disk):
    for number in (1, 2):
        (row,) = run_module("device_info", path=f"{disk['path']}p{number}", features=False)["devices"]
        assert row["partition"] == number and row["diskseq"] == disk["diskseq"]
        assert row["by_diskseq"] == f"/dev/disk/by-diskseq/{disk['diskseq']}-part{number}"
        if os.path.exists("/dev/disk/by-diskseq"):
            assert os.path.realpath(row["by_diskseq"]) == row["path"], "udev's link"
    assert disk["partition"] is None and disk["by_diskseq"] == f"/dev/disk/by-diskseq/{disk['diskseq']}"


def test_a_partition_as_a_source(disk, name, cleanup):
    cleanup(dm=name)
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    assert disk["boot_id"] == boot
    seq = disk["diskseq"]
    made = predict_and_run("dm_device", name=name, table=f"0 8 linear diskseq:{seq}-part2 0")
    assert read_device(made["device"]["path"], 0, 5) == b"part2"
    for slot in (
        {"diskseq": seq, "partition": 2},
        {"diskseq": seq, "partition": 2, "boot_id": boot},
        f"diskseq:{seq}-part2@{boot}",
    ):
        row = {"start": 0, "length": 8, "target": "linear", "device": slot, "offset": 0}
        assert not run_module("dm_device", name=name, table=[row])["changed"], slot
    refused("dm_device", "no partition 3", name=name + "-x", table=f"0 8 linear diskseq:{seq}-part3 0")
    refused(
        "dm_device",
        "another boot",
        OTHER_BOOT,
        name=name + "-x",
        table=f"0 8 linear diskseq:{seq}@{OTHER_BOOT} 0",
    )
