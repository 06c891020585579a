# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The measurements' own module, found as their programs find it."""

from __future__ import annotations

import pathlib

import pytest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(programs):
    """A function that imports one of the files of tests/bench."""
    return programs(BENCH)
