# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The order in which a running guest gets a disk and its recipe. Tests with libvirt:
tests/host/test_libvirt_hook.py and test_libvirt_disk.py.
"""

from __future__ import annotations

import contextlib
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeadlineExceeded, GuestError
from ansible_collections.racefree.block.plugins.module_utils._libvirt import (
    attach as _attach,
)
from ansible_collections.racefree.block.plugins.module_utils._libvirt import (
    connection,
    disk_device,
    disk_source,
    live_recipe,
)
from ansible_collections.racefree.block.plugins.module_utils._libvirt.disk_request import DiskRequest
from ansible_collections.racefree.block.plugins.module_utils._libvirt.old_xen_disk import OldXenDisk
from ansible_collections.racefree.block.plugins.module_utils._libvirt.running_disk import RunningDisk
from ansible_collections.racefree.block.plugins.module_utils._source import spec
from ansible_collections.racefree.block.plugins.module_utils._xen import guest as _guest
from ansible_collections.racefree.block.plugins.module_utils._xen import vbd_read
from ansible_collections.racefree.block.plugins.module_utils._xen.blkback import Outcome
from ansible_collections.racefree.block.plugins.module_utils._xen.guest import Guest
from ansible_collections.racefree.block.plugins.module_utils._xen.replacing import OldDisk
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key, Vbd

RECIPE = '{"file": "/srv/a"}'
OLD = '{"file": "/srv/old"}'
SOURCE = spec.parse("file:/srv/a")
UUID = "00000005-1111-2222-3333-444444444444"


class Scene:
    """A running domain: the ``steps`` that were taken, and its present ``disk`` and ``recipe``."""

    def __init__(self, monkeypatch):
        self.steps, self.disk, self.recipe, self.error, self.sticks = [], None, None, None, False
        monkeypatch.setattr(live_recipe, "put", self.put)
        monkeypatch.setattr(_attach, "detach", self.detach)
        monkeypatch.setattr(vbd_read, "read_vbd", lambda *arguments: self.disk)
        self.has_ended = False
        monkeypatch.setattr(_guest, "lives", lambda *arguments: not self.has_ended)

        def attach(item):
            self.attach(item)

        monkeypatch.setattr(RunningDisk, "_attach", attach)

    def item(self, state, had=None, wanted=None):
        request = DiskRequest("xen:///", "web1", "xvdb", SOURCE, present=state == "present", timeout=1)
        definition = connection.Definition("web1", UUID, None, "<domain/>")
        item = RunningDisk(types.SimpleNamespace(shared=lambda kind: None), request, definition)
        item.guest, item.vbd = types.SimpleNamespace(domid=5), self.disk
        item.changes_disk = (self.disk is None) == (state == "present")
        item.had_recipe, item.recipe, self.recipe = had, wanted, had
        return item

    def put(self, uri, running, target, recipe, limit):
        self.steps.append(("recipe", recipe))
        self.recipe = recipe

    def attach(self, item):
        self.steps.append("attach")
        item.device = types.SimpleNamespace(id=(7, 4, 10), close=lambda: None)
        if self.sticks or self.error is None:
            self.disk = NEW
        if self.error is not None:
            raise self.error
        item.vbd = self.disk

    def detach(self, store, detachments, timeout, uri, withdraw=False):
        self.steps.append("detach")
        if self.sticks:
            return [Outcome(None, None, GuestError("no"))]
        self.disk = None
        return [Outcome(None, None, None)]


@pytest.fixture
def scene(monkeypatch):
    return Scene(monkeypatch)


def test_the_recipe_is_defined_before_the_disk_is_attached(scene):
    item = scene.item("present", wanted=RECIPE)
    assert item.changes_recipe
    item.change()
    assert scene.steps == [("recipe", RECIPE), "attach"]
    item.undo()
    assert scene.steps[2:] == ["detach", ("recipe", None)]


def test_the_recipe_is_removed_after_the_disk_is_detached(scene):
    scene.disk = "a disk"
    scene.item("absent", had=RECIPE).change()
    assert scene.steps == ["detach", ("recipe", None)]


def test_a_disk_that_stays_keeps_its_recipe(scene):
    scene.disk, scene.sticks = "a disk", True
    with pytest.raises(GuestError):
        scene.item("absent", had=RECIPE).change()
    assert scene.steps == ["detach"]


def test_only_the_recipe_is_missing(scene):
    scene.disk = "a disk"
    item = scene.item("present", wanted=RECIPE)
    item.change()
    item.undo()
    assert scene.steps == [("recipe", RECIPE), ("recipe", None)]


def test_an_unchanged_recipe_is_not_written_again(scene):
    item = scene.item("present", had=RECIPE, wanted=RECIPE)
    assert not item.changes_recipe
    item.change()
    assert scene.steps == ["attach"]


@pytest.mark.parametrize(
    "error, sticks, last",
    [
        (GuestError("no"), False, OLD),
        # The disk could not be rolled back.
        (GuestError("no"), True, RECIPE),
        # libvirt may still attach the disk.
        (DeadlineExceeded("libvirt", 1), False, RECIPE),
    ],
)
def test_a_disk_that_cannot_be_attached(scene, error, sticks, last):
    scene.error, scene.sticks = error, sticks
    item = scene.item("present", had=OLD, wanted=RECIPE)
    with pytest.raises(type(error)):
        item.change()
    item.undo()
    assert scene.recipe == last


@pytest.mark.parametrize(
    "source, doubts, recipe, warned",
    [
        ("file:/srv/a", [], RECIPE, 0),
        ("diskseq:5", [], None, 1),
        ("/dev/loop5", [], None, 1),
        ("/dev/sda", ["it may be another"], None, 1),
    ],
)
def test_a_recipe_only_in_the_running_definition(source, doubts, recipe, warned):
    """A recipe for a restored guest must not refer to anything that could be another disk by then."""
    state = disk_source.SourceState(spec.parse(source), None, doubts)
    found, warnings = disk_source.recipe_for_run(state, "xvdb of web1")
    assert found == recipe and len(warnings) == warned


def test_what_is_not_rolled_back_is_told(scene):
    """The guest is looked at: libvirt may have failed before or after the guest released its disk."""
    scene.error, scene.sticks = GuestError("no"), True
    item = scene.item("present", had=OLD, wanted=RECIPE)
    assert item.remains() == []
    with pytest.raises(GuestError):
        item.change()
    item.undo()
    assert item.remains() == [
        "the guest has a disk xvdb (state 4)",
        "the running definition has the new recipe",
    ]
    scene.sticks, item.vbd = False, NEW
    item.undo()
    assert item.remains() == [] and scene.recipe == OLD


def test_a_disk_that_libvirt_may_still_attach_keeps_its_recipe_which_is_told(scene):
    scene.error = DeadlineExceeded("libvirt", 1)
    item = scene.item("present", had=OLD, wanted=RECIPE)
    with pytest.raises(DeadlineExceeded):
        item.change()
    item.undo()
    assert item.remains() == ["the running definition has the new recipe"] and scene.recipe == RECIPE


@pytest.mark.parametrize(
    "state, told",
    [
        (None, ["the disk of the running guest is detached"]),
        (6, ["the guest has released xvdb (state 6)"]),
        (5, ["the guest was asked to release, and still has, xvdb (state 5)"]),
        (4, []),
    ],
)
def test_a_disk_that_could_not_be_detached(scene, state, told):
    scene.disk = VBD
    item = scene.item("absent", had=RECIPE)
    scene.sticks = True
    with pytest.raises(GuestError):
        item.change()
    scene.disk = None if state is None else VBD._replace(state=state)
    item.undo()
    assert item.remains() == told and scene.recipe == RECIPE


def test_a_guest_that_has_ended_before_its_disk_was_detached(scene):
    """Nothing was done, so nothing is told."""
    scene.disk = VBD
    item = scene.item("absent")
    scene.sticks = True
    with pytest.raises(GuestError):
        item.change()
    scene.disk, scene.has_ended = None, True
    item.undo()
    assert item.remains() == []


VBD = Vbd(Key(5, 51728), "xvdb", "/dev/mapper/x", True, False, 4, 4, True, (7, 3), 9, None, None, None, None)
# The disk that a run attaches.
NEW = VBD._replace(params="/dev/mapper/new", number=(7, 4), diskseq=10)


def test_a_disk_that_somebody_else_attached_meanwhile(scene):
    """It is not this run's, and this run's recipe is not for it."""
    scene.error = GuestError("the guest has a disk xvdb already")
    item = scene.item("present", had=OLD, wanted=RECIPE)
    scene.disk = VBD
    with pytest.raises(GuestError):
        item.change()
    item.undo()
    assert item.remains() == [] and scene.recipe == OLD


def test_what_the_guest_has_cannot_be_seen(scene, monkeypatch):
    """That does not hide what else stays."""
    scene.error, scene.sticks = GuestError("no"), True
    item = scene.item("present", had=OLD, wanted=RECIPE)
    with pytest.raises(GuestError):
        item.change()

    def fail(*arguments):
        raise DeadlineExceeded("xenstored", 1)

    monkeypatch.setattr(vbd_read, "read_vbd", fail)
    with pytest.raises(DeadlineExceeded):
        item.undo()
    seen, recipe = item.remains()
    assert "could not be seen what the guest has" in seen
    assert recipe == "the running definition has the new recipe"


@pytest.fixture
def replaced(scene, monkeypatch):
    """A disk to be replaced. The new source is opened, and the old disk is attached again, as steps."""

    def put_back(disk, limit):
        scene.steps.append("attach the old one")
        if scene.sticks_old:
            raise GuestError("not even the old one")
        scene.disk = VBD
        return disk.device

    scene.sticks_old = False
    monkeypatch.setattr(disk_device, "locked", lambda limit: contextlib.nullcontext())
    monkeypatch.setattr(disk_device, "open_below", lambda *arguments: scene.steps.append("open"))
    monkeypatch.setattr(OldXenDisk, "check", lambda *arguments: scene.steps.append("check"))
    monkeypatch.setattr(OldXenDisk, "_let_go", lambda disk: None)
    monkeypatch.setattr(OldXenDisk, "_attach", put_back)
    scene.disk = VBD
    item = scene.item("present", had=OLD, wanted=RECIPE)
    item.request = item.request._replace(replace=True)
    device = types.SimpleNamespace(path="/dev/loop3", id=types.SimpleNamespace(diskseq=9))
    old = OldDisk(VBD, Guest(5, "u", "web1"), device, True)
    item.vbd = None
    item.old, item.changes_disk = OldXenDisk(item.resources, item.request, None, old), True
    return item


def test_everything_is_checked_before_the_old_disk_is_touched(scene, replaced):
    replaced.change()
    assert scene.steps == ["open", "check", "detach", ("recipe", RECIPE), "attach"]
    assert not replaced.old.is_again and replaced.vbd == NEW


def test_a_guest_that_keeps_the_old_disk_keeps_its_recipe(scene, replaced):
    scene.sticks = True
    with pytest.raises(GuestError):
        replaced.change()
    replaced.undo()
    assert scene.steps == ["open", "check", "detach"] and scene.recipe == OLD and scene.disk == VBD


def test_the_old_disk_and_its_recipe_come_back(scene, replaced):
    scene.error = GuestError("no")
    with pytest.raises(GuestError, match="its old disk .*/dev/loop3, diskseq 9.* again"):
        replaced.change()
    replaced.undo()
    assert scene.steps[4:] == ["attach", "attach the old one", ("recipe", OLD)]
    assert replaced.old.is_again


def test_the_old_disk_cannot_come_back(scene, replaced):
    scene.error, scene.sticks_old = GuestError("no"), True
    with pytest.raises(GuestError, match="no disk xvdb now: .* could not be attached again: not even"):
        replaced.change()
    replaced.undo()
    assert scene.recipe == RECIPE and not replaced.old.is_again


def test_a_replaced_disk_is_rolled_back(scene, replaced):
    """Something else of the task has failed."""
    replaced.change()
    replaced.undo()
    assert scene.steps[5:] == ["detach", "attach the old one", ("recipe", OLD)]
    assert scene.disk == VBD


def test_a_disk_that_the_guest_has_released_comes_back(scene, replaced):
    """libvirt could not remove it, and its nodes are left."""
    scene.sticks, scene.disk = True, VBD._replace(state=6)
    with pytest.raises(GuestError, match=r"no\..*The guest has its old disk .* again"):
        replaced.change()
    assert scene.steps == ["open", "check", "detach", "attach the old one"]
    replaced.undo()
    assert replaced.old.is_again and scene.recipe == OLD
