# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The architecture rules: a room (package) imports only from rooms on lower floors, and there are no cycles.
Imports inside functions count.

python3 tools/house prints the imports and cycles; tools/house/rules.py defines the floors.
"""

from __future__ import annotations

import ast
import pathlib

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parents[4]
# Present violations. Delete a line when its import is gone; add none.
KNOWN_CIRCLES: set[str] = set()
KNOWN_MISPLACED: set[str] = set()


@pytest.fixture
def house(monkeypatch):
    """{"_block/loop.py": text}"""
    monkeypatch.syspath_prepend(str(CHECKOUT / "tools"))
    from house import sources

    return sources.house_of(sources.from_checkout(str(CHECKOUT)))


def test_there_are_no_import_cycles(house):
    from house import imports, numbers

    found = imports.circles_of(imports.graph_of(imports.imports_of(house)))
    texts = {numbers.circle_text(circle) for circle in found}
    assert texts - KNOWN_CIRCLES == set(), "files import each other"
    assert KNOWN_CIRCLES - texts == set(), "these circles are gone: delete their lines in this file"


def test_imports_go_down(house):
    from house import imports, picture, rules

    found = rules.misplaced(imports.imports_of(house), picture.rooms_of(house))
    texts = {f"{each.importer} -> {each.imported}" for each in found}
    assert texts - KNOWN_MISPLACED == set(), "imports that go up, or to another room of the same floor"
    assert KNOWN_MISPLACED - texts == set(), "these imports are gone: delete their lines in this file"


def test_a_room_says_its_subject_and_loads_nothing(house):
    """So that the hotplug script can load a single file of a package. _dm_table is used as a whole."""
    for path, text in house.items():
        if path.endswith("/__init__.py"):
            tree = ast.parse(text)
            assert ast.get_docstring(tree), f"{path}: has no docstring that names the room's subject"
            assert path == "_dm_table/__init__.py" or len(tree.body) == 1, (
                f"{path}: has code beside its docstring"
            )


# For each task, Ansible sends a module to the host with everything that it can import. What these modules do
# not need: rooms, and single files.
NOT_CARRIED = {
    "loop_device": {"_dm_table", "_xenstore", "_xen", "_libvirt", "_volumes"},
    "snapshot_stores": {"_dm_table", "_xenstore", "_xen", "_libvirt"},
    "kernel_key": {"_dm_table", "_xenstore", "_xen", "_libvirt", "_volumes", "_block.seal.seals"},
    "dm_device": {"_xenstore", "_xen", "_libvirt"},
    "dm_table": {"_xenstore", "_xen", "_libvirt", "_volumes", "_block.seal.seals"},
    "thin_volumes": {"_xenstore", "_xen", "_libvirt", "_block.seal.seals"},
    "device_info": {"_volumes", "_module.loop_device", "_module.dm_device", "_block.new_loop"},
    "xen_vbd": {"_volumes", "_hotplug", "_swap", "_by_diskseq", "_libvirt.domain_xml"},
    "libvirt_disk": {"_volumes", "_hotplug", "_swap", "_by_diskseq"},
}


@pytest.mark.parametrize("module", NOT_CARRIED)
def test_a_module_does_not_carry_what_it_does_not_need(house, module):
    from house import imports

    graph = imports.graph_of(imports.imports_of(house))
    carried = imports.reachable(graph, "_module.runner") | imports.reachable(graph, f"_module.{module}")
    assert "_source.journal" in carried
    unwanted = NOT_CARRIED[module]
    assert {name for name in carried if name in unwanted or imports.room_of(name) in unwanted} == set()
