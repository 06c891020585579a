# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How full stores and pools are, compared with what the kernel reports."""

from __future__ import annotations

import contextlib
import os

import pytest
from conftest import run_module

MIB = 2**20


def write(path, offset, size):
    with open(path, "rb+", buffering=0) as device:
        device.seek(offset)
        device.write(os.urandom(size))
        os.fsync(device.fileno())


def info(device, **options):
    (row,) = (result := run_module("device_info", path=device["path"], features=False, **options))["devices"]
    return row, result


@pytest.mark.sample
def test_a_snapshot_store(image, cleanup, name):
    origin, store = image("golden.raw", 16 * MIB, b"golden"), image("store.cow", 4 * MIB)
    cleanup(loop=origin)
    cleanup(loop=store)
    cleanup(dm=name)
    line = f"0 32768 snapshot file:raw:{origin} file:raw:{store} P 8"
    made = run_module("dm_device", name=name, table=[line])["device"]
    for size in (0, MIB, 2 * MIB):
        write(made["path"], 4 * MIB, size)
        row, result = info(made, warn_percent=40)
        allocated, total = map(int, row["status"][0].split()[3].split("/"))
        assert (row["space"]["used"], row["space"]["size"]) == (allocated * 512, total * 512)
        is_full = row["space"]["percent"] >= 40
        assert bool(result["nearly_full"]) == is_full == bool(result.get("warnings")) == (size == 2 * MIB)
        stores = [{"path": store, "image": origin, "adopt": True}]
        file = run_module("snapshot_stores", stores=stores)["stores"][0]["store"]["space"]
        # The kernel counts the next area of metadata a moment earlier.
        assert abs(file["used"] - row["space"]["used"]) <= 4096 and file["size"] == 4 * MIB
    with contextlib.suppress(OSError):
        write(made["path"], 8 * MIB, 2 * MIB)
    row, result = info(made, warn_percent=100)
    assert row["space"] is None and "store has overflowed" in result["nearly_full"][0]


def test_a_thin_pool(image, cleanup, name):
    metadata, data = image("metadata", 4 * MIB), image("data", 16 * MIB)
    for path in (metadata, data):
        cleanup(loop=path)
    cleanup(dm=name)
    line = f"0 32768 thin-pool file:raw:{metadata} file:raw:{data} 128 0"
    pool = run_module("dm_device", name=name, uuid=name, table=[line])["device"]
    source = {"path": pool["mapper_path"] or pool["path"], "uuid": name}
    result = run_module("thin_volumes", pool=source, volumes=[{"id": 0}], warn_percent=1)
    assert result["space"]["used"] == 0 and result["space"]["size"] == 16 * MIB
    cleanup(dm=f"{name}-0")
    thin = [{"start": 0, "length": 32768, "target": "thin", "pool": f"dm:{name},{name}", "id": 0}]
    made = run_module("dm_device", name=f"{name}-0", table=thin)["device"]
    write(made["path"], 0, 8 * MIB)
    row, result = info(pool, warn_percent=50)
    assert (
        row["space"]["used"] == 8 * MIB and row["space"]["percent"] == 50 and row["space"]["kind"] == "pool"
    )
    assert row["space"]["metadata"]["size"] == 4 * MIB
    assert result["nearly_full"] == [f"the data of {name} is 50 % full: {8 * MIB} of {16 * MIB} bytes"]
    again = run_module("thin_volumes", pool=source, volumes=[{"id": 0}], warn_percent=50)
    assert not again["changed"] and again["space"]["percent"] == 50
    assert "50 % full" in str(again["warnings"])
