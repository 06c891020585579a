# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables that were loaded, as the kernel prints them."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._dm import codec, recognize

PATHS = "round-robin 0 1 1 7:0 1 round-robin 0 1 1 7:1 1"


def target(text, start=0, length=2048):
    kind, dummy, params = text.encode().partition(b" ")
    return start, length, kind, params


def is_table(printed, *loaded):
    return recognize.is_table([codec.TargetLine(*line) for line in printed], loaded)


@pytest.mark.parametrize(
    "loaded, printed",
    [
        ("linear 7:0 0", "linear 7:0 0"),
        # The handover of a store is pending until the snapshot is live.
        ("snapshot 7:0 7:1 P 8", "snapshot 7:0 7:1 P 0"),
        # The store has a header of an earlier snapshot.
        ("snapshot 7:0 7:1 P 512", "snapshot 7:0 7:1 P 8"),
        ("flakey 7:0 0 1 0", "flakey 7:0 0 1 0 2 error_reads error_writes"),
        # A rebuild that is done.
        ("raid raid1 3 0 rebuild 1 2 - 7:0 - 7:1", "raid raid1 3 0 region_size 1024 2 - 7:0 - 7:1"),
        # The first path has failed, multipathd lets requests wait, and the device has a handler of its own.
        (
            f"multipath 0 0 2 1 {PATHS}",
            f"multipath 2 queue_if_no_path retain_attached_hw_handler 1 alua 2 2 {PATHS}",
        ),
        # A type that only the kernel knows.
        ("unheard-of a", "unheard-of a b"),
    ],
)
def test_the_same(loaded, printed):
    assert is_table([target(printed)], target(loaded))


@pytest.mark.parametrize(
    "loaded, printed",
    [
        ("linear 7:0 0", "linear 7:0 8"),
        ("linear 7:0 0", "linear 7:1 0"),
        ("zero", "error"),
        ("unheard-of a", "never-heard-of a"),
        ("snapshot 7:0 7:1 P 8", "snapshot 7:0 7:2 P 8"),
        (f"multipath 0 0 2 1 {PATHS}", f"multipath 0 0 2 1 {PATHS.replace('7:1', '7:2')}"),
        ("crypt aes-xts-plain64 :32:logon:a:b 0 7:0 0", "crypt aes-xts-plain64 :32:logon:a:c 0 7:0 0"),
    ],
)
def test_another(loaded, printed):
    recognize.prepare((target(loaded),))
    assert not is_table([target(printed)], target(loaded))


def test_other_targets():
    zero = target("zero")
    assert is_table([zero], zero)
    assert not is_table([], zero)
    assert not is_table([zero, target("zero", 2048)], zero)
    assert not is_table([target("zero", length=8)], zero)
