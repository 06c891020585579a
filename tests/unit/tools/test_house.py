# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
tools/house: the imports that it finds, the rules that it checks, the numbers and the picture that it makes of
them.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import subprocess
import sys

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture
def house(monkeypatch):
    """A function: one of the program's own modules."""
    monkeypatch.syspath_prepend(str(CHECKOUT / "tools"))
    return lambda name: importlib.import_module(f"house.{name}")


def edges(house, files):
    return {(each.importer, each.imported, each.hidden) for each in house("imports").imports_of(files)}


def program(directory, *words):
    return subprocess.run(
        [sys.executable, "-B", str(directory / "tools" / "house"), *words],
        capture_output=True,
        text=True,
        check=False,
    )


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def copy_program(directory):
    """The program beside other sources: it works on the checkout that it is in."""
    for path in (CHECKOUT / "tools" / "house").glob("*.py"):
        write(directory / "tools" / "house" / path.name, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("importer", "statement", "imported"),
    [
        ("_b/c.py", "from . import d", "_b.d"),
        ("_b/c.py", "from .d import e", "_b.d"),
        ("_b/c.py", "from .. import _a", "_a"),
        ("_b/c.py", "from .._a import x", "_a.x"),
        ("_b/c.py", "from .._a.x import y", "_a.x"),
        ("_b/c.py", "from .._a import name", "_a"),
        ("_b/__init__.py", "from .c import name", "_b.c"),
        ("_b/c.py", "from ansible_collections.racefree.block.plugins.module_utils._a import x", "_a.x"),
        ("_b/c.py", "import ansible_collections.racefree.block.plugins.module_utils._a.x", "_a.x"),
        ("_b/c.py", "from ansible_collections.racefree.block.plugins.module_utils import _a", "_a"),
    ],
)
def test_every_form_of_import_is_found(house, importer, statement, imported):
    files = {"_a/__init__.py": "", "_a/x.py": "", "_b/__init__.py": "", "_b/c.py": "", "_b/d.py": ""}
    files[importer] = statement
    name = "_b" if importer.endswith("__init__.py") else "_b.c"
    assert edges(house, files) == {(name, imported, False)}


@pytest.mark.parametrize(
    "statement", ["import os", "from a import x", "from ansible.module_utils import _a", "from ... import _a"]
)
def test_imports_from_elsewhere_do_not_count(house, statement):
    assert edges(house, {"_a/__init__.py": "", "_b/c.py": statement}) == set()


def test_imports_inside_functions_are_found_and_marked(house):
    files = {
        "_a/x.py": "",
        "_a/y.py": "def f():\n    if True:\n        from . import x",
        "_a/z.py": "if True:\n    from . import x",
    }
    assert edges(house, files) == {("_a.y", "_a.x", True), ("_a.z", "_a.x", False)}


def test_a_circle_through_a_function_is_a_circle(house):
    files = {
        "_a/x.py": "from . import y",
        "_a/y.py": "def f():\n    from . import z",
        "_a/z.py": "from . import x",
    }
    imports = house("imports")
    assert imports.circles_of(imports.graph_of(imports.imports_of(files))) == [("_a.x", "_a.y", "_a.z")]
    del files["_a/y.py"]
    assert imports.circles_of(imports.graph_of(imports.imports_of(files))) == []


def test_a_circle_has_one_depth(house):
    graph = {"top": {"a"}, "a": {"b", "low"}, "b": {"a"}, "low": set()}
    assert house("imports").depths_of(graph) == {"low": 1, "a": 2, "b": 2, "top": 3}


@pytest.mark.parametrize(
    ("importer", "imported", "right"),
    [
        ("_block/loop.py", "_base", True),
        ("_block/loop.py", "_block", True),
        ("_block/loop.py", "_process", False),
        ("_block/loop.py", "_dm", False),
        ("_new/x.py", "_dm", True),
    ],
)
def test_imports_go_to_lower_floors(house, importer, imported, right):
    files = {importer: f"def f():\n    from ..{imported} import y", f"{imported}/y.py": ""}
    found = house("rules").misplaced(house("imports").imports_of(files), house("picture").rooms_of(files))
    assert not found == right


def test_a_new_room_is_on_the_lowest_floor_above_its_imports(house):
    files = {
        "_new/x.py": "from .._dm import y\nfrom .._base import z",
        "_newer/x.py": "from .._new import x",
        "_dm/y.py": "",
        "_base/z.py": "",
    }
    floors = house("rules").floors_of(house("imports").imports_of(files), house("picture").rooms_of(files))
    assert floors == {"_base": 1, "_dm": 4, "_new": 5, "_newer": 6}


def test_numbers(house):
    long = "def long():\n" + "    x = 1\n" * 40
    sources = {
        "plugins/module_utils/_a/__init__.py": "",
        "plugins/module_utils/_a/x.py": "class C:\n    def f(self, a: int, *b: int) -> None: ...\n    def "
        "g(self, a): ...\n",
        "plugins/module_utils/_b/y.py": "from .._a import x\n" + long,
        "plugins/modules/z.py": "#" * 111 + "\n" + "#" * 110,
        "roles/r/vars/main.yml": (CHECKOUT / "ruff.toml").read_text(encoding="utf-8").splitlines()[1]
        + "\n"
        + "#" * 111,
    }
    found = house("numbers").numbers_of(sources)
    assert found == {
        "files_per_folder": {"_a": 1, "_b": 1},
        "floors": 2,
        "circles_of_files": [],
        "circles_of_rooms": [],
        "imports_in_functions": [],
        "lines_over_110": {"module_utils": 0, "python": 1, "yaml": 1},
        "functions": 3,
        "functions_annotated": 1,
        "functions_over_40_lines": ["_b/y.py:2 long"],
        "widest_import_lists": {"_b.y": 1, "_a.x": 0},
    }
    assert "functions with full annotations: 1 of 3" in house("numbers").as_text(found)


def test_arrows_that_follow_from_others_are_left_out(house):
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert house("picture").direct_only(graph) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_a_revision_has_the_numbers_of_its_files(tmp_path):
    def git(*words):
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=main")
        subprocess.run(["git", *identity, "-C", str(tmp_path), *words], check=True, stdout=subprocess.DEVNULL)

    copy_program(tmp_path)
    write(tmp_path / "plugins/module_utils/_a.py", "")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "before")
    write(tmp_path / "plugins/module_utils/_b.py", "from . import _a")
    before = json.loads(program(tmp_path, "--json", "--revision", "HEAD").stdout)
    now = json.loads(program(tmp_path, "--json").stdout)
    assert (before["files_per_folder"], now["files_per_folder"]) == ({".": 1}, {".": 2})
    assert (before["floors"], now["floors"]) == (1, 2)


def test_a_page_that_differs_from_the_imports_fails_until_it_is_drawn(house, tmp_path):
    copy_program(tmp_path)
    picture = house("picture")
    page = tmp_path / "docs" / "architecture.md"
    write(tmp_path / "plugins/module_utils/_a/__init__.py", '"""\nWhat _a is\nabout.\n\nMore.\n"""')
    write(page, f"before\n{picture.BEGIN}\n{picture.END}\nafter\n")
    answer = program(tmp_path, "--check")
    assert answer.returncode == 1 and "--draw" in answer.stderr
    assert program(tmp_path, "--draw").returncode == 0
    assert program(tmp_path, "--check").returncode == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "| 1 | `_a` | What _a is about. | nothing |" in text


def test_the_page_of_this_checkout_is_what_the_imports_say():
    answer = program(CHECKOUT, "--check")
    assert answer.returncode == 0, answer.stderr
