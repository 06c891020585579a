# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
On a real kernel, somebody else makes, renames and removes mapped devices of the same name or UUID between any
two steps of a module.

They act right before an ioctl of the module, through their own control node. Their devices must not be
changed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    BlockError,
    DeviceBusy,
    DeviceGone,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._dm import (
    control as _control,
)
from ansible_collections.racefree.block.plugins.module_utils._dm import load, mapped, names, udev
from ansible_collections.racefree.block.plugins.module_utils._dm import removal as _removal
from ansible_collections.racefree.block.plugins.module_utils._module import worker
from ansible_collections.racefree.block.plugins.module_utils._source import opener, resources, spec
from conftest import Failed, predict_and_run, refused, run_module, udev_settle, wait_until

# Handling udev's events takes longer than the tests. Use RACEFREE_TRIES=200 by hand.
TRIES = int(os.environ.get("RACEFREE_TRIES") or 12)
ZERO = ((0, 2048, b"zero", b""),)
THEIRS = ((0, 4096, b"error", b""),)
by_name, by_uuid, by_number = _control.by_name, _control.by_uuid, _control.by_number


class Other:
    """The devices of somebody else, and what happened to them."""

    def __init__(self):
        self.control = _control.Control()
        self.made = {}

    def make(self, name, uuid="", table=THEIRS):
        """Make a live device (or one without a table) that stays, unless the kernel refuses it."""
        with contextlib.suppress(BlockError):
            status = self.control.create(name, uuid)
            if table:
                self.control.load(by_name(name), table)
                self.control.resume(by_name(name))
            self.made[status.major, status.minor] = (name, uuid, table)

    def remove(self, address):
        """Remove whatever has this name or UUID now, unless it is in use."""
        with contextlib.suppress(BlockError):
            number = self.control.status(address)
            self.control.remove(address)
            self.made.pop((number.major, number.minor), None)

    def rename(self, name, new_name):
        with contextlib.suppress(BlockError):
            renamed = self.control.rename(by_name(name), new_name)
            number = (renamed.major, renamed.minor)
            if number in self.made:
                self.made[number] = (new_name,) + self.made[number][1:]

    def check(self):
        """Check that each of these devices is unchanged."""
        for number, (name, uuid, table) in self.made.items():
            status, lines = self.control.table(by_number(*number))
            assert (status.name, status.uuid, status.suspended, status.deferred_remove) == (
                name,
                uuid,
                False,
                False,
            )
            assert tuple(tuple(line) for line in lines) == table

    def close(self):
        for number in list(self.made):
            self.control.remove(by_number(*number), deferred=True)
        self.control.__exit__(None, None, None)


@pytest.fixture
def other():
    one = Other()
    yield one
    one.close()
    udev_settle()


@pytest.fixture
def before(monkeypatch):
    """
    ``before(method, act, which=1)``: ``act()`` runs right before the which-th ioctl of this kind from now on,
    once.
    """
    originals = {}
    # The module works in this process, so that the test can act between its steps.
    monkeypatch.setattr(worker, "IN_PROCESS", True)

    def arm(method, act, which=1):
        original = originals.setdefault(method, getattr(_control.Control, method))
        seen = []

        def attacked(self, *args, **kwargs):
            seen.append(method)
            if len(seen) == which:
                act()
            return original(self, *args, **kwargs)

        monkeypatch.setattr(_control.Control, method, attacked)

    yield arm


def ours(control, name="", uuid=""):
    """The status of the device with this name or UUID, or None."""
    try:
        return control.status(by_uuid(uuid) if uuid else by_name(name))
    except DeviceGone:
        return None


def nothing_private(control):
    """No temporary name of the collection is left; udev may have a device open for a moment."""
    wait_until(lambda: not left_private(control))
    return True


def left_private(control):
    return [entry.name for prefix in (names.MAKING, names.CLAIMED) for entry in control.list_devices(prefix)]


STEPS = ("create", "load", "rename", "remove", "resume", "status")


@pytest.mark.parametrize("step", STEPS)
def test_made_while_another_takes_the_name_and_the_uuid(name, control, other, before, step):
    """The module makes its device, or the error says who has the name. The other device is unchanged."""
    uuid = f"SHARED-{name}"
    outcomes = {"made": 0, "refused": 0}
    for number in range(TRIES):

        def act(choice=number % 4):
            """The other program removes what it finds, and makes its own device."""
            other.remove(by_uuid(uuid))
            other.remove(by_name(name))
            if choice & 1:
                other.make(name, uuid if choice & 2 else "")
            else:
                other.make(f"{name}-other", uuid)

        before(step, act)
        try:
            device = mapped.make(control, name, uuid, load.Table(ZERO), 0, persist=False)
        except (DeviceBusy, DeviceGone, WrongDevice):
            outcomes["refused"] += 1
        else:
            with device:
                outcomes["made"] += 1
                status, lines = control.table(_control.by_device(device))
                assert (status.name, status.uuid, tuple(lines[0])) == (name, uuid, ZERO[0])
        other.check()
        other.remove(by_name(name))
        other.remove(by_name(f"{name}-other"))
        assert nothing_private(control)
    assert sum(outcomes.values()) == TRIES and outcomes["refused"] + outcomes["made"] > 0


def test_a_failed_load_rolls_back_no_other_device(name, control, other, before):
    uuid = f"SHARED-{name}"
    for dummy in range(TRIES):

        def act():
            other.remove(by_name(name))
            other.make(f"{name}-other", uuid)

        before("load", act)
        with pytest.raises(BlockError) as caught:
            mapped.make(control, name, uuid, load.Table(((0, 2048, b"linear", b"4095:77 0"),)), 0)
        assert caught.value.device == name
        other.check()
        other.remove(by_name(f"{name}-other"))
        assert nothing_private(control)


@pytest.mark.parametrize("what", ["dropped", "replaced"])
def test_another_program_changes_the_table_of_a_device_that_is_being_made(name, control, other, before, what):
    """Right before the resume, which succeeds then: the device is not said to be made, and is removed."""

    def act():
        if what == "dropped":
            other.control.clear(by_name(name))
        else:
            other.control.load(by_name(name), THEIRS)

    before("resume", act)
    with pytest.raises(DeviceBusy, match=f"another program {what} its table before it was live"):
        mapped.make(control, name, f"OWN-{name}", load.Table(ZERO), 0)
    wait_until(lambda: ours(control, name) is None)
    assert nothing_private(control)


@pytest.mark.parametrize("own_uuid", ["", "OWN"])
@pytest.mark.parametrize("step", ["status", "rename", "remove"])
def test_a_device_without_a_table_that_became_another_stays(name, control, other, before, step, own_uuid):
    """
    Between the look and the removal, its name passes to a live device, or to a device with another UUID.
    """
    gone = 0
    uuid = own_uuid and f"{own_uuid}-{name}"
    for number in range(TRIES):
        control.create(name, uuid)
        found = control.status(by_name(name))

        def act(choice=number % 3):
            other.remove(by_name(name))
            # So that another device has the number, too.
            other.make(f"{name}-number")
            other.make(name, ("", f"THEIRS-{name}", uuid)[choice], () if choice == 1 else THEIRS)

        before(step, act)
        try:
            _removal.remove_without_table(control, found)
            gone += 1
        except (WrongDevice, DeviceGone, DeviceBusy):
            pass
        other.check()
        for rest in (name, f"{name}-number"):
            other.remove(by_name(rest))
        assert nothing_private(control) and ours(control, name) is None
    assert gone == 0 or step == "remove"


def test_absent_beside_one_that_has_to_be_waited_for(name, other, before):
    """
    While the module removes the first device of a list, the name of the second one passes to another device.
    """
    for dummy in range(TRIES // 4):
        run_module("dm_device", name=f"{name}-a", table="0 8 zero")
        other.control.create(name)

        def act():
            other.remove(by_name(name))
            other.make(name, f"THEIRS-{name}")

        before("remove", act)
        with pytest.raises(Failed) as caught:
            run_module(
                "dm_devices",
                devices=[{"name": f"{name}-a", "state": "absent"}, {"name": name, "state": "absent"}],
            )
        assert (
            "another device" in str(caught.value)
            and caught.value.result["devices"][1]["error"]["kind"] == "WrongDevice"
        )
        other.check()
        other.remove(by_name(name))


def test_renamed_while_another_takes_the_old_name(name, control, other, before):
    """
    The kernel renames by the old name, which is read last: only two renames between two ioctls could mislead
    it.
    """
    uuid, moved = f"MINE-{name}", f"{name}-moved"
    for dummy in range(TRIES):
        with mapped.make(control, name, uuid, load.Table(ZERO), 0, persist=False) as device:

            def act():
                other.rename(name, moved)
                other.make(name, f"THEIRS-{name}")

            before("rename", act)
            assert mapped.rename(control, device, f"{name}-new", 0)
            assert control.status(by_uuid(uuid)).name == f"{name}-new"
            other.check()
        other.remove(by_name(name))
        udev_settle()


def test_another_device_that_was_renamed_has_its_name_back(name, control, other, before):
    """The other program acts between reading the name and the rename."""
    uuid, new = f"MINE-{name}", f"{name}-new"
    for number in range(TRIES):
        with mapped.make(control, name, uuid, load.Table(ZERO), 0, persist=False) as device:

            def act(third=number % 2):
                other.rename(name, f"{name}-moved")
                other.make(name, f"THEIRS-{name}")
                if third:
                    before("_call", lambda: other.make(name, f"THIRD-{name}"))

            # Read the name, read it again, renamed.
            before("_call", act, which=3)
            with pytest.raises(WrongDevice) as caught:
                mapped.rename(control, device, new, 0)
            if number % 2:
                # Its old name is in use, so it cannot get it back, and the message says so.
                assert f"HAS THE NAME {new} AND WAS {name}" in str(caught.value)
                other.rename(new, f"{name}-back")
            else:
                assert f"has its name {name} back" in str(caught.value)
                other.check()
        for rest in (name, new, f"{name}-back"):
            other.remove(by_name(rest))
        udev_settle()


def test_two_runs_make_one_device(name, control, before):
    """
    The second run makes the device while the first one is at it: the first one uses it, as if it had come
    later.
    """
    source = spec.parse(
        {"table": [{"start": 0, "length": 2048, "target": "zero"}], "name": name, "uuid": f"POOL-{name}"}
    )
    for step in ("create",):
        with resources.Resources() as first, resources.Resources() as second:
            made = []
            before(step, lambda made=made: made.append(opener.Opener(second).open(source)))
            assert opener.Opener(first).open(source).id == made[0].id
        udev_settle()
        assert ours(control, name) is None and nothing_private(control)


def test_what_another_run_is_making_is_waited_for(name, control):
    """Nobody may remove a device without a live table just for its UUID: its maker may be slow."""
    uuid = f"SLOW-{name}"
    source = spec.parse(
        {"table": [{"start": 0, "length": 2048, "target": "zero"}], "name": name, "uuid": uuid}
    )
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            with _control.Control() as other:
                original = other.resume

                def slow(*args, **kwargs):
                    os.write(writer, b".")
                    import time

                    time.sleep(3)
                    return original(*args, **kwargs)

                other.resume = slow
                mapped.make(other, name, uuid, load.Table(ZERO), 0).close()
        finally:
            os._exit(0)
    os.read(reader, 1)
    with resources.Resources() as host:
        device = opener.Opener(host).open(source)
        assert control.status(by_uuid(uuid)).number == device.id.number
        assert os.waitpid(child, 0)[1] == 0
        with _device.open_number(device.id.major, device.id.minor, diskseq=device.id.diskseq):
            pass
    run_module("dm_device", name=name, state="absent")
    os.close(reader)
    os.close(writer)


def test_unfinished_devices_of_others_are_named_and_stay(name, control, cleanup):
    uuid = f"LEFT-{name}"
    control.create(name, uuid)
    cleanup(dm=name)
    source = spec.parse(
        {"table": [{"start": 0, "length": 2048, "target": "zero"}], "name": f"{name}-2", "uuid": uuid}
    )
    with resources.Resources() as host, pytest.raises(DeviceBusy, match=f"{name}, uuid {uuid}"):
        opener.Opener(host).open(source)
    assert control.status(by_uuid(uuid)).name == name


def test_a_device_without_a_table_has_no_number(name, cleanup):
    """A name that another program has taken does not lead to the device with this number."""
    cleanup(dm=name)
    number = run_module("dm_device", name=name, table="0 8 zero")["device"]["diskseq"]
    run_module("dm_device", name=name, state="absent")
    subprocess.run(["dmsetup", "create", "--notable", name], check=True)
    udev_settle()
    refused("dm_device", name, "no table yet", name=name, diskseq=number, table="0 8 zero")
    refused("dm_device", name, "no table yet", name=name, diskseq=number, state="absent")


@pytest.mark.parametrize("option", ["name", "uuid"])
def test_a_device_that_was_renamed_is_not_gone(name, cleanup, option):
    moved = f"{name}-moved"
    cleanup(dm=name)
    cleanup(dm=moved)
    made = run_module("dm_device", name=name, table="0 8 zero")["device"]
    subprocess.run(["dmsetup", "rename", name, moved], check=True)
    udev_settle()
    value = name if option == "name" else f"OTHER-{name}"
    options = {option: value, "diskseq": made["diskseq"]}
    words = f"/dev/{made['name']}", f"the mapped device {moved}"
    result = refused("dm_device", *words, "diskseq and state=absent only", state="absent", **options)
    assert result["gone"] is False
    if option == "name":
        refused("dm_device", *words, "say where it is now", table="0 8 zero", **options)
    assert run_module("dm_device", diskseq=made["diskseq"], state="absent")["gone"]
    assert predict_and_run("dm_device", state="absent", **options)["gone"]
    if option == "name":
        refused("dm_device", "that had this number is gone", table="0 8 zero", **options)


KILLED = """
import os, random, signal, sys, threading, time
sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))
from ansible_collections.racefree.block.plugins.module_utils._dm import load, removal
from ansible_collections.racefree.block.plugins.module_utils._dm import mapped as _dm
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _dm_ioctl
step, count, name, uuid = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
original = getattr(_dm_ioctl.Control, "_call")
seen = []
def call(self, command, *args, **kwargs):
    try:
        return original(self, command, *args, **kwargs)
    finally:
        seen.append(command)
        if len(seen) == count:
            os.kill(os.getpid(), signal.SIGKILL)
_dm_ioctl.Control._call = call
control = _dm_ioctl.Control()
if step == "make":
    _dm.make(control, name, uuid, load.Table(((0, 2048, b"zero", b""),)), 0, persist=False).close()
else:
    removal.remove_without_table(control, control.status(_dm_ioctl.by_name(name)))
"""


@pytest.mark.rotated
@pytest.mark.parametrize("step", ["make", "remove"])
def test_killed_after_every_ioctl(name, control, step):
    """
    Either nothing has the name or the UUID, or the next run removes it. A device without a table is gone or
    has its name.
    """
    uuid = f"KILLED-{name}"
    statuses = []
    for count in range(1, 40):
        if step == "remove":
            control.create(name, uuid)
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, step, str(count), name, uuid], check=False
        ).returncode
        statuses.append(ended)
        run_module("dm_device", name=f"{name}-next", table="0 8 zero")
        assert nothing_private(control)
        udev_settle()
        there = ours(control, name)
        if step == "make":
            assert there is None and ours(control, uuid=uuid) is None
        elif there is not None:
            assert there.uuid == uuid
            control.remove(by_name(name))
        run_module("dm_device", name=f"{name}-next", state="absent")
        if ended == 0:
            break
    assert statuses[-1] == 0 and set(statuses[:-1]) == {-signal.SIGKILL} and len(statuses) > 4


def test_an_orphan_of_another_namespace_stays(name, control):
    """The process that made it cannot be seen from here."""
    # The first process of a namespace cannot kill itself.
    command = ["sh", "-c", '"$0" -c "$@"; exit 0', sys.executable, KILLED, "make", "4", name, name]
    subprocess.run(["unshare", "--fork", "--pid", "--mount-proc", *command], check=True)
    left = left_private(control)
    assert len(left) == 1
    run_module("dm_device", name=name, table="0 8 zero")
    assert left_private(control) == left
    run_module("dm_device", name=name, state="absent")
    control.remove(by_name(os.fsdecode(left[0])))


def test_a_user_that_comes_during_the_removal_keeps_the_device(name, control, before):
    """The device is opened after the last check for users. It stays, also for later users."""
    rng = random.Random(3)
    for dummy in range(TRIES // 4):
        with mapped.make(control, name, f"USED-{name}", load.Table(ZERO), 0) as device:
            path = device.path
        udev_settle()
        held = []
        before("remove", lambda path=path, held=held: held.append(os.open(path, os.O_RDONLY)))
        with pytest.raises(Failed, match="in use"):
            run_module("dm_device", name=name, state="absent", timeout=rng.choice((0, 1)))
        status = control.status(by_name(name))
        assert not status.deferred_remove
        os.close(held[0])
        udev_settle()
        assert ours(control, name) is not None
        control.remove(by_name(name))


def test_a_link_that_is_another_devices_by_now_is_not_waited_for(name, control, other, monkeypatch):
    """Another device has the name and the number of the removed device before the module waits for udev."""
    settle = resources.Resources.settle
    answers = []

    def attacked(host, *args):
        other.make(name, f"THEIRS-{name}")
        udev_settle()
        answers.append(settle(host, 2))
        return answers[0]

    run_module("dm_device", name=name, table="0 8 zero")
    number = control.status(by_name(name)).number
    monkeypatch.setattr(worker, "IN_PROCESS", True)
    monkeypatch.setattr(resources.Resources, "settle", attacked)
    run_module("dm_device", name=name, state="absent")
    assert control.status(by_name(name)).number == number and answers == [True]
    other.check()


REMOVES = """
import os, sys
sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))
from ansible_collections.racefree.block.plugins.module_utils._dm import removal
from ansible_collections.racefree.block.plugins.module_utils._dm import mapped as _dm
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _dm_ioctl
from ansible_collections.racefree.block.plugins.module_utils._dm import udev as _dm_udev
with _dm_ioctl.Control() as control, _dm_udev.Cookie() as cookie:
    device = _dm.open_mapped(control, _dm_ioctl.by_name(sys.argv[1])).device
    print(flush=True)
    removal.remove(control, device, cookie, timeout=5)
"""


@pytest.mark.rotated
def test_a_killed_removal_leaves_a_device_in_use(name, control):
    """
    Its user had opened it before. Whenever the removal is killed, the device still exists after the user has
    closed it.
    """
    rng, lost = random.Random(5), 0
    for dummy in range(30):
        with mapped.make(control, name, f"USED-{name}", load.Table(ZERO), 0) as device:
            path = device.path
        udev_settle()
        with (
            open(path, "rb"),
            subprocess.Popen([sys.executable, "-c", REMOVES, name], stdout=subprocess.PIPE) as removal,
        ):
            removal.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                removal.wait(rng.random() * 0.2)
            removal.kill()
        udev_settle()
        lost += ours(control, name) is None
        if ours(control, name) is not None:
            control.remove(by_name(name))
    assert lost == 0
    udev.reap()
