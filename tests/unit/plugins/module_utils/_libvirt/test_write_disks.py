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
PATH = domain_xml.path_of(UUID, "xvda")
FLAGS = list(itertools.product((False, True), repeat=2))


def disk(read_only=False, shareable=False, device="disk", bus="xen", path=PATH, more=""):
    element = domain_xml.disk_text(
        domain_xml.Disk("xvda", path, "phy", device, read_only, shareable, bus)
    ).replace("</disk>", f"{more}</disk>")
    return domain_xml.Domain(f"<domain><devices>{element}</devices></domain>").disk("xvda")


def definition(kind, more="", outside=""):
    return (
        f"<domain type='{kind}'><name>web1</name><uuid>{UUID}</uuid><metadata><racefree:disks "
        f"xmlns:racefree='{domain_xml.NAMESPACE}'><racefree:disk target='xvda'>{{}}</racefree:disk>{more}"
        f"</racefree:disks>{outside}</metadata><devices/></domain>"
    )


@pytest.mark.parametrize("old", FLAGS)
@pytest.mark.parametrize("new", FLAGS)
def test_the_state_between_the_steps_gives_no_more_than_both(old, new):
    """
    Whoever starts the guest between the steps gets one of the two sources with one of the two sets of flags.
    Either these belong together as far as writing goes, or it cannot write.
    """
    change = Change("xvda", Part(disk(*old), "old"), Part(disk(*new), "new"))
    flags, other = (old, new) if change.recipe_first else (new, old)
    is_read_only, is_shareable = flags
    assert is_read_only or (not other[0] and (not is_shareable or other[1]))


@pytest.mark.parametrize("device, first", [("cdrom", False), ("disk", True)])
def test_a_cd_is_read_only(device, first):
    """Although its element may not say so."""
    change = Change("xvda", Part(disk(), "old"), Part(disk(device=device), "new"))
    assert change.recipe_first is first


@pytest.mark.parametrize(
    "old, new, first",
    [
        (Part(None, None), Part(disk(), "r"), True),
        (Part(disk(), "r"), Part(None, None), False),
        # An empty drive gets a medium, and the reverse.
        (Part(disk(), None), Part(disk(True), "r"), True),
        (Part(disk(), "r"), Part(disk(True), None), False),
    ],
)
def test_a_disk_without_a_recipe_is_never_started(old, new, first):
    """A recipe without its disk has no effect; in the other cases the hook refuses the start."""
    assert Change("xvda", old, new).recipe_first is first


MINE, NOTHING = Part(disk(), "r"), Part(None, None)
NEW, GONE = Change("xvda", NOTHING, MINE), Change("xvda", MINE, NOTHING)
RECIPE = Change("xvda", MINE, Part(disk(), "s"))


def to(**more):
    """The change of a disk of the collection to a disk that differs in this."""
    return Change("xvda", MINE, Part(disk(**more), "r"))


@pytest.mark.parametrize(
    "kind, change, single",
    [
        *((kind, change, True) for kind in ("kvm", "qemu", "xen") for change in (NEW, GONE, RECIPE)),
        *(("test", change, False) for change in (NEW, GONE, RECIPE)),
        ("kvm", to(read_only=True), True),
        ("kvm", to(shareable=True), True),
        ("xen", to(read_only=True), False),
        # libvirt does not check the new address.
        ("kvm", to(bus="sata"), False),
        ("kvm", to(device="cdrom"), False),
        ("xen", Change("xvda", NOTHING, Part(disk(bus="ide"), "r")), False),
        # A medium of an empty drive.
        ("kvm", Change("xvda", Part(disk(path=None), None), MINE), True),
        ("kvm", Change("xvda", MINE, Part(disk(path=None), None)), True),
        # A disk that was not made by the collection, or belongs to another guest, with an old recipe.
        ("kvm", Change("xvda", Part(disk(path="/dev/sdb", shareable=True), "old"), MINE), False),
        ("kvm", Change("xvda", MINE, Part(disk(path="/dev/sdb"), "old")), False),
        ("kvm", Change("xvda", Part(disk(path="/dev/sdb"), "r"), NOTHING), True),
        # libvirt would add another kind of boot order, and then not take the disk back.
        ("kvm", Change("xvda", Part(disk(more="<boot order='1'/>"), "r"), NOTHING), False),
        ("kvm", Change("xvda", NOTHING, Part(disk(more="<boot order='1'/>"), "r")), True),
    ],
)
def test_what_one_call_can_change(kind, change, single):
    assert write_disks._is_single(definition(kind), UUID, change) is single


@pytest.mark.parametrize(
    "more, outside",
    [
        ("<other/>", ""),
        ("<racefree:disk target='xvdb'><x/></racefree:disk>", ""),
        ("<racefree:disk target='xvdb' other='1'>r</racefree:disk>", ""),
        ("", f"<other xmlns='{domain_xml.NAMESPACE}'/>"),
        ("", f"<disks xmlns='{domain_xml.NAMESPACE}'/>"),
    ],
)
def test_metadata_that_a_call_would_not_keep(more, outside):
    assert not write_disks._is_single(definition("kvm", more, outside), UUID, RECIPE)
