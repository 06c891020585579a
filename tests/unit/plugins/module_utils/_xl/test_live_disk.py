# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The order in which a running guest of xl loses a disk and gets another one. Tests with xl itself:
tests/host/test_replace.py.
"""

from __future__ import annotations

import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeadlineExceeded,
    DeviceBusy,
    GuestError,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._source import spec
from ansible_collections.racefree.block.plugins.module_utils._xen import blkback, guest, vbd_read
from ansible_collections.racefree.block.plugins.module_utils._xen.replacing import OldDisk
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key, Vbd
from ansible_collections.racefree.block.plugins.module_utils._xl import live_disk, xl_command
from ansible_collections.racefree.block.plugins.module_utils._xl.disk_change import DiskRequest
from ansible_collections.racefree.block.plugins.module_utils._xl.disk_text import DiskText
from ansible_collections.racefree.block.plugins.module_utils._xl.live_disk import LiveDisk

SCRIPT = "/etc/xen/scripts/block-racefree"
VBD = Vbd(
    Key(5, 51728), "xvdb", "recipe:web1-xvdb", True, False, 4, 4, True, (7, 3), 9, None, SCRIPT, None, None
)
SAYS = DiskText("xvdb", "recipe:web1-xvdb", "r", script="block-racefree")


class Scene:
    """
    The ``steps`` that were taken; what fails is in ``fails``. ``has``: the guest's disk now, ``gets``: that
    after the next attach.
    """

    def __init__(self, monkeypatch):
        self.steps, self.fails, self.has, self.gets = [], [], None, None
        self.detach_fails = []
        monkeypatch.setattr(xl_command, "attach", self.attach)
        monkeypatch.setattr(xl_command, "detach", self.detach)
        monkeypatch.setattr(blkback, "ask", self.ask)
        monkeypatch.setattr(blkback, "wait_released", lambda *words: None)
        monkeypatch.setattr(blkback, "detach", self.force)
        monkeypatch.setattr(vbd_read, "read_vbd", lambda *words: self.has)
        monkeypatch.setattr(live_disk._guest, "lives", lambda *words: True)
        monkeypatch.setattr(LiveDisk, "_prove", lambda disk: self.steps.append("prove"))
        # test_xl_disk.py proves it with real loop devices.
        monkeypatch.setattr(live_disk, "OldDevice", lambda *words: types.SimpleNamespace())
        monkeypatch.setattr(LiveDisk, "_prove_old", lambda disk, was: disk.old.device)

    def attach(self, domid, text, device, seconds):
        self.steps.append(text.partition("access=")[2])
        self.has = self.gets
        if self.fails:
            raise self.fails.pop(0)

    def ask(self, store, detachments, seconds):
        self.steps.append("ask")
        error = DeadlineExceeded("the guest", 1) if "ask" in self.fails else None
        return [blkback.Outcome(detachments[0], None, error)]

    def detach(self, *words):
        self.steps.append("detach")
        if self.detach_fails:
            raise self.detach_fails.pop(0)
        self.has = None

    def force(self, store, detachments, seconds, force=False):
        self.steps.append(("forced" if force else "cleared", detachments[0].vbd.params))
        self.has = None
        error = DeadlineExceeded("blkback", 1) if "force" in self.fails else None
        return [blkback.Outcome(detachments[0], None, error)]

    def disk(self, source="file:/srv/a", had=VBD):
        resources = types.SimpleNamespace(locks=types.SimpleNamespace(release=lambda locks: None))
        web1 = guest.Guest(5, "u", "web1")
        parsed = None if source is None else spec.parse(source)
        request = DiskRequest(None, "web1", "xvdb", parsed, mode="r", present=source is not None)
        found = LiveDisk(resources, request, web1, None, SAYS, parsed, 60)
        if had is not None:
            device = types.SimpleNamespace(path="/dev/loop3", id=types.SimpleNamespace(diskseq=9), fd=3)
            found.old = OldDisk(had, web1, device, True)
        return found


NEW = "r,script=block-racefree,target=recipe:web1-xvdb"
OLD = "w,script=block-racefree,target=recipe:web1-xvdb"


@pytest.fixture
def scene(monkeypatch):
    return Scene(monkeypatch)


def test_a_disk_is_attached(scene):
    disk = scene.disk(had=None)
    disk.change()
    assert scene.steps == [NEW, "prove"] and disk.remains() == []


def test_a_disk_is_detached_when_the_guest_agrees(scene):
    scene.disk(source=None).change()
    assert scene.steps == ["ask", "detach"]


def test_a_disk_is_replaced(scene):
    disk = scene.disk()
    assert disk.replaced() is None
    disk.change()
    assert scene.steps == ["ask", "detach", NEW, "prove"]
    assert disk.replaced()["diskseq"] == 9


def test_a_guest_that_keeps_its_disk(scene):
    scene.fails = ["ask"]
    disk = scene.disk()
    with pytest.raises(DeadlineExceeded):
        disk.change()
    disk.undo()
    assert scene.steps == ["ask"] and not disk.again


def test_a_disk_without_a_device_can_be_detached(scene):
    """Also one of another script: it need not be attached again."""
    disk = scene.disk(source=None, had=None)
    had = VBD._replace(number=None, script="/etc/xen/scripts/block-iscsi")
    assert disk.plan(had, None) == ({"target": VBD.params, "mode": "w", "device_type": "disk"}, {})
    disk.change()
    assert scene.steps == ["ask", "detach"]


def test_a_disk_that_the_guest_never_got_is_not_attached_again(scene):
    scene.fails = [GuestError("no")]
    disk = scene.disk()
    disk.old = disk.old._replace(device=None, vbd=VBD._replace(number=None, state=2))
    with pytest.raises(GuestError):
        disk.change()
    disk.undo()
    assert scene.steps == ["ask", "detach", NEW] and not disk.again and disk.remains() == []


@pytest.mark.parametrize("is_left", [False, True])
def test_another_xl_has_detached_the_disk_meanwhile(scene, monkeypatch, is_left):
    """Such as one that a killed run has started. The error is reported only if the disk is still attached."""

    def detach(*words):
        raise GuestError("xl block-detach failed: Device 51728 not connected.")

    monkeypatch.setattr(xl_command, "detach", detach)
    scene.has = VBD if is_left else None
    disk = scene.disk()
    if is_left:
        with pytest.raises(GuestError, match="not connected"):
            disk.change()
        assert scene.steps == ["ask"]
    else:
        disk.change()
        assert scene.steps == ["ask", NEW, "prove"]


def test_the_old_disk_comes_back(scene):
    """Through xl, in the form that XenStore had of it."""
    scene.fails = [GuestError("no")]
    disk = scene.disk()
    with pytest.raises(GuestError):
        disk.change()
    disk.undo()
    assert scene.steps == ["ask", "detach", NEW, OLD] and disk.again and disk.remains() == []


@pytest.mark.parametrize(
    "error", [GuestError("xl block-detach failed"), DeadlineExceeded("xl block-detach", 75)]
)
def test_the_old_disk_comes_back_when_xl_cannot_detach_it(scene, error):
    """The guest has released it before, and its nodes are left."""
    scene.detach_fails, scene.has, scene.gets = [error], VBD._replace(state=6), VBD
    disk = scene.disk()
    with pytest.raises(type(error), match="xl block-detach"):
        disk.change()
    disk.undo()
    assert scene.steps == ["ask", "detach", ("cleared", VBD.params), OLD]
    assert disk.again and disk.remains() == []


def test_the_old_disk_comes_back_when_xl_cannot_detach_the_new_one(scene, monkeypatch):
    def prove(disk):
        raise WrongDevice("the guest has another disk there")

    monkeypatch.setattr(LiveDisk, "_prove", prove)
    scene.gets = VBD
    disk = scene.disk()
    with pytest.raises(WrongDevice):
        disk.change()
    scene.detach_fails = [GuestError("xl block-detach failed")]
    disk.undo()
    assert scene.steps == ["ask", "detach", NEW, "ask", "detach", ("cleared", VBD.params), OLD]
    assert disk.again


def test_a_disk_that_is_only_detached_is_not_attached_again(scene):
    scene.detach_fails, scene.has = [GuestError("xl block-detach failed")], VBD._replace(state=6)
    disk = scene.disk(source=None)
    with pytest.raises(GuestError):
        disk.change()
    disk.undo()
    assert scene.steps == ["ask", "detach"]
    assert disk.remains() == ["the guest has released xvdb (state 6)"]


def test_the_old_disk_cannot_come_back(scene):
    scene.fails = [GuestError("no"), GuestError("not even the old one")]
    disk = scene.disk()
    with pytest.raises(GuestError, match="no$"):
        disk.change()
    with pytest.raises(GuestError, match="no disk xvdb now: its old disk .* not even the old one"):
        disk.undo()
    assert disk.remains() == ["the guest has no disk xvdb now"]


OTHER = VBD._replace(params="/dev/vg/other", number=(253, 9), diskseq=77, script="/etc/xen/scripts/block")


def test_a_disk_of_somebody_else_stays_when_xl_fails(scene):
    """xl says that there is a disk already: somebody was faster."""
    scene.fails, scene.gets = [GuestError("xl block-attach failed: it exists")], OTHER
    disk = scene.disk(had=None)
    with pytest.raises(GuestError, match="it exists") as caught:
        disk.change()
    disk.undo()
    assert scene.steps == [NEW]
    assert "another disk there now, which stays: /dev/vg/other, 253:9 (diskseq 77)" in caught.value.hint


def test_what_a_failed_xl_has_left_is_removed(scene):
    scene.fails, scene.gets = [GuestError("xl block-attach failed")], VBD._replace(number=None, diskseq=None)
    disk = scene.disk(had=None)
    with pytest.raises(GuestError):
        disk.change()
    assert scene.steps == [NEW, ("forced", "recipe:web1-xvdb")]


def test_what_a_failed_xl_has_left_stays(scene):
    scene.fails, scene.gets = [GuestError("xl block-attach failed"), "force"], VBD
    disk = scene.disk(had=None)
    with pytest.raises(GuestError) as caught:
        disk.change()
    assert "Whether xvdb of guest web1 (domain 5) was rolled back is not known" in caught.value.hint


def test_a_disk_of_somebody_else_that_is_there_before_xl_is_started(scene):
    scene.has = OTHER
    with pytest.raises(DeviceBusy, match="meanwhile: /dev/vg/other, 253:9 .* left unchanged"):
        scene.disk(had=None).change()
    assert scene.steps == []


@pytest.mark.parametrize("other", [OTHER, OTHER._replace(params=VBD.params, script=SCRIPT)])
def test_the_undo_leaves_a_disk_of_somebody_else(scene, monkeypatch, other):
    """Somebody detached the new disk, and attached another."""
    scene.gets = VBD
    disk = scene.disk(had=None)
    disk.change()
    disk._new = scene.has
    scene.has, asked = other, []

    def ask(store, detachments, seconds):
        asked.append((detachments[0].vbd.number, detachments[0].vbd.diskseq))
        return [blkback.Outcome(detachments[0], None, WrongDevice("is now another"))]

    monkeypatch.setattr(blkback, "ask", ask)
    with pytest.raises(WrongDevice):
        disk.undo()
    # That is what the real one compares in its transaction.
    assert asked == [(VBD.number, VBD.diskseq)] and scene.steps == [NEW, "prove"]


def test_the_undo_leaves_a_disk_that_was_never_the_right_one(scene, monkeypatch):
    scene.gets = OTHER

    def prove(disk):
        raise WrongDevice("the guest has another disk there")

    monkeypatch.setattr(LiveDisk, "_prove", prove)
    disk = scene.disk(had=None)
    with pytest.raises(WrongDevice):
        disk.change()
    disk.undo()
    assert scene.steps == [NEW]
