# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The order in which a disk and its recipe are changed, and which changes need the whole definition. Tests with
libvirt itself: tests/kernel/test_libvirt_write_disks.py.
"""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.racefree.block.plugins.module_utils._libvirt import domain_xml, write_disks
from ansible_collections.racefree.block.plugins.module_utils._libvirt.write_disks import Change, Part

UUID = "11111111-2222-3333-4444-55555555555b"
FLAGS = list(itertools.product((False, True), repeat=2))


def element(read_only=False, shareable=False, device="disk"):
    path = domain_xml.path_of(UUID, "xvda")
    return domain_xml.disk_text(domain_xml.Disk("xvda", path, "phy", device, read_only, shareable))


def definition(kind, more=""):
    return (
        f"<domain type='{kind}'><name>web1</name><uuid>{UUID}</uuid><metadata><racefree:disks "
        f"xmlns:racefree='{domain_xml.NAMESPACE}'><racefree:disk target='xvda'>{{}}</racefree:disk>{more}"
        "</racefree:disks></metadata><devices/></domain>"
    )


@pytest.mark.parametrize("old", FLAGS)
@pytest.mark.parametrize("new", FLAGS)
def test_the_state_between_the_steps_gives_no_more_than_both(old, new):
    """
    Whoever starts the guest between the steps gets one of the two sources with one of the two sets of flags.
    Either these belong together as far as writing goes, or it cannot write.
    """
    change = Change("xvda", Part(element(*old), "old"), Part(element(*new), "new"))
    flags, other = (old, new) if change.recipe_first else (new, old)
    is_read_only, is_shareable = flags
    assert is_read_only or (not other[0] and (not is_shareable or other[1]))


@pytest.mark.parametrize("device, first", [("cdrom", False), ("disk", True)])
def test_a_cd_is_read_only(device, first):
    """Although its element may not say so."""
    change = Change("xvda", Part(element(), "old"), Part(element(device=device), "new"))
    assert change.recipe_first is first


@pytest.mark.parametrize(
    "old, new, first",
    [
        (Part(None, None), Part(element(), "r"), True),
        (Part(element(), "r"), Part(None, None), False),
        # Another disk becomes one of the collection, and the reverse.
        (Part(element(), None), Part(element(True), "r"), True),
        (Part(element(), "r"), Part(element(True), None), False),
    ],
)
def test_a_disk_without_a_recipe_is_never_started(old, new, first):
    """A recipe without its disk has no effect; in the other cases the hook refuses the start."""
    assert Change("xvda", old, new).recipe_first is first


NEW = Change("xvda", Part(None, None), Part(element(), "r"))
GONE = Change("xvda", Part(element(), "r"), Part(None, None))
RECIPE = Change("xvda", Part(element(), "r"), Part(element(), "s"))
FLAG = Change("xvda", Part(element(), "r"), Part(element(True), "r"))


@pytest.mark.parametrize(
    "kind, changes, more, whole",
    [
        ("kvm", [NEW, GONE, RECIPE, FLAG], "", False),
        ("qemu", [FLAG], "", False),
        ("qemu", [RECIPE], "<other/>", True),
        ("qemu", [RECIPE], "<racefree:disk target='xvdb'><x/></racefree:disk>", True),
        ("xen", [NEW, GONE, RECIPE], "", False),
        ("xen", [RECIPE, FLAG], "", True),
        ("xen", [NEW], "<other/>", True),
        ("test", [NEW], "", True),
    ],
)
def test_when_the_whole_definition_is_replaced(kind, changes, more, whole):
    assert write_disks._needs_whole(definition(kind, more), changes) is whole
