# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables that stop some kernels."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import (
    Context,
    DeviceFacts,
    parse_table,
)
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar import kernels
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar.stops import STOPS

SMALL = "0 8 snapshot /dev/a /dev/b P 256 1 discard_zeroes_cow"
SYNC = "0 24576 raid raid5_ls 2 64 sync 3 - /dev/a - /dev/b - /dev/c"
STOPPING = [
    (SMALL, "small-discards", "chunk_size"),
    (SMALL.replace("256", "0"), "small-discards", "chunk_size"),
    (SMALL.replace("P 256", "N 8"), "small-discards", "chunk_size"),
    (SMALL.replace("snapshot", "snapshot-merge").replace("P ", "PO "), "small-discards", "chunk_size"),
    (
        SMALL.replace("1 discard_zeroes_cow", "2 discard_zeroes_cow discard_passdown_origin"),
        "small-discards",
        "chunk_size",
    ),
    (SYNC, "unfinished-sync", "sync"),
    (SYNC.replace("raid5_ls", "raid4"), "unfinished-sync", "sync"),
    (
        SYNC.replace("raid5_ls", "raid6_zr").replace("3 - /dev/a", "4 - /dev/d - /dev/a"),
        "unfinished-sync",
        "sync",
    ),
]
HARMLESS = [
    SMALL.replace("256", "512"),
    SMALL.replace("256 1 discard_zeroes_cow", "8"),
    SYNC.replace("2 64 sync", "1 64"),
    SYNC.replace("sync", "nosync"),
    SYNC.replace("- /dev/a", "/dev/m /dev/a"),
    SYNC.replace("raid5_ls", "raid1"),
]


def stops_of(line, **context):
    with pytest.raises(TableError) as caught:
        parse_table(line, context=Context(**context))
    return [(error.get("stops"), error["field"]) for error in caught.value.errors], str(caught.value)


@pytest.mark.parametrize("line, name, field", STOPPING)
@pytest.mark.parametrize(
    "context, stopped",
    [
        ({"running": (6, 13)}, "6.13"),
        ({"running": (6, 18)}, "6.18"),
        ({"running": (7, 2)}, "7.2"),
        ({"kernels": ("7.2",)}, "7.2"),
        ({"kernels": ("6.1", "7.2")}, "7.2"),
        ({"kernels": ("7.2",), "running": (7, 2)}, "7.2"),
        ({"running": (8, 0)}, "8.0"),
        ({"kernels": ("6.1", "6.12"), "running": (6, 13)}, "6.13"),
    ],
)
def test_tables_that_stop_a_kernel_are_refused_by_name(line, name, field, context, stopped):
    errors, message = stops_of(line, **context)
    assert errors == [(name, field)]
    assert f"Linux {stopped} " in message and f"({name})" in message


@pytest.mark.parametrize("line", [row[0] for row in STOPPING])
@pytest.mark.parametrize(
    "context",
    [
        {"running": (6, 12)},
        {"running": (6, 1)},
        {"kernels": ("6.1", "6.12")},
        {"kernels": ("6.12",), "running": (6, 12)},
    ],
)
def test_other_kernels_accept_these_tables(line, context):
    said = []
    assert parse_table(line, context=Context(warn=said.append, **context)).lines() == [line]
    assert not said


@pytest.mark.parametrize("line, name, field", STOPPING)
def test_an_unknown_kernel_gets_a_warning(line, name, field):
    said = []
    parse_table(f"0 8 zero\n{line.replace('0', '8', 1)}", context=Context(warn=said.append))
    assert len(set(said)) == 1 and said[0].startswith(f"line 2: {line.split(' ')[2]}: {field} ")
    assert "Linux 6.13 and newer" in said[0] and name in said[0]


@pytest.mark.parametrize("line", HARMLESS)
def test_tables_that_stop_no_kernel(line):
    said = []
    parse_table(line, context=Context(running=(7, 2)))
    parse_table(line, context=Context(warn=said.append))
    assert not said


@pytest.mark.parametrize(
    "kind, written, refused",
    [
        ("P", 8, True),
        ("PO", 511, True),
        ("P", 512, False),
        ("P", 1024, False),
        ("P", None, False),
        ("N", 8, False),
    ],
)
def test_the_header_of_the_cow_device_overrides_the_table(kind, written, refused):
    facts = {
        "/dev/a": DeviceFacts(8, 0, 1 << 20),
        "/dev/b": DeviceFacts(8, 16, 1 << 20, cow_chunk=lambda: written),
    }
    line = f"0 8 snapshot /dev/a /dev/b {kind} 512 1 discard_zeroes_cow"
    context = {"running": (7, 2), "devices": lambda slot: facts[slot.text]}
    if refused:
        errors, message = stops_of(line, **context)
        assert errors == [("small-discards", "cow")]
        assert f"its header has {written}" in message
    else:
        parse_table(line, context=Context(**context))
    parse_table(line, context=Context(devices=context["devices"], running=(6, 12)))


def test_the_cow_device_is_read_only_if_needed():
    def never():
        raise AssertionError("read for nothing")

    facts = {"/dev/a": DeviceFacts(8, 0, 1 << 20), "/dev/b": DeviceFacts(8, 16, 1 << 20, cow_chunk=never)}
    for line in ("0 8 snapshot /dev/a /dev/b P 8", "0 8 snapshot /dev/a /dev/b N 512 1 discard_zeroes_cow"):
        parse_table(line, context=Context(running=(7, 2), devices=lambda slot: facts[slot.text]))


def test_stopping_tables_follow_a_known_kernels_grammar():
    """
    Every stop begins between two known kernels, so some known kernels accept such a table and some are
    stopped by it.
    """
    versions = [kernels.version_of(name) for name in kernels.KERNELS]
    for stop in STOPS:
        assert min(versions) < stop.since <= max(versions)


@pytest.mark.parametrize(
    "release, version",
    [
        ("6.12.117-amd64", (6, 12)),
        ("7.2", (7, 2)),
        ("7.2.7", (7, 2)),
        ("6.1.0-56-amd64", (6, 1)),
        ("x", None),
        ("10.0-rc1", (10, 0)),
    ],
)
def test_version_of_a_release(release, version):
    assert kernels.version_of(release) == version
