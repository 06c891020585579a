# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names that the comparison with a kernel gives to disagreements are the documented ones."""

from __future__ import annotations

import re
from collections import namedtuple

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import (
    TARGETS,
    Context,
    DeviceFacts,
    parse_table,
)
from ansible_collections.racefree.block.tests.kernel import known
from ansible_collections.racefree.block.tests.unit.plugins.module_utils._dm_table.deviations import (
    STRICTER,
    UNDECIDED,
)

Verdict = namedtuple("Verdict", ("phase", "errno", "reason", "table"))


def test_every_name_is_documented():
    for rows, documented in ((known.STRICTER, STRICTER), (known.UNDECIDED, UNDECIDED)):
        names = {entry.name: entry.target for entry in documented}
        for name, target, pattern in rows:
            assert name in names
            assert target is None or target in TARGETS
            # snapshot-merge has the grammar of snapshot, whose entries also cover it.
            assert names[name] in (None, target, (target or "").replace("-merge", ""))
            re.compile(pattern)


@pytest.mark.parametrize(
    "line, name",
    [
        ("0 8 linear 8:0 4294967296x", "numbers"),
        ("0 8 zero x", "leftovers"),
        ("0 8 error x", "error-arguments"),
        ("0 8 linear relative 0", "paths"),
        ("0 8 crypt aes-xts-plain64 " + "00" * 32 + " 0 8:0 0 1 sector_size:66048", "crypt-sector-size-wrap"),
        ("0 8 snapshot 8:0 8:1 Never 8", "snapshot-persistence"),
        ("0 8 flakey 8:0 0 1 1 2 drop_writes drop_writes", "duplicates"),
        ("0 9000 raid raid1 3 0 region_size 0 2 - 8:0 - 8:16", "raid-region"),
        ("0 8 unstriped 2147483648 8 0 8:0 0", "unstriped-stripes"),
        ("0 16 era 8:0 8:16 8\n16 16 era 8:0 8:32 8", "same-device"),
        ("0 8 linear 8:0", None),
    ],
)
def test_an_error_of_the_parser_gets_its_name(line, name):
    with pytest.raises(TableError) as caught:
        parse_table(line)
    errors = caught.value.errors
    assert known.stricter(errors[0], errors) == name


def test_only_areas_that_md_rounds_have_a_name():
    blocks = Context(devices=lambda slot: DeviceFacts(8, int(slot.text[-1]), 1 << 20, 4096))
    for line, name in (
        ("0 37880 raid raid4 1 32 5 - 8:0 - 8:1 - 8:2 - 8:3 - 8:4", "raid-rounding"),
        ("0 37876 linear 8:0 0", None),
    ):
        with pytest.raises(TableError, match="multiple of the logical block") as caught:
            parse_table(line, context=blocks)
        assert known.stricter(caught.value.errors[0], caught.value.errors) == name


def test_a_reason_of_the_kernel_gets_its_name():
    volume = parse_table("0 8 vdo V4 8:0 1000 4096 32768 16380")
    unformatted = Verdict("load", "EIO", "vdo: Could not load geometry block", None)
    other = Verdict("load", "EINVAL", "vdo: Invalid version number", None)
    assert known.undecided(volume, unformatted) == "contents"
    assert known.undecided(volume, other) is None
    assert known.undecided(parse_table("0 8 zero"), unformatted) is None
    shared = Verdict(
        "load",
        "EILSEQ",
        "block manager: superblock validator check failed for block 0; cache: Error creating metadata object",
        None,
    )
    assert known.undecided(parse_table("0 8 cache 8:0 8:1 8:2 64 0 default 0"), shared) == "contents"

    full = Verdict(
        "resume",
        "ENOSPC",
        "era: metadata_commit: pre commit failed; era: preresume failed, error = -28",
        None,
    )
    assert known.undecided(parse_table("0 4294993272 era 8:0 8:1 352"), full) == "metadata-room"
    fresh = Verdict(
        "load", "EINVAL", "raid: x; raid: New device injected into existing raid set without 'rebuild'", None
    )
    mixed = parse_table("0 19456 raid raid1 1 0 2 8:0 8:1 - 8:2")
    assert known.undecided(mixed, fresh) == "contents"


def test_a_table_refused_for_its_contents_was_parsed():
    unformatted = Verdict("load", "EIO", "vdo: Could not load geometry block", None)
    assert known.words_taken({"vdo"}, unformatted)
    assert not known.words_taken({"zero"}, unformatted)
    assert not known.words_taken({"vdo"}, Verdict("load", "EINVAL", "vdo: Invalid version number", None))
    assert known.words_taken({"zero"}, Verdict(None, None, None, ["0 8 zero"]))
