# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Several ways to do the same with many devices, measured alternately in one run.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import modules
from figures import Spent, medians

STEPS = ("create", "unchanged", "info", "absent")
Turn = dict[str, Spent]


@dataclass(frozen=True)
class Way:
    """``do(step)`` does a step and checks what came of it; ``most``: it is too slow for more devices."""

    name: str
    do: Callable[[str], None]
    most: int | None = None


def measured(work: Callable[[], object]) -> Spent:
    """The wall clock and the processor time that ``work`` and the programs that it runs take."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    work()
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def turn(way: Way) -> Turn:
    """What each step takes. Removes the devices after a failure, too."""
    times: Turn = {}
    try:
        for step in STEPS:
            times[step] = measured(lambda: way.do(step))  # noqa: B023
    finally:
        if "absent" not in times:
            with contextlib.suppress(Exception):
                way.do("absent")
    return times


def alternate(ways: Sequence[Way], turns: int) -> dict[str, list[Turn]]:
    """``turns`` of each way, one way after the other, in changing order."""
    found: dict[str, list[Turn]] = {way.name: [] for way in ways}
    for number in range(turns):
        for way in reversed(ways) if number % 2 else ways:
            found[way.name].append(turn(way))
    return found


def rows(devices: int, ways: Sequence[Way], turns: int) -> list[dict[str, object]]:
    """A row with the medians for each way that is fast enough for so many devices."""
    chosen = [way for way in ways if way.most is None or devices <= way.most]
    return [
        {
            "devices": devices,
            "way": name,
            "turns": len(found),
            **{step: medians(times[step] for times in found) for step in STEPS},
        }
        for name, found in alternate(chosen, turns).items()
    ]


def show(found: Iterable[dict[str, object]]) -> None:
    """The rows as text: seconds, and in brackets seconds of processor time."""
    for row in found:
        cells = "".join(f"  {step} {row[step][0]:8.3f} ({row[step][1]:7.3f})" for step in STEPS)  # type: ignore[index]
        print(f"{row['devices']:5} {row['way']:20}{cells}", flush=True)


def of_collection(
    name: str, site: str, module: str, present: list[dict[str, str]], absent: list[dict[str, str]]
) -> Way:
    """A plural module creates, finds and removes the devices, and device_info lists them."""

    def do(step: str) -> None:
        if step == "info":
            found = modules.answer(site, "device_info", False, features=False)["devices"]
            if len(found) < len(present):
                raise SystemExit(f"device_info lists {len(found)} devices of {len(present)}")
            return
        devices = absent if step == "absent" else present
        modules.answer(site, module, step != "unchanged", devices=devices)

    return Way(name, do)


def program(*words: object) -> None:
    """Run a program that must succeed."""
    done = subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{words[0]} {words[1]} failed: {done.stderr}")


def sizes(text: str) -> list[int]:
    """Numbers of devices, as an option gives them."""
    return sorted(int(word) for word in text.split(","))


def compiled(source: str, target: str) -> str:
    """The program made of a C file."""
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", target, source], check=True)
    return target
