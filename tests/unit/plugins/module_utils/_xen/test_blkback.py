# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Attaching and detaching with a real xenstored and a fake backend.

The host needs no blkback: the test plays the backend. tests/host/test_blkback.py tests the real one. The
device is a real loop device.
"""

from __future__ import annotations

import os
import shutil
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
from ansible_collections.racefree.block.plugins.module_utils._xen import blkback, vbd_read
from ansible_collections.racefree.block.plugins.module_utils._xen import vdev as _vdev
from ansible_collections.racefree.block.plugins.module_utils._xen.blkback import Detachment, Request
from ansible_collections.racefree.block.plugins.module_utils._xen.guest import Guest
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/loop-control"), reason="loop devices need root"
)

GUEST = Guest(5, "00000005-1111-2222-3333-444444444444", "web", "pv")


@pytest.fixture(scope="module")
def daemon():
    with Xenstored() as running:
        yield running


@pytest.fixture
def store(daemon):
    with Store(5, daemon.socket) as opened:
        opened.write("/local/domain/5/name", GUEST.name)
        opened.write("/local/domain/5/vm", "/vm/" + GUEST.uuid)
        opened.write("/libxl/5/type", "pv")
        yield opened
        for path in ("/local", "/libxl"):
            opened.remove(path)


@pytest.fixture
def device(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"\0" * (1 << 20))
    loop = (
        subprocess.run(["losetup", "--show", "-f", str(path)], stdout=subprocess.PIPE, check=True, timeout=30)
        .stdout.decode()
        .strip()
    )
    try:
        with _device.open_path(loop, writable=True) as opened:
            yield opened
    finally:
        subprocess.run(["losetup", "-d", loop], check=True, timeout=30)


@pytest.fixture
def sysfs(tmp_path, monkeypatch):
    root = tmp_path / "xen-backend"
    root.mkdir()
    monkeypatch.setattr(Key, "sysfs", property(lambda key: f"{root}/vbd-{key.domid}-{key.devid}"))
    return root


class Backend(threading.Thread):
    """Plays blkback: calls ``act(store, key)`` once the vbd's nodes exist."""

    def __init__(self, daemon, key, act):
        super().__init__(daemon=True)
        self.path, self.key, self.act = daemon.socket, key, act

    def run(self):
        with Store(5, self.path) as store:
            end = time.monotonic() + 10
            while time.monotonic() < end:
                if store.read(f"{self.key.backend}/physical-device") is not None:
                    self.act(store, self.key)
                    return
                time.sleep(0.002)


def opens(number, state="2"):
    def act(store, key):
        store.write(f"{key.backend}/state", state)
        os.makedirs(key.sysfs)
        with open(key.sysfs + "/new", "w") as file:
            file.write(number + "\n")
        os.rename(key.sysfs + "/new", key.sysfs + "/physical_device")

    return act


def request(device, vdev="xvda", **options):
    return Request(GUEST, _vdev.parse(vdev), device, **options)


def number_of(device):
    return f"{device.id.major:x}:{device.id.minor:x}"


def everything(store, root="/"):
    found = {}
    for name in store.list(root):
        path = root.rstrip("/") + "/" + name
        found[path] = (store.read(path), store.get_perms(path))
        found.update(everything(store, path))
    return found


def test_opened_according_to_sysfs(store, daemon, device, sysfs):
    backend = Backend(daemon, Key(5, 51712), opens(number_of(device)))
    backend.start()
    (outcome,) = blkback.attach(store, [request(device)], 10)
    backend.join()
    assert outcome.error is None and outcome.changed
    assert outcome.vbd.diskseq == device.id.diskseq and outcome.vbd.number == (
        device.id.major,
        device.id.minor,
    )
    assert store.get_perms("/local/domain/0/backend/vbd/5/51712") == ["n0", "r5"]
    assert store.get_perms("/local/domain/0/backend/vbd/5/51712/physical-device") == ["n0", "r5"]
    assert store.get_perms("/local/domain/5/device/vbd/51712/state") == ["n5", "r0"]


def test_the_node_opened_decides_if_the_backend_offers_it(store, daemon, device, sysfs):
    said = threading.Event()

    def act(store, key):
        store.write(f"{key.backend}/opened", "0")
        opens(number_of(device))(store, key)
        time.sleep(0.4)
        said.set()
        store.write(f"{key.backend}/opened", "1")

    Backend(daemon, Key(5, 51712), act).start()
    (outcome,) = blkback.attach(store, [request(device)], 10)
    assert outcome.error is None and outcome.vbd.opened is True
    assert said.is_set()


def compares(device, found=None):
    """
    A blkback with the extension: it opens only the device whose disk sequence number is in the node diskseq,
    and reports the open.
    """

    def act(store, key):
        store.write(f"{key.backend}/opened", "0")
        store.write(f"{key.backend}/state", "2")
        wanted, has = store.read(f"{key.backend}/diskseq"), f"{found or device.id.diskseq:x}"
        if wanted != has:
            store.write(
                f"{key.backend_error}/error", f"19 {number_of(device)} has diskseq {has}, not {wanted}"
            )
            store.write(f"{key.backend}/state", "5")
            return
        opens(number_of(device))(store, key)
        store.write(f"{key.backend}/opened", "1")

    return act


def test_a_backend_that_compares_gets_what_it_can_compare(store, daemon, device, sysfs):
    assert vbd_read.offers_opened(store) is None
    backend = Backend(daemon, Key(5, 51712), compares(device))
    backend.start()
    (outcome,) = blkback.attach(store, [request(device)], 10)
    backend.join()
    assert outcome.error is None and outcome.vbd.opened is True
    assert vbd_read.offers_opened(store) is True


def test_a_device_that_the_backend_rejects_is_rolled_back(store, daemon, device, sysfs):
    before = everything(store)
    backend = Backend(daemon, Key(5, 51712), compares(device, device.id.diskseq + 1))
    backend.start()
    (outcome,) = blkback.attach(store, [request(device)], 10)
    backend.join()
    assert isinstance(outcome.error, GuestError)
    assert f"has diskseq {device.id.diskseq + 1:x}, not {device.id.diskseq:x}" in str(outcome.error)
    assert everything(store) == before


def test_a_backend_that_never_opens_times_out(store, daemon, device, sysfs):
    def act(store, key):
        store.write(f"{key.backend}/opened", "0")
        opens(number_of(device))(store, key)

    threading.Timer(1.5, lambda: subprocess.run(["rm", "-r", str(sysfs / "vbd-5-51712")], check=True)).start()
    before = everything(store)
    Backend(daemon, Key(5, 51712), act).start()
    (outcome,) = blkback.attach(store, [request(device)], 1)
    assert isinstance(outcome.error, DeadlineExceeded) and "(the node opened is 0)" in str(outcome.error)
    assert everything(store) == before


@pytest.mark.parametrize("junk", ["", "2", "01", "1 ", "true"])
def test_an_invalid_node_opened_is_named(store, daemon, device, sysfs, junk):
    def act(store, key):
        store.write(f"{key.backend}/opened", junk)

    Backend(daemon, Key(5, 51712), act).start()
    (outcome,) = blkback.attach(store, [request(device)], 10)
    assert isinstance(outcome.error, XenStoreError) and "backend/vbd/5/51712/opened" in str(outcome.error)


def test_a_stock_backend_does_not_offer_opened(store, vbd):
    assert vbd.opened is None
    assert vbd_read.offers_opened(store) is False


def test_disks_of_other_backends_are_ignored(store, sysfs):
    """The vbd is not in sysfs, so blkback did not write this."""
    store.write("/local/domain/0/backend/vbd/5/51712/opened", "1")
    store.write("/local/domain/0/backend/vbd/5/51712/state", "4")
    assert vbd_read.offers_opened(store) is None


def test_opened_is_read_after_sysfs_shows_the_number(store, daemon, device, sysfs, monkeypatch):
    """The nodes may have been read just before blkback created the node opened, and sysfs just after."""
    original, looks = vbd_read.opened_number, []

    def late(key):
        found = original(key)
        if found and not looks:
            looks.append(found)
            with Store(5, daemon.socket) as other:
                other.write(f"{key.backend}/opened", "0")
        return found

    monkeypatch.setattr(vbd_read, "opened_number", late)
    Backend(daemon, Key(5, 51712), opens(number_of(device))).start()
    (outcome,) = blkback.attach(store, [request(device)], 1)
    assert looks and "(the node opened is 0)" in str(outcome.error)


def test_the_rollback_leaves_another_disk_unchanged(store, daemon, device, sysfs):
    def act(other, key):
        other.transaction(
            lambda tx: tx.write_many({f"{key.backend}/diskseq": "1", f"{key.backend}/state": "5"})
        )

    backend = Backend(daemon, Key(5, 51712), act)
    backend.start()
    (outcome,) = blkback.attach(store, [request(device)], 2)
    backend.join()
    assert outcome.error is not None
    assert vbd_read.read_vbd(store, 5, 51712).diskseq == 1


QDISK = "/local/domain/0/backend/qdisk/5/51712"


def qdisk_instead(store, key):
    """Somebody detached the disk, and attached one of QEMU in its place."""
    for path in (key.backend, key.frontend, key.libxl):
        store.remove(path)
    for path in (f"{key.libxl}/backend", f"{key.frontend}/backend"):
        store.write(path, QDISK)


def test_the_rollback_leaves_a_disk_of_another_backend(store, daemon, device, sysfs):
    backend = Backend(daemon, Key(5, 51712), qdisk_instead)
    backend.start()
    (outcome,) = blkback.attach(store, [request(device)], 10)
    backend.join()
    assert "nodes were removed" in str(outcome.error)
    for path in ("/libxl/5/device/vbd/51712", "/local/domain/5/device/vbd/51712"):
        assert store.read(f"{path}/backend") == QDISK


def test_detaching_leaves_a_disk_of_another_backend(store, vbd):
    qdisk_instead(store, vbd.key)
    shutil.rmtree(vbd.key.sysfs)
    (outcome,) = blkback.detach(store, [Detachment(vbd)], 1)
    assert outcome.error is None and not outcome.changed
    assert store.read(f"{vbd.key.libxl}/backend") == store.read(f"{vbd.key.frontend}/backend") == QDISK


def test_the_wrong_number_is_an_error(store, daemon, device, sysfs):
    def act(store, key):
        opens("7:fff")(store, key)

    before = everything(store)
    backend = Backend(daemon, Key(5, 51712), act)
    backend.start()
    threading.Timer(1, lambda: subprocess.run(["rm", "-r", str(sysfs / "vbd-5-51712")], check=True)).start()
    (outcome,) = blkback.attach(store, [request(device)], 10)
    assert isinstance(outcome.error, WrongDevice) and "blkback opened 7:4095 instead of" in str(outcome.error)
    assert everything(store) == before


@pytest.mark.parametrize(
    "act, words",
    [
        (lambda store, key: store.write(f"{key.backend}/state", "5"), "without giving a reason"),
        (lambda store, key: store.write(f"{key.backend}/state", "6"), "without giving a reason"),
        (
            lambda store, key: store.write(f"{key.backend_error}/error", "2 creating vbd structure"),
            "creating vbd structure",
        ),
        (lambda store, key: store.remove(key.backend), "its nodes were removed"),
        (lambda store, key: store.write(f"{key.backend}/state", "junk"), "state"),
        (
            lambda store, key: store.remove("/local/domain/5/device"),
            "timed out after 1 s waiting for blkback to open",
        ),
        (lambda store, key: None, "timed out after 1 s waiting for blkback to open the device"),
    ],
)
def test_a_failed_attachment_is_rolled_back(store, daemon, device, sysfs, act, words):
    before = everything(store)
    backend = Backend(daemon, Key(5, 51712), act)
    backend.start()
    (outcome,) = blkback.attach(store, [request(device)], 1)
    backend.join()
    assert words in str(outcome.error) and not outcome.changed
    assert everything(store) == before


def test_a_vdev_in_use_is_left_alone(store, device, sysfs):
    store.write("/libxl/5/device/vbd/51712/frontend", "x")
    store.write("/local/domain/0/backend/vbd/5/51728/state", "4")
    before = everything(store)
    outcomes = blkback.attach(store, [request(device), request(device, "xvdb")], 2)
    assert [type(outcome.error) for outcome in outcomes] == [DeviceBusy, DeviceBusy]
    assert everything(store) == before


def test_the_same_vdev_twice_in_one_call(store, daemon, device, sysfs):
    Backend(daemon, Key(5, 51712), opens(number_of(device))).start()
    outcomes = blkback.attach(store, [request(device), request(device)], 10)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), DeviceBusy]


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "rw"},
        {"device_type": "floppy"},
        {"device_type": "cdrom"},
        {"params": "phy:/dev/x"},
        {"params": "a\nb"},
        {"form": "no"},
    ],
)
def test_bad_requests_write_nothing(store, device, sysfs, options):
    before = everything(store)
    (outcome,) = blkback.attach(store, [request(device, **options)], 2)
    assert isinstance(outcome.error, InvalidValue)
    assert everything(store) == before


def test_a_guard_refuses_in_the_transaction(store, device, sysfs):
    seen = []

    def guard(tx, asked):
        seen.append(asked)
        raise DeviceBusy("used elsewhere")

    before = everything(store)
    (outcome,) = blkback.attach(store, [request(device)], 2, guard=guard)
    assert "used elsewhere" in str(outcome.error) and len(seen) == 1
    assert everything(store) == before


def test_a_frozen_xenstored(daemon, store, device, sysfs):
    before = everything(store)
    with Store(0.5, daemon.socket) as hung:
        hung.connect()
        daemon.freeze()
        try:
            began = time.monotonic()
            outcomes = blkback.attach(hung, [request(device), request(device, "xvdb")], 2)
            took = time.monotonic() - began
        finally:
            daemon.thaw()
    assert [type(outcome.error) for outcome in outcomes] == [DeadlineExceeded] * 2
    assert took < 3
    assert everything(store) == before


def test_a_freeze_while_waiting_names_the_nodes_left_behind(daemon, store, device, sysfs):
    def act(dummy, key):
        daemon.freeze()

    with Store(0.3, daemon.socket) as hung:
        backend = Backend(daemon, Key(5, 51712), act)
        backend.start()
        try:
            (outcome,) = blkback.attach(hung, [request(device)], 3)
        finally:
            daemon.thaw()
    assert isinstance(outcome.error, DeadlineExceeded)
    assert "Nodes of /local/domain/0/backend/vbd/5/51712 may be left" in str(outcome.error)


# Detaching


@pytest.fixture
def vbd(store, daemon, device, sysfs):
    backend = Backend(daemon, Key(5, 51712), opens(number_of(device), "4"))
    backend.start()
    (outcome,) = blkback.attach(store, [request(device)], 10)
    backend.join()
    assert outcome.error is None
    return outcome.vbd


class Closing(threading.Thread):
    """Plays blkback and the guest: closes the vbd once asked to."""

    def __init__(self, daemon, key, state="6"):
        super().__init__(daemon=True)
        self.path, self.key, self.state = daemon.socket, key, state
        self.online = None

    def run(self):
        with Store(5, self.path) as store:
            end = time.monotonic() + 10
            while store.read(f"{self.key.backend}/state") != "5" and time.monotonic() < end:
                time.sleep(0.002)
            self.online = store.read(f"{self.key.backend}/online")
            store.write(f"{self.key.backend}/state", self.state)
            os.unlink(self.key.sysfs + "/physical_device")
            os.rmdir(self.key.sysfs)


def test_detach(store, daemon, vbd):
    closing = Closing(daemon, vbd.key)
    closing.start()
    (outcome,) = blkback.detach(store, [Detachment(vbd, GUEST)], 5)
    closing.join()
    assert outcome.error is None and outcome.changed and closing.online == "0"
    assert store.list("/libxl/5") == ["type"]
    assert store.list("/local/domain/0") is None and store.list("/local/domain/5") == ["name", "vm"]
    (outcome,) = blkback.detach(store, [Detachment(vbd, GUEST)], 5)
    assert outcome.error is None and not outcome.changed


def test_a_guest_that_does_not_answer(store, vbd):
    began = time.monotonic()
    (outcome,) = blkback.detach(store, [Detachment(vbd, GUEST)], 0.5)
    assert isinstance(
        outcome.error, DeadlineExceeded
    ) and "(backend state 5, the guest's own state 1)" in str(outcome.error)
    assert time.monotonic() - began < 2
    assert vbd_read.read_vbd(store, *vbd.key).state == 5


def after_the_withdrawal(monkeypatch, act):
    """``act()`` is called when a request to release a disk was withdrawn."""
    right = blkback._Detach._is_answered

    def is_answered(job, store, limit):
        act()
        return right(job, store, limit)

    monkeypatch.setattr(blkback._Detach, "_is_answered", is_answered)


def test_a_request_is_withdrawn(store, vbd):
    before = everything(store)
    (outcome,) = blkback.ask(store, [Detachment(vbd, GUEST)], 0.3)
    assert isinstance(outcome.error, DeadlineExceeded) and not outcome.changed
    assert everything(store) == before


def test_a_request_is_withdrawn_from_a_disk_without_the_node_online(store, vbd):
    store.remove(f"{vbd.key.backend}/online")
    before = everything(store)
    (outcome,) = blkback.ask(store, [Detachment(vbd, GUEST)], 0.3)
    assert isinstance(outcome.error, DeadlineExceeded) and everything(store) == before


def test_a_guest_that_answers_when_the_request_was_withdrawn_is_asked_again(store, vbd, monkeypatch):
    after_the_withdrawal(monkeypatch, lambda: store.write(f"{vbd.key.frontend}/state", "5"))
    (outcome,) = blkback.ask(store, [Detachment(vbd, GUEST)], 0.3)
    assert outcome.changed and "has begun to release" in outcome.error.hint
    assert store.read(f"{vbd.key.backend}/online") == "0"


def test_a_guest_that_is_destroyed_when_the_request_was_withdrawn_leaves_no_nodes(store, vbd, monkeypatch):
    def destroy():
        for path in ("/local/domain/5", "/libxl/5", "/local/domain/0/backend/vbd/5"):
            store.remove(path)

    after_the_withdrawal(monkeypatch, destroy)
    (outcome,) = blkback.ask(store, [Detachment(vbd, GUEST)], 0.3)
    assert outcome.error is None and not store.list("/local/domain/0/backend/vbd")


def test_another_disk_is_not_changed_by_a_withdrawal(store, vbd, monkeypatch):
    """Somebody attached another one, which is being detached too."""
    right = blkback._Detach._withdraw_in

    def withdraw_in(job, tx):
        store.write(f"{vbd.key.backend}/physical-device", "fd:9")
        return right(job, tx)

    monkeypatch.setattr(blkback._Detach, "_withdraw_in", withdraw_in)
    (outcome,) = blkback.ask(store, [Detachment(vbd, GUEST)], 0.3)
    assert "it is left unchanged" in outcome.error.hint
    assert store.read(f"{vbd.key.backend}/online") == "0"


def test_the_guests_error_message_is_sanitised(store, vbd):
    store.write(vbd.key.frontend_error, "16 Device in use; refusing to close" + "x" * 1000)
    (outcome,) = blkback.detach(store, [Detachment(vbd, GUEST)], 0.2)
    assert "it says '16 Device in use; refusing to close" in str(outcome.error)
    assert len(str(outcome.error)) < 800


def test_force_removes_the_frontend_at_once(store, daemon, vbd):
    closing = Closing(daemon, vbd.key)
    closing.start()
    (outcome,) = blkback.detach(store, [Detachment(vbd, GUEST)], 5, force=True)
    closing.join()
    assert outcome.error is None
    assert store.list("/libxl/5") == ["type"] and store.list("/local/domain/0") is None


def test_another_device_is_left_alone(store, vbd):
    before = everything(store)
    (outcome,) = blkback.detach(store, [Detachment(vbd._replace(diskseq=vbd.diskseq + 1), GUEST)], 1)
    assert isinstance(outcome.error, WrongDevice)
    (outcome,) = blkback.detach(
        store, [Detachment(vbd, GUEST._replace(uuid="0" * 8 + GUEST.uuid[8:]))], 1, force=True
    )
    assert isinstance(outcome.error, GuestError)
    assert everything(store) == before


def test_the_guest_has_ended(store, vbd):
    store.remove("/local/domain/5")
    threading.Timer(0.3, lambda: subprocess.run(["rm", "-r", vbd.key.sysfs], check=True)).start()
    (outcome,) = blkback.detach(store, [Detachment(vbd, GUEST)], 5)
    assert outcome.error is None
    assert store.list("/libxl/5") == ["type"] and store.list("/local/domain/0") is None


def test_blkback_that_never_closes_the_device(store, daemon, vbd, monkeypatch):
    monkeypatch.setattr(blkback, "_CLEANUP", 0.3)
    (outcome,) = blkback.detach(store, [Detachment(vbd, GUEST)], 0.5, force=True)
    assert isinstance(outcome.error, DeadlineExceeded) and "blkback to close the device" in str(outcome.error)


def test_listing(store, vbd):
    assert (
        vbd_read.list_vbds(store) == vbd_read.list_vbds(store, GUEST) == [vbd_read.read_vbd(store, 5, 51712)]
    )
    assert vbd_read.list_vbds(store, GUEST._replace(domid=6)) == []
    store.write("/local/domain/0/backend/vbd/7/51728/physical-device", "7:0")
    assert [found.key for found in vbd_read.list_vbds(store)] == [Key(5, 51712), Key(7, 51728)]
    store.write("/local/domain/0/backend/vbd/7/51728/diskseq", "0")
    with pytest.raises(XenStoreError, match="backend/vbd/7/51728/diskseq"):
        vbd_read.list_vbds(store)
