# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The library of the role boot_devices contains all imports of its program, its plan runs without being
installed, and the role's defaults match its documentation.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.racefree.block.plugins.module_utils._boot_devices import config, plan

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles/boot_devices"
FLOOR = ROOT / "plugins/module_utils"
UNIT = (ROLE / "files/racefree-boot-devices.service").read_text(encoding="utf-8")


@pytest.fixture
def unpack():
    spec = importlib.util.spec_from_file_location("unpack", ROOT / "roles/xen_host/files/unpack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variables():
    return yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))


def library():
    texts = {
        str(path.relative_to(FLOOR)): path.read_text(encoding="utf-8")
        for room in variables()["boot_devices__rooms"]
        for path in (FLOOR / room).glob("*.py")
    }
    start = "boot_devices_start.py"
    return {**texts, start: (ROLE / "files" / start).read_text(encoding="utf-8")}


def test_the_library_has_all_rooms_that_the_program_imports(unpack, monkeypatch):
    monkeypatch.setattr(unpack, "ENTRY", "_boot_devices.program")
    texts = {str(path.relative_to(FLOOR)): path.read_text(encoding="utf-8") for path in FLOOR.rglob("*.py")}
    rooms = {name.rpartition(".")[0].replace(".", "/") for name in unpack.reachable(texts)} - {""}
    assert "_boot_devices" in rooms and rooms - set(variables()["boot_devices__rooms"]) == set()


def test_the_program_runs_from_the_library_alone(tmp_path):
    place = tmp_path / "racefree_block"
    program = [sys.executable, "-I", ROOT / "roles/xen_host/files/unpack.py", place]
    subprocess.run(program, input=json.dumps(library()).encode(), check=True, timeout=120)
    done = subprocess.run(
        [sys.executable, "-I", place / "boot_devices_start.py", "begin"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1 and done.stderr == (
        "racefree-boot-devices: arguments begin: must be start, stop, apply or plan\n"
    )


def test_the_plan_runs_without_being_installed(tmp_path):
    entry = {"name": "a", "source": {"diskseq": 7}}
    given = {"library": library(), "list": {"devices": [entry, {"name": "b/c"}]}}
    done = subprocess.run(
        [sys.executable, "-I", "-c", (ROLE / "files/boot_devices_plan.py").read_text(encoding="utf-8")],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"TMPDIR": str(tmp_path)},
    )
    found = json.loads(done.stdout)
    assert [
        word in " ".join(found["errors"]) for word in ("numbers start again", "b/c: must be 1 to 64")
    ] == [
        True,
        True,
    ]
    assert not list(tmp_path.iterdir())


def test_the_unit_comes_before_guests():
    before = UNIT.partition("\nBefore=")[2].partition("\n")[0].split()
    assert {f"{unit}.service" for unit in ("libvirtd", "virtqemud", "virtxend", "xendomains")} <= set(before)
    assert variables()["boot_devices__library"] in UNIT
    assert config.PATH == variables()["boot_devices__configuration"]


@pytest.mark.parametrize(
    "parts, unit",
    [
        (["srv"], "srv.mount"),
        (["var", "lib", "xen-images"], r"var-lib-xen\x2dimages.mount"),
        (["srv", ".hidden", "a b"], r"srv-\x2ehidden-a\x20b.mount"),
        (["é"], r"\xc3\xa9.mount"),
    ],
)
def test_mount_units_are_named_as_systemd_names_them(parts, unit):
    """systemd-escape --path --suffix=mount"""
    assert plan.mount_unit(parts) == unit


def test_defaults_match_the_documentation():
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text(encoding="utf-8"))
    options = options["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    assert defaults == {name: option["default"] for name, option in options.items() if "default" in option}
    assert defaults["boot_devices_timeout"] == config.TIMEOUT


def listed(*sources):
    """The list with these sources, as the devices a, b and so on."""
    devices = [{"name": name, "source": source} for name, source in zip("abc", sources)]
    return config.parse(json.dumps({"devices": devices}), "list")


def test_two_partitions_of_one_image_are_two_devices():
    parts = [{"file": "/srv/disk", "partition": number} for number in (1, 2)]
    found = listed(*parts, "file:/srv/disk")
    assert [entry.name for entry in found.entries] == ["a", "b", "c"] and not found.wrong


def test_one_partition_is_one_device():
    found = listed(*[{"file": "/srv/disk", "partition": 1, "read_only": value} for value in (False, True)])
    assert [entry.name for entry in found.entries] == ["a"]
    assert "b is the same device as a" in str(found.wrong["b"])
