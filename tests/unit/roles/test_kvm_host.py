# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The library of the role kvm_host contains all imports of the hook, and the role's defaults match its
documentation.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles/kvm_host"
FLOOR = ROOT / "plugins/module_utils"
VARIABLES = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))


def test_the_library_has_all_rooms_that_the_hook_imports(monkeypatch):
    spec = importlib.util.spec_from_file_location("unpack", ROOT / "roles/xen_host/files/unpack.py")
    unpack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack)
    monkeypatch.setattr(unpack, "ENTRY", "_libvirt.hook")
    texts = {str(path.relative_to(FLOOR)): path.read_text(encoding="utf-8") for path in FLOOR.rglob("*.py")}
    rooms = {name.rpartition(".")[0].replace(".", "/") for name in unpack.reachable(texts)} - {""}
    assert "_libvirt" in rooms and rooms - set(VARIABLES["kvm_host__rooms"]) == set()


def test_the_hook_runs_from_the_library_alone(tmp_path):
    texts = {
        str(path.relative_to(FLOOR)): path.read_text(encoding="utf-8")
        for room in VARIABLES["kvm_host__rooms"]
        for path in (FLOOR / room).glob("*.py")
    }
    unpack = [sys.executable, "-I", ROOT / "roles/xen_host/files/unpack.py", tmp_path / "racefree_block"]
    subprocess.run(unpack, input=json.dumps(texts).encode(), check=True, timeout=120)
    text = (ROOT / "roles/xen_host/files/libvirt-hook").read_text(encoding="utf-8")
    # What the role replaces.
    assert text.count('"/usr/local/lib/racefree-block"') == 1
    program = tmp_path / "hook"
    program.write_text(text.replace("/usr/local/lib/racefree-block", str(tmp_path)), encoding="utf-8")
    definition = (
        "<domain type='kvm'><name>web1</name><uuid>11111111-2222-3333-4444-555555555555</uuid>"
        "<devices><disk type='block'><source dev='/dev/mapper/racefree-x'/><target dev='vda'/>"
        "</disk></devices></domain>"
    )
    for operation, words in (("prepare", "has no recipe"), ("migrate", "cannot be migrated")):
        done = subprocess.run(
            [sys.executable, "-I", program, "web1", operation, "begin", "-"],
            input=definition,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_defaults_match_the_documentation():
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text(encoding="utf-8"))
    options = options["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    assert defaults == {name: option["default"] for name, option in options.items()}
    readme = (ROLE / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(kvm_host_\w+)`", readme, re.MULTILINE)) == set(defaults)
