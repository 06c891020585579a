# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Kill the program of boot devices after one of its system calls, while it makes devices, replaces them by those
of another list, and takes them down; then see what the next run makes of that, which is a start or a stop in
turn.

Exit code 1 if a device is left that no record knows, or if the next run does not reach what is declared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import killing
from ansible_collections.racefree.block.plugins.module_utils._base.files import write_whole
from ansible_collections.racefree.block.plugins.module_utils._boot_devices import config, program, records
from swap_kills import loop_of, mapped, semaphores
from uevents import Udev

MIB = 2**20
FIRST, SECOND = "first", "second"


def life() -> int:
    """Make the first list, replace it by the second, and take everything down, in one run."""
    declare(FIRST)
    if program.main(["start"]):
        return 1
    declare(SECOND)
    return program.main(["start"]) or program.main(["stop"])


def start() -> int:
    return program.main(["start"])


def stop() -> int:
    return program.main(["stop"])


def declare(which: str) -> None:
    """Exchange the list, as the role does: as a whole."""
    with open(f"{config.PATH}.{which}", encoding="utf-8") as file:
        write_whole(config.PATH, file.read())


def prepare(directory: str) -> tuple[str, str]:
    """Write the two lists; returns the paths of the files below the devices."""
    config.PATH = os.path.join(directory, "list.json")
    one, two = os.path.join(directory, "one"), os.path.join(directory, "two")
    for path in (one, two):
        with open(path, "wb") as file:
            file.truncate(MIB)

    def linear(sectors: int) -> dict[str, str]:
        return {"table": f"0 {sectors} linear file:{two} 0"}

    lists = {
        FIRST: [{"name": "file", "source": {"file": one}}, {"name": "mapped", "source": linear(1024)}],
        SECOND: [{"name": "mapped", "source": linear(2048)}, {"name": "file", "source": {"file": one}}],
    }
    for name, devices in lists.items():
        with open(f"{config.PATH}.{name}", "w", encoding="utf-8") as file:
            json.dump({"timeout": 0, "devices": devices}, file)
    declare(FIRST)
    return one, two


def killed_once(runs: killing.Runs, paths: tuple[str, str], count: int, every: bool, is_start: bool) -> bool:
    """One try; returns whether it was killed. ``is_start``: whether the next run is a start."""
    killed = runs.killed(count, every, life)
    # What is not recorded goes with the killed run.
    killing.until(lambda: not set(live()) - recorded("mapped"), "no live mapped device without a record")
    killing.until(lambda: recorded("file") or not loop_of(paths[0]), "no loop device without a record")
    if is_start:
        assert runs.run(start) == 0, "it cannot be started again"
        length = 2048 if is_second() else 1024
        assert table().split()[:2] == ["0", str(length)] and all(map(loop_of, paths)), "the next start"
    assert runs.run(stop) == 0, "it cannot be stopped"
    assert not live(), f"left: {mapped()}"
    killing.until(lambda: not any(map(loop_of, paths)), "no loop device")
    return killed


def is_second() -> bool:
    with open(config.PATH, encoding="utf-8") as file:
        return "2048" in file.read()


def live() -> list[str]:
    return [name for name, is_live in mapped().items() if is_live]


def recorded(name: str) -> set[str]:
    return {name} if os.path.exists(f"{records.DIRECTORY}/{name}.json") else set()


def table() -> str:
    return subprocess.run(["dmsetup", "table", "mapped"], capture_output=True, text=True, check=True).stdout


def play(first: int, stride: int, every: bool) -> tuple[int, int]:
    """
    Kill it after call ``first`` and each ``stride``-th from there. With a stride of 1, both kinds of next
    runs follow each. Returns the number of tries, and the last call.
    """
    tries, count = 0, first
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, Udev() as udev:
        paths = prepare(directory)
        udev.real(False)
        # Objects that are cached are then there before the first run.
        assert life() == 0
        before = semaphores()
        with killing.Runs(life, start, stop) as runs:
            while True:
                killing.now(f"boot_kills: call {count}")
                nexts = (False, True) if stride == 1 else (tries % 2 == 1,)
                tries += len(nexts)
                killed = [killed_once(runs, paths, count, every, is_start) for is_start in nexts]
                if not all(killed):
                    break
                count += stride
        # The udev cookie of a run that was killed before it wrote its process ID into it stays for a minute.
        for left in semaphores() - before:
            subprocess.run(["ipcrm", "--semaphore-id", left], check=True)
    return tries, count


def main() -> int:
    options = killing.options(__doc__)
    started = time.monotonic()
    tries, count = play(options.first, options.stride, options.every)
    print(f"killed after {tries} calls, up to call {count}, in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
