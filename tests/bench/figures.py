# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The figures of a measurement: medians, ratios, growth with the number of devices, and the files that keep
them.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# Seconds of wall clock, and of processor time.
Spent = tuple[float, float]
# The growth is fitted from this number of devices on: below, the start of the program is all that counts.
LEAST = 8


def medians(found: Iterable[Spent]) -> list[float]:
    """The median of the wall clock, and that of the processor time."""
    walls, processors = zip(*found)
    return [round(statistics.median(values), 4) for values in (walls, processors)]


def paired_ratio(pairs: Iterable[tuple[float, float]]) -> float:
    """The median of the ratios of values that were measured beside each other."""
    return statistics.median(first / second for first, second in pairs)


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """
    The b of ``time = a * devices ** b``, fitted to the logarithms by least squares, from LEAST devices on.
    None for fewer than two numbers of devices.
    """
    logs = [(math.log(devices), math.log(seconds)) for devices, seconds in points if devices >= LEAST]
    if len(logs) < 2:
        return None
    middle = [statistics.fmean(values) for values in zip(*logs)]
    above = sum((x - middle[0]) * (y - middle[1]) for x, y in logs)
    return above / sum((x - middle[0]) ** 2 for x, _y in logs)


def machine() -> dict[str, Any]:
    """What the figures depend on, and how busy the machine is with other things."""
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def keep(path: Path, figures: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(figures), encoding="utf-8")


def text_of(figures: dict[str, Any]) -> str:
    """JSON with each row on a line of its own."""
    rows = figures["rows"]
    head = json.dumps({**figures, "rows": []}, indent=1, sort_keys=True, ensure_ascii=False)
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    return head.replace('"rows": []', f'"rows": [\n{lines}\n ]' if rows else '"rows": []') + "\n"


def kept(path: Path) -> dict[str, Any] | None:
    """The stored figures; None if there are none."""
    if not path.is_file():
        return None
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return figures
