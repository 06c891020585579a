# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The library of the role encrypted_swap contains all imports of its program, and the role's defaults match its
documentation.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles/encrypted_swap"
FLOOR = ROOT / "plugins/module_utils"


@pytest.fixture
def unpack():
    spec = importlib.util.spec_from_file_location("unpack", ROOT / "roles/xen_host/files/unpack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variables():
    return yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))


def test_the_library_has_all_rooms_that_the_program_imports(unpack, monkeypatch):
    monkeypatch.setattr(unpack, "ENTRY", "_swap.program")
    texts = {str(path.relative_to(FLOOR)): path.read_text(encoding="utf-8") for path in FLOOR.rglob("*.py")}
    rooms = {name.rpartition(".")[0].replace(".", "/") for name in unpack.reachable(texts)} - {""}
    assert "_swap" in rooms and rooms - set(variables()["encrypted_swap__rooms"]) == set()


def library():
    return {
        str(path.relative_to(FLOOR)): path.read_text(encoding="utf-8")
        for room in variables()["encrypted_swap__rooms"]
        for path in (FLOOR / room).glob("*.py")
    }


def test_the_program_runs_from_the_library_alone(tmp_path):
    texts = library()
    start = "encrypted_swap_start.py"
    texts[start] = (ROLE / "files" / start).read_text(encoding="utf-8")
    place = tmp_path / "racefree_block"
    unpack = ROOT / "roles/xen_host/files/unpack.py"
    subprocess.run(
        [sys.executable, "-I", unpack, place], input=json.dumps(texts).encode(), check=True, timeout=120
    )
    # Only the library of the hotplug script has its modules in one file.
    assert not (place / "hotplug.codes").exists()
    done = subprocess.run(
        [sys.executable, "-I", place / start, "start", "no-such-area"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1 and "no-such-area.json" in done.stderr and "Traceback" not in done.stderr


def test_the_plan_runs_without_being_installed(tmp_path):
    areas = {
        "a": {"source": {"path": "/dev/dm-0"}},
        "b/c": {"source": {"file": "/x"}},
        "d": {"source": {"file": "/x", "overlap": True}},
        "e": {"source": {"table": ["0 8 zero"]}},
        "f": {"source": {"file": "/srv/a b/swap", "direct_io": False}, "size": 1 << 20},
        "g": {"source": "file:/srv/swap"},
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", (ROLE / "files/encrypted_swap_plan.py").read_text(encoding="utf-8")],
        input=json.dumps({"library": library(), "areas": {"areas": areas, "removed": []}}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"TMPDIR": str(tmp_path)},
    )
    found = json.loads(done.stdout)
    wanted = (
        "a: source /dev/dm-0: cannot be kept",
        "b/c: name b/c: must be",
        "d: source.overlap true",
        "e: source table:(unnamed): must name a file or a device that exists",
    )
    assert [error.startswith(words) for error, words in zip(found["errors"], wanted)] == [True] * 4
    # The role has the file systems of these mounted, however the file is given.
    assert found["directories"] == {"f": "/srv/a b", "g": "/srv"}
    assert found["running"] == [] and not list(tmp_path.iterdir())


def test_the_unit_waits_for_devices_that_are_made_at_boot():
    """A shutdown stops it before them, in the opposite order."""
    units = {
        role: set(
            re.findall(
                r"\S+\.service", " ".join(re.findall(r"^After=(.*)", path.read_text(encoding="utf-8"), re.M))
            )
        )
        for role in ("boot_devices", "encrypted_swap")
        for path in (ROOT / "roles" / role / "files").glob("*.service")
    }
    assert units["boot_devices"] | {"racefree-boot-devices.service"} <= units["encrypted_swap"]


def test_all_roles_unpack_their_library_with_the_same_program():
    found = {
        path.parent.parent.name: re.findall(
            r"role_path ~ '([^']*unpack[^']*)'", path.read_text(encoding="utf-8")
        )
        for path in (ROOT / "roles").glob("*/tasks/*.yml")
        if "unpack.py" in path.read_text(encoding="utf-8")
    }
    shared = ["/../xen_host/files/unpack.py"]
    assert found == {
        "block_names": shared,
        "boot_devices": shared,
        "encrypted_swap": shared,
        "kvm_host": shared,
        "xen_host": ["/files/unpack.py"],
    }


def test_defaults_match_the_documentation():
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text(encoding="utf-8"))
    options = options["argument_specs"]["main"]["options"]
    told = {
        name: option.get("default")
        for name, option in options["encrypted_swap_areas"]["options"].items()
        if name != "name"
    }
    assert told == variables()["encrypted_swap__defaults"]
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    assert defaults == {name: option["default"] for name, option in options.items()}
