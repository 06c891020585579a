# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Tasks that are killed while they make their devices persistent: the next run finds all of the devices, or
none.

RACEFREE_KILLS is the number of tasks that are killed at random times.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import boot, loop
from ansible_collections.racefree.block.plugins.module_utils._module import loop_device as _loop_device
from ansible_collections.racefree.block.plugins.module_utils._process import identity
from ansible_collections.racefree.block.plugins.module_utils._source import journal, resources
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
    """A separate journal: other tests on this machine also kill runs."""
    monkeypatch.setattr(journal, "DIRECTORY", str(tmp_path / "journal"))


@pytest.fixture
def rows(place):
    return [{"backing_file": loopdevices.image(place, f"disk{number}")} for number in range(DEVICES)]


def killed_at(step, when):
    """Let a run kill itself after that many calls of a function."""

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
    """The warnings of a run that has nothing to do with the devices."""
    other = loopdevices.image(place, "other")
    result = run(loop_device.main, {"backing_file": other})
    assert not result.get("failed"), result
    run(loop_device.main, {"backing_file": other, "state": "absent"})
    return result.get("warnings", [])


def nobody():
    """The mark of a process of this namespace that has ended."""
    return "-".join([str(2**22 - 1), *identity.own_mark().split("-")[1:]])


def listed(devices):
    """Leave the list of a killed run, of devices as modules return them; returns the list's name."""
    journal._write(
        "1-x",
        dict(
            journal._content([]),
            process=nobody(),
            devices=[[device[key] for key in ("major", "minor", "diskseq")] for device in devices],
        ),
    )


def made(rows):
    return [row["device"] for row in run(loop_devices.main, {"devices": rows})["devices"]]


def remove(device):
    """Remove a device without the collection's code."""
    with open(device["path"], "rb", buffering=0) as node:
        fcntl.ioctl(node, loopdevices.LOOP_CLR_FD)


def left(place):
    return sorted(path for path in loopdevices.bound_files(place).values() if "/disk" in path)


@pytest.mark.parametrize("commits", range(1, DEVICES))
def test_devices_of_a_task_killed_between_commits_are_removed_by_the_next_run(place, rows, commits):
    assert (
        run(loop_devices.main, {"devices": rows}, before=killed_at((loop, "set_autoclear"), commits)) is None
    )
    assert len(left(place)) == commits, "this is what the test is about"
    someone_else_runs(place)
    assert left(place) == [] and os.listdir(journal.DIRECTORY) == []


def test_the_same_task_again_creates_all_devices(place, rows):
    assert run(loop_devices.main, {"devices": rows}, before=killed_at((loop, "set_autoclear"), 3)) is None
    predicted = run(loop_devices.main, {"devices": rows}, check=True)
    assert len(left(place)) == 3, "check mode changes nothing"
    done = run(loop_devices.main, {"devices": rows})
    assert not done.get("failed") and len(left(place)) == DEVICES
    for result in (predicted, done):
        assert [row["changed"] for row in result["devices"]] == [True] * DEVICES


def test_a_task_that_is_killed_before_its_first_commit_leaves_nothing(place, rows):
    assert run(loop_devices.main, {"devices": rows}, before=killed_at((journal, "_write"), 1)) is None
    assert loopdevices.nothing_bound(place) and len(os.listdir(journal.DIRECTORY)) == 1
    someone_else_runs(place)
    assert os.listdir(journal.DIRECTORY) == []


def test_a_task_killed_after_its_last_commit_is_complete(place, rows):
    """Only the removal of its list was left to do."""
    assert (
        run(loop_devices.main, {"devices": rows}, before=killed_at((loop, "set_autoclear"), DEVICES)) is None
    )
    someone_else_runs(place)
    assert len(left(place)) == DEVICES and os.listdir(journal.DIRECTORY) == []
    again = run(loop_devices.main, {"devices": rows})
    assert not again["changed"]


@pytest.mark.parametrize("commits", [1, 6, 11, 12])
def test_many_devices_are_committed_at_once_and_the_last_one_alone(place, commits):
    """Killed in between, some are persistent, but never the last one; the next run removes them."""
    rows = [{"backing_file": loopdevices.image(place, f"disk{number:02}")} for number in range(12)]
    assert (
        run(loop_devices.main, {"devices": rows}, before=killed_at((loop, "set_autoclear"), commits)) is None
    )
    there = left(place)
    if commits < 12:
        assert commits <= len(there) < 12 and rows[-1]["backing_file"] not in there
    someone_else_runs(place)
    assert len(left(place)) == (12 if commits == 12 else 0) and os.listdir(journal.DIRECTORY) == []
    done = run(loop_devices.main, {"devices": rows})
    assert done["changed"] == (commits < 12) and len(left(place)) == 12


def test_an_incomplete_journal_is_removed(place, rows):
    def before():
        journal.os.rename = lambda *names: os.kill(os.getpid(), signal.SIGKILL)

    assert run(loop_devices.main, {"devices": rows}, before=before) is None
    assert [name[0] for name in os.listdir(journal.DIRECTORY)] == ["."]
    someone_else_runs(place)
    assert os.listdir(journal.DIRECTORY) == [] and left(place) == []


def test_the_journal_of_a_running_task_is_left_unchanged(place, rows):
    """
    The run is stopped between two commits while other runs start and end. Then it continues, and all its
    devices exist.
    """
    reading, writing = os.pipe()
    go_reading, go_writing = os.pipe()

    def before():
        real, calls = loop.set_autoclear, []

        def slow(*arguments):
            real(*arguments)
            calls.append(arguments)
            if len(calls) == 2:
                os.write(writing, b".")
                os.read(go_reading, 1)

        loop.set_autoclear = slow

    task = Run(loop_devices.main, {"devices": rows}, before=before)
    os.read(reading, 1)
    someone_else_runs(place)
    os.write(go_writing, b".")
    done = task.wait().result
    for end in (reading, writing, go_reading, go_writing):
        os.close(end)
    assert not done.get("failed") and len(left(place)) == DEVICES and os.listdir(journal.DIRECTORY) == []


def test_a_device_that_is_in_use_stays_and_is_named(place, rows):
    assert run(loop_devices.main, {"devices": rows}, before=killed_at((loop, "set_autoclear"), 2)) is None
    number = min(loopdevices.bound_files(place))
    used = os.open(f"/dev/loop{number}", os.O_RDONLY)
    try:
        warnings = str(someone_else_runs(place))
        assert list(loopdevices.bound_files(place)) == [number]
        assert f"was left unchanged, because it is in use: /dev/loop{number} (diskseq" in warnings
    finally:
        os.close(used)
    assert list(loopdevices.bound_files(place)) == [number] and os.listdir(journal.DIRECTORY) == []


def test_a_claimed_device_is_not_touched(place, rows):
    first, last = made(rows[:2])
    listed([first, last])
    remove(last)
    used = os.open(first["path"], os.O_RDONLY | os.O_EXCL)
    try:
        predicted = run(loop_device.main, rows[5], check=True)
        assert "will be rolled back" not in str(predicted.get("warnings")), "it is in use"
        with resources.Resources() as host:

            def refuse(*arguments):
                raise AssertionError("it was changed")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loop, "set_autoclear", refuse)
                told = journal.recover(host)
        assert "it is in use" in str(told) and first["path"] in str(told)
    finally:
        os.close(used)
    assert len(left(place)) == 1


@pytest.mark.parametrize("gone", range(DEVICES - 1))
def test_a_complete_journal_removes_nothing(place, rows, gone):
    """
    Devices are made persistent in the order of the list: if the last one is persistent, all of them were.
    """
    devices = made(rows)
    listed(devices)
    remove(devices[gone])
    assert someone_else_runs(place) == []
    assert len(left(place)) == DEVICES - 1 and os.listdir(journal.DIRECTORY) == []


def test_the_journal_is_removed_with_the_last_commit(place, rows):
    """finish takes longer the more entries there are, and somebody may remove a device meanwhile."""
    before = killed_at((_loop_device.LoopItem, "finish"), 1)
    assert run(loop_devices.main, {"devices": rows}, before=before) is None
    assert os.listdir(journal.DIRECTORY) == [] and len(left(place)) == DEVICES


def test_a_task_killed_during_a_late_rollback_leaves_nothing(place, rows):
    def before():
        def finish(item):
            raise journal.KernelError("it fails")

        _loop_device.LoopItem.finish = finish
        killed_at((_loop_device.LoopItem, "undo"), 2)()

    assert run(loop_devices.main, {"devices": rows}, before=before) is None
    assert len(left(place)) not in (0, DEVICES), "this is what the test is about"
    someone_else_runs(place)
    assert left(place) == [] and os.listdir(journal.DIRECTORY) == []


def test_recovered_devices_are_reported_in_check_mode_too(place, rows):
    devices = made(rows[:4])
    listed(devices)
    remove(devices[-1])
    arguments = {"backing_file": rows[5]["backing_file"], "state": "absent"}
    predicted = run(loop_device.main, arguments, check=True)
    assert len(left(place)) == 3, "check mode changes nothing"
    done = run(loop_device.main, arguments)
    assert left(place) == []
    for result, words in ((predicted, "will be rolled back"), (done, "was rolled back")):
        for device in devices[:3]:
            texts = [
                text
                for text in map(str, result["warnings"])
                if f"{device['path']} (diskseq {device['diskseq']}," in text
            ]
            assert len(texts) == 1 and words in texts[0]


def test_another_device_with_the_same_number_is_not_touched(place, rows, tmp_path):
    """
    A list with a number and another disk sequence number: the device was removed by hand, and its number was
    reused.
    """
    device = run(loop_device.main, rows[0])["device"]
    with resources.Resources() as host:
        plain = dict(
            journal._content([]),
            process=nobody(),
            devices=[[device["major"], device["minor"], device["diskseq"] - 1]],
        )
        journal._write("x", plain)
        assert journal.recover(host) == []
    assert len(left(place)) == 1 and os.listdir(journal.DIRECTORY) == []


def test_a_journal_of_another_boot_is_ignored(place, rows):
    device = run(loop_device.main, rows[0])["device"]
    with resources.Resources() as host:
        plain = dict(
            journal._content([]),
            boot="another",
            devices=[[device["major"], device["minor"], device["diskseq"]]],
        )
        journal._write("x", plain)
        assert journal.recover(host) == []
    assert len(left(place)) == 1 and os.listdir(journal.DIRECTORY) == []


def killed_removal(row, used):
    """A removal that is killed after the kernel has set autoclear on the device."""

    def before():
        real = fcntl.ioctl

        def ioctl(fd, request, *arguments):
            result = real(fd, request, *arguments)
            if request == loopdevices.LOOP_CLR_FD:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        fcntl.ioctl = ioctl

    assert run(loop_device.main, dict(row, state="absent", **used), before=before) is None


def test_a_device_in_use_survives_its_killed_removal(place, rows):
    device = made(rows[:1])[0]
    with open(device["path"], "rb", buffering=0):
        killed_removal(rows[0], {})
        warnings = str(someone_else_runs(place))
        assert f"which stays: {device['path']} (diskseq {device['diskseq']}," in warnings
    assert len(left(place)) == 1 and os.listdir(journal.DIRECTORY) == []
    assert not run(loop_device.main, rows[0])["changed"]


def test_the_same_removal_again_removes_it(place, rows):
    device = made(rows[:1])[0]
    with open(device["path"], "rb", buffering=0):
        killed_removal(rows[0], {})
        refused = run(loop_device.main, dict(rows[0], state="absent", timeout=0))
        assert refused["failed"] and "in use" in refused["msg"] and not refused["changed"]
    assert len(left(place)) == 1
    assert run(loop_device.main, dict(rows[0], state="absent"))["changed"] and left(place) == []


def test_a_deferred_removal_survives_a_killed_removal(place, rows):
    """If autoclear was already set before the killed removal, it stays set."""
    device = made(rows[:1])[0]
    with open(device["path"], "rb", buffering=0) as node:
        changed = run(loop_device.main, dict(rows[0], persist=False, hold=0))
        assert changed["changed"]
        killed_removal(rows[0], {})
        assert someone_else_runs(place) == []
        assert not node.closed and len(left(place)) == 1
    assert left(place) == [] and os.listdir(journal.DIRECTORY) == []


def test_a_removal_that_cannot_be_journalled_is_not_started(place, rows):
    made(rows[:2])

    def before():
        def refuse(name, plain):
            raise journal.KernelError("no space", device=journal.DIRECTORY)

        journal._write = refuse

    for on_error in ("rollback", "keep"):
        entries = [dict(row, state="absent") for row in rows[:2]]
        result = run(loop_devices.main, {"devices": entries, "on_error": on_error}, before=before)
        assert [row.get("failed") for row in result["devices"]] == [True, True] and not result["changed"]
        assert len(left(place)) == 2


def plain_list(**changed):
    return json.dumps({**journal._content([]), "process": nobody(), **changed})


FOREIGN = {
    "empty": lambda: "",
    "no-json": lambda: "[]junk",
    "binary": lambda: "\udcff",
    "object": lambda: "{}",
    "list": lambda: "[1]",
    "number": lambda: "7",
    "text": lambda: '"x"',
    "null": lambda: "null",
    "cut": lambda: plain_list()[:-5],
    "deep": lambda: "[" * 100000,
    "no-pid": lambda: json.dumps({"boot": boot.boot_id()}),
    "pid": lambda: plain_list(process="7-x"),
    "word": lambda: plain_list(devices=[[7, "a", 3]]),
    "short": lambda: plain_list(devices=[[7]]),
    "rows": lambda: plain_list(devices=5),
    "huge": lambda: plain_list(devices=[[7, 0, 2**70]]),
    "true": lambda: plain_list(devices=[[7, 0, True]]),
    "removal": lambda: plain_list(removing=[[7, 0]]),
}


def is_told_and_stops_nobody(place, rows, name):
    for check in (True, False):
        with loopdevices.at_most(60):
            result = run(loop_device.main, dict(rows[0], state="present"), check=check)
        texts = [text for text in map(str, result["warnings"]) if f"{journal.DIRECTORY}/{name}" in text]
        assert not result.get("failed") and len(texts) == 1 and "Remove it" in texts[0], (check, result)
    assert len(left(place)) == 1 and os.listdir(journal.DIRECTORY) == [name]


@pytest.mark.parametrize("kind", FOREIGN)
def test_an_invalid_journal_is_reported_but_stops_no_task(place, rows, kind):
    os.mkdir(journal.DIRECTORY)
    with open(f"{journal.DIRECTORY}/{kind}", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(FOREIGN[kind]())
    is_told_and_stops_nobody(place, rows, kind)


@pytest.mark.parametrize("name", ["x", ".x"])
@pytest.mark.parametrize("kind", ["dir", "fifo", "socket", "link"])
def test_files_that_are_not_regular_are_not_opened(place, rows, kind, name):
    os.mkdir(journal.DIRECTORY)
    loopdevices.special_file(f"{journal.DIRECTORY}/{name}", kind)
    if kind == "link":
        # A link to a valid list is not a list either.
        os.unlink(f"{journal.DIRECTORY}/{name}.fifo")
        os.unlink(f"{journal.DIRECTORY}/{name}")
        with open(f"{place}/a-list", "w", encoding="ascii") as file:
            file.write(plain_list())
        os.symlink(f"{place}/a-list", f"{journal.DIRECTORY}/{name}")
    is_told_and_stops_nobody(place, rows, name)


def test_a_file_of_another_user_is_no_journal(place, rows):
    os.mkdir(journal.DIRECTORY)
    with open(f"{journal.DIRECTORY}/x", "w", encoding="ascii") as file:
        file.write(plain_list())
    os.chown(f"{journal.DIRECTORY}/x", 1234, 1234)
    is_told_and_stops_nobody(place, rows, "x")


def test_killed_at_any_moment(place, rows):
    """The next run finds all devices or none, and the same task, repeated, creates all."""
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
        # A device with autoclear may be open briefly by a prober.
        end = time.monotonic() + 5
        while len(left(place)) not in (0, DEVICES) and time.monotonic() < end:
            time.sleep(0.01)
        assert len(left(place)) in (0, DEVICES), number
        again = run(loop_devices.main, {"devices": rows})
        assert not again.get("failed") and len(left(place)) == DEVICES, number
