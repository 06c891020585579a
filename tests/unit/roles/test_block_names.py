# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""
The role block_names: the check of block_names_links, the program turn-links that udev runs, and the library
with the programs that use it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles/block_names"
FLOOR = ROOT / "plugins/module_utils"
VARIABLES = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
PATTERN = VARIABLES["block_names__directory"]


@pytest.mark.parametrize(
    "path", ["mapper", "disk/by-uuid", "disk/by-id", "vg0", "disk/by-diskseq2", "racefree2"]
)
def test_valid_directories_of_links(path: str) -> None:
    assert re.match(PATTERN, path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/dev/mapper",
        "mapper/",
        "mapper; reboot",
        "a b",
        "disk",
        "disk/by-diskseq",
        "racefree",
        "racefree/link",
        "a//b",
        'a"b',
        "a\nb",
    ],
)
def test_invalid_directories_of_links(path: str) -> None:
    assert not re.match(PATTERN, path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that replaces /dev, with two nodes and links to them."""
    for directory in ("mapper", "disk/by-uuid"):
        (tmp_path / directory).mkdir(parents=True)
    for node in ("dm-1", "dm-2"):
        (tmp_path / node).write_text("")
    for link, target in (("mapper/a", "../dm-1"), ("mapper/b", "../dm-2"), ("disk/by-uuid/u", "../../dm-1")):
        (tmp_path / link).symlink_to(target)
    return tmp_path


def turn(place: Path, *directories: str, **properties: str) -> dict[str, str]:
    """Run turn-links as for the disk dm-1, and return where the links lead."""
    program = (ROLE / "files/turn-links").read_text(encoding="utf-8").replace("/dev/", f"{place}/")
    links = " ".join(f"{place}/{link}" for link in ("mapper/a", "mapper/b", "disk/by-uuid/u"))
    environment = {
        "PATH": os.environ["PATH"],
        "DEVNAME": str(place / "dm-1"),
        "DEVLINKS": links,
        **properties,
    }
    subprocess.run(["sh", "-c", program, "turn-links", *directories], env=environment, check=True, timeout=60)
    found = {link: os.readlink(place / link) for link in ("mapper/a", "mapper/b", "disk/by-uuid/u")}
    assert len(list((place / "mapper").iterdir())) == 2
    return found


def test_links_of_the_disk_in_these_directories_are_redirected(place: Path) -> None:
    name = f"{place}/disk/by-diskseq/7"
    expected = {"mapper/a": name, "mapper/b": "../dm-2", "disk/by-uuid/u": "../../dm-1"}
    assert turn(place, "mapper", RACEFREE_DISKSEQ="7", DEVTYPE="disk") == expected
    both = turn(place, "vg", "disk/by-uuid", RACEFREE_DISKSEQ="7", DEVTYPE="partition", PARTN="3")
    assert both == {**expected, "disk/by-uuid/u": f"{name}-part3"}


def test_without_a_number_no_link_is_redirected(place: Path) -> None:
    assert turn(place, "mapper")["mapper/a"] == "../dm-1"


@pytest.mark.parametrize("entry", ["_by_diskseq.program", "_command.program"])
def test_the_library_has_all_rooms_that_a_program_imports(entry, monkeypatch):
    spec = importlib.util.spec_from_file_location("unpack", ROOT / "roles/xen_host/files/unpack.py")
    unpack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack)
    monkeypatch.setattr(unpack, "ENTRY", entry)
    texts = {str(path.relative_to(FLOOR)): path.read_text(encoding="utf-8") for path in FLOOR.rglob("*.py")}
    rooms = {name.rpartition(".")[0].replace(".", "/") for name in unpack.reachable(texts)} - {""}
    assert entry.partition(".")[0] in rooms and rooms - set(VARIABLES["block_names__rooms"]) == set()


def test_racefree_open_runs_from_the_library_alone(tmp_path):
    texts = {
        str(path.relative_to(FLOOR)): path.read_text(encoding="utf-8")
        for room in VARIABLES["block_names__rooms"]
        for path in (FLOOR / room).glob("*.py")
    }
    library = tmp_path / "racefree_block"
    unpack = [sys.executable, "-I", ROOT / "roles/xen_host/files/unpack.py", library]
    subprocess.run(unpack, input=json.dumps(texts).encode(), check=True, timeout=120)
    text = (ROLE / "files/racefree-open").read_text(encoding="utf-8")
    assert VARIABLES["block_names__library"] in text
    program = tmp_path / "racefree-open"
    program.write_text(text.replace(VARIABLES["block_names__library"], str(tmp_path)), encoding="utf-8")
    words = ["file:/no/such/file", "--", "dd", "of={1}"]
    done = subprocess.run(
        [sys.executable, "-I", program, *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 125 and "/no/such/file: does not exist" in done.stderr
    assert "Traceback" not in done.stderr
