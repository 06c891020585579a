# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is reported about the disks of definitions."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DefinitionError
from ansible_collections.racefree.block.plugins.module_utils._libvirt import disk_facts
from ansible_collections.racefree.block.plugins.module_utils._libvirt.connection import Definition
from ansible_collections.racefree.block.plugins.module_utils._libvirt.domain_xml import NAMESPACE

UUID = "00000005-1111-2222-3333-444444444444"
DISK = (
    "<disk type='block' device='disk'><driver name='phy' type='raw'/><source dev='{source}'/>"
    "<target dev='{target}' bus='xen'/></disk>"
)
ENTRY = "<r:disk target='{target}'>{recipe}</r:disk>"


def text(*disks, **recipes):
    """A definition with disks (target, source), and recipes by target."""
    entries = "".join(ENTRY.format(target=target, recipe=recipe) for target, recipe in recipes.items())
    metadata = f"<metadata><r:disks xmlns:r='{NAMESPACE}'>{entries}</r:disks></metadata>" if entries else ""
    devices = "".join(DISK.format(target=target, source=source) for target, source in disks)
    head = f"<name>web</name><uuid>{UUID}</uuid>"
    return f"<domain type='xen'>{head}{metadata}<devices>{devices}</devices></domain>"


def facts(config, live=None):
    return disk_facts.of_domain(Definition("web", UUID, config, live))


FILE = '{"file": "/srv/a.raw"}'
OTHER = '{"file": "/srv/b.raw"}'


def test_disks_with_and_without_recipes():
    with_recipe, without = facts(text(("xvda", "/dev/a"), ("xvdb", "/dev/b"), xvda=FILE))
    assert (with_recipe.target, with_recipe.source.file, with_recipe.live) == ("xvda", "/srv/a.raw", None)
    assert with_recipe.config.disk.source == "/dev/a" and with_recipe.problem is None
    assert (without.target, without.source, without.problem) == ("xvdb", None, None)


def test_a_transient_domain_has_no_definition():
    (found,) = facts(None, text(("xvda", "/dev/a")))
    assert found.config is None and found.live.disk.source == "/dev/a" and found.problem is None


def test_the_recipe_of_the_running_guest_counts():
    (found,) = facts(text(("xvda", "/dev/a"), xvda=OTHER), text(("xvda", "/dev/a"), xvda=FILE))
    assert found.source.file == "/srv/a.raw"
    assert found.problem == "the running guest has another disk than the definition describes"


def test_a_seal_is_reported_and_makes_no_other_disk():
    sealed = '{"file": "/srv/a.raw", "sealed": true}'
    (found,) = facts(text(("xvda", "/dev/a"), xvda=FILE), text(("xvda", "/dev/a"), xvda=sealed))
    assert found.seal.sealed and not found.seal.sealed_below and found.problem is None
    (unsealed,) = facts(text(("xvda", "/dev/a"), xvda=sealed), text(("xvda", "/dev/a"), xvda=FILE))
    assert not unsealed.seal.sealed and unsealed.problem is None


def test_a_disk_in_only_one_of_both_definitions():
    added, running = facts(text(("xvdb", "/dev/b")), text(("xvda", "/dev/a")))
    assert (added.target, added.live, added.problem) == ("xvdb", None, None)
    assert (running.target, running.config, running.problem) == ("xvda", None, None)


def test_a_recipe_that_cannot_be_read_is_named_and_makes_no_other_disk():
    good, bad = text(("xvda", "/dev/a"), xvda=FILE), text(("xvda", "/dev/a"), xvda="not JSON")
    (found,) = facts(bad, good)
    assert found.problem.startswith("the recipe in the definition: xvda: the recipe cannot be read")
    assert found.source.file == "/srv/a.raw"
    (found,) = facts(good, bad)
    assert found.problem.startswith("the recipe in the running guest: xvda: the recipe cannot be read")
    assert found.source is None


def test_problems():
    (orphaned,) = facts(text(xvda=FILE))
    assert orphaned.config.disk is None and orphaned.source.file == "/srv/a.raw"
    assert orphaned.problem == "the definition has a recipe for a disk that it does not have"
    (unreadable,) = facts(text(("xvda", "/dev/a"), xvda="not JSON"))
    assert unreadable.source is None and "the recipe cannot be read" in unreadable.problem
    with pytest.raises(DefinitionError, match="two recipes"):
        facts(
            text(("xvda", "/dev/a")).replace(
                "<devices>",
                f"<metadata><r:disks xmlns:r='{NAMESPACE}'>{(ENTRY * 2).format(target='xvda', recipe=FILE)}"
                "</r:disks></metadata><devices>",
            )
        )
