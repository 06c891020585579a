# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The campaign's stored results, its table and its known failures. Its tries run in kernels of their own
(tests/campaign).
"""

from __future__ import annotations

import json
import pathlib
import types

import pytest

HERE = pathlib.Path(__file__).resolve().parents[2] / "campaign"


@pytest.fixture
def campaign(programs):
    """A function that imports one of the campaign's modules."""
    return programs(HERE)


def result(family="kills", row="dm_device present", **counts):
    return {
        "family": family,
        "rows": {
            row: dict(dict.fromkeys(("tries", "right", "refused", "wrong", "left", "lies"), 0), **counts)
        },
        "examples": {},
    }


def test_table_and_plots_are_made_from_the_stored_results(campaign):
    results = campaign("results")
    for path, text in results.pages().items():
        assert path.read_text(encoding="utf-8") == text, "run tests/campaign/campaign.py table"


def test_stored_results_add_up(campaign):
    results = campaign("results")
    files = list(results.KEPT.glob("*.json"))
    assert files
    for file in files:
        for counts in json.loads(file.read_text(encoding="utf-8"))["rows"].values():
            assert counts["tries"] == sum(counts[name] for name in results.COUNTS[1:])


def test_counts_of_the_programs_on_hosts(campaign):
    text = (
        "work    path            3 right       2 refused       1 gone       0 wrong\n"
        "work: 4 kills of add, 3 kills of worker; 1 left something, 9 s\n"
        "xen_vbd: attach, file, exchanged          5 tries      3 right      2 refused"
        "      0 wrong      0 left      0 lies\n"
        "xen_vbd: xen_vbds attach, killed          2 tries      0 right      1 refused"
        "      0 wrong      1 left      0 lies\n"
        "xen_vbd: 5 rounds in 9 s\n"
    )
    rows = campaign("hosts").read(text)
    assert rows == {
        "hotplug script, work, by path, exchanged": {"right": 3, "refused": 3, "wrong": 0, "tries": 6},
        "hotplug script, work, killed": {"tries": 7, "refused": 6, "left": 1},
        "xen_vbd attach, file, exchanged": {
            "tries": 5,
            "right": 3,
            "refused": 2,
            "wrong": 0,
            "left": 0,
            "lies": 0,
        },
        "xen_vbds attach, killed": {"tries": 2, "right": 0, "refused": 1, "wrong": 0, "left": 1, "lies": 0},
    }


@pytest.fixture
def inside(programs):
    """A function that imports one of the programs that run in the kernels."""
    return programs(HERE / "inside")


def test_the_kernels_share_the_rounds_of_a_family(campaign, inside):
    pieces, score = campaign("pieces"), inside("score")
    udev = types.SimpleNamespace(real=lambda is_cold: None)
    for family in pieces.FAMILIES:
        done = []
        for release in pieces.RELEASES:
            words = pieces.program(family, 0, 1, 4, 60, release)
            if family.name == "tables":
                assert "--share" not in words
                continue
            chosen, found = score.options("", words[1:]), score.Score(family.name, 1)
            done.append([found.round for _each in score.rounds(found, chosen, udev)])
            assert found.rounds == 4
        if family.is_shared:
            assert done == [[3, 6, 9, 12], [4, 7, 10, 13], [5, 8, 11, 14]]
        elif done:
            assert done == [[1, 2, 3, 4]] * 3


def test_the_small_size_has_all_first_rounds(campaign):
    pieces = campaign("pieces")
    assert all("--share" not in pieces.program(family, 0, 0, 9, 60) for family in pieces.FAMILIES)


def test_each_error_of_each_call_is_tried_once(campaign, inside):
    errnos, pieces = inside("errnos"), campaign("pieces")
    pairs = errnos.order(1, "a job")
    assert len(set(pairs)) == len(pairs) == errnos.MOST_CALLS * len(errnos.ERRORS)
    assert pairs != errnos.order(1, "another job")
    (family,) = [family for family in pieces.FAMILIES if family.name == "errors"]
    # The newest kernel does every third round.
    step = len(pieces.RELEASES) if family.is_shared else 1
    numbers = range(0, step * family.rounds_on(pieces.RELEASES[0]), step)
    assert {number % len(pairs) for number in numbers} == set(range(len(pairs)))


def test_the_sums_are_without_other_tools(campaign, monkeypatch):
    results = campaign("results")
    found = dict(result(tries=2, right=2), kernel="6.1")
    found["rows"]["today: dmsetup"] = dict(found["rows"]["dm_device present"], tries=9, right=0, wrong=9)
    (kills,) = [family for family in results.pieces.FAMILIES if family.name == "kills"]
    monkeypatch.setattr(results, "kept", lambda release, family, index: found if family is kills else None)
    assert "| kills | 1 | 6 | 6 | 0 | 0 | 0 | 0 |" in results._sums()


def test_the_key_covers_the_code_under_test(campaign):
    pieces = campaign("pieces")
    names = {path.name for path in pieces.closure([pieces.PLUGINS / "modules" / "dm_device.py"])}
    assert {
        "dm_device.py",
        "runner.py",
        "control.py",
        "slots.py",
        "rules.py",
        "snapshot.py",
    } <= names
    assert "xen_vbd.py" not in names
    assert len({pieces.key(family) for family in pieces.FAMILIES}) == len(pieces.FAMILIES)


def test_a_code_change_changes_the_key(campaign, monkeypatch):
    pieces = campaign("pieces")
    family = pieces.FAMILIES[0]
    before = pieces.key(family)
    read = pieces.Path.read_text

    def changed(more):
        def read_text(path, **words):
            return read(path, **words) + (more if path.name == "known.py" else "")

        monkeypatch.setattr(pieces.Path, "read_text", read_text)
        return pieces.key(family)

    assert changed("\nMORE = 1\n") != before
    assert changed("\n# nothing that matters\n") == before
    assert changed('\nDOCUMENTATION = "other words"\nEXAMPLES = ""\n') == before
    assert changed('\nOTHER = "words"\n') != before


@pytest.mark.parametrize(
    "counts, listed, said",
    [
        ({"tries": 9, "right": 9}, "", []),
        ({"tries": 9, "right": 8, "wrong": 1}, "", ["1 of 9 tries: wrong"]),
        ({"tries": 9, "right": 7, "left": 2}, "kills: dm_device present: left: 5: being mended", []),
        (
            {"tries": 9, "right": 7, "lies": 2},
            "kills: dm_device present: left: 50: being mended",
            ["2 of 9 tries: lies"],
        ),
        ({"tries": 9, "right": 9}, "kills: dm_device present: left: 5: being mended", ["is it mended?"]),
        ({"tries": 4, "right": 4}, "kills: dm_device present: left: 5: being mended", []),
    ],
)
def test_notes_about_incomplete_results(campaign, counts, listed, said):
    expected = campaign("expected")
    texts = expected.judge([result(**counts)], expected.read(listed))
    assert len(texts) == len(said) and all(part in text for part, text in zip(said, texts))


def test_failures_of_other_tools_are_allowed(campaign):
    expected = campaign("expected")
    assert not expected.judge([result(row="today: dmsetup", tries=1, wrong=1)], {})


@pytest.mark.parametrize(
    "line",
    [
        "kills: dm_device present: left",
        "kills: a: bad: 1: why",
        "kills: a: left: x: why",
        "kills: a: left: 1:",
    ],
)
def test_an_invalid_line_of_the_expected_failures(campaign, line):
    with pytest.raises(ValueError, match="line 1"):
        campaign("expected").read(line)


def test_the_list_of_expected_failures_can_be_parsed(campaign):
    expected = campaign("expected")
    expected.read(expected.FILE.read_text(encoding="utf-8"))
