# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeviceBusy
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._block import sysfs
from ansible_collections.racefree.block.plugins.module_utils._xen import (
    blkback,
    footprint,
)
from ansible_collections.racefree.block.plugins.module_utils._xen import (
    sharing as _sharing,
)
from ansible_collections.racefree.block.plugins.module_utils._xen import (
    vdev as _vdev,
)
from ansible_collections.racefree.block.plugins.module_utils._xen.blkback import Request
from ansible_collections.racefree.block.plugins.module_utils._xen.guest import Guest
from ansible_collections.racefree.block.plugins.module_utils._xenstore import session
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/loop-control"), reason="loop devices need root"
)

GUEST = Guest(5, "00000005-1111-2222-3333-444444444444", "web")


@pytest.fixture(scope="module")
def daemon():
    with Xenstored() as running:
        yield running


@pytest.fixture
def store(daemon):
    with Store(5, daemon.socket) as opened:
        yield opened
        opened.remove("/local")


class Place(NamedTuple):
    """A request for a file that has no device yet."""

    key: object
    guest: Guest


class Loops:
    """
    Creates loop devices and answers the sharing check's questions about them with losetup, that is, with the
    kernel's own data.
    """

    def __init__(self, directory):
        self.directory = directory
        self.paths = []

    def make(self, name="disk", *options):
        path = self.directory / name
        if not path.exists():
            path.write_bytes(b"\0" * (1 << 20))
        made = subprocess.run(
            ["losetup", "--show", "-f", *options, str(path)], stdout=subprocess.PIPE, check=True, timeout=30
        )
        self.paths.append(made.stdout.decode().strip())
        return self.paths[-1]

    def loop_of(self, major, minor):
        path = f"/dev/loop{minor}" if major == 7 else None
        if path not in self.paths:
            return None
        asked = subprocess.run(
            ["losetup", "-n", "-O", "BACK-MAJ:MIN,BACK-INO,OFFSET,SIZELIMIT", path],
            stdout=subprocess.PIPE,
            check=True,
            timeout=30,
        )
        device, inode, offset, size = asked.stdout.decode().split()
        return os.makedev(*map(int, device.split(":"))), int(inode), int(offset), int(size)

    @property
    def questions(self):
        return (lambda major, minor: None), self.loop_of, sysfs.partition_of, sysfs.members_of


@pytest.fixture
def loops(tmp_path):
    made = Loops(tmp_path)
    yield made
    for path in made.paths:
        subprocess.run(["losetup", "-d", path], check=True, timeout=30)


def in_use(store, path, domid=9, devid=51712, mode="w", **more):
    """Write another guest's vbd to XenStore."""
    found = os.stat(path).st_rdev
    nodes = {
        "physical-device": f"{os.major(found):x}:{os.minor(found):x}",
        "mode": mode,
        "state": "4",
        "dev": "xvda",
        **more,
    }
    store.write_many(
        {f"/local/domain/0/backend/vbd/{domid}/{devid}/{name}": value for name, value in nodes.items()}
    )


def refused(store, loops, path, mode="w", vdev="xvda"):
    """The error of the guard, or None."""
    with (
        _device.open_path(path, writable=mode == "w") as device,
        _sharing.Sharing(loops.questions) as sharing,
    ):
        request = Request(GUEST, _vdev.parse(vdev), device, mode=mode)
        try:
            store.transaction(lambda tx: sharing.guard(tx, request))
        except DeviceBusy as error:
            return str(error)
        return None


def test_an_unused_device(store, loops):
    assert refused(store, loops, loops.make()) is None


@pytest.mark.parametrize(
    "theirs, ours, expected", [("w", "w", True), ("w", "r", True), ("r", "w", True), ("r", "r", False)]
)
def test_the_same_device(store, loops, theirs, ours, expected):
    path = loops.make()
    in_use(store, path, mode=theirs)
    reason = refused(store, loops, path, ours)
    assert bool(reason) == expected
    if expected:
        assert (
            "is in use as disk xvda of domain 9" in reason and "inode" in reason and "shared=true" in reason
        )


def test_another_loop_device_of_the_same_file(store, loops):
    one, same, other = loops.make(), loops.make(), loops.make("other")
    in_use(store, one)
    assert refused(store, loops, same)
    assert refused(store, loops, other) is None


def test_different_areas_of_one_file(store, loops):
    one = loops.make("disk", "--sizelimit", "524288")
    rest, overlapping = loops.make("disk", "-o", "524288"), loops.make("disk", "-o", "262144")
    in_use(store, one)
    assert refused(store, loops, rest) is None
    assert refused(store, loops, overlapping)


def test_the_same_disk_of_the_same_guest_is_no_conflict_but_a_second_one_is(store, loops):
    path = loops.make()
    in_use(store, path, domid=5)
    assert refused(store, loops, path) is None
    assert refused(store, loops, path, vdev="xvdb")


@pytest.mark.parametrize(
    "theirs, own, moves",
    [
        ("web", "web--incoming", True),
        ("web--migratedaway", "web--incoming", True),
        ("web--migratedaway", "web", True),
        ("web--incoming", "web", True),
        ("web", "web", False),
        ("web", "mail--incoming", False),
        ("web--incoming", "web--incoming", False),
        ("web", None, False),
        (None, "web--incoming", False),
        (None, None, False),
        ("", "--incoming", False),
    ],
)
def test_a_guest_that_migrates(store, loops, theirs, own, moves):
    """
    Two domains with the same UUID may be two guests with one definition. Only xl's name suffixes prove a
    migration.
    """
    path = loops.make()
    in_use(store, path)
    store.write("/local/domain/9/vm", "/vm/" + GUEST.uuid)
    for domid, name in ((9, theirs), (GUEST.domid, own)):
        store.remove(f"/local/domain/{domid}/name")
        if name is not None:
            store.write(f"/local/domain/{domid}/name", name)
    assert bool(refused(store, loops, path)) != moves
    store.write("/local/domain/9/vm", "/vm/10000005-1111-2222-3333-444444444444")
    assert refused(store, loops, path)


@pytest.mark.parametrize(
    "targets, expected",
    [
        ({9: "5"}, False),
        ({5: "9"}, False),
        ({}, True),
        ({9: "6"}, True),
        ({9: "5x"}, True),
        ({5: "9", 9: "5"}, True),
    ],
)
def test_a_stub_domain_has_the_disks_of_its_guest(store, loops, targets, expected):
    path = loops.make()
    in_use(store, path)
    store.write_many({f"/local/domain/{domid}/target": target for domid, target in targets.items()})
    assert bool(refused(store, loops, path)) == expected


def test_a_guest_that_has_not_started(store, loops):
    """The guest has no domain id and no disk yet. A domain with its UUID is another guest."""
    path = loops.make()
    in_use(store, path)
    store.write_many({"/local/domain/9/vm": "/vm/" + GUEST.uuid, "/local/domain/9/name": "web--migratedaway"})
    request = Place(None, Guest(-1, GUEST.uuid, "web"))
    with _device.open_path(path) as device, _sharing.Sharing(loops.questions) as sharing:
        mine = footprint.footprint(
            device.id.major, device.id.minor, True, footprint.Questions(*loops.questions)
        )
        with pytest.raises(DeviceBusy, match="in use as disk xvda of domain 9"):
            sharing.check_extents(store, mine, request, path)


def test_stale_nodes_of_another_device_do_not_count(store, loops):
    path = loops.make()
    in_use(store, path, diskseq="1")
    assert refused(store, loops, path) is None
    in_use(store, path, domid=10, state="6")
    assert refused(store, loops, path) is None
    in_use(store, path, domid=11)
    assert refused(store, loops, path)


def test_a_file_that_qemu_serves(store, loops):
    path = loops.make()
    store.write("/local/domain/0/backend/qdisk/9/51712/params", f"raw:{loops.directory / 'disk'}")
    store.write("/local/domain/0/backend/qdisk/9/51712/mode", "w")
    assert refused(store, loops, path)
    store.write("/local/domain/0/backend/qdisk/9/51712/mode", "r")
    assert refused(store, loops, path) and refused(store, loops, path, "r") is None


def test_a_device_claimed_by_this_host(store, loops):
    path = loops.make()
    claim = os.open(path, os.O_RDWR | os.O_EXCL)
    try:
        assert "this host itself uses it" in refused(store, loops, path)
    finally:
        os.close(claim)
    assert refused(store, loops, path) is None


def test_a_file_mounted_through_another_loop_device(store, loops):
    """The exclusive claim is on another loop device of the file, as after mount -o loop."""
    mounted, ours, rest = loops.make(), loops.make(), loops.make("other")
    assert refused(store, loops, ours) is None
    handle = os.open(mounted, os.O_RDONLY | os.O_EXCL)
    try:
        reason = refused(store, loops, ours)
        assert f"uses the file, as {mounted}" in reason
        assert refused(store, loops, rest) is None
    finally:
        os.close(handle)
    assert refused(store, loops, ours) is None


def test_a_concurrent_attachment_is_detected(store, daemon, loops):
    """The check is part of the transaction: a concurrent attach makes it run again."""
    path, runs = loops.make(), []
    in_use(store, loops.make("other"))
    with _device.open_path(path, writable=True) as device, _sharing.Sharing(loops.questions) as sharing:
        request = Request(GUEST, _vdev.parse("xvda"), device)

        def write(tx):
            sharing.guard(tx, request)
            if not runs:
                with Store(5, daemon.socket) as another:
                    in_use(another, path, domid=12)
            runs.append(1)
            tx.write(f"{request.key.backend}/physical-device", "7:0")

        with pytest.raises(DeviceBusy, match="domain 12"):
            store.transaction(write)
    assert runs == [1]
    assert store.read(f"{request.key.backend}/physical-device") is None


def test_each_transaction_checks_again(store, loops):
    path, other = loops.make(), loops.make("other")
    in_use(store, other)
    with _device.open_path(path, writable=True) as device, _sharing.Sharing(loops.questions) as sharing:
        request = Request(GUEST, _vdev.parse("xvda"), device)
        store.transaction(lambda tx: sharing.guard(tx, request))
        in_use(store, path)
        with pytest.raises(DeviceBusy):
            store.transaction(lambda tx: sharing.guard(tx, request))


def test_the_second_transaction_is_short(store, loops, monkeypatch):
    """
    All known nodes are read in one batch, so that concurrent attaches conflict less often. Disks that are new
    by then are seen, and removed ones are not.
    """
    path, other, third = loops.make(), loops.make("other"), loops.make("third")
    for devid, disk in ((51712, other), (51728, third)):
        in_use(store, disk, devid=devid)
    in_use(store, third, domid=10)
    store.write("/local/domain/0/backend/vbd/10/51728/state", "2")
    with _device.open_path(path, writable=True) as device, _sharing.Sharing(loops.questions) as sharing:
        request = Request(GUEST, _vdev.parse("xvda"), device)
        assert len(store.transaction(sharing.look)) == 3
        asked = []
        with monkeypatch.context() as patch:
            for kind in (type(store), session.Transaction):
                real = kind._pipeline
                patch.setattr(
                    kind,
                    "_pipeline",
                    lambda self, requests, real=real: asked.append(len(requests)) or real(self, requests),
                )
            assert len(store.transaction(sharing.look)) == 3
        # Two roots and two domains are listed; three nodes of each disk with a device and one of the other
        # are read.
        assert [count for count in asked if count] == [2 + 2 + 3 * 3 + 1]
        store.remove("/local/domain/0/backend/vbd/9/51712")
        store.transaction(lambda tx: sharing.guard(tx, request))
        in_use(store, path, domid=11)
        assert sorted(use.key.domid for use in store.transaction(sharing.look).values()) == [9, 10, 11]
        with pytest.raises(DeviceBusy, match="domain 11"):
            store.transaction(lambda tx: sharing.guard(tx, request))


def test_this_host_is_examined_once(store, loops, monkeypatch):
    """
    The host is examined once, before the transaction, however often that runs, and again for another mode.
    """
    with _device.open_path(loops.make()) as device, _sharing.Sharing(loops.questions) as sharing:
        asked = []
        monkeypatch.setattr(_sharing, "refuse_mounted", lambda *words: asked.append(words))
        request = Request(GUEST, _vdev.parse("xvda"), device, mode="r")
        mine = sharing.prepare(request)
        assert sharing.prepare(request) == mine and len(asked) == 1
        store.transaction(lambda tx: sharing.guard(tx, request))
        assert len(asked) == 1
        sharing.prepare(request._replace(mode="w"))
        assert len(asked) == 2


def test_two_guests_in_one_call(store, loops, daemon):
    for domid in (5, 6):
        store.write(f"/local/domain/{domid}/vm", f"/vm/0000000{domid}-1111-2222-3333-444444444444")
    path, other = loops.make(), GUEST._replace(domid=6, uuid="00000006-1111-2222-3333-444444444444")
    with _device.open_path(path, writable=True) as device, _sharing.Sharing(loops.questions) as sharing:
        outcomes = blkback.attach(
            store,
            [Request(guest, _vdev.parse("xvda"), device) for guest in (GUEST, other)],
            0.5,
            guard=sharing.guard,
        )
    assert "in use as disk xvda of domain 5" in str(outcomes[1].error)


def test_no_descriptors_are_left_open(store, loops):
    path = loops.make()
    in_use(store, path)
    before = sorted(os.listdir("/proc/self/fd"))
    refused(store, loops, path)
    assert sorted(os.listdir("/proc/self/fd")) == before
