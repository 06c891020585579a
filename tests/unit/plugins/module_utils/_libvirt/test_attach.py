# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Which process holds the device while libvirt attaches it. Tests with libvirt itself:
tests/host/test_libvirt_vbd.py.
"""

from __future__ import annotations

import contextlib
import os
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    BlockError,
    GuestError,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._block.device import Device, DeviceId
from ansible_collections.racefree.block.plugins.module_utils._libvirt import attach, connection, domain_xml
from ansible_collections.racefree.block.plugins.module_utils._xen import blkback, guest, vbd_nodes, vdev
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key, Vbd
from ansible_collections.racefree.block.plugins.module_utils._xenstore import pyxs_store
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import xenstored


class Store:
    def within(self, limit):
        return contextlib.nullcontext()


@pytest.fixture
def request_(monkeypatch):
    """A request for a device that is a pipe. Its other end shows when nobody holds the device any more."""
    monkeypatch.setattr(attach._connection, "require", lambda: None)
    monkeypatch.setattr(attach, "libvirt", types.SimpleNamespace(VIR_DOMAIN_AFFECT_LIVE=1))
    monkeypatch.setattr(attach.blkback, "check", lambda request: None)
    monkeypatch.setattr(attach.vbd_read, "read_vbd", lambda *arguments: None)
    monkeypatch.setattr(Device, "prove", lambda device: None)
    monkeypatch.setattr(Device, "has_node", True)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with Device(writer, DeviceId(7, 0, 1), "pipe") as device:
        yield blkback.Request(guest.Guest(5, "u", "web1"), vdev.parse("xvda"), device), reader
    os.close(reader)


def is_held_by_another(device, reader):
    """Whether the device stays open when this process closes it, as if it were killed."""
    copy = os.dup(reader)
    device.close()
    try:
        return os.read(copy, 1) != b""
    except BlockingIOError:
        return True
    finally:
        os.close(copy)


@pytest.mark.parametrize("moment", ["libvirt", "proof"])
def test_a_killed_run_does_not_free_the_device_number(request_, monkeypatch, moment):
    request, reader = request_
    seen = []

    def look(*arguments):
        seen.append(is_held_by_another(request.device, reader))

    monkeypatch.setattr(attach, "_with_run", look if moment == "libvirt" else lambda *arguments: None)
    monkeypatch.setattr(attach, "_proven", look if moment == "proof" else lambda *arguments: None)
    (outcome,) = attach.attach(Store(), [request])
    assert outcome.error is None and seen == [True]
    assert os.read(reader, 1) == b"", "the holder ends after the proof"


def test_the_holder_ends_after_a_failure(request_, monkeypatch):
    request, reader = request_

    def fail(*arguments):
        raise GuestError("no")

    monkeypatch.setattr(attach, "_with_run", fail)
    (outcome,) = attach.attach(Store(), [request])
    assert isinstance(outcome.error, GuestError)
    request.device.close()
    assert os.read(reader, 1) == b""


def vbd_of(params, number):
    """What XenStore has for the disk of the request: a disk with this path and device."""
    script = "/etc/xen/scripts/block"
    return Vbd(Key(5, 51712), "xvda", params, True, False, 4, 4, True, number, 77, None, script, None, None)


@pytest.mark.parametrize(
    "params, number, is_taken",
    [("/dev/vg/other", (253, 9), False), ("/dev/vg/other", None, False), ("/dev/pipe", None, True)],
)
def test_only_the_disk_of_this_run_is_rolled_back(request_, monkeypatch, params, number, is_taken):
    """Somebody else attaches a disk with the same name first, and libvirt refuses the second one."""
    request, dummy = request_
    there, detached = [], []
    monkeypatch.setattr(attach.vbd_read, "read_vbd", lambda *words: there[0] if there else None)

    def call(guest, uri, limit, function):
        if not there:
            there.append(vbd_of(params, number))
            raise GuestError("libvirt refused: it exists")
        detached.append("by libvirt")

    def detach(store, detachments, timeout, force):
        detached.extend(detachment.vbd.params for detachment in detachments)
        return [blkback.Outcome(detachments[0], None, None)]

    monkeypatch.setattr(attach, "_with_run", call)
    monkeypatch.setattr(attach.blkback, "detach", detach)
    (outcome,) = attach.attach(Store(), [request])
    assert detached == (["by libvirt", params] if is_taken else [])
    assert (f"has {params} as xvda now, which this run did not attach" in str(outcome.error)) is not is_taken


def test_a_disk_that_follows_the_one_that_was_rolled_back_stays(request_, monkeypatch):
    request, dummy = request_
    there = []
    monkeypatch.setattr(attach.vbd_read, "read_vbd", lambda *words: there[-1] if there else None)

    def call(guest, uri, limit, function):
        there.append(vbd_of("/dev/vg/other", (253, 9)) if there else vbd_of("/dev/pipe", (7, 3)))

    monkeypatch.setattr(attach, "_with_run", call)
    monkeypatch.setattr(attach.vbd_read, "opened_number", lambda key: (7, 3))
    monkeypatch.setattr(attach.blkback, "detach", lambda *words, **more: pytest.fail("it was detached"))
    (outcome,) = attach.attach(Store(), [request])
    assert isinstance(outcome.error, WrongDevice) and "/dev/vg/other" in str(outcome.error)


class LibvirtError(Exception):
    def __init__(self, code):
        super().__init__("libvirt says no")
        self.code = code

    def get_error_code(self):
        return self.code

    def get_error_message(self):
        return str(self)


@pytest.fixture
def libvirt_says(monkeypatch):
    """``libvirt_says(code)``: the answer to every question about a domain; None if it runs."""
    library = types.SimpleNamespace(
        libvirtError=LibvirtError,
        VIR_ERR_NO_DOMAIN=42,
        VIR_ERR_INVALID_ARG=8,
        VIR_ERR_CONF_SYNTAX=9,
        VIR_DOMAIN_AFFECT_LIVE=1,
    )

    def answer(code):
        def look_up(dummy):
            if code is not None:
                raise LibvirtError(code)
            return types.SimpleNamespace(isActive=lambda: 1)

        library.open = lambda uri: types.SimpleNamespace(lookupByUUIDString=look_up, close=lambda: None)

    for module in (attach, connection):
        monkeypatch.setattr(module, "libvirt", library)
    answer.library = library
    return answer


GUEST = guest.Guest(5, "u", "web1")


def test_whether_libvirt_runs_a_guest(libvirt_says):
    libvirt_says(None)
    assert attach.runs(GUEST)
    libvirt_says(libvirt_says.library.VIR_ERR_NO_DOMAIN)
    assert not attach.runs(GUEST)


@pytest.mark.parametrize("case", ["error", "daemon", "library"])
def test_libvirt_does_not_tell_whether_it_runs_a_guest(libvirt_says, monkeypatch, case):
    """Its state files show that it has guests. A change behind its back would be the wrong way."""

    def refuse(uri):
        raise LibvirtError(38)

    libvirt_says(38)
    if case == "daemon":
        libvirt_says.library.open = refuse
    elif case == "library":
        monkeypatch.setattr(connection, "libvirt", None)
    with pytest.raises(BlockError, match="whether libvirt runs the guest") as caught:
        attach.runs(GUEST)
    assert "set toolstack: xenstore" in str(caught.value)


def test_no_time_is_left_to_ask_libvirt(request_, libvirt_says, monkeypatch):
    """It is not asked, so it attaches nothing later, and no process has to hold the device for that."""
    request, reader = request_
    asked = []
    libvirt_says.library.open = asked.append
    monkeypatch.setattr(attach, "hold_for", lambda *words: pytest.fail("the device is held"))
    (outcome,) = attach.attach(Store(), [request], 0)
    assert "libvirt was not asked" in str(outcome.error) and "may still attach" not in str(outcome.error)
    assert not asked


class NextRun:
    """
    libvirt, and a guest that is started again as domain 6 right ``before`` libvirt attaches a disk to it, or
    right ``after``. ``defined``: whether its inactive definition has a disk with that name. As in libvirt, a
    handle keeps the id that it was made with, and its calls go to the present run.
    """

    VIR_DOMAIN_AFFECT_LIVE, VIR_DOMAIN_XML_INACTIVE, libvirtError = 1, 2, LibvirtError

    def __init__(self, moment, defined):
        self.moment, self.defined, self.run, self.live, self.detached = moment, defined, 5, False, []

    def open(self, uri):
        return types.SimpleNamespace(lookupByUUIDString=self.look_up, close=lambda: None)

    def look_up(self, uuid):
        number = self.run
        return types.SimpleNamespace(
            ID=lambda: number,
            isActive=lambda: 1,
            attachDeviceFlags=self.attach,
            detachDeviceFlags=lambda xml, flags: self.detached.append(self.run),
            XMLDesc=lambda flags: "<target dev='xvda'" if (self.defined if flags else self.live) else "",
        )

    def start_again(self):
        self.run, self.live = 6, self.defined

    def attach(self, xml, flags):
        if self.moment == "before":
            self.start_again()
        self.live = True
        if self.moment == "after":
            self.start_again()


@pytest.mark.parametrize(
    "moment, defined, detached, told",
    [
        ("before", False, [6], "It has no new disk xvda"),
        ("after", False, [], "It has no new disk xvda"),
        ("after", True, [], "It has the disk xvda of its definition"),
    ],
)
def test_the_guest_is_started_again_just_when_it_gets_a_disk(
    request_, monkeypatch, moment, defined, detached, told
):
    played = NextRun(moment, defined)
    for module in (attach, connection):
        monkeypatch.setattr(module, "libvirt", played)
    (outcome,) = attach.attach(Store(), [request_[0]])
    assert "was started again meanwhile" in str(outcome.error) and told in str(outcome.error)
    assert played.detached == detached


def test_the_next_run_of_a_guest_is_not_touched(request_, monkeypatch):
    """Its disks are others, also that with the same name."""
    played = NextRun(None, defined=True)
    for module in (attach, connection):
        monkeypatch.setattr(module, "libvirt", played)
    played.start_again()
    (outcome,) = attach.attach(Store(), [request_[0]])
    assert "was started again meanwhile" in str(outcome.error)
    monkeypatch.setattr(attach.vbd_read, "read_vbd", lambda *words: vbd_of("/dev/pipe", (7, 0)))
    old = blkback.Detachment(vbd_of("/dev/pipe", (7, 0)), request_[0].guest)
    # The guest releases its disk, and is then started again.
    monkeypatch.setattr(attach, "_is_listed", lambda *words: True)
    played.run = 5
    monkeypatch.setattr(
        attach.blkback, "ask", lambda *words: played.start_again() or [blkback.Outcome(old, None, None)]
    )
    (outcome,) = attach.detach(Store(), [old])
    assert "was started again meanwhile" in str(outcome.error) and played.detached == []


def test_a_disk_that_others_may_use_too_is_saved_as_such(request_, monkeypatch):
    """A saved guest is restored from its running definition. Without the mark, it would be refused."""
    given = []
    monkeypatch.setattr(attach, "_with_run", lambda guest, uri, limit, call: call(None, None))
    monkeypatch.setattr(attach, "_attach_to_run", lambda connection, domain, request, xml: given.append(xml))
    monkeypatch.setattr(attach, "_proven", lambda *words: None)
    for shareable in (True, False):
        attach.attach(Store(), [request_[0]], shareable=shareable)
        attach.attach_again(Store(), request_[0], Deadline(5), None, "xen:///system", False, shareable)
    disks = [domain_xml.Domain(f"<domain><devices>{xml}</devices></domain>").disk("xvda") for xml in given]
    assert [disk.shareable for disk in disks] == [True, True, False, False]


@pytest.mark.parametrize("case", ["late", "never", "error"])
def test_blkback_opens_the_device_after_libvirt_has_answered(monkeypatch, case):
    """Xen's hotplug script ends when it has written the number; the kernel opens the device then."""
    key, asked = Key(5, 51712), []

    def opened_number(dummy):
        asked.append(None)
        return (7, 0) if case == "late" and len(asked) > 3 else None

    monkeypatch.setattr(attach.vbd_read, "opened_number", opened_number)
    monkeypatch.setattr(Device, "prove", lambda device: None)
    request = blkback.Request(GUEST, vdev.parse("xvda"), Device(-1, DeviceId(7, 0, 9), "loop0"))
    with xenstored.Xenstored() as daemon, pyxs_store.Store(5, daemon.socket) as store:
        disk = vbd_nodes.Disk("xvda", "/dev/loop0", True)
        store.lay(vbd_nodes.layout(key, disk, [("physical-device", "7:0")]))
        if case == "error":
            store.write(f"{key.backend_error}/error", "5 creating vbd structure")
        with store.within(0.3 if case == "never" else 60):
            if case == "late":
                assert attach._proven(store, request).diskseq == 9
                return
            with pytest.raises(GuestError, match="blkback has not opened it") as caught:
                attach._proven(store, request)
    assert ("creating vbd structure" in str(caught.value)) is (len(asked) == 1) is (case == "error")


@pytest.mark.parametrize("case", ["there", "gone", "other"])
def test_a_number_is_noted_only_for_the_disk_that_is_there(monkeypatch, case):
    """The guest may end at any moment. A node that is written afterwards would stay for ever."""
    key = Key(5, 51712)

    def changed(device):
        if case == "gone":
            for path in ("/local/domain/5", "/libxl/5", "/local/domain/0/backend/vbd/5"):
                store.remove(path)
        elif case == "other":
            store.write(f"{key.backend}/physical-device", "fd:9")

    monkeypatch.setattr(attach.vbd_read, "opened_number", lambda key: (7, 0))
    monkeypatch.setattr(Device, "prove", changed)
    with xenstored.Xenstored() as daemon, pyxs_store.Store(5, daemon.socket) as store:
        disk = vbd_nodes.Disk("xvda", "/dev/loop0", True)
        store.lay(vbd_nodes.layout(key, disk, [("physical-device", "7:0")]))
        store.write(f"{key.backend}/state", "4")
        request = blkback.Request(GUEST, vdev.parse("xvda"), Device(-1, DeviceId(7, 0, 9), "loop0"))
        if case == "there":
            assert attach._proven(store, request).diskseq == 9
        else:
            with pytest.raises(GuestError, match="the guest has ended, or the disk was detached meanwhile"):
                attach._proven(store, request)
        assert store.read(f"{key.backend}/diskseq") == ("9" if case == "there" else None)
        assert bool(store.list("/local/domain/0/backend/vbd")) is (case != "gone")


def test_libvirt_gets_no_path_of_another_device(request_, monkeypatch):
    """libvirt accepts only a path, and would open whatever is there."""
    request, dummy = request_
    asked = []
    monkeypatch.setattr(Device, "has_node", False)
    monkeypatch.setattr(attach, "_with_run", lambda *arguments: asked.append(arguments))
    (outcome,) = attach.attach(Store(), [request])
    assert (
        isinstance(outcome.error, WrongDevice) and "mknod /dev/pipe b 7 0" in str(outcome.error) and not asked
    )
