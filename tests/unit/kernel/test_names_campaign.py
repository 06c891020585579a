# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""
The stored results of the adversary against names of disks, and the program that adds to them.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).resolve().parents[3] / "tests/kernel/names_campaign.py"


@pytest.fixture(scope="module")
def campaign() -> ModuleType:
    spec = importlib.util.spec_from_file_location("names_campaign", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_stored_results(campaign: ModuleType) -> None:
    text = campaign.PAGE.read_text(encoding="utf-8")
    assert campaign.page(text, campaign.stored(), campaign.stored_of_hosts()) == text, (
        "run tests/kernel/names_campaign.py table"
    )


def test_the_stored_results_add_up_and_no_name_of_ours_was_wrong(campaign: ModuleType) -> None:
    rows = campaign.stored()
    known = {part.key(name) for part in campaign.parts() for name in campaign.NAMES[part.kind]}
    assert rows and set(rows) <= known
    for key, row in rows.items():
        assert row["tries"] == row["right"] + row["refused"] + row["wrong"], key
        assert not campaign.is_broken(key, row), key


def test_a_wrong_disk_by_a_name_of_ours_is_noticed(campaign: ModuleType) -> None:
    assert campaign.is_broken("loop/open/by-diskseq", {"wrong": 1})
    assert campaign.is_broken("mapped/open//dev/racefree/dm-uuid", {"wrong": 1})
    assert not campaign.is_broken("loop/open//dev/loopN", {"wrong": 1})


def test_it_goes_on_where_it_stopped(campaign: ModuleType) -> None:
    first = campaign.plan({})[0]
    assert first["seed"] == 0
    rows: dict[str, dict[str, int]] = {}
    part = next(campaign.parts())
    assert first["tries"] == math.ceil(campaign.LEVELS[0] * part.target(campaign.OURS[0]))
    for name in campaign.NAMES[part.kind]:
        count = first["tries"] if name in campaign.OURS else first["others"]
        found = {"name": name, "tries": count, "right": count, "refused": 0, "wrong": 0}
        campaign.add(rows, part, {**found, "replaced": 0, "seconds": 1.6})
    assert campaign.done(rows, part) == campaign.LEVELS[0]
    later = [todo for todo in campaign.plan(rows) if (todo["kind"], todo["tool"]) == part[:2]]
    assert later[0]["seed"] == first["tries"]


def test_each_start_makes_progress(campaign: ModuleType) -> None:
    rows: dict[str, dict[str, int]] = {}
    for _start in range(1000):
        todo = campaign.plan(rows)
        if not todo:
            break
        for each in todo:
            part = campaign.Part(each["kind"], each["tool"], 0, each["patience"] > 0)
            sizes = {
                name: each["tries" if name in campaign.OURS else "others"]
                for name in campaign.NAMES[part.kind]
            }
            assert max(sizes.values()) > 0, each
            for name, tries in sizes.items():
                rows.setdefault(part.key(name), {"tries": 0})["tries"] += tries
    assert campaign.plan(rows) == []
    for tool in {part.tool for part in campaign.parts() if part.kind == "loop" and not part.late}:
        keys = [
            campaign.Part(kind, tool, 0).key(name)
            for kind in ("loop", "mapped")
            for name in campaign.OURS
            if name in campaign.NAMES[kind]
        ]
        assert len(keys) == 3 and sum(rows[key]["tries"] for key in keys) >= campaign.FULL


def test_everything_done_leaves_nothing_to_plan(campaign: ModuleType) -> None:
    rows = {
        part.key(name): {"tries": part.target(name)}
        for part in campaign.parts()
        for name in campaign.NAMES[part.kind]
    }
    assert campaign.plan(rows) == []


def test_a_page_without_marks_is_refused(campaign: ModuleType) -> None:
    with pytest.raises(SystemExit, match="has no marks"):
        campaign.page("nothing", {}, {})


def test_the_rows_of_hosts_add_up(campaign: ModuleType) -> None:
    for tools in campaign.stored_of_hosts().values():
        for tool, names in tools.items():
            for name, row in names.items():
                assert row["tries"] == row["right"] + row["refused"] + row["wrong"], (tool, name)
                assert not row["wrong"] or "minutes" not in name, (tool, name)


def test_rows_of_a_host_are_added(
    campaign: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "ON_HOSTS", tmp_path / "hosts.json")
    line = (
        '{"kernel": "6.1", "tool": "xl", "name": "a", "tries": 2, "replaced": 1, "right": 1, "refused": 1, '
        '"wrong": 0}'
    )
    for dummy in range(2):
        campaign.add_from_host([line, "something else"])
    assert campaign.hosts_table(campaign.stored_of_hosts()).splitlines()[2:] == [
        "| 6.1 | xl | a | 4 | 2 | 2 | 2 | 0 |"
    ]
