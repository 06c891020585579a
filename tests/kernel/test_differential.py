# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Compares the table parser with the kernel of this host: a small run of differential.py.

RACEFREE_SEED sets the seed, to reproduce a failure or to try other tables.
"""

from __future__ import annotations

import os

import differential
import known

SEED = int(os.environ.get("RACEFREE_SEED") or 1)
COUNT = 500


def test_every_disagreement_has_a_name(capsys):
    code, result = differential.compare_tables(seed=SEED, count=COUNT)
    assert result is not None, f"seed {SEED}: no answer in time"
    differential.show(result)
    with capsys.disabled():
        print(f"\n{differential.summary(result)}")
    totals = result["totals"]
    # If one side refused everything, the run would prove nothing.
    assert (
        totals["tables"] == COUNT and totals["both took"] > COUNT // 6 and totals["both refused"] > COUNT // 6
    ), differential.summary(result)
    assert code == 0, differential.summary(result)
    assert not totals["without a name"] or not result["known"], differential.summary(result)


def test_a_disagreement_without_a_name_is_found(monkeypatch):
    """The same comparison without names: it must report what is stricter on purpose."""
    monkeypatch.setattr(known, "STRICTER", ())
    code, result = differential.compare_tables(
        seed=SEED, count=60, types=["error", "linear", "snapshot-origin", "zero"]
    )
    assert code == (1 if result["known"] else 0) and result["totals"]["without a name"]
    rows = [row for row in result["classes"].values() if row["name"] is None]
    assert rows and all(row["examples"] for row in rows)


def test_a_kernel_that_the_data_does_not_name_is_compared_with_the_newest(monkeypatch):
    monkeypatch.setattr(known, "STRICTER", ())
    monkeypatch.setattr(differential.kernels, "KERNELS", ("6.0",))
    assert differential.data_for("7.99.1") == ("6.0", False)
    monkeypatch.undo()
    monkeypatch.setattr(known, "STRICTER", ())
    monkeypatch.setattr(differential, "data_for", lambda release: (differential.kernels.KERNELS[-1], False))
    code, result = differential.compare_tables(
        seed=SEED, count=60, types=["error", "linear", "snapshot-origin", "zero"]
    )
    assert (
        code == 0 and result["totals"]["without a name"] and "not in the data" in differential.summary(result)
    )
