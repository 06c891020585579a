# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules that are imported at their first use, and what a task that changes nothing does not import."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import digits, late

ROOT = "ansible_collections.racefree.block.plugins.module_utils"
UTILS = pathlib.Path(late.__file__).resolve().parents[1]

# Imports one module and prints the names of all modules that are loaded then.
LOADED = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps([name for name in sys.modules if name.startswith(sys.argv[2])]))
"""


def loaded_by(name: str) -> set[str]:
    top = pathlib.Path(late.__file__).resolve().parents[6]
    done = subprocess.run(
        [sys.executable, "-B", "-c", LOADED, f"{ROOT}.{name}", ROOT],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": f"{top}:{':'.join(sys.path)}"},
    )
    return {each[len(ROOT) + 1 :] for each in json.loads(done.stdout)}


def test_it_is_the_module():
    stand_in = late.Module(f"{ROOT}._module.loop_device", ".._base.digits")
    assert all(getattr(stand_in, name) is getattr(digits, name) for name in vars(digits) if name[0] != "_")


def test_it_has_nothing_else():
    assert not hasattr(late.Module(f"{ROOT}.common", "._base.digits"), "no_such_thing")


@pytest.mark.filterwarnings("ignore:can't resolve package:ImportWarning")
@pytest.mark.parametrize(
    "path", [path for path in sorted(UTILS.rglob("*.py")) if "late.Module(" in path.read_text()]
)
def test_without_a_package(path):
    """Python 3.9 imports from Ansible's zip file with a ``__package__`` that is None until the end."""
    name = ".".join([ROOT, *path.relative_to(UTILS).with_suffix("").parts])
    module = {"__name__": name, "__package__": None}
    exec(compile(path.read_text(), path, "exec"), module)
    stand_ins = [each for each in module.values() if isinstance(each, late.Module)]
    assert stand_ins
    assert all(each.__name__.startswith(ROOT) for each in stand_ins)


@pytest.mark.parametrize(
    ("module", "late_ones"),
    [
        ("_module.loop_device", {"_block.seal.seals", "_block.partitions", "_source.below", "_dm.control"}),
        ("_module.dm_device", {"_block.seal.seals"}),
        ("_module.xen_vbd", {"_block.seal.seals", "_block.seal.attachment"}),
        ("_module.device_info", {"_block.seal.seals", "_block.partitions"}),
        ("_module.device_command", {"_block.seal.seals"}),
        ("_module.xl_disk", {"_xl.live_disk", "_xen.blkback", "_xenstore.session"}),
        ("_module.runner", {"_dm.control", "_dm.lifetime"}),
    ],
)
def test_what_few_runs_need_is_imported_late(module, late_ones):
    assert loaded_by(module) & late_ones == set()
