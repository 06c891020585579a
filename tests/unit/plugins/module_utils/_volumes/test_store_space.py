# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of how full stores and pools are. tests/kernel/test_space.py compares with a kernel."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._dm import space
from ansible_collections.racefree.block.plugins.module_utils._dm.space import Room, Space
from ansible_collections.racefree.block.plugins.module_utils._module import item
from ansible_collections.racefree.block.plugins.module_utils._volumes import store_space
from ansible_collections.racefree.block.plugins.modules import snapshot_stores, thin_volumes
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.modulerun import run

CHUNK = 4096
PAIRS = CHUNK // 16


def store(path, new, size=64 * 2**20, sectors=8, magic=0x70416E53):
    """A store whose new chunks are these numbers, in that order."""
    with open(path, "wb") as file:
        file.write(struct.pack("<4I", magic, 1, 1, sectors))
        for index, chunk in enumerate(new):
            area, entry = divmod(index, PAIRS)
            file.seek((1 + area * (PAIRS + 1)) * CHUNK + entry * 16)
            file.write(struct.pack("<QQ", index, chunk))
        file.truncate(size)
    return str(path)


@pytest.mark.parametrize(
    "new, chunks",
    [
        ([], 2),
        ([2], 3),
        ([2, 3, 4], 5),
        ([*range(2, PAIRS + 2)], PAIRS + 3),  # the second area of metadata is in use
        ([*range(2, PAIRS + 2), PAIRS + 3], PAIRS + 4),
        ([2**40], 64 * 2**20 // CHUNK),
    ],
)
def test_a_store(tmp_path, new, chunks):
    path = store(tmp_path / "store", new)
    assert store_space.of_file(path) == Room(chunks * CHUNK, 64 * 2**20)


@pytest.mark.parametrize("sectors", [0, 3, 2**31, 2**32 - 1])
def test_an_invalid_header(tmp_path, sectors):
    assert store_space.of_file(store(tmp_path / "store", [], sectors=sectors)) is None


def test_no_store(tmp_path):
    assert store_space.of_file(str(tmp_path / "missing")) is None
    assert store_space.of_file(store(tmp_path / "empty", [], magic=0)) is None
    (tmp_path / "short").write_bytes(b"Sn")
    assert store_space.of_file(str(tmp_path / "short")) is None
    with pytest.raises(InvalidValue):
        store_space.of_file(str(tmp_path))


@pytest.mark.parametrize(
    "kind, table, status, expected",
    [
        ("snapshot", "7:0 7:1 P 8", "16/2048 16", Space("store", Room(8192, 2**20))),
        ("snapshot-merge", "7:0 7:1 P 8", "16/2048 16", Space("store", Room(8192, 2**20))),
        ("snapshot", "7:0 7:1 P 8", "Invalid", None),
        ("snapshot", "7:0 7:1 P 8", "", None),
        (
            "thin-pool",
            "7:0 7:1 128 0",
            "1 13/1024 5/100 - rw discard_passdown queue_if_no_space - 1024",
            Space("pool", Room(5 * 65536, 100 * 65536), Room(13 * 4096, 1024 * 4096)),
        ),
        ("thin-pool", "7:0 7:1 128 0", "Fail", None),
        ("thin-pool", "7:0", "1 13/1024 5/100", None),
        ("linear", "7:0 0", "", None),
        ("thin", "253:0 1", "16 15", None),
    ],
)
def test_targets(kind, table, status, expected):
    assert space.of_target(kind, table, status) == expected


def test_percent_is_rounded_down():
    assert Room(999999, 1000000).percent == 99.9 and Room(1, 1).percent == 100 and Room(0, 0).percent == 0


def test_warnings():
    pool = Space("pool", Room(80, 100), Room(91, 100))
    assert pool.warnings("p", 80) == [
        "the data of p is 80 % full: 80 of 100 bytes",
        "the metadata of p is 91 % full: 91 of 100 bytes",
    ]
    assert pool.warnings("p", 81) == ["the metadata of p is 91 % full: 91 of 100 bytes"]
    assert Space("store", Room(799, 1000)).warnings("s", 80) == []


def test_a_store_is_reported_by_the_module(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"golden" * 100)
    path = store(tmp_path / "store", range(2, 200), size=2**20)
    arguments = {"path": path, "image": str(image), "adopt": True}
    done = run(snapshot_stores.main, stores=[dict(arguments, warn_percent=75)])
    room = done["stores"][0]["store"]["space"]
    assert room == {"used": 200 * CHUNK, "size": 2**20, "percent": 78.1, "kind": "store", "metadata": None}
    assert f"the snapshot store of {path} is 78.1 % full" in str(done["warnings"])
    assert "warnings" not in run(snapshot_stores.main, stores=[dict(arguments, warn_percent=80)])
    empty = run(snapshot_stores.main, stores=[{"path": str(tmp_path / "new"), "image": str(image)}])
    assert empty["stores"][0]["store"]["space"] is None


@pytest.mark.parametrize("percent", [0, 101, -1])
def test_wrong_use(tmp_path, percent):
    words = f"warn_percent {percent}: must be a whole number from 1 to 100"
    stores = run(snapshot_stores.main, stores=[{"path": "/a", "image": "/b", "warn_percent": percent}])
    pool = {"path": "/dev/mapper/p", "uuid": "u"}
    volumes = run(thin_volumes.main, pool=pool, volumes=[], warn_percent=percent)
    assert stores["failed"] and words in stores["msg"]
    assert volumes["failed"] and words in volumes["msg"]
    with pytest.raises(InvalidValue, match=words):
        item.check_percent({"warn_percent": percent})
