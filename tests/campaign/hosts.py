# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The programs of tests/host as a family: the hotplug script, libvirt's hook and domain definitions, and
xen_vbd, on an emulated Xen host.

Each program gets an equal share of the time. It is called repeatedly, and the counts that it prints are added
up.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from typing import NamedTuple

import pieces
import results

XENHOST = str(pieces.ROOT / "tests" / "xenhost" / "xenhost")
PUSH = str(pieces.ROOT / "tests" / "host" / "push")
_SWAPS = re.compile(r"^(work|served|stock) +(diskseq|path|stock) +(.+)$", re.M)
_DEFINITIONS = re.compile(r"^(recipe|plain) +(.+?)  of \d+ tries", re.M)
_COUNT = re.compile(r"(\d+) (right|refused|gone|wrong)")
_ALL_COUNTS = re.compile(rf"(\d+) ({'|'.join(results.COUNTS)})")
_SCRIPT_KILLS = re.compile(r"^(work|start|service): (.*); (\d+) left something", re.M)
_VBDS = re.compile(r"^xen_vbd: (.+?) +(\d+ tries .+)$", re.M)
_HOOK_KILLS = re.compile(r"^(\d+) kills, (\d+) left something", re.M)
# Seconds after the expected duration of a call at which it is killed.
_GRACE = 900


class Program(NamedTuple):
    """
    ``words(number, tries)``: the command line of call ``number``. ``tries``: the number of tries in the first
    call.
    """

    name: str
    words: str
    tries: int


PROGRAMS = (
    Program("rebind.py", "--work {tries} --served {tries} --stock 2", 20),
    Program("hotplug_kill.py", "--step {step} --first {number}", 10),
    Program("hotplug_kill.py", "--part service --step {step} --first {number}", 10),
    Program("swaplibvirt.py", "--tries {tries} --whole 2 --plain 5 --plain-whole 1", 20),
    Program("hookkill.py", "--tries {tries} --seed {number}", 10),
    Program("vbd_adversary.py", "--tries {tries} --seed {number}", 5),
)


def run(release: str, minutes: float) -> dict[str, object]:
    """
    Run the programs; returns a result in the form of the other families, in which ``rounds`` are minutes.
    """
    name = f"campaign-{release}"
    started = time.monotonic()
    subprocess.run([XENHOST, "up", "--name", name, "--release", release], check=True)
    try:
        subprocess.run([PUSH, name], check=True)
        kernel = _on_host(name, "uname -r", 60)[0].strip()
        rows: dict[str, dict[str, int]] = {}
        examples: dict[str, list[str]] = {}
        for program in PROGRAMS:
            for text, code in _calls(name, program, minutes * 60 / len(PROGRAMS)):
                found = read(text)
                for row, counts in found.items():
                    kept = rows.setdefault(row, dict.fromkeys(results.COUNTS, 0))
                    for count, value in counts.items():
                        kept[count] += value
                if not found or code not in (0, 1):
                    raise RuntimeError(f"{program.name} ended with {code}, and said:\n{text}")
                if code:
                    examples.setdefault(program.name, []).append(text[-500:])
    finally:
        subprocess.run([XENHOST, "down", "--name", name, "--now"], check=False)
    seconds = round(time.monotonic() - started)
    return {
        "family": "host",
        "kernel": kernel,
        "seed": pieces.SEED,
        "seconds": seconds,
        "rounds": round(minutes),
        "rows": rows,
        "examples": examples,
    }


def _calls(name: str, program: Program, seconds: float) -> Iterator[tuple[str, int]]:
    """
    Yield the output of each call of a program until its time is over. The second call is sized to take the
    remaining time.
    """
    tries, end, number = program.tries, time.monotonic() + seconds, 0
    while number == 0 or (time.monotonic() < end and tries >= program.tries // 4):
        started = time.monotonic()
        step = max(1, 400 // tries)
        words = program.words.format(tries=tries, step=step, number=number)
        yield _on_host(
            name, f"cd /root/site/tests && python3 -B {program.name} {words}", end - started + _GRACE
        )
        took = time.monotonic() - started
        tries = max(1, int(tries * (end - time.monotonic()) / took))
        number += 1


def _on_host(name: str, command: str, seconds: float) -> tuple[str, int]:
    done = subprocess.run(
        [XENHOST, "ssh", "--name", name, "--", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.stdout + (done.stderr[-2000:] if done.returncode else ""), done.returncode


def read(text: str) -> dict[str, dict[str, int]]:
    """{row: counts} from the output of one program."""
    rows = {}
    for part, way, counts in _SWAPS.findall(text):
        title = f"hotplug script, {part}, by {way}, exchanged"
        rows["today: Xen's script, exchanged" if part == "stock" else title] = _counts(counts)
    for way, counts in _DEFINITIONS.findall(text):
        title = "today: libvirt, a path in the definition" if way == "plain" else "libvirt's hook, by recipe"
        rows[f"{title}, exchanged"] = _counts(counts)
    for part, kills, left in _SCRIPT_KILLS.findall(text):
        tries = sum(int(count) for count in re.findall(r"(\d+) kills of", kills))
        rows[f"hotplug script, {part}, killed"] = _kills(tries, int(left))
    for title, counts in _VBDS.findall(text):
        rows[f"{'' if title.startswith('xen_vbd') else 'xen_vbd '}{title}"] = {
            name: int(count) for count, name in _ALL_COUNTS.findall(counts)
        }
    for kills, left in _HOOK_KILLS.findall(text):
        rows["libvirt's hook, killed"] = _kills(int(kills), int(left))
    return rows


def _counts(text: str) -> dict[str, int]:
    """
    Parse counts. A disk that was gone when it was looked up was not handed over, so it counts as refused.
    """
    found = {"right": 0, "refused": 0, "wrong": 0}
    for count, name in _COUNT.findall(text):
        found["refused" if name == "gone" else name] += int(count)
    return dict(found, tries=sum(found.values()))


def _kills(tries: int, left: int) -> dict[str, int]:
    return {"tries": tries, "refused": tries - left, "left": left}
