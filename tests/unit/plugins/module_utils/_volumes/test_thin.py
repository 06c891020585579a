# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option volumes, as far as it can be checked without a pool."""

from __future__ import annotations

import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue, KernelError
from ansible_collections.racefree.block.plugins.module_utils._block.device import Device, DeviceId
from ansible_collections.racefree.block.plugins.module_utils._source import spec
from ansible_collections.racefree.block.plugins.module_utils._volumes import pool
from ansible_collections.racefree.block.plugins.module_utils._volumes.thin import (
    Volume,
    Volumes,
    parse_volumes,
)


@pytest.mark.parametrize(
    "rows, option",
    [
        ([{"id": -1}], "volumes[0].id"),
        ([{"id": 0}, {"id": 2**24}], "volumes[1].id"),
        ([{"id": 1}, {"id": 2}, {"id": 1, "state": "absent"}], "volumes[2].id"),
        ([{"id": 1, "snapshot_of": 1}], "volumes[0].snapshot_of"),
        ([{"id": 1, "snapshot_of": -1}], "volumes[0].snapshot_of"),
        ([{"id": 1, "snapshot_of": 2**24}], "volumes[0].snapshot_of"),
        ([{"id": 1, "snapshot_of": 0, "state": "absent"}], "volumes[0].snapshot_of"),
    ],
)
def test_invalid_volumes(rows, option):
    with pytest.raises(InvalidValue) as caught:
        parse_volumes(rows)
    assert caught.value.option == option


def test_valid_volumes():
    rows = [
        {"id": 0, "snapshot_of": None, "state": "present"},
        {"id": 2**24 - 1, "snapshot_of": 0},
        {"id": 7, "state": "absent"},
    ]
    assert parse_volumes(rows) == [
        Volume(0, True, None, "volumes[0]"),
        Volume(2**24 - 1, True, 0, "volumes[1]"),
        Volume(7, False, None, "volumes[2]"),
    ]
    assert parse_volumes([]) == []


def test_the_diff():
    volumes = Volumes(
        None, parse_volumes([{"id": 0}, {"id": 1, "snapshot_of": 0}, {"id": 2, "state": "absent"}]), 1
    )
    made = {"0": "present", "1": "present, a snapshot of 0", "2": "absent"}
    assert volumes.wanted() == made
    before = {"0": "present", "1": "absent", "2": "present"}
    assert volumes.wanted(before) == made
    assert volumes.wanted(dict(before, **{"1": "present", "2": "absent"})) == {
        "0": "present",
        "1": "present",
        "2": "absent",
    }


def test_a_pool_by_its_path_needs_more():
    path = "/dev/mapper/pool"
    with pytest.raises(InvalidValue, match="a mapped device's path, with its uuid"):
        pool.check(spec.parse({"path": path}))
    for more in ({"uuid": "POOL-1"}, {"diskseq": 5}):
        pool.check(spec.parse({"path": path, **more}))


def test_a_pool_of_lvm():
    table = "0 41943040 thin-pool file:/srv/pool.meta file:/srv/pool.data 128 0"
    for source in ({"path": "/dev/mapper/vg-pool-tpool"}, {"table": table, "name": "vg-pool-tpool"}):
        with pytest.raises(InvalidValue, match="LVM.*lvcreate") as caught:
            pool.check(spec.parse({**source, "uuid": "LVM-x-tpool"}))
        assert caught.value.option == "pool.uuid"


class RefusingControl:
    """Device-mapper, which cannot delete one volume. ``told``: the messages that it got."""

    def __init__(self, refused):
        self.refused, self.told = refused, []

    def message(self, dummy, text):
        self.told.append(text)
        if text == self.refused:
            raise KernelError("the volume is in use")


@pytest.mark.parametrize("refused", ["delete 7", "delete 8", "delete 9"])
def test_a_rollback_deletes_what_it_can(refused):
    control = RefusingControl(refused)
    volumes = Volumes(types.SimpleNamespace(dm=control), [], 1)
    volumes._made = [7, 8, 9]
    with pytest.raises(KernelError, match="the volume is in use"):
        volumes.undo(Device(-1, DeviceId(253, 0, 5), "dm-0"))
    assert control.told == ["delete 9", "delete 8", "delete 7"]
