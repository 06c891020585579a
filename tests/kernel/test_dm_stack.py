# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mapped devices of one list that use each other, on a real kernel."""

from __future__ import annotations

import os
import subprocess

import pytest
from conftest import Failed, run_module, wait_until


def live():
    """The names of all mapped devices."""
    listed = subprocess.run(
        ["dmsetup", "ls", "--noheadings"], capture_output=True, text=True, check=True
    ).stdout
    return [line.split()[0] for line in listed.splitlines() if "No devices" not in line]


@pytest.fixture
def names(name, cleanup):
    """The bottom, the middle and the top of a stack."""
    found = [f"{name}-{number}" for number in range(3)]
    for one in found:
        cleanup(dm=one)
    return found


def over(name, below, **more):
    """An entry for a device of 8 sectors over another one."""
    return {
        "name": name,
        "table": [{"start": 0, "length": 8, "target": "linear", "device": below, "offset": 0}],
        **more,
    }


def stack(names):
    bottom, middle, top = names
    return [
        over(top, f"dm:{middle},UUID-{middle}"),
        over(middle, {"path": f"/dev/mapper/{bottom}"}, uuid=f"UUID-{middle}"),
        {"name": bottom, "table": "0 16 zero"},
    ]


@pytest.mark.parametrize("backwards", [False, True])
def test_made_from_the_bottom_and_removed_from_the_top(names, backwards):
    order = -1 if backwards else 1
    wanted = stack(names)[::order]
    assert run_module("dm_devices", check=True, devices=wanted)["changed"]
    assert not set(names) & set(live())
    made = run_module("dm_devices", devices=wanted)
    assert [row["device"]["mapper_name"] for row in made["devices"]] == [entry["name"] for entry in wanted]
    numbers = {
        row["device"]["mapper_name"]: f"{row['device']['major']}:{row['device']['minor']}"
        for row in made["devices"]
    }
    for lower, upper in zip(names, names[1:]):
        table = subprocess.run(["dmsetup", "table", upper], capture_output=True, text=True, check=True).stdout
        assert table.split()[3] == numbers[lower]
    assert not run_module("dm_devices", devices=wanted)["changed"]
    gone = [{"name": one, "state": "absent"} for one in names[::order]]
    assert run_module("dm_devices", check=True, devices=gone)["changed"]
    removed = run_module("dm_devices", devices=gone)
    assert [row["gone"] for row in removed["devices"]] == [True] * 3
    assert not set(names) & set(live())


def test_a_table_that_is_longer_than_what_will_be_below_it(names):
    wanted = stack(names)
    # Longer than the device that will be below it.
    wanted[0]["table"][0]["length"] = 16
    with pytest.raises(Failed):
        run_module("dm_devices", devices=wanted)
    assert not set(names) & set(live())


def test_the_kernel_refuses_the_upper_one(names):
    """The lower ones exist by then. They are rolled back, or kept with on_error=keep."""
    bottom, middle, top = names
    wanted = [
        {"name": top, "table": f"0 16384 thin-pool dm:{bottom},UUID-{bottom} /dev/mapper/{middle} 128 0"},
        {"name": middle, "table": "0 16384 zero"},
        {"name": bottom, "uuid": f"UUID-{bottom}", "table": "0 16384 error"},
    ]
    with pytest.raises(Failed) as caught:
        run_module("dm_devices", devices=wanted)
    assert [row.get("rolled_back", False) for row in caught.value.result["devices"]] == [False, True, True]
    # udev may have one open for a moment.
    wait_until(lambda: not set(names) & set(live()))
    with pytest.raises(Failed) as caught:
        run_module("dm_devices", devices=wanted, on_error="keep")
    assert [row.get("failed", False) for row in caught.value.result["devices"]] == [True, False, False]
    assert set(names) & set(live()) == {bottom, middle}
    run_module("dm_devices", devices=[{"name": one, "state": "absent"} for one in names])


def test_above_one_that_cannot_be_made(names):
    """With on_error=keep the others are made, except those that use it."""
    wanted = stack(names)
    wanted[2]["table"] = "0 16 linear /dev/no/such/device 0"
    with pytest.raises(Failed) as caught:
        run_module("dm_devices", devices=wanted, on_error="keep")
    assert [row.get("failed", False) for row in caught.value.result["devices"]] == [True, True, True]
    assert not set(names) & set(live())


def test_a_stack_with_a_wrong_uuid(names):
    wanted = stack(names)
    wanted[0]["table"][0]["device"] = f"dm:{names[1]},OTHER"
    with pytest.raises(Failed, match=f"it will have the uuid UUID-{names[1]}, not OTHER"):
        run_module("dm_devices", devices=wanted)
    assert not set(names) & set(live())


def test_one_that_somebody_else_uses_is_not_removed(names):
    """Nor are the devices that use it, which the list would remove first."""
    run_module("dm_devices", devices=stack(names))
    bottom, middle, top = names
    opened = os.open(f"/dev/mapper/{bottom}", os.O_RDONLY)
    try:
        with pytest.raises(Failed, match=f"{bottom} is in use"):
            run_module(
                "dm_devices", devices=[{"name": one, "state": "absent", "timeout": 1} for one in names]
            )
        assert set(names) <= set(live())
    finally:
        os.close(opened)
    # A device above that is not on the list uses it.
    with pytest.raises(Failed, match=f"{middle} is in use"):
        run_module(
            "dm_devices", devices=[{"name": one, "state": "absent", "timeout": 1} for one in (bottom, middle)]
        )
    assert set(names) <= set(live())
    run_module("dm_devices", devices=[{"name": one, "state": "absent"} for one in names])


def test_a_uuid_in_a_slot_of_a_table(names):
    """``dm:NAME,UUID`` of an existing device."""
    bottom, middle, dummy = names
    run_module("dm_device", name=bottom, uuid=f"UUID-{bottom}", table="0 16 zero")
    for slot in (f"dm:{bottom},UUID-{bottom}", {"path": f"/dev/mapper/{bottom}", "uuid": f"UUID-{bottom}"}):
        assert run_module("dm_device", **over(middle, slot))["changed"] is isinstance(slot, str)
    assert not run_module("dm_device", name=middle, table=f"0 8 linear dm:{bottom},UUID-{bottom} 0")[
        "changed"
    ]
    with pytest.raises(Failed, match="not OTHER"):
        run_module("dm_device", **over(middle, f"dm:{bottom},OTHER"))
