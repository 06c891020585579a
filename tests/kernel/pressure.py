# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Use so much memory that the kernel must swap, and check that everything comes back: first lock most of the
available memory, then fill twice of what is left.

Prints how many pages were wrong, and how many MiB were swapped out at most. Exit code 1 if any was wrong, or
nothing was swapped out. With --hold: prints a line when it has filled the memory, and keeps it. With
--limited: locks nothing, because its control group limits its memory.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import struct
import sys
import time

MIB = 2**20
PAGE = 4096
STAMP = struct.Struct("=Q")


def mib_of(path: str, name: str) -> int:
    """A line ``NAME: N kB`` of a file in /proc, in MiB."""
    with open(path, encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{name}:")) // 1024


def locked(mib: int) -> mmap.mmap:
    """Memory that is not swapped out."""
    memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    library = ctypes.CDLL(None, use_errno=True)
    if library.mlock(ctypes.c_void_p(address), ctypes.c_size_t(len(memory))):
        raise OSError(ctypes.get_errno(), "mlock")
    return memory


def filled(mib: int, pattern: bytes) -> mmap.mmap:
    """Memory with the pattern, 1 MiB long, again and again, and a number at the start of each page."""
    memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for start in range(0, len(memory), MIB):
        memory[start : start + MIB] = pattern
        for page in range(start, start + MIB, PAGE):
            STAMP.pack_into(memory, page, page)
    return memory


def wrong_pages(memory: mmap.mmap, pattern: bytes) -> int:
    wrong = 0
    for page in range(0, len(memory), PAGE):
        place = page % MIB
        expected = STAMP.pack(page) + pattern[place + STAMP.size : place + PAGE]
        wrong += memory[page : page + PAGE] != expected
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=64, help="how much to fill; half of it is swapped out")
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--limited", action="store_true")
    options = parser.parse_args()
    # If there is too little memory, this process ends, and no other.
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")
    before = mib_of("/proc/meminfo", "SwapFree")
    pattern = os.urandom(MIB)
    available = 1 if options.limited else mib_of("/proc/meminfo", "MemAvailable") - options.mib // 2
    lock = locked(max(1, available))
    memory = filled(options.mib, pattern)
    swapped = before - mib_of("/proc/meminfo", "SwapFree")
    if options.hold:
        print(f"holding, {swapped} MiB swapped out", flush=True)
        while True:
            time.sleep(60)
    wrong = wrong_pages(memory, pattern)
    print(f"{wrong} pages wrong, {swapped} MiB swapped out, {len(lock) // MIB} MiB locked")
    return 1 if wrong or swapped < options.mib // 8 else 0


if __name__ == "__main__":
    sys.exit(main())
