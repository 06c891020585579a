# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A blkback that compares disk sequence numbers (tests/xenhost, --blkback extended): no guest ever sees a device
that it refuses.

These tests are for the kernel, so most of them write the nodes directly, without the checks of the library.
"""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline, pauses
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._xen import (
    blkback,
    vbd_nodes,
    vbd_read,
)
from ansible_collections.racefree.block.plugins.module_utils._xen import (
    guest as _guest,
)
from ansible_collections.racefree.block.plugins.module_utils._xen import (
    vdev as _vdev,
)
from ansible_collections.racefree.block.plugins.module_utils._xen.blkback import Detachment, Request
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import (
    CLOSED,
    CLOSING,
    CONNECTED,
    INIT_WAIT,
    Disk,
    Key,
)
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from conftest import run_module

pytestmark = pytest.mark.xen

STOCK = (
    "the xen-blkback of this host is a released kernel's: it offers no node opened and compares nothing "
    "(xenhost up --blkback extended has one that does)"
)
NAME = "exttest"
VDEV = "xvdb"
SECONDS = 90
MIB = 2**20


def run(*argv, check=True):
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 or not check, f"{argv}: {done.stdout}"
    return done.stdout.strip()


def in_guest(command):
    return run("xenguest", "run", NAME, "--timeout", "120", "--", command)


def wait_for(look, what):
    """Wait until ``look()`` is true; returns its value."""
    limit = Deadline(SECONDS)
    for pause in pauses(0.01, 0.2):
        found = look()
        if found:
            return found
        if limit.expired:
            raise limit.exceeded(what)
        limit.sleep(pause)
    raise AssertionError


@pytest.fixture(scope="module")
def store():
    with Store(20) as opened:
        yield opened


@pytest.fixture(scope="module", autouse=True)
def extended(store):
    """Skips these tests on other hosts. A disk for domain 0 that nobody uses shows what blkback is."""
    key, front = Key(0, 51712), "/local/domain/0/racefree-test/vbd/51712"
    nodes = [(f"{front}/state", "1", None)]
    nodes += [
        (f"{key.backend}/{name}", value, None)
        for name, value in (("frontend", front), ("frontend-id", "0"), ("mode", "r"), ("state", "1"))
    ]
    store.transaction(lambda tx: tx.lay(nodes))
    try:
        wait_for(lambda: store.read(f"{key.backend}/state") == str(INIT_WAIT), "blkback to take up a disk")
        offered = store.read(f"{key.backend}/opened")
    finally:
        for path in (key.backend, front):
            store.remove(path)
            store.remove_empty_parents(path)
        wait_for(lambda: not os.path.exists(key.sysfs), "blkback to let go of the disk")
    if offered is None:
        pytest.skip(STOCK)
    assert offered == "0"


@pytest.fixture(scope="module")
def guest(store, extended):
    run("xenguest", "stop", NAME, check=False)
    run("xenguest", "start", NAME, "--memory", "128")
    try:
        yield _guest.find(store, NAME)
    finally:
        run("xenguest", "stop", NAME)


@pytest.fixture
def loop(image):
    """A held loop device whose first bytes are ``the one``."""
    path = run("losetup", "--show", "-f", image(content=b"the one", size=MIB))
    with contextlib.ExitStack() as stack:
        stack.callback(run, "losetup", "-d", path)
        yield stack.enter_context(_device.open_path(path, writable=True))


def words_of(key, store):
    return store.read(f"{key.backend_error}/error") or ""


def taken_up(store, key):
    wait_for(lambda: store.read(f"{key.backend}/state") == str(INIT_WAIT), "blkback to take up the disk")


@pytest.fixture
def lay(store, guest):
    """
    ``lay(device, diskseq)`` writes a disk's nodes and gives its Key; ``diskseq`` is the node's text, None for
    no node.
    """
    keys = []
    in_guest("dmesg -c > /dev/null")

    def function(device, diskseq, but=(), vdev=VDEV):
        key = Key(guest.domid, _vdev.parse(vdev).number)
        keys.append(key)
        disk = Disk(dev=vdev, params=device.path, writable=True, protocol="x86_64-abi")
        nodes = vbd_nodes.layout(
            key,
            disk,
            vbd_nodes.identity("diskseq", device.id.major, device.id.minor, device.id.diskseq, device.path),
        )
        left_out = {"diskseq", *but}
        front = [
            node
            for node in nodes
            if not (node[0].startswith(key.backend) and node[0].rpartition("/")[2] in left_out)
        ]
        number = (
            front.pop([path for path, *dummy in front].index(f"{key.backend}/physical-device"))
            if "physical-device" not in but
            else None
        )

        def write(tx):
            tx.lay(front)
            if diskseq is not None:
                tx.write(f"{key.backend}/diskseq", diskseq)
            if number:
                tx.lay([number])

        store.transaction(write)
        return key

    yield function
    for key in keys:
        for path in (key.frontend, key.backend, key.libxl, key.backend_error, key.frontend_error):
            store.remove(path)
            store.remove_empty_parents(path)
    wait_for(lambda: not any(os.path.exists(key.sysfs) for key in keys), "blkback to let go of the disks")
    # A guest that sees nodes removed and added at once takes the new disk for the old one, and never answers.
    in_guest("while ls /sys/bus/xen/devices | grep -q ^vbd; do sleep 0.2; done")


def assert_refused(store, key, words):
    """blkback refuses, and opens nothing."""
    assert wait_for(lambda: words_of(key, store), "blkback's word") == words
    assert wait_for(
        lambda: int(store.read(f"{key.backend}/state") or 0) in (CLOSING, CLOSED), "blkback to close"
    )
    assert store.read(f"{key.backend}/opened") == "0"
    assert vbd_read.opened_number(key) is None
    # The guest hears of it, and answers.
    wait_for(lambda: store.read(f"{key.frontend}/state") == str(CLOSED), "the guest to close its side")
    assert store.read(f"{key.backend}/sectors") is None


def assert_unseen():
    """
    The guest has no disk, and never had one: blkfront would have logged it, as test_a_right_one_connects
    shows.
    """
    assert in_guest("ls /sys/block /dev | grep xvd; grep xvd /proc/partitions; dmesg | grep xvd; true") == ""


def test_the_guest_sees_nothing_of_a_wrong_diskseq(store, lay, loop):
    wrong = loop.id.diskseq + 1
    key = lay(loop, f"{wrong:x}")
    assert_refused(
        store, key, f"19 {loop.id.major:x}:{loop.id.minor:x} has diskseq {loop.id.diskseq:x}, not {wrong:x}"
    )
    assert_unseen()


def test_a_number_that_is_another_devices_by_now(store, lay, image):
    """
    The race itself: a device was looked up, and its number was given to another device before blkback opened
    it.
    """
    path = run("losetup", "--show", "-f", image("first.raw", MIB))
    with _device.open_path(path, writable=True) as device:
        first = device
        run("losetup", "-d", path)
    run("losetup", path, image("second.raw", MIB, b"somebody else's"))
    try:
        with _device.open_path(path) as second:
            assert (second.id.major, second.id.minor) == (
                first.id.major,
                first.id.minor,
            ) and second.id.diskseq != first.id.diskseq
            key = lay(first, f"{first.id.diskseq:x}")
            assert_refused(
                store,
                key,
                f"19 {first.id.major:x}:{first.id.minor:x} has diskseq {second.id.diskseq:x}, not "
                f"{first.id.diskseq:x}",
            )
            assert_unseen()
    finally:
        run("losetup", "-d", path)


# For xenstore-write, which knows the escapes of C: junk that the library itself would never send.
JUNK = [
    "",
    "0",
    "00",
    "0{0}",
    "0x{0}",
    "+{0}",
    "-{0}",
    "{0} ",
    " {0}",
    "{0}\\n",
    "{0}\\0",
    "\\0{0}",
    "{0}g",
    "{0}@7:0",
    "1000000000000000{0}",
    "{0}\\xff",
]


def test_junk_is_refused(store, lay, loop):
    good = f"{loop.id.diskseq:x}"
    keys = {}
    for number, junk in enumerate(JUNK):
        keys[junk] = key = lay(loop, None, but=["physical-device"], vdev=f"d{20 + number}")
        run("xenstore-write", "--", f"{key.backend}/diskseq", junk.format(good))
        assert store.read(f"{key.backend}/diskseq") not in (good, None)
    for key in keys.values():
        taken_up(store, key)
        store.write(f"{key.backend}/physical-device", vbd_nodes.number_text(loop.id.major, loop.id.minor))
    for key in keys.values():
        assert_refused(store, key, "22 reading diskseq")
    assert_unseen()


def test_a_right_one_connects(store, lay, loop):
    key = lay(loop, f"{loop.id.diskseq:x}")
    wait_for(lambda: store.read(f"{key.backend}/state") == str(CONNECTED), "the guest to connect")
    assert store.read(f"{key.backend}/opened") == "1" and words_of(key, store) == ""
    assert in_guest(f"dd if=/dev/{VDEV} bs=7 count=1 2>/dev/null") == "the one"
    assert VDEV in in_guest(f"dmesg | grep {VDEV}"), (
        "what the other tests look for in vain is said when there is a disk"
    )


def test_without_the_node_nothing_is_compared(store, lay, loop):
    key = lay(loop, None)
    wait_for(lambda: store.read(f"{key.backend}/state") == str(CONNECTED), "the guest to connect")
    assert store.read(f"{key.backend}/opened") == "1"


def test_opened_is_0_until_it_is_open(store, lay, loop):
    key = lay(loop, f"{loop.id.diskseq:x}", but=["physical-device"])
    taken_up(store, key)
    assert vbd_read.read_vbd(store, *key).opened is False and vbd_read.opened_number(key) is None
    store.write(f"{key.backend}/physical-device", vbd_nodes.number_text(loop.id.major, loop.id.minor))
    wait_for(lambda: vbd_read.read_vbd(store, *key).opened, "blkback to say that it is open")
    assert vbd_read.opened_number(key) == (loop.id.major, loop.id.minor)


def test_the_guest_cannot_write_them(store, guest, lay, loop):
    key = lay(loop, f"{loop.id.diskseq:x}", but=["physical-device"])
    taken_up(store, key)
    for name in ("diskseq", "opened", "physical-device"):
        assert "written" not in in_guest(f"xenstore-write {key.backend}/{name} 1 2>&1 && echo written; true")
    vbd = vbd_read.read_vbd(store, *key)
    assert (vbd.diskseq, vbd.opened, vbd.number) == (loop.id.diskseq, False, None)


def test_the_library_waits_for_opened(store, guest, loop):
    request = Request(guest, _vdev.parse(VDEV), loop)
    (outcome,) = blkback.attach(store, [request], SECONDS, wait_connected=True)
    assert outcome.error is None and outcome.vbd.opened is True
    assert run_module("device_info")["features"]["xen"]["blkback_diskseq"] is True
    (outcome,) = blkback.detach(store, [Detachment(outcome.vbd, guest)], SECONDS)
    assert outcome.error is None
    assert run_module("device_info")["features"]["xen"]["blkback_diskseq"] is None


def test_the_library_rolls_back_what_the_kernel_refuses(store, guest, loop, monkeypatch):
    """Only a bug of the library could make it pass a wrong number, so the test adds such a bug."""
    original = vbd_nodes.identity
    monkeypatch.setattr(
        vbd_nodes,
        "identity",
        lambda form, major, minor, diskseq, path: original(form, major, minor, diskseq + 1, path),
    )
    (outcome,) = blkback.attach(store, [Request(guest, _vdev.parse(VDEV), loop)], SECONDS)
    assert isinstance(outcome.error, GuestError)
    assert f"has diskseq {loop.id.diskseq:x}, not {loop.id.diskseq + 1:x}" in str(outcome.error)
    key = Key(guest.domid, _vdev.parse(VDEV).number)
    assert not any(
        store.exists(path) for path in (key.backend, key.frontend, key.libxl, key.backend_error)
    ) and not os.path.exists(key.sysfs)
