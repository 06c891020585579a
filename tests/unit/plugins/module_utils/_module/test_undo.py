# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is rolled back for a running guest when a part of the rollback fails."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError
from ansible_collections.racefree.block.plugins.module_utils._module.libvirt_disk import DiskItem
from ansible_collections.racefree.block.plugins.module_utils._module.xen_vbd import VbdItem
from ansible_collections.racefree.block.plugins.module_utils._module.xl_disk import XlDiskItem


def fails():
    raise KernelError("the disk is full")


class Calls(list):
    """Functions that note their names."""

    def __call__(self, name):
        return lambda *arguments: self.append(name)


@pytest.mark.parametrize(
    "restores, old, called",
    [
        (True, "old", ["configuration", "recipe", "guest"]),
        # xl would make the old disk of the new recipe.
        (False, "old", ["configuration"]),
        # A disk that is only detached needs no recipe.
        (False, None, ["configuration", "guest"]),
    ],
)
def test_a_disk_of_xl_whose_recipe_cannot_be_restored(monkeypatch, restores, old, called):
    calls = Calls()
    item = object.__new__(XlDiskItem)
    item.running, item.request = None, SimpleNamespace(present=True)
    item.exchange = SimpleNamespace(undo=calls("configuration"))
    item.change = SimpleNamespace(edit=None, undo_recipe=calls("recipe") if restores else fails)
    item.live = SimpleNamespace(old=old)
    monkeypatch.setattr(XlDiskItem, "_undo_live", calls("guest"))
    if restores:
        item.undo()
    else:
        with pytest.raises(KernelError, match="the disk is full"):
            item.undo()
    assert calls == called


def test_a_device_does_not_stay_because_the_guest_keeps_the_disk(monkeypatch):
    calls = Calls()
    item = object.__new__(VbdItem)
    item.params, item.vbd, item.was_there, item._unseal = {"state": "attached"}, "vbd", False, []
    item.opener = SimpleNamespace(give_up=calls("gives up"))
    monkeypatch.setattr(VbdItem, "_take_new", lambda self: fails())
    with pytest.raises(KernelError, match="the disk is full"):
        item.undo()
    assert calls == ["gives up"]


@pytest.mark.parametrize("place", ["xen_vbd", "xen_vbd, old", "xl_disk", "libvirt_disk"])
def test_what_the_guest_has_cannot_be_seen(monkeypatch, place):
    """That does not hide what else stays."""
    grows = SimpleNamespace(remains=lambda: ["it has grown"], old=None)
    broken = SimpleNamespace(state_words=lambda *store: fails(), remains=fails, is_again=False)
    if place == "xl_disk":
        item = object.__new__(XlDiskItem)
        vars(item).update(_enlarged=[], running=grows, live=broken)
    elif place == "libvirt_disk":
        item = object.__new__(DiskItem)
        grows.old = broken
        vars(item).update(_enlarged=[], running=grows, drive=None, exchange=None)
    else:
        item = object.__new__(VbdItem)
        resources = SimpleNamespace(shared=lambda kind: fails())
        guest = SimpleNamespace(domid=5)
        vars(item).update(opener=SimpleNamespace(grown=[]), growth=grows, params={"state": "detached"})
        old = broken if place == "xen_vbd, old" else None
        vars(item).update(resources=resources, guest=guest, vdev=SimpleNamespace(number=1), vbd=1, old=old)
    grown, seen = item.remains()
    assert grown == "it has grown" and "could not be seen what the guest has: the disk is full" in seen
