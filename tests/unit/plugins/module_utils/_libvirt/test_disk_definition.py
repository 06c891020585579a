# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Several disks of one definition that are changed together, and undone one by one. Tests with libvirt itself:
tests/kernel/test_libvirt_definitions.py.
"""

from __future__ import annotations

import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError
from ansible_collections.racefree.block.plugins.module_utils._libvirt import (
    connection,
    domain_xml,
    write_disks,
)
from ansible_collections.racefree.block.plugins.module_utils._libvirt.disk_definition import (
    DiskDefinition,
    Exchange,
)
from ansible_collections.racefree.block.plugins.module_utils._libvirt.disk_request import DiskRequest
from ansible_collections.racefree.block.plugins.module_utils._module.libvirt_disk import DiskItem
from ansible_collections.racefree.block.plugins.module_utils._source import spec

UUID = "11111111-2222-3333-4444-55555555555b"
RECIPE = '{"file": "/srv/a"}'


def xml_with(*targets):
    text = f"<domain type='xen'><name>web1</name><uuid>{UUID}</uuid><devices></devices></domain>"
    for target in targets:
        path = domain_xml.path_of(UUID, target)
        text = domain_xml.put(text, domain_xml.Disk(target, path, "phy", bus="xen"), RECIPE)
    return text


class Libvirt:
    """``xml``: the definition that it has. ``drops``: a disk that it does not keep."""

    def __init__(self, monkeypatch):
        self.xml, self.drops = xml_with("xvdd"), None
        monkeypatch.setattr(write_disks, "write", self.write)
        monkeypatch.setattr(write_disks, "write_back", self.write_back)

    def write(self, uri, uuid, before, after, targets, limit):
        assert before == self.xml, "it was changed by someone else"
        assert all(
            domain_xml.excerpt(before, name) == domain_xml.excerpt(after, name)
            for name in TARGETS
            if name not in targets
        )
        self.xml = after if self.drops is None else domain_xml.drop(after, self.drops)
        return write_disks.Written(self.xml, True)

    def write_back(self, uri, uuid, before, *more):
        return self.write(uri, uuid, before.text, *more)

    @property
    def targets(self):
        found = sorted(domain_xml.parsed(self.xml).recipes())
        assert found == [target for target in TARGETS if domain_xml.parsed(self.xml).disk(target)]
        return found


TARGETS = ("xvda", "xvdb", "xvdd")


@pytest.fixture
def libvirt(monkeypatch):
    return Libvirt(monkeypatch)


@pytest.fixture
def disks(libvirt):
    """Two are added, and one is removed."""
    definition = connection.Definition("web1", UUID, libvirt.xml, None)
    return [
        DiskDefinition(
            DiskRequest("xen:///", "web1", target, spec.parse("file:/srv/a"), present=target != "xvdd"),
            definition,
            RECIPE,
        )
        for target in TARGETS
    ]


@pytest.mark.parametrize(
    "undone, left", [("xvda", ["xvdb"]), ("xvdb", ["xvda"]), ("xvdd", ["xvda", "xvdb", "xvdd"])]
)
def test_the_undo_of_one_disk_leaves_the_others(libvirt, disks, undone, left):
    exchange = Exchange(disks)
    exchange.run()
    assert libvirt.targets == ["xvda", "xvdb"]
    item = types.SimpleNamespace(exchange=exchange, defined=disks[TARGETS.index(undone)])
    for dummy in range(2):
        DiskItem._undo_definition(item)
        assert libvirt.targets == left


@pytest.mark.parametrize("order", [1, -1])
def test_all_are_undone(libvirt, disks, order):
    before, exchange = libvirt.xml, Exchange(disks)
    exchange.run()
    for disk in disks[::order]:
        exchange.undo(disk)
    assert libvirt.xml == before


def test_a_disk_that_has_grown_stays(libvirt, disks):
    exchange = Exchange(disks)
    exchange.run()
    exchange.stay(disks[0])
    for disk in disks:
        exchange.undo(disk)
    assert libvirt.targets == ["xvda", "xvdd"] and [exchange.stays(disk) for disk in disks] == [
        True,
        False,
        False,
    ]


def test_a_disk_that_libvirt_does_not_keep(libvirt, disks):
    before, libvirt.drops = libvirt.xml, "xvdb"
    exchange = Exchange(disks)
    with pytest.raises(GuestError, match="did not keep"):
        exchange.run()
    for disk in disks:
        exchange.undo(disk)
    assert libvirt.xml == before


def test_a_definition_is_looked_at_again_after_an_undo(libvirt, disks):
    exchange = Exchange(disks)
    exchange.run()
    libvirt.drops = "xvdb"
    with pytest.raises(GuestError, match="did not keep"):
        exchange.undo(disks[0])
