# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Measures large tables: seconds and memory of each step from the text to the kernel's buffer and back.

Several sizes show whether the cost grows faster than the table. Each runs in a process that does nothing
else; no kernel is involved. ``tables.py --help`` lists the options.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

from ansible_collections.racefree.block.plugins.module_utils._dm import codec
from ansible_collections.racefree.block.plugins.module_utils._dm_table import (
    Context,
    DeviceFacts,
    parse_table,
)

SIZES = (10000, 50000, 100000)
DEVICES = 200
STEPS = ("parse and validate", "to the kernel's words", "encode", "decode", "parse what it prints", "compare")


def linear(count):
    """A table of so many lines, each of which maps one piece."""
    return [f"{8 * number} 8 linear 8:{number % DEVICES} {8 * number}" for number in range(count)]


def mixed(count):
    """Several target types, with lists, options and keys."""
    kinds = (
        lambda at: f"linear 8:{at % DEVICES} {at}",
        lambda at: f"striped 2 4 8:{at % DEVICES} {at} 8:{(at + 1) % DEVICES} {at}",
        lambda at: (
            f"crypt aes-xts-plain64 {at:064x} {at} 8:{at % DEVICES} {at} 2 allow_discards sector_size:4096"
        ),
        lambda at: f"delay 8:{at % DEVICES} {at} 10 8:{(at + 1) % DEVICES} {at} 20",
        lambda at: f"flakey 8:{at % DEVICES} {at} 5 1 5 corrupt_bio_byte 1 r 7 0",
        lambda at: "zero",
    )
    return [f"{8 * number} 8 {kinds[number % len(kinds)](8 * number)}" for number in range(count)]


TABLES = {"linear": linear, "mixed": mixed}


def peak():
    """The maximum memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(kind, count):
    """``{"lines", "bytes", "before", "steps": {name: [seconds, peak in MiB]}}`` of one table."""
    text = "\n".join(TABLES[kind](count))
    facts = {f"8:{minor}": DeviceFacts(8, minor, 1 << 40) for minor in range(DEVICES)}
    context = Context(devices=lambda slot: facts[slot.text])
    row = {"lines": count, "bytes": len(text), "before": peak(), "steps": {}}
    step = _Steps(row["steps"])
    table = step("parse and validate", lambda: parse_table(text, context=context))
    targets = step("to the kernel's words", table.kernel_targets)
    payload = step(
        "encode", lambda: codec.encode((4, 0, 0), target_count=count, payload=codec.encode_targets(targets))
    )
    header, decoded = step("decode", lambda: codec.decode_table_request(payload))
    if decoded != targets or header.target_count != count:
        raise SystemExit("the decoder gave something else back than the encoder got")
    again = step("parse what it prints", lambda: parse_table(table.lines()))
    if not step("compare", lambda: table.same_as(again)):
        raise SystemExit("the table printed and parsed again is another one")
    return row


class _Steps:
    def __init__(self, rows):
        self.rows = rows

    def __call__(self, name, work):
        began = time.process_time()
        result = work()
        self.rows[name] = [time.process_time() - began, peak()]
        return result


def show(kind, rows):
    print(f"\n{kind}: seconds of processor time (microseconds for each line)")
    print(f"{'lines':24}" + "".join(f"{row['lines']:>20}" for row in rows))
    for name in STEPS:
        print(f"{name:24}" + "".join(_cell(row["steps"][name][0], row["lines"]) for row in rows))
    print(
        f"{'all':24}"
        + "".join(_cell(sum(spent for spent, most in row["steps"].values()), row["lines"]) for row in rows)
    )
    print(f"{'text, MiB':24}" + "".join(f"{row['bytes'] / 2**20:20.1f}" for row in rows))
    print(f"{'peak memory, MiB':24}" + "".join(f"{row['steps'][STEPS[-1]][1]:20.1f}" for row in rows))
    print(f"{'  before the first step':24}" + "".join(f"{row['before']:20.1f}" for row in rows))
    print(
        f"{'  after parsing':24}" + "".join(f"{row['steps'][STEPS[0]][1]:20.1f}" for row in rows), flush=True
    )


def _cell(seconds, lines):
    return f"{seconds:11.2f} ({seconds / lines * 1e6:6.1f})"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(word) for word in text.split(",")],
        default=SIZES,
        help="numbers of lines",
    )
    parser.add_argument(
        "--tables",
        type=lambda text: text.split(","),
        default=list(TABLES),
        help=f"out of {', '.join(TABLES)}",
    )
    parser.add_argument(
        "--one", action="store_true", help="measure a single table in this process and print JSON"
    )
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.tables[0], options.sizes[0])))
        return
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} processors")
    for kind in options.tables:
        rows = []
        for size in options.sizes:
            command = [
                sys.executable,
                os.path.abspath(__file__),
                "--one",
                "--tables",
                kind,
                "--sizes",
                str(size),
            ]
            rows.append(
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            )
        show(kind, rows)


if __name__ == "__main__":
    main()
