# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unit tests of tests/setup/lanes and tests/setup/step: what the whole test run prints at its end."""

from __future__ import annotations

import subprocess
from pathlib import Path

SETUP = Path(__file__).resolve().parents[2] / "setup"
STEP = SETUP / "step"


def lanes(*commands: str) -> tuple[int, str]:
    """Exit code and output of lanes with these commands."""
    done = subprocess.run(
        [str(SETUP / "lanes"), *commands],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def test_all_passed() -> None:
    """Each step's output is printed once, and nothing comes after the times."""
    code, output = lanes(f"{STEP} one echo printed-by-one", f"{STEP} two echo printed-by-two")
    assert code == 0
    assert output.count("printed-by-one") == output.count("printed-by-two") == 1
    *_before, times = output.partition("\nTimes:\n")
    assert sorted(line.split("  ")[-1] for line in times.splitlines()) == ["in all", "one: ok", "two: ok"]


def test_a_failed_step() -> None:
    """The last lines of the step that failed are at the end of the output; the other lane is ended."""
    code, output = lanes(
        f"{STEP} bad bash -c 'sleep 1; seq --format=line-%g 100; exit 3'", f"{STEP} good sleep 50"
    )
    assert code == 3
    before, _heading, after = output.partition("\nLast lines of bad, which failed (3):\n")
    assert "bad: FAILED (3)" in before
    assert "good: FAILED (143)" in before
    assert "line-1\n" in before
    assert after.splitlines() == [f"line-{number}" for number in range(61, 101)]
