# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Two concurrent runs of a module, on loop devices and keys of this machine, end as if one had run after the
other.

RACEFREE_PAIRS is the number of pairs of each kind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import locks
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._source import for_guest, opener, resources, spec
from ansible_collections.racefree.block.plugins.module_utils._volumes import snapshot_store
from ansible_collections.racefree.block.plugins.modules import (
    kernel_key,
    loop_device,
    loop_devices,
    snapshot_stores,
)
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.runs import Run, at_once, run

PAIRS = int(os.environ.get("RACEFREE_PAIRS", "12"))


@pytest.fixture
def place():
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        yield path
        leave_none(path)


def leave_none(path):
    for number in loopdevices.bound_files(path):
        check_good(run(loop_device.main, {"path": f"/dev/loop{number}", "state": "absent"}))
    assert loopdevices.nothing_bound(path)


def check_good(*results):
    for result in results:
        assert result is not None and not result.get("failed"), result


def test_the_same_file_twice(place):
    """There is one device, and one of the runs has created it."""
    path = loopdevices.image(place, "disk")
    os.link(path, path + ".hard")
    os.symlink(path, path + ".link")
    for number in range(PAIRS):
        other = path + ("", ".hard", ".link")[number % 3]
        results = at_once(loop_device.main, {"backing_file": path}, {"backing_file": other})
        check_good(*results)
        assert len(loopdevices.bound_files(place)) == 1
        assert len({result["device"]["diskseq"] for result in results}) == 1
        assert sorted(result["changed"] for result in results) == [False, True]
        assert all(result["device"]["persist"] for result in results)
        leave_none(place)


def test_the_same_file_twelve_times(place):
    path = loopdevices.image(place, "disk")
    results = at_once(loop_device.main, *[{"backing_file": path}] * 12)
    check_good(*results)
    assert (
        len(loopdevices.bound_files(place)) == 1
        and [result["changed"] for result in results].count(True) == 1
    )


def test_lists_that_overlap(place):
    """In opposite orders: there is no deadlock, and each file has one device."""
    paths = [loopdevices.image(place, str(number)) for number in range(6)]
    for dummy in range(PAIRS):
        results = at_once(
            loop_devices.main,
            {"devices": [{"backing_file": path} for path in paths[:4]]},
            {"devices": [{"backing_file": path} for path in paths[:1:-1]]},
        )
        check_good(*results)
        assert sorted(loopdevices.bound_files(place).values()) == paths
        rows = [
            (row["device"]["backing_file"], row["changed"]) for result in results for row in result["devices"]
        ]
        assert sorted(path for path, changed in rows if changed) == paths
        leave_none(place)


def test_one_run_creates_and_one_removes(place):
    """
    Either the device was created and then removed, or nothing was removed and it was created. The results
    must say which.
    """
    path = loopdevices.image(place, "disk")
    for number in range(PAIRS):
        wants = [{"backing_file": path}, {"backing_file": path, "state": "absent"}]
        made, removed = (
            at_once(loop_device.main, *wants) if number % 2 else at_once(loop_device.main, *wants[::-1])[::-1]
        )
        check_good(made, removed)
        assert made["changed"]
        assert len(loopdevices.bound_files(place)) == (0 if removed["changed"] else 1)
        leave_none(place)


def test_an_existing_device_that_the_other_run_removes(place):
    """The same with an existing device: it is kept and then removed, or removed and then created again."""
    path = loopdevices.image(place, "disk")
    for number in range(PAIRS):
        before = run(loop_device.main, {"backing_file": path})["device"]["diskseq"]
        wants = [{"backing_file": path}, {"backing_file": path, "state": "absent"}]
        made, removed = (
            at_once(loop_device.main, *wants) if number % 2 else at_once(loop_device.main, *wants[::-1])[::-1]
        )
        check_good(made, removed)
        assert removed["changed"] and removed["gone"]
        assert len(loopdevices.bound_files(place)) == int(made["changed"])
        assert (made["device"]["diskseq"] == before) != made["changed"]
        leave_none(place)


def test_two_runs_that_remove(place):
    """One by the file, the other by the device's path. One of them has removed it."""
    path = loopdevices.image(place, "disk")
    for dummy in range(PAIRS):
        device = run(loop_device.main, {"backing_file": path})["device"]
        results = at_once(
            loop_device.main,
            {"backing_file": path, "state": "absent"},
            {"path": device["path"], "diskseq": device["diskseq"], "state": "absent"},
        )
        good = [result for result in results if not result.get("failed")]
        assert [result["changed"] for result in good].count(True) == 1
        # The path may lead to another device by now, or to none: that is not a bug.
        assert all(
            result["error"]["kind"] in ("WrongDevice", "DeviceGone")
            for result in results
            if result.get("failed")
        )
        assert loopdevices.nothing_bound(place)


def test_different_files_do_not_wait_for_each_other(place):
    """Another run keeps the lock of one file. The run for the other file still ends."""
    first, second = loopdevices.image(place, "1"), loopdevices.image(place, "2")
    with locks.held(locks.of_file(first)):
        check_good(run(loop_device.main, {"backing_file": second}))
        assert list(loopdevices.bound_files(place).values()) == [second]


def test_the_message_names_the_process_waited_for(place):
    path = loopdevices.image(place, "disk")

    def impatient():
        loop_device.run_one.__globals__["Item"].LOCK_SECONDS = 0

    with locks.held(locks.of_file(path)):
        result = run(loop_device.main, {"backing_file": path}, before=impatient)
    assert result["failed"] and not result["changed"], result
    assert f"process {os.getpid()} (" in result["msg"] and f"the file {path}" in result["msg"]
    assert not loopdevices.bound_files(place)


def test_check_mode_does_not_wait(place):
    path = loopdevices.image(place, "disk")
    with locks.held(locks.of_file(path)):
        assert run(loop_device.main, {"backing_file": path}, check=True)["changed"]


def test_a_second_device_of_another_program_is_detected(place):
    """
    losetup takes no lock. A device that it binds just before ours is found when the index is read again, and
    ours is removed.
    """
    path = loopdevices.image(place, "disk")
    module = loop_device.LoopItem
    descriptors = []

    def losetup_first():
        real = module._create

        def create(item):
            descriptors.append(loopdevices.bind_free(path, 0)[0])
            real(item)

        module._create = create

    result = run(loop_device.main, {"backing_file": path}, before=losetup_first)
    assert result["failed"] and not result["changed"] and "another program bound it" in result["msg"], result
    assert len(loopdevices.bound_files(place)) == 1
    again = run(loop_device.main, {"backing_file": path})
    assert not again["changed"] and len(loopdevices.bound_files(place)) == 1


def test_the_same_key_twice():
    """Payload and marker match, whichever run was last."""
    name = f"racefree:test-{os.getpid()}"
    try:
        for dummy in range(PAIRS):
            wants = [{"description": name, "payload": digit * 64} for digit in "12"]
            results = at_once(kernel_key.main, *wants)
            if any(
                "keyctl" in str(result.get("msg")) or "EPERM" in str(result.get("msg")) for result in results
            ):
                pytest.skip("this kernel or container has no keyrings for root")
            check_good(*results)
            right = [want for want in wants if not run(kernel_key.main, want, check=True)["changed"]]
            assert len(right) == 1, "the key has one of the payloads, and the marker tells which"
            last = max(results, key=lambda result: (result["key"]["serial"] is not None, result["changed"]))
            assert last["changed"]
    finally:
        run(kernel_key.main, {"description": name, "state": "absent"})


def store_of(image, record):
    return {"stores": [{"path": record, "image": image}]}


def test_the_same_store_twice(tmp_path):
    """Two images for one empty store: the record is complete, for one of them, and no other file is left."""
    images = [
        loopdevices.image(tmp_path, f"image{number}", content=str(number).encode()) for number in (1, 2)
    ]
    store = loopdevices.image(tmp_path, "store")
    for dummy in range(PAIRS):
        results = at_once(snapshot_stores.main, *(store_of(image, store) for image in images))
        check_good(*results)
        assert all(result["changed"] for result in results)
        assert snapshot_store.read_record(store).path in images
        assert sorted(os.listdir(tmp_path)) == ["image1", "image2", "store", "store.image"]
        os.unlink(store + ".image")


def test_concurrent_writes_without_a_lock_leave_a_whole_record(tmp_path):
    """
    Like two hosts with a shared file system: each run has its own temporary file, and neither file is left.
    """
    store = loopdevices.image(tmp_path, "store")
    children = []
    for name in ("one", "other"):
        pid = os.fork()
        if not pid:
            try:
                os.uname = lambda name=name: types.SimpleNamespace(nodename=name)
                for number in range(200):
                    snapshot_store.write_record(store, snapshot_store.Image(f"/{name}", number, 0, "0" * 64))
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    assert snapshot_store.read_record(store).size == 199
    assert sorted(os.listdir(tmp_path)) == ["store", "store.image"]


def test_partial_files_of_a_killed_run_are_removed(tmp_path):
    image, store = loopdevices.image(tmp_path, "image", content=b"1"), loopdevices.image(tmp_path, "store")

    def killed():
        snapshot_store.os.rename = lambda *names: os.kill(os.getpid(), signal.SIGKILL)

    assert run(snapshot_stores.main, store_of(image, store), before=killed) is None
    assert len(os.listdir(tmp_path)) == 3 and snapshot_store.read_record(store) is None
    check_good(run(snapshot_stores.main, store_of(image, store)))
    assert sorted(os.listdir(tmp_path)) == ["image", "store", "store.image"]


def test_one_store_in_failing_and_good_runs(tmp_path):
    """A run rolls back only its own record, never a record that another run has written."""
    image = loopdevices.image(tmp_path, "image", content=b"1")
    store = loopdevices.image(tmp_path, "store")
    bad = {
        "stores": [
            {"path": store, "image": image},
            {"path": str(tmp_path / "none" / "store"), "image": image},
        ]
    }
    for dummy in range(PAIRS):
        good, failed = at_once(snapshot_stores.main, store_of(image, store), bad)
        check_good(good)
        assert failed["failed"]
        assert snapshot_store.read_record(store) is not None
        assert sorted(os.listdir(tmp_path)) == ["image", "store", "store.image"]
        os.unlink(store + ".image")


def test_a_killed_run_does_not_block_the_next_one(place):
    path = loopdevices.image(place, "disk")
    for number in range(PAIRS):
        first = Run(loop_device.main, {"backing_file": path})
        second = Run(loop_device.main, {"backing_file": path})
        first.kill()
        first.wait()
        result = second.wait().result
        check_good(result)
        assert len(loopdevices.bound_files(place)) == 1, number
        leave_none(place)


@pytest.mark.parametrize("writes", [True, False])
def test_two_writers_of_the_same_area_are_refused_before_anything_is_created(place, writes):
    """In check mode, too. A reader and a writer are allowed, because this is often intended."""
    path = loopdevices.image(place, "disk", 1 << 20)
    rows = [
        {"backing_file": path, "size": 524800},
        {"backing_file": path, "offset": 524288, "read_only": not writes},
    ]
    for check in (True, False):
        result = run(loop_devices.main, {"devices": rows}, check=check)
        assert bool(result.get("failed")) == writes
        if writes:
            assert "another entry of the list" in result["msg"] and result["msg"].endswith(
                "Nothing was begun (on_error=rollback)"
            )
            assert loopdevices.nothing_bound(place)
        else:
            assert [row["changed"] for row in result["devices"]] == [True, True]


@pytest.mark.parametrize("second", [{"offset": 524800}, {"offset": 524288, "overlap": True}])
def test_two_entries_for_one_file_are_created_if_they_do_not_overlap_or_may(place, second):
    path = loopdevices.image(place, "disk", 1 << 20)
    rows = [{"backing_file": path, "size": 524800}, dict(second, backing_file=path)]
    for check in (True, False):
        check_good(run(loop_devices.main, {"devices": rows}, check=check))
    assert len(loopdevices.bound_files(place)) == 2


@pytest.mark.parametrize("check", [True, False])
def test_a_task_that_fails_in_planning_rolls_nothing_back(place, check):
    rows = [{"backing_file": loopdevices.image(place, "disk")}, {"backing_file": f"{place}/nowhere"}]
    result = run(loop_devices.main, {"devices": rows}, check=check)
    assert (
        result["failed"] and "Nothing was begun" in result["msg"] and "was rolled back" not in result["msg"]
    )


def test_all_locks_of_guests_files_are_taken_in_one_order_with_a_deadline(place):
    """
    A run holds the second file's lock and waits for the first one's. A run that needs both takes the first
    one first.
    """
    files = [loopdevices.image(place, name) for name in "abc"]
    first, second = sorted(files[:2], key=lambda path: locks.of_file(path)[0].offset)
    sources = [spec.parse({"file": path, "read_only": True}) for path in (second, first)]
    with locked_by_another(first), resources.Resources() as host:
        with pytest.raises(locks.Unavailable):
            for_guest.take_turn(host, sources, Deadline(0))
        assert not any(host.locks.has(lock) for path in files for lock in locks.of_file(path)), (
            "it keeps what another waits for"
        )
        with pytest.raises(locks.Unavailable):
            opener.Opener(host, limit=Deadline(0)).open(sources[1])


def test_a_file_that_takes_the_others_path_is_not_waited_for(place):
    """
    The caller holds the lock of the source, and one that is taken after it (``disk_device.locked``). By then
    the path leads to another file, which another run works on.
    """
    image, other = (loopdevices.image(place, name) for name in "ab")
    source = spec.parse({"file": image, "read_only": True})
    with locked_by_another(other), resources.Resources() as host:
        for_guest.take_turn(host, [source], Deadline(5))
        os.rename(other, image)
        start = time.monotonic()
        with pytest.raises(locks.Unavailable, match=f"to finish with the file {image}"):
            for_guest.open_in_turn(host, source, Deadline(10), read_only=True)
        assert time.monotonic() - start < 2
        assert not any(host.locks.has(lock) for lock in locks.of_file(image))
    with resources.Resources() as host:
        assert for_guest.open_in_turn(host, source, Deadline(10), read_only=True).path.startswith("/dev/loop")


@contextlib.contextmanager
def locked_by_another(path):
    """Another process holds the lock of the file."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            with locks.held(locks.of_file(path)):
                os.write(writing, b".")
                signal.pause()
        finally:
            os._exit(1)
    try:
        os.read(reading, 1)
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
