# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mapped devices over a loop device whose file is swapped all the time: a small run of swap.py, which does larger ones."""

from __future__ import annotations

import pytest
import swap

TRIES = 300


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return swap.swap(TRIES, 20, directory=str(tmp_path_factory.mktemp("swap")))


@pytest.mark.parametrize("way", ["diskseq", "path and diskseq", "file"])
def test_never_the_wrong_device(rows, way):
    row = rows[way]
    assert row["tries"] == TRIES // 3, swap.summary(rows)
    assert row["wrong"] == 0 and row["gone"] == 0 and row["right"], swap.summary(rows)


def test_the_adversary_is_at_work(rows, capsys):
    """Without anybody who swaps the file nothing would have been refused."""
    with capsys.disabled():
        print(f"\n{swap.summary(rows)}")
    assert rows["diskseq"]["refused"] and rows["path and diskseq"]["refused"], swap.summary(rows)
    assert rows["file"]["refused"] == 0, swap.summary(rows)
    assert rows["dmsetup"]["tries"] == 20
