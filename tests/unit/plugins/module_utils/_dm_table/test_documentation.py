# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation has an example of every target, in both forms, and names every deliberate difference."""

from __future__ import annotations

import pathlib
import re

import yaml
from ansible_collections.racefree.block.plugins.module_utils._dm_table import (
    TARGETS,
    format_table,
    parse_table,
)
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar.stops import STOPS
from ansible_collections.racefree.block.tests.unit.plugins.module_utils._dm_table.deviations import (
    STRICTER,
    UNDECIDED,
)

DOCUMENT = pathlib.Path(__file__).parents[5] / "docs" / "device-mapper-tables.md"
SECTION = re.compile(r"^### (\S+)\n\n.*?```text\n(.*?)\n```\n\n```yaml\n(.*?)\n```", re.MULTILINE | re.DOTALL)


def test_every_target_has_an_example_in_both_forms():
    sections = SECTION.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert [name for name, line, plain in sections] == sorted(TARGETS)
    for name, line, plain in sections:
        table = parse_table(line)
        assert name == table.targets[0].TYPE
        assert format_table(table) == [line]
        assert parse_table(yaml.safe_load(plain)) == table


def test_every_deviation_is_documented():
    text = DOCUMENT.read_text(encoding="utf-8")
    entries = STRICTER + UNDECIDED
    assert len({entry.name for entry in entries}) == len(entries)
    for entry in entries:
        target = "all" if entry.target is None else f"`{entry.target}`"
        assert f"| `{entry.name}` | {target} | {entry.what} | {entry.why} |" in text
        assert entry.target is None or entry.target in TARGETS


def test_every_table_that_stops_a_kernel_is_documented():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert len({stop.name for stop in STOPS}) == len(STOPS)
    for stop in STOPS:
        since = f"{stop.since[0]}.{stop.since[1]} and newer"
        assert (
            f"| `{stop.name}` | `{stop.target}` | {since} | {stop.what} | It {stop.happens}. | {stop.seen} |"
            in text
        )
        assert stop.target in TARGETS
