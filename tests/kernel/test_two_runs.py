# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Two runs at the same moment, and runs that are killed while they make their devices permanent, on a real
kernel with device-mapper.

tests/unit/plugins/module_utils/_module/test_two_runs.py has the tests with loop devices only. RACEFREE_PAIRS
sets the number of pairs of each kind.
"""

from __future__ import annotations

import json
import os
import signal

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import locks
from ansible_collections.racefree.block.plugins.module_utils._block import bound, loop
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from ansible_collections.racefree.block.plugins.module_utils._dm import lifetime
from ansible_collections.racefree.block.plugins.module_utils._source import journal
from conftest import Failed, run_module, udev_settle, wait_until

PAIRS = int(os.environ.get("RACEFREE_PAIRS", "4"))
MIB = 2**20


class Run:
    """Run a module in a separate process; ``before`` is called there first."""

    def __init__(self, module, before=None, **arguments):
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                if before is not None:
                    before()
                try:
                    result = run_module(module, **arguments)
                except Failed as failed:
                    result = failed.result
                os.write(writing, json.dumps(result).encode())
                os._exit(0)
            finally:
                os._exit(1)
        os.close(writing)

    def wait(self):
        """The module's result; None for a killed run."""
        with open(self._reading, "rb") as pipe:
            text = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert status in (0, -signal.SIGKILL), status
        return json.loads(text) if text else None


def at_once(*wanted):
    """The results of runs of ``(module, arguments)`` that start at the same time."""
    return [run.wait() for run in [Run(module, **arguments) for module, arguments in wanted]]


def check_good(*results):
    for result in results:
        assert result is not None and not result.get("failed"), result


def linear(path, sectors=2048):
    return [{"start": 0, "length": sectors, "target": "linear", "device": {"file": path}, "offset": 0}]


def loops_of(*paths):
    """The number of loop devices of each file."""
    inodes = [os.stat(path).st_ino for path in paths]
    found = []
    for device, status in bound.open_bound():
        with device:
            found.append(status.backing_inode)
    return [found.count(inode) for inode in inodes]


def mapped(prefix):
    with _control.Control() as control:
        return sorted(
            name
            for name in (os.fsdecode(entry.name) for entry in control.list_devices())
            if name.startswith(prefix)
        )


def remove(*names, files=()):
    for name in names:
        check_good(Run("dm_device", name=name, state="absent").wait())
    for path in files:
        check_good(Run("loop_device", backing_file=path, state="absent").wait())
    udev_settle()


@pytest.mark.rotated
@pytest.mark.parametrize("uuid", [None, "TEST-{name}"])
def test_the_same_mapped_device_twice(image, name, uuid):
    """There is one device over one loop device, and one of the runs made it."""
    path = image(size=MIB)
    wanted = {"name": name, "table": linear(path), "uuid": uuid and uuid.format(name=name)}
    for dummy in range(PAIRS):
        results = at_once(("dm_device", wanted), ("dm_device", wanted))
        check_good(*results)
        assert sorted(result["changed"] for result in results) == [False, True]
        assert len({result["device"]["diskseq"] for result in results}) == 1
        assert mapped(name) == [name] and loops_of(path) == [1]
        remove(name, files=[path])


@pytest.mark.rotated
def test_one_uuid_under_two_names(image, name):
    """One of the runs makes the device, and the other one renames it."""
    path = image(size=MIB)
    names = [f"{name}-1", f"{name}-2"]
    for dummy in range(PAIRS):
        results = at_once(
            *(("dm_device", {"name": each, "uuid": f"TEST-{name}", "table": linear(path)}) for each in names)
        )
        check_good(*results)
        assert len({result["device"]["diskseq"] for result in results}) == 1 and all(
            result["changed"] for result in results
        )
        assert len(mapped(name)) == 1 and loops_of(path) == [1]
        remove(*mapped(name), files=[path])


@pytest.mark.rotated
def test_two_mapped_devices_over_one_file(image, name):
    """Two devices over one loop device."""
    path = image(size=2 * MIB)
    for dummy in range(PAIRS):
        tables = [linear(path), [dict(linear(path)[0], offset=2048)]]
        results = at_once(
            *(
                ("dm_device", {"name": f"{name}-{number}", "table": table})
                for number, table in enumerate(tables)
            )
        )
        check_good(*results)
        assert mapped(name) == [f"{name}-0", f"{name}-1"] and loops_of(path) == [1]
        remove(*mapped(name), files=[path])


def test_a_device_over_a_file_that_another_run_binds_meanwhile(image):
    """The second run has looked at the file, and waits for its lock while the first one makes the device."""
    path = image("file.raw")
    reading, writing = os.pipe()
    with locks.held(locks.of_file(path)):
        second = Run("loop_device", lambda: tell_of_waiting(writing), backing={"file": path})
        os.close(writing)
        assert os.read(reading, 1)
        first = run_module("loop_device", backing_file=path)["device"]
    os.close(reading)
    found = second.wait()
    check_good(found)
    assert found["device"]["backing"]["name"] == first["name"] and loops_of(path) == [1]
    check_good(Run("loop_device", diskseq=found["device"]["diskseq"], state="absent").wait())
    remove(files=[path])


def tell_of_waiting(pipe):
    """Let this process write to the pipe when it waits for a lock that somebody else holds."""
    wait = locks._wait

    def tell(lock, limit):
        os.write(pipe, b".")
        wait(lock, limit)

    locks._wait = tell


@pytest.mark.rotated
def test_one_makes_it_and_one_removes_it(image, name):
    path = image(size=MIB)
    for number in range(PAIRS):
        wants = [
            ("dm_device", {"name": name, "table": linear(path)}),
            ("dm_device", {"name": name, "state": "absent"}),
        ]
        made, removed = at_once(*wants) if number % 2 else at_once(*wants[::-1])[::-1]
        check_good(made, removed)
        assert made["changed"] and mapped(name) == ([] if removed["changed"] else [name])
        remove(name, files=[path])


@pytest.mark.rotated
def test_a_pool_that_is_not_live_for_two_runs(image, name):
    """They activate it one after the other, also in check mode, and it has the volumes of both."""
    meta, data = image("meta", 4 * MIB), image("data", 16 * MIB)
    line = {
        "start": 0,
        "length": 32768,
        "target": "thin-pool",
        "metadata": {"file": meta},
        "data": {"file": data},
        "block_size": 128,
        "low_water_mark": 0,
    }
    pool = {"name": name, "uuid": f"TEST-{name}", "table": [line]}
    for number in range(PAIRS):
        wanted = [{"pool": pool, "volumes": [{"id": 2 * number + each}]} for each in range(2)]
        results = at_once(
            ("thin_volumes", wanted[0]),
            ("thin_volumes", wanted[1]),
            ("thin_volumes", dict(wanted[0], check=True)),
        )
        check_good(*results)
        assert [result["changed"] for result in results[:2]] == [True, True]
        wait_until(lambda: mapped(name) == [] and loops_of(meta, data) == [0, 0])
    every = [{"id": number} for number in range(2 * PAIRS)]
    assert not Run("thin_volumes", pool=pool, volumes=every).wait()["changed"]


@pytest.mark.rotated
@pytest.mark.parametrize("step", range(1, 6))
def test_a_task_that_is_killed_between_its_commits(image, name, step):
    """Two mapped devices over different files: the next run removes all of it."""
    files = [image(f"{number}", MIB) for number in range(4)]
    devices = [
        {
            "name": f"{name}-{number}",
            "table": linear(files[2 * number]) + [dict(linear(files[2 * number + 1])[0], start=2048)],
        }
        for number in range(2)
    ]

    def before():
        calls = []

        def counted(real):
            def call(*arguments):
                real(*arguments)
                calls.append(arguments)
                if len(calls) == step:
                    os.kill(os.getpid(), signal.SIGKILL)

            return call

        lifetime.set_persist, loop.set_autoclear = counted(lifetime.set_persist), counted(loop.set_autoclear)

    # The killed process is the one that does the module's work; the module reports it.
    assert "was killed" in Run("dm_devices", devices=devices, before=before).wait()["msg"]
    assert sum(loops_of(*files)) > 0 and len(os.listdir(journal.DIRECTORY)) == 1
    other = image("other", MIB)
    check_good(Run("loop_device", backing_file=other).wait())
    wait_until(lambda: mapped(name) == [] and sum(loops_of(*files)) == 0)
    assert os.listdir(journal.DIRECTORY) == []
    done = Run("dm_devices", devices=devices).wait()
    check_good(done)
    assert [row["changed"] for row in done["devices"]] == [True, True] and loops_of(*files) == [1] * 4
    remove(*mapped(name), files=[*files, other])
