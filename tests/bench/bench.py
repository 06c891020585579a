# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Measures the collection beside other ways to do the same, keeps the figures in docs/speed/, makes
docs/speed.md and its plots from them, and prints that page.

With --base, it compares payloads and loop devices with that version instead, and keeps nothing. Run as root
on a machine that does nothing else. Each subject is a program of its own, with --help:

    bench.py                      all subjects
    bench.py loops --sizes 1,8    one subject, with its own options
    bench.py page                 only the page, from the figures that are there
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import page

HERE = Path(__file__).resolve().parent
# Those that keep figures, and what only prints.
KEPT = ("payload", "loops", "commands", "dm", "tasks")
PRINTED = ("tables",)
COMPARED = ("payload", "tables", "loops")


def run(subject: str, checkout: Path, base: str | None, words: list[str]) -> None:
    command = [sys.executable, str(HERE / f"{subject}.py")]
    if subject not in PRINTED:
        command += ["--checkout", str(checkout)]
        if base:
            command += ["--base", base]
        else:
            command += ["--report", str(checkout / "docs/speed" / f"{subject}.json")]
    print(f"\n{subject}:", flush=True)
    subprocess.run([*command, *words], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--base", metavar="REVISION", help="compare with this version")
    parser.add_argument("--checkout", type=Path, default=os.getcwd(), help="a git checkout of the collection")
    options, words = parser.parse_known_args()
    subjects = COMPARED if options.base else (*KEPT, *PRINTED)
    if words:
        chosen, *words = words
        if chosen not in (*KEPT, *PRINTED, "page"):
            parser.error(f"{chosen} is not a subject: {', '.join((*KEPT, *PRINTED, 'page'))}")
        subjects = (chosen,)
    for subject in subjects:
        if subject != "page":
            run(subject, options.checkout, options.base, words)
    if not options.base:
        page.write(options.checkout)
        print((options.checkout / "docs/speed.md").read_text(encoding="utf-8").partition("-->")[2])


if __name__ == "__main__":
    main()
