# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Problems of mapped devices that no longer work, from the status of their targets."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._dm import health
from ansible_collections.racefree.block.plugins.module_utils._dm.codec import TargetLine


def line(kind, params):
    return TargetLine(0, 8, kind, params)


@pytest.mark.parametrize(
    "kind,params,word",
    [
        (b"snapshot", b"Invalid", "store has overflowed"),
        (b"snapshot", b"Overflow", "store has overflowed"),
        (b"snapshot-merge", b"Merge failed", "merge has failed"),
        (b"thin-pool", b"Fail", "pool has failed"),
        (b"thin-pool", b"1 17/1024 0/64 - ro discard_passdown queue_if_no_space - 1024", "pool is read-only"),
        (
            b"thin-pool",
            b"1 17/1024 64/64 - out_of_data_space discard_passdown error_if_no_space - 1024",
            "pool is out of space",
        ),
        (
            b"thin-pool",
            b"1 17/1024 0/64 - ro discard_passdown queue_if_no_space needs_check 1024",
            "pool needs a check",
        ),
        (b"thin", b"Fail", "pool has failed"),
        (b"cache", b"Fail", "cache has failed"),
    ],
)
def test_targets_that_no_longer_work(kind, params, word):
    ((found, text),) = health.problems_of([line(b"linear", b""), line(kind, params)])
    assert found == kind and word in text


@pytest.mark.parametrize(
    "kind,params",
    [
        (b"snapshot", b"16/1024 16"),
        (b"snapshot", b"Unknown"),
        (b"thin", b"128 1023"),
        (b"thin", b"-"),
        (b"linear", b"Invalid"),
        (b"zero", b""),
        (b"thin-pool", b"1 17/1024 0/64 - rw discard_passdown queue_if_no_space - 1024"),
    ],
)
def test_targets_that_work(kind, params):
    assert not health.problems_of([line(kind, params)])
