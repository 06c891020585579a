# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Tasks that are killed while they make their devices permanent: the next run finds all of them, or none.

RACEFREE_KILLS is how many tasks are killed at random instants.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest

from ansible_collections.racefree.block.plugins.module_utils import _journal, _loop
from ansible_collections.racefree.block.plugins.module_utils._host import Host
from ansible_collections.racefree.block.plugins.modules import loop_device, loop_devices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.runs import Run, run

KILLS = int(os.environ.get("RACEFREE_KILLS", "20"))
DEVICES = 6


@pytest.fixture
def place():
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        yield path
        for file in sorted(set(loopdevices.bound_files(path).values())):
            run(loop_device.main, {"backing_file": file, "state": "absent"})
        assert loopdevices.nothing_bound(path), "the test left a loop device"


@pytest.fixture(autouse=True)
def own_journal(tmp_path, monkeypatch):
    """What others kill on this machine at the same time is not this test's."""
    monkeypatch.setattr(_journal, "DIRECTORY", str(tmp_path / "journal"))


@pytest.fixture
def rows(place):
    return [{"backing_file": loopdevices.image(place, f"disk{number}")} for number in range(DEVICES)]


def killed_at(step, when):
    """Have a run kill itself after so many calls of a function of _loop or _journal."""
    def before():
        place, name = step
        real, calls = getattr(place, name), []

        def counted(*arguments):
            result = real(*arguments)
            calls.append(arguments)
            if len(calls) == when:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(place, name, counted)

    return before


def someone_else_runs(place):
    """A run that has nothing to do with the devices."""
    other = loopdevices.image(place, "other")
    result = run(loop_device.main, {"backing_file": other})
    assert not result.get("failed") and "warnings" not in result, result
    run(loop_device.main, {"backing_file": other, "state": "absent"})


def left(place):
    return sorted(path for path in loopdevices.bound_files(place).values() if "/disk" in path)


@pytest.mark.parametrize("commits", range(1, DEVICES))
def test_a_task_that_is_killed_between_its_commits_leaves_nothing_for_the_next_run(place, rows, commits):
    assert run(loop_devices.main, {"devices": rows}, before=killed_at((_loop, "set_autoclear"), commits)) is None
    assert len(left(place)) == commits, "this is what the test is about"
    someone_else_runs(place)
    assert left(place) == [] and os.listdir(_journal.DIRECTORY) == []


def test_the_same_task_again_has_them_all(place, rows):
    assert run(loop_devices.main, {"devices": rows}, before=killed_at((_loop, "set_autoclear"), 3)) is None
    predicted = run(loop_devices.main, {"devices": rows}, check=True)
    assert len(left(place)) == 3, "check mode changes nothing"
    done = run(loop_devices.main, {"devices": rows})
    assert not done.get("failed") and len(left(place)) == DEVICES
    for result in (predicted, done):
        assert [row["changed"] for row in result["devices"]] == [True] * DEVICES


def test_a_task_that_is_killed_before_its_first_commit_leaves_nothing(place, rows):
    assert run(loop_devices.main, {"devices": rows}, before=killed_at((_journal, "_write"), 1)) is None
    assert loopdevices.nothing_bound(place) and len(os.listdir(_journal.DIRECTORY)) == 1
    someone_else_runs(place)
    assert os.listdir(_journal.DIRECTORY) == []


def test_a_task_that_is_killed_after_its_last_commit_has_done_everything(place, rows):
    """Only its list was left to be removed."""
    assert run(loop_devices.main, {"devices": rows}, before=killed_at((_loop, "set_autoclear"), DEVICES)) is None
    someone_else_runs(place)
    assert len(left(place)) == DEVICES and os.listdir(_journal.DIRECTORY) == []
    again = run(loop_devices.main, {"devices": rows})
    assert not again["changed"]


def test_a_list_that_was_never_complete_is_removed(place, rows):
    def before():
        _journal.os.rename = lambda *names: os.kill(os.getpid(), signal.SIGKILL)

    assert run(loop_devices.main, {"devices": rows}, before=before) is None
    assert [name[0] for name in os.listdir(_journal.DIRECTORY)] == ["."]
    someone_else_runs(place)
    assert os.listdir(_journal.DIRECTORY) == [] and left(place) == []


def test_a_run_that_is_at_work_is_left_alone(place, rows):
    """It stands still between two commits, while others come and go; then it goes on, and all its devices are there."""
    reading, writing = os.pipe()
    go_reading, go_writing = os.pipe()

    def before():
        real, calls = _loop.set_autoclear, []

        def slow(*arguments):
            real(*arguments)
            calls.append(arguments)
            if len(calls) == 2:
                os.write(writing, b".")
                os.read(go_reading, 1)

        _loop.set_autoclear = slow

    task = Run(loop_devices.main, {"devices": rows}, before=before)
    os.read(reading, 1)
    someone_else_runs(place)
    os.write(go_writing, b".")
    done = task.wait().result
    for end in (reading, writing, go_reading, go_writing):
        os.close(end)
    assert not done.get("failed") and len(left(place)) == DEVICES and os.listdir(_journal.DIRECTORY) == []


def test_a_device_that_somebody_uses_by_now_goes_with_that_user(place, rows):
    assert run(loop_devices.main, {"devices": rows}, before=killed_at((_loop, "set_autoclear"), 2)) is None
    number = min(loopdevices.bound_files(place))
    used = os.open(f"/dev/loop{number}", os.O_RDONLY)
    try:
        someone_else_runs(place)
        assert list(loopdevices.bound_files(place)) == [number]
    finally:
        os.close(used)
    assert loopdevices.nothing_bound(place)


def test_what_has_the_number_by_now_is_not_touched(place, rows, tmp_path):
    """A list that names a number with another disk sequence number, as when the device was removed by hand and the number is used again."""
    device = run(loop_device.main, rows[0])["device"]
    with Host() as host:
        plain = dict(_journal._content([]), pid=2**22 - 1, devices=[[device["major"], device["minor"], device["diskseq"] - 1]])
        _journal._write("x", plain)
        assert _journal.recover(host) == []
    assert len(left(place)) == 1 and os.listdir(_journal.DIRECTORY) == []


def test_a_list_of_another_boot_means_nothing(place, rows):
    device = run(loop_device.main, rows[0])["device"]
    with Host() as host:
        plain = dict(_journal._content([]), boot="another", devices=[[device["major"], device["minor"], device["diskseq"]]])
        _journal._write("x", plain)
        assert _journal.recover(host) == []
    assert len(left(place)) == 1 and os.listdir(_journal.DIRECTORY) == []


def test_a_list_that_cannot_be_read_is_said_and_stops_nobody(place, rows):
    os.mkdir(_journal.DIRECTORY)
    with open(f"{_journal.DIRECTORY}/1-x", "w", encoding="ascii") as file:
        file.write(json.dumps([]) + "junk")
    result = run(loop_device.main, rows[0])
    assert not result.get("failed") and "1-x" in str(result["warnings"]) and len(left(place)) == 1


def test_killed_at_any_instant(place, rows):
    """What a run that comes next finds is all or nothing, and the same task again has all."""
    random.seed(13)
    started = time.monotonic()
    run(loop_devices.main, {"devices": rows})
    duration = time.monotonic() - started
    for number in range(KILLS):
        for row in rows:
            run(loop_device.main, dict(row, state="absent"))
        task = Run(loop_devices.main, {"devices": rows})
        time.sleep(random.random() * duration)
        task.kill()
        task.wait()
        someone_else_runs(place)
        # What goes with its last user may have a prober for a moment.
        end = time.monotonic() + 5
        while len(left(place)) not in (0, DEVICES) and time.monotonic() < end:
            time.sleep(0.01)
        assert len(left(place)) in (0, DEVICES), number
        again = run(loop_devices.main, {"devices": rows})
        assert not again.get("failed") and len(left(place)) == DEVICES, number
