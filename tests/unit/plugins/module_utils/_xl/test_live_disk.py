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
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeadlineExceeded, GuestError
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
    """The ``steps`` that were taken; what fails is in ``fails``."""

    def __init__(self, monkeypatch):
        self.steps, self.fails = [], []
        monkeypatch.setattr(xl_command, "attach", self.attach)
        monkeypatch.setattr(xl_command, "detach", lambda *words: self.steps.append("detach"))
        monkeypatch.setattr(blkback, "ask", self.ask)
        monkeypatch.setattr(blkback, "wait_released", lambda *words: None)
        monkeypatch.setattr(vbd_read, "read_vbd", lambda *words: None)
        monkeypatch.setattr(live_disk._guest, "lives", lambda *words: True)
        monkeypatch.setattr(LiveDisk, "_prove", lambda disk: self.steps.append("prove"))

    def attach(self, domid, text, device, seconds):
        self.steps.append(text.partition("access=")[2])
        if self.fails:
            raise self.fails.pop(0)

    def ask(self, store, detachments, seconds):
        self.steps.append("ask")
        error = DeadlineExceeded("the guest", 1) if "ask" in self.fails else None
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
    scene.disk().change()
    assert scene.steps == ["ask", "detach", NEW, "prove"]


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
    monkeypatch.setattr(vbd_read, "read_vbd", lambda *words: VBD if is_left else None)
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


def test_the_old_disk_cannot_come_back(scene):
    scene.fails = [GuestError("no"), GuestError("not even the old one")]
    disk = scene.disk()
    with pytest.raises(GuestError, match="no$"):
        disk.change()
    with pytest.raises(GuestError, match="no disk xvdb now: its old disk .* not even the old one"):
        disk.undo()
    assert disk.remains() == ["the guest has no disk xvdb now"]
