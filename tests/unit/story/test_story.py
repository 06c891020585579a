# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
docs/comparison.md is what the stored results and the playbooks give, and the playbooks are what the page says
about them. The story itself runs in a kernel of its own (tests/story).
"""

from __future__ import annotations

import pathlib

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[2]
PLUGINS = TESTS.parent / "plugins/modules"
WAYS = ("recipe", "devices", "community", "commands")
ALL = [(way, phase) for way in WAYS for phase in ("present", "absent")]
# The collections and modules of each way, besides copy and file.
MODULES = {
    "recipe": {"community.libvirt", "racefree.block"},
    "devices": {"community.libvirt", "racefree.block"},
    "community": {"community.libvirt", "ansible.builtin"},
    "commands": {"ansible.builtin"},
}
KEYWORDS = {"name", "register", "when", "vars", "changed_when", "failed_when"}


@pytest.fixture
def comparison(programs):
    programs(TESTS / "bench")
    return programs(TESTS / "story")("comparison")


@pytest.fixture
def found(comparison):
    return comparison.figures.kept(comparison.KEPT)


def module(task):
    (name,) = set(task) - KEYWORDS
    return name


def test_the_page_is_made_from_the_stored_results(comparison, found):
    page = comparison.PAGE.read_text(encoding="utf-8")
    assert page == comparison.page(found), "run tests/story/comparison.py"


@pytest.mark.parametrize("way, phase", ALL)
def test_a_playbook_has_the_modules_of_its_way(comparison, way, phase):
    modules = {module(task) for task in comparison.tasks(way, phase)}
    modules -= {"ansible.builtin.copy", "ansible.builtin.file"}
    assert {name.rpartition(".")[0] for name in modules} <= MODULES[way]
    for name in modules:
        if name.startswith("racefree.block."):
            assert (PLUGINS / f"{name.rpartition('.')[2]}.py").is_file()
        else:
            assert name in ("community.libvirt.virt", "ansible.builtin.command")


@pytest.mark.parametrize("way, phase", ALL)
def test_tasks_that_look_change_nothing(comparison, way, phase):
    for task in comparison.tasks(way, phase):
        if module(task) == "ansible.builtin.command":
            looks = task["name"].startswith("Look")
            assert task["changed_when"] is not looks
            assert looks or "when" in task
            assert looks == ("register" in task and "when" not in task)


def test_what_happens_between_tasks_names_them(comparison, found):
    """The tasks before which somebody else acts, and after which a run was killed, exist."""
    names = {(way, phase): [task["name"] for task in comparison.tasks(way, phase)] for way, phase in ALL}
    killed = [row for row in found["rows"] if row["part"] == "kills"]
    assert killed and all(row["after"] in names[row["way"], row["phase"]] for row in killed)
    for way in ("devices", "community", "commands"):
        assert {"Make the mapped device", "Start the guest"} <= set(names[way, "present"])
        assert {"Remove the mapped device", "Remove the loop device"} <= set(names[way, "absent"])


def test_what_was_not_run_is_said(comparison, found):
    part, way = found["rows"][-1]["part"], found["rows"][-1]["way"]
    rows = [row for row in found["rows"] if (row["part"], row["way"]) != (part, way)]
    assert f"{part} of {way}" in comparison.missing({**found, "rows": rows})
    assert f"{part} of {way}" not in comparison.missing(found)
    assert comparison.page({**found, "rows": []}).count("Not run yet: times of recipe") == 1


def test_lines_are_counted_without_comments(comparison, tmp_path, monkeypatch):
    file = tmp_path / "play.yml"
    file.write_text("---\n# text\n\n- name: a\n  # text\n  hosts: b\n", encoding="utf-8")
    monkeypatch.setattr(comparison, "playbook", lambda way, phase: file)
    assert comparison.lines("recipe", "present") == 2


def test_a_part_replaces_the_same_part(comparison):
    old = [{"part": "kills", "way": "recipe", "n": 1}, {"part": "times", "way": "recipe", "n": 1}]
    new = [{"part": "times", "way": "recipe", "n": 2}]
    both = comparison.add(
        {"machine": {"load": 3.0}, "rows": old}, {"machine": {"load": 0.1}, "rows": new, "versions": {}}
    )
    assert [(row["part"], row["n"]) for row in both["rows"]] == [("times", 2), ("kills", 1)]
    # What was measured on a busy machine is still among them.
    assert both["machine"]["load"] == 3.0
    alone = comparison.add({"machine": {"load": 3.0}, "rows": new}, {"machine": {"load": 0.1}, "rows": new})
    assert alone["machine"]["load"] == 0.1


REUSED = {
    "part": "reuse",
    "way": "commands",
    "said": "ok",
    "bytes": "ours",
    "bytes again": "ours",
    "others": True,
    "others at last": True,
    "again": "ok",
    "removal": "ok",
    "at last": {},
}


def test_another_guests_bytes_and_a_lost_device_are_seen(comparison):
    assert not comparison.is_wrong(REUSED) and not comparison.is_taken(REUSED)
    assert comparison.is_wrong(dict(REUSED, **{"bytes again": "other"}))
    assert comparison.is_taken(dict(REUSED, others=False))
    assert comparison.is_taken(dict(REUSED, **{"others at last": False}))


def test_a_killed_run_is_finished_only_if_all_is_as_wanted(comparison):
    whole = {"loop device": 1, "image": 1}
    row = {"phase": "present", "again": "ok", "bytes": "ours", "then": whole}
    assert comparison.is_as_wanted(row, whole)
    for wrong in ({"again": "Start: no"}, {"bytes": "other"}, {"then": {"loop device": 2, "image": 1}}):
        assert not comparison.is_as_wanted(dict(row, **wrong), whole)
    removed = dict(row, phase="absent", bytes="no guest", then={})
    assert comparison.is_as_wanted(removed, whole)
    assert not comparison.is_as_wanted(dict(removed, then={"loop device": 1}), whole)


def test_a_message_is_that_of_the_hook(comparison):
    text = "Start the guest: Hook script failed: racefree.block: story: prepare: its uuid is A,\nnot B"
    assert comparison.short(text) == "its uuid is A, not B"
    assert comparison.short("Make it: no such device") == "no such device"
