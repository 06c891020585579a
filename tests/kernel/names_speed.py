# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""
Compare the cost of a name by disk sequence number with a plain node: lookups and opens, interleaved, in
microseconds.

``names_speed.py [--tries N] [--lookups N]``; needs root and the library pyfuse3. RACEFREE_SITE is the path of
the collection. Exit code 1 if the median of a lookup is more than 200 us, that of an open more than 60 times
that of a plain open, or anything is held at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from statistics import median, quantiles

from names_service import diskseq_of, losetup, service


def took(path: str, flags: int) -> float:
    """Microseconds for an open and a close."""
    begun = time.perf_counter_ns()
    os.close(os.open(path, flags))
    return (time.perf_counter_ns() - begun) / 1000


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=5000, help="of each, in turns")
    parser.add_argument("--lookups", type=int, default=100000, help="after which nothing may be held")
    options = parser.parse_args()
    times: dict[str, list[float]] = {"look-up": [], "open": [], "plain open": []}
    with tempfile.TemporaryDirectory() as place, service() as names:
        with open(f"{place}/disk.raw", "wb") as file:
            file.truncate(2**20)
        node = losetup(f"{place}/disk.raw")
        try:
            path = names.path(diskseq_of(node))
            for _number in range(options.tries):
                times["look-up"].append(took(path, os.O_PATH))
                times["open"].append(took(path, os.O_RDONLY))
                times["plain open"].append(took(node, os.O_RDONLY))
            for _number in range(options.lookups):
                os.stat(path)
            free = names.no_pins()
        finally:
            subprocess.run(["losetup", "-d", node], check=True)
    row: dict[str, object] = {"no device held after": options.lookups if free else "NOT SO"}
    for what, values in times.items():
        row[what] = {"median": round(median(values), 1), "99 %": round(quantiles(values, n=100)[98], 1)}
    ratio = median(times["open"]) / median(times["plain open"])
    print(json.dumps({**row, "open / plain open": round(ratio, 1)}))
    return 0 if free and median(times["look-up"]) <= 200 and ratio <= 60 else 1


if __name__ == "__main__":
    sys.exit(main())
