# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Runs on a Xen host, as root: python3 -m pytest tests/host/test_blkback.py, with the collection below a
directory of PYTHONPATH.

xenguest makes the guests (tests/xenhost). Everything is slow under emulation, so most tests share one guest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import threading
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeadlineExceeded,
    DeviceBusy,
    GuestError,
    InvalidValue,
    WrongDevice,
    XenStoreError,
)
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._xen import (
    blkback,
    vbd_read,
)
from ansible_collections.racefree.block.plugins.module_utils._xen import (
    guest as _guest,
)
from ansible_collections.racefree.block.plugins.module_utils._xen import (
    vdev as _vdev,
)
from ansible_collections.racefree.block.plugins.module_utils._xen.blkback import Detachment, Request
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store

pytestmark = [
    pytest.mark.xen,
    pytest.mark.gate("trixie"),
]


def run(*argv, check=True, seconds=300):
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0 or not check, f"{argv}: {text}"
    return text.strip()


class Loop:
    """A loop device on a new file with random content."""

    def __init__(self, path, mebibytes=4, read_only=False):
        self.file = str(path)
        with open(self.file, "wb") as file:
            file.write(os.urandom(mebibytes << 20))
        self.path = run("losetup", "--show", "-f", *(["-r"] if read_only else []), self.file)

    def checksum(self):
        with open(self.file, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    def busy(self):
        """Whether it still exists: a device that is detached while open is removed with its last user."""
        run("losetup", "-d", self.path, check=False)
        end = time.monotonic() + 10
        while self.file in run("losetup", "-a"):
            if time.monotonic() > end:
                return True
            time.sleep(0.2)
        return False


@pytest.fixture
def loops(tmp_path):
    made = []

    def make(**options):
        made.append(Loop(tmp_path / f"disk{len(made)}", **options))
        return made[-1]

    yield make
    for loop in made:
        run("losetup", "-d", loop.path, check=False)


@contextlib.contextmanager
def running_guest(name, *options):
    run("xenguest", "start", name, "--memory", "128", *options, seconds=600)
    try:
        yield name
    finally:
        run("xenguest", "stop", name)


@pytest.fixture(scope="module")
def shared_guest():
    with running_guest("blk1") as name:
        yield name


@pytest.fixture
def store():
    with Store(20) as opened:
        yield opened


@pytest.fixture
def guest(shared_guest, store):
    found = _guest.find(store, shared_guest)
    yield found
    run("xenguest", "unpause", shared_guest, check=False)
    left = vbd_read.list_vbds(store, found)
    outcomes = blkback.detach(store, [Detachment(vbd) for vbd in left], 20, force=True)
    assert [outcome.error for outcome in outcomes] == [None] * len(left)


def request(guest, vdev, device, **options):
    return Request(guest, _vdev.parse(vdev), device, **options)


def attach(store, guest, vdev, loop, seconds=120, **options):
    with _device.open_path(loop.path, writable=options.get("mode", "w") == "w") as device:
        (outcome,) = blkback.attach(
            store, [request(guest, vdev, device, **options)], seconds, wait_connected=True
        )
    if outcome.error:
        raise outcome.error
    return outcome.vbd


def in_guest(name, command, check=True):
    return run("xenguest", "run", name, "--timeout", "120", "--", command, check=check)


def left_of(store, vbd):
    """What is left of a vbd."""
    key = vbd.key
    return [
        path for path in (key.backend, key.frontend, key.libxl, key.backend_error) if store.exists(path)
    ] + [key.sysfs for dummy in range(1) if os.path.exists(key.sysfs)]


def test_the_guest_reads_and_writes_exactly_this_device(store, guest, loops):
    loop = loops()
    vbd = attach(store, guest, "xvdb", loop)
    assert vbd.diskseq == int(open(f"/sys/block/{loop.path[5:]}/diskseq").read())
    assert in_guest(guest.name, "sha256sum < /dev/xvdb").split()[0] == loop.checksum()
    in_guest(guest.name, "echo written by the guest | dd of=/dev/xvdb bs=512 seek=3 conv=sync; sync")
    (outcome,) = blkback.detach(store, [Detachment(vbd, guest)], 60)
    assert outcome.error is None and outcome.changed
    with open(loop.file, "rb") as file:
        file.seek(3 * 512)
        assert file.read(21) == b"written by the guest\n"
    assert left_of(store, vbd) == []
    assert not loop.busy()
    (outcome,) = blkback.detach(store, [Detachment(vbd, guest)], 60)
    assert outcome.error is None and not outcome.changed


@pytest.mark.rotated
def test_what_xl_lists_detaches_and_writes_is_the_same(store, guest, loops):
    ours, theirs = loops(), loops()
    mine = attach(store, guest, "xvdb", ours)
    run("xl", "block-attach", guest.name, f"{theirs.path},raw,xvdc,w")
    yours = vbd_read.read_vbd(store, guest.domid, _vdev.parse("xvdc").number)

    def nodes(vbd, root, loop):
        return {
            name: (
                store.read(f"{root}/{name}")
                .replace(str(vbd.key.devid), "DEVID")
                .replace(vbd.dev, "DEV")
                .replace(loop.path, "PATH"),
                store.get_perms(f"{root}/{name}"),
            )
            for name in store.list(root)
            if name not in ("physical-device", "event-channel", "ring-ref", "diskseq")
        }

    for attribute in ("backend", "frontend", "libxl"):
        here, there = getattr(mine.key, attribute), getattr(yours.key, attribute)
        assert nodes(mine, here, ours) == nodes(yours, there, theirs)
        assert store.get_perms(here) == store.get_perms(there)
    assert mine._replace(
        key=None, number=None, diskseq=None, dev="", params="", physical_device_path=""
    ) == yours._replace(key=None, number=None, dev="", params="", physical_device_path="")
    listed = run("xl", "block-list", guest.name)
    assert mine.key.backend in listed and yours.key.backend in listed
    run("xl", "block-detach", guest.name, "xvdb")
    assert left_of(store, mine) == []
    (outcome,) = blkback.detach(store, [Detachment(yours, guest)], 60)
    assert outcome.error is None
    assert left_of(store, yours) == []
    assert not ours.busy() and not theirs.busy()


@pytest.mark.rotated
def test_a_file_that_xl_attached_is_taken_down_by_its_script(store, guest, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\0" * (1 << 20))
    # Debian's libxl takes qdisk for files unless told otherwise; a script makes it phy, and the script makes
    # the loop device.
    run("xl", "block-attach", guest.name, f"vdev=xvdb,access=w,script=/etc/xen/scripts/block,target={path}")
    assert str(path) in run("losetup", "-a")
    vbd = vbd_read.read_vbd(store, guest.domid, _vdev.parse("xvdb").number)
    (outcome,) = blkback.detach(store, [Detachment(vbd, guest)], 60)
    assert outcome.error is None
    assert str(path) not in run("losetup", "-a")
    assert left_of(store, vbd) == []


@pytest.mark.rotated
def test_many_at_once(store, guest, loops):
    disks = [loops(mebibytes=1) for dummy in range(8)]
    with contextlib.ExitStack() as held:
        requests = [
            request(guest, f"d{20 + number}", held.enter_context(_device.open_path(loop.path, writable=True)))
            for number, loop in enumerate(disks)
        ]
        outcomes = blkback.attach(store, requests, 240, wait_connected=True)
    assert [outcome.error for outcome in outcomes] == [None] * 8
    names = [outcome.vbd.dev for outcome in outcomes]
    sums = in_guest(guest.name, "; ".join(f"sha256sum < /dev/{name}" for name in names)).split()[::2]
    assert sums == [loop.checksum() for loop in disks]
    listed = vbd_read.list_vbds(store, guest)
    assert sorted(listed) == sorted(outcome.vbd for outcome in outcomes)
    assert set(listed) <= set(vbd_read.list_vbds(store))
    outcomes = blkback.detach(store, [Detachment(vbd, guest) for vbd in listed], 120)
    assert [outcome.error for outcome in outcomes] == [None] * 8
    assert [left_of(store, vbd) for vbd in listed] == [[]] * 8


def test_read_only(store, guest, loops):
    loop = loops(read_only=True)
    with _device.open_path(loop.path) as device:
        (outcome,) = blkback.attach(store, [request(guest, "xvdb", device)], 60)
        assert isinstance(outcome.error, InvalidValue) and not outcome.changed
    vbd = attach(store, guest, "xvdb", loop, mode="r")
    before = loop.checksum()
    assert in_guest(
        guest.name, "sha256sum < /dev/xvdb; (echo x > /dev/xvdb) 2>/dev/null || cat /sys/block/xvdb/ro"
    ).split() == [before, "-", "1"]
    assert not vbd.writable and loop.checksum() == before


def test_one_failing_request_does_not_touch_the_others(store, guest, loops):
    used, good = loops(), loops()
    first = attach(store, guest, "xvdb", used)
    gone = _guest.Guest(30000, "00000000-1111-2222-3333-444444444444", "nobody")
    other = guest._replace(uuid="00000000-1111-2222-3333-444444444444")
    with _device.open_path(good.path, writable=True) as device:
        outcomes = blkback.attach(
            store,
            [
                request(guest, "xvdb", device),
                request(gone, "xvdc", device),
                request(other, "xvdd", device),
                request(guest, "xvdf", device),
            ],
            120,
        )
    assert [type(outcome.error) for outcome in outcomes] == [DeviceBusy, GuestError, GuestError, type(None)]
    assert [outcome.changed for outcome in outcomes] == [False, False, False, True]
    assert "has a disk xvdb already" in str(outcomes[0].error)
    assert "its id" in str(outcomes[2].error)
    assert store.list("/local/domain/30000") is None
    assert vbd_read.read_vbd(store, *first.key) == first
    assert sorted(vbd.dev for vbd in vbd_read.list_vbds(store, guest)) == ["xvdb", "xvdf"]


@pytest.mark.rotated
def test_a_guest_that_does_not_answer(store, guest, loops):
    loop = loops()
    vbd = attach(store, guest, "xvdb", loop)
    run("xenguest", "pause", guest.name)
    began = time.monotonic()
    (outcome,) = blkback.detach(store, [Detachment(vbd, guest)], 10)
    assert isinstance(outcome.error, DeadlineExceeded)
    assert "for the guest to release the disk (backend state 5, the guest's own state 4)" in str(
        outcome.error
    )
    assert "With force=true of the module xen_vbd, the disk is removed" in str(outcome.error)
    assert time.monotonic() - began < 20
    assert os.path.exists(vbd.key.sysfs) and vbd_read.read_vbd(store, *vbd.key).state == 5
    (outcome,) = blkback.detach(store, [Detachment(vbd, guest)], 20, force=True)
    assert outcome.error is None
    assert left_of(store, vbd) == []
    assert not loop.busy()
    run("xenguest", "unpause", guest.name)
    assert in_guest(guest.name, "echo alive") == "alive"


@pytest.mark.rotated
def test_a_paused_guest_gets_its_disk_but_does_not_connect(store, guest, loops):
    loop = loops()
    run("xenguest", "pause", guest.name)
    with _device.open_path(loop.path, writable=True) as device:
        (outcome,) = blkback.attach(store, [request(guest, "xvdb", device)], 60)
        assert outcome.error is None and outcome.vbd.state == 2
        (outcome,) = blkback.attach(store, [request(guest, "xvdc", device)], 15, wait_connected=True)
    assert isinstance(outcome.error, DeadlineExceeded) and "for the guest to connect (state 1" in str(
        outcome.error
    )
    assert [vbd.dev for vbd in vbd_read.list_vbds(store, guest)] == ["xvdb"], (
        "what did not connect is taken back"
    )


def test_a_device_that_goes_and_comes_back_as_another(store, guest, loops):
    loop = loops()
    vbd = attach(store, guest, "xvdb", loop)
    (outcome,) = blkback.detach(store, [Detachment(vbd._replace(diskseq=vbd.diskseq + 1), guest)], 10)
    assert isinstance(outcome.error, WrongDevice) and "it is left unchanged" in str(outcome.error)
    assert vbd_read.read_vbd(store, *vbd.key) == vbd


def test_junk_in_a_node_is_named(store, guest, loops):
    vbd = attach(store, guest, "xvdb", loops())
    for name, value in (("diskseq", "02a"), ("physical-device", "7:0x1")):
        before = store.read(f"{vbd.key.backend}/{name}")
        store.write(f"{vbd.key.backend}/{name}", value)
        with pytest.raises(XenStoreError, match=name):
            vbd_read.read_vbd(store, *vbd.key)
        store.write(f"{vbd.key.backend}/{name}", before)


def test_blkback_that_cannot_open_says_so(store, guest, loops):
    """The error is that of blkback, and nothing is left."""
    loop = loops()
    with _device.open_path(loop.path, writable=True) as device:
        job = blkback._Attach(request(guest, "xvdb", device))
        job.prepare()
        # A number that no device has: what a released blkback gets when nobody holds the device. (For a loop
        # device's number the kernel would make one: 7:ffff is opened.)
        job.nodes = [
            (path, "fd:fffff" if path.endswith("/physical-device") else value, perms)
            for path, value, perms in job.nodes
        ]
        original, blkback._Attach = blkback._Attach, lambda dummy: job
        job.prepare = lambda: None
        job._remove_in = lambda tx: blkback.remove_nodes(tx, job.key)
        try:
            (outcome,) = blkback.attach(store, [job.request], 60)
        finally:
            blkback._Attach = original
    assert isinstance(outcome.error, GuestError) and "the backend rejected" in str(outcome.error)
    assert "creating vbd structure" in str(outcome.error)
    assert vbd_read.list_vbds(store, guest) == [] and not os.path.exists(job.key.sysfs)


def test_xenstored_stops_answering(store, guest, loops):
    loop = loops()
    pid = int(run("pidof", "xenstored", "oxenstored", check=False).split()[0])
    before = sorted(store.list("/local/domain/0/backend/vbd") or [])
    with _device.open_path(loop.path, writable=True) as device, Store(2) as hung:
        hung.connect()
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            (outcome,) = blkback.attach(hung, [request(guest, "xvdb", device)], 5)
            took = time.monotonic() - began
            with pytest.raises(DeadlineExceeded):
                vbd_read.list_vbds(hung)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert isinstance(outcome.error, DeadlineExceeded)
    assert took < 15
    time.sleep(1)
    assert sorted(store.list("/local/domain/0/backend/vbd") or []) == before
    assert not loop.busy()


@pytest.mark.long
def test_a_hundred_writers(store, guest, loops):
    """
    Each writer changes, in transactions, the directory that the attach reads in its transaction. No change is
    lost, and the guest gets its disk.
    """
    root, count, problems = "/local/domain/0/backend/vbd", "/racefree-count", []

    def meddle(number):
        try:
            with Store(300) as its:
                for dummy in range(3):

                    def add(tx):
                        tx.write_many({f"{root}/99{number:03}": "", count: str(int(tx.read(count)) + 1)})

                    its.transaction(add, 300)
                    its.transaction(lambda tx: tx.remove(f"{root}/99{number:03}"), 300)
        except Exception as error:  # pylint: disable=broad-exception-caught
            problems.append(error)

    store.write(count, "0")
    loop = loops()
    threads = [threading.Thread(target=meddle, args=(number,)) for number in range(100)]
    try:
        for thread in threads:
            thread.start()
        attach(store, guest, "xvdb", loop, 300)
        busy = sum(thread.is_alive() for thread in threads)
        for thread in threads:
            thread.join()
        assert not problems and store.read(count) == "300" and busy
        assert in_guest(guest.name, "sha256sum < /dev/xvdb").split()[0] == loop.checksum()
    finally:
        for thread in threads:
            thread.join()
        store.remove(count)
    assert not [name for name in store.list(root) if name.startswith("99")]


def test_the_kernels_own_device_for_xenstore(guest):
    with Store(20, "/dev/xen/xenbus") as store:
        assert _guest.find(store, guest.name) == guest
        store.transaction(lambda tx: tx.write("/local/domain/0/racefree-test", ""))
        assert store.read("/local/domain/0/racefree-test") == ""
        assert store.remove("/local/domain/0/racefree-test")


@pytest.mark.rotated
def test_the_guest_dies_meanwhile(store, loops):
    loop = loops()
    with running_guest("blk2") as name:
        guest = _guest.find(store, name)
        vbd = attach(store, guest, "xvdb", loop)
        run("xenguest", "pause", name)
        killer = threading.Timer(1, run, ["xl", "destroy", name])
        killer.start()
        (outcome,) = blkback.detach(store, [Detachment(vbd, guest)], 60)
        killer.join()
        assert outcome.error is None
        assert left_of(store, vbd) == []
        assert not loop.busy()
        with _device.open_path(loops().path, writable=True) as device:
            (outcome,) = blkback.attach(store, [request(guest, "xvdb", device)], 30)
        assert isinstance(outcome.error, GuestError) and "has ended" in str(outcome.error)


@pytest.mark.rotated
def test_xl_destroy_leaves_nothing(store, loops):
    loop = loops()
    with running_guest("blk3") as name:
        guest = _guest.find(store, name)
        vbd = attach(store, guest, "xvdb", loop)
        run("xl", "destroy", name)
        end = time.monotonic() + 30
        while left_of(store, vbd) and time.monotonic() < end:
            time.sleep(0.5)
        assert left_of(store, vbd) == []
        assert store.list(f"/local/domain/0/backend/vbd/{guest.domid}") is None
        assert not loop.busy()
