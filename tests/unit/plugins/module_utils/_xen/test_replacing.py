# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which old disks can be replaced by which new ones, and how an old one is attached again."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeviceBusy, GuestError
from ansible_collections.racefree.block.plugins.module_utils._block.device import Device, DeviceId
from ansible_collections.racefree.block.plugins.module_utils._xen import replacing
from ansible_collections.racefree.block.plugins.module_utils._xen.footprint import Questions
from ansible_collections.racefree.block.plugins.module_utils._xen.guest import Guest
from ansible_collections.racefree.block.plugins.module_utils._xen.replacing import OldDisk
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key, Vbd

GUEST = Guest(5, "00000005-1111-2222-3333-444444444444", "web", "pv")
VBD = Vbd(Key(5, 51728), "xvdb", "/dev/dm-1", True, False, 4, 4, True, (253, 1), 9, None, None, None, None)
GOLDEN, OLD_STORE, NEW_STORE = (8, 0), (8, 16), (8, 32)


def snapshot(store):
    return [(0, 2048, "snapshot", f"8:0 {store[0]}:{store[1]} P 8")]


# The mapped devices of the host, by minor number.
TABLES = {1: snapshot(OLD_STORE), 2: snapshot(NEW_STORE), 3: snapshot(OLD_STORE)}
QUESTIONS = Questions(
    lambda major, minor: TABLES.get(minor) if major == 253 else None,
    lambda major, minor: None,
    lambda major, minor: None,
    lambda major, minor: None,
)


def mapped(minor, diskseq):
    return Device(-1, DeviceId(253, minor, diskseq), f"dm-{minor}")


OLD = OldDisk(VBD, GUEST, mapped(1, 9), True)


def test_two_snapshots_of_one_image():
    """The image is only read, so the new snapshot can be made while the guest has the old one."""
    replacing.refuse_overlap(OLD, mapped(2, 10), True, QUESTIONS)


@pytest.mark.parametrize("writes", [True, False])
def test_two_snapshots_with_one_store(writes):
    with pytest.raises(DeviceBusy, match="the disk 8:16.* is part of the new disk and of the one"):
        replacing.refuse_overlap(OLD, mapped(3, 11), writes, QUESTIONS)


def test_the_same_device_with_another_mode():
    replacing.refuse_overlap(OLD, OLD.device, False, QUESTIONS)
    replacing.refuse_overlap(OLD._replace(device=None), mapped(3, 11), True, QUESTIONS)


@pytest.mark.parametrize(
    "params, given",
    [("/dev/vg/a", "/dev/vg/a"), ("recipe:web-xvdb", None), ("/a:b", None), (None, None)],
)
def test_the_request_to_attach_it_again(params, given):
    """A target of a hotplug script is no path that a toolstack accepts."""
    old = OLD._replace(vbd=VBD._replace(params=params, writable=False, cdrom=True), discard=False)
    request = old.request()
    assert (request.params, request.mode, request.device_type) == (given, "r", "cdrom")
    assert request.discard is False and request.key == VBD.key and request.device is old.device


@pytest.mark.parametrize("changes", [{"state": 5}, {"state": 6}, {"online": False}])
def test_a_disk_that_the_guest_is_releasing_is_not_attached_again(changes):
    store = {}.get  # no node is there

    class Store:
        read = staticmethod(store)

    old = replacing.look_at(Store, VBD._replace(**changes), GUEST, mapped(1, 9))
    assert not old.is_attached and old.device is None


def test_a_disk_that_the_guest_never_got():
    """A killed xl or script has left it without a number. There is nothing to attach again."""

    class Store:
        read = staticmethod({}.get)
        read_many = staticmethod(dict.fromkeys)

    old = replacing.look_at(Store, VBD._replace(state=2, number=None, diskseq=None), GUEST, None)
    assert not old.is_attached and str(old).startswith("its old disk (")
    assert old.state_words(Store) == []


def test_a_disk_without_a_device():
    class Store:
        read = staticmethod({}.get)

    with pytest.raises(GuestError, match="blkback has no device open for the guest's disk"):
        replacing.look_at(Store, VBD, GUEST, None)
