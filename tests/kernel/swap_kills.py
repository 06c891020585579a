# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Kill the program of encrypted swap after one of its system calls, while it starts and stops an area, and check
what is left: at once, and after the next run, which is a stop or a start in turn.

Exit code 1 if anything is left, or if an area in use can be opened.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import killing
from ansible_collections.racefree.block.plugins.module_utils._block.seal import place, seals
from ansible_collections.racefree.block.plugins.module_utils._swap import config, program
from sealing import is_refused, mount_bpf, no_keeper
from uevents import Udev

NAME = "one"
MIB = 2**20


def life() -> int:
    """Start the area and stop it, in one run."""
    return program.main(["start", NAME]) or program.main(["stop", NAME])


def start() -> int:
    return program.main(["start", NAME])


def stop() -> int:
    return program.main(["stop", NAME])


def prepare(directory: str) -> str:
    """Write the configuration of the area; returns the path of its file."""
    config.DIRECTORY = directory
    path = os.path.join(directory, "swap")
    values = {"source": {"file": path}, "size": MIB, "priority": 5}
    with open(os.path.join(directory, f"{NAME}.json"), "w", encoding="utf-8") as file:
        json.dump(values, file)
    return path


def killed_once(runs: killing.Runs, path: str, count: int, every: bool, is_start: bool) -> bool:
    """One try; returns whether it was killed. ``is_start``: whether the next run is a start."""
    killed = runs.killed(count, every, life)
    killing.until(lambda: is_all_or_nothing(path), "everything in use, or nothing")
    if is_start:
        assert runs.run(start) == 0 and len(swaps()) == 1, "it cannot be started again"
        assert is_all_or_nothing(path), "the next start"
    assert runs.run(stop) == 0, "it cannot be stopped"
    assert not swaps() and not mapped() and not seals.found(), f"left: {swaps()}, {mapped()}, {seals.found()}"
    # The kernel releases it a moment after a mapped device that was never live.
    killing.until(lambda: not loop_of(path), "no loop device")
    return killed


def is_all_or_nothing(path: str) -> bool:
    """
    Whether the kernel swaps to a live and sealed device over the file, or there is nothing in use. A device
    that was never live, which the next run removes, may hold the loop device.
    """
    live, used = [name for name, is_live in mapped().items() if is_live], swaps()
    if used:
        return live == [f"racefree-swap-{NAME}"] and loop_of(path) and all(map(is_refused, used))
    return not live and (not loop_of(path) or len(mapped()) == 1)


def swaps() -> list[str]:
    """The areas that the kernel uses."""
    with open("/proc/swaps", encoding="ascii") as file:
        return [line.split()[0] for line in file.readlines()[1:]]


def mapped() -> dict[str, bool]:
    """{name: whether it has a live table} of all mapped devices."""
    found = {}
    for node in os.listdir("/sys/block"):
        name, size = read(f"/sys/block/{node}/dm/name"), read(f"/sys/block/{node}/size")
        if name is not None:
            found[name] = size != "0"
    return found


def loop_of(path: str) -> bool:
    """Whether a loop device is bound to the file."""
    return path in [read(f"/sys/block/{node}/loop/backing_file") for node in os.listdir("/sys/block")]


def read(path: str) -> str | None:
    """None if there is no such device, or if it is just going."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        return file.read().strip()
    return None


def keys() -> set[str]:
    """Serial numbers of all keys that root can see."""
    with open("/proc/keys", encoding="ascii") as file:
        return {line.split()[0] for line in file}


def semaphores() -> set[str]:
    with open("/proc/sysvipc/sem", encoding="ascii") as file:
        return {line.split()[1] for line in file.readlines()[1:]}


def play(first: int, stride: int, every: bool) -> tuple[int, int]:
    """
    Kill it after call ``first`` and each ``stride``-th from there. With a stride of 1, both kinds of next
    runs follow each. Returns the number of tries, and the last call.
    """
    tries, count = 0, first
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, Udev() as udev:
        path = prepare(directory)
        udev.real(False)
        # Objects that are cached are then there before the first run.
        assert life() == 0
        killing.until(lambda: not os.path.exists(place.DIRECTORY), "nothing sealed")
        before, cookies = keys(), semaphores()
        with no_keeper(), killing.Runs(life, start, stop) as runs:
            while True:
                killing.now(f"swap_kills: call {count}")
                nexts = (False, True) if stride == 1 else (tries % 2 == 1,)
                tries += len(nexts)
                killed = [killed_once(runs, path, count, every, is_start) for is_start in nexts]
                if not all(killed):
                    break
                assert keys() <= before, "a key is left"
                count += stride
        assert not os.path.exists(place.DIRECTORY), "seals are left"
        assert life() == 0
        # The udev cookie of a run that was killed before it wrote its process ID into it stays for a minute.
        for left in semaphores() - cookies:
            subprocess.run(["ipcrm", "--semaphore-id", left], check=True)
    return tries, count


def main() -> int:
    options = killing.options(__doc__)
    mount_bpf()
    started = time.monotonic()
    tries, count = play(options.first, options.stride, options.every)
    print(f"killed after {tries} calls, up to call {count}, in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
