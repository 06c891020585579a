# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Numbers about plugins/module_utils, and its picture in docs/architecture.md, both read from the imports.

Usage: python3 tools/house [--revision REVISION] [--json]
       python3 tools/house --draw | --check
"""

from __future__ import annotations

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from house import numbers, picture, sources

CHECKOUT = os.path.dirname(sys.path[0])
PAGE = os.path.join(CHECKOUT, "docs", "architecture.md")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/house", description=(__doc__ or "").strip().partition("\n")[0]
    )
    parser.add_argument("--revision", help="a git revision instead of the files on disk")
    parser.add_argument("--json", action="store_true", help="print JSON")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--draw", action="store_true", help="write the picture into docs/architecture.md")
    what.add_argument(
        "--check", action="store_true", help="fail if the picture there is not what the imports say"
    )
    chosen = parser.parse_args()
    if chosen.revision and (chosen.draw or chosen.check):
        parser.error("--revision: only for numbers, not with --draw or --check")
    return chosen


def draw(write: bool) -> int:
    """The exit status. Writes the page, or only compares it."""
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    wanted = picture.with_picture(page, picture.picture(sources.house_of(sources.from_checkout(CHECKOUT))))
    if wanted == page:
        return 0
    if not write:
        sys.stderr.write("docs/architecture.md: differs from the imports; run python3 tools/house --draw\n")
        return 1
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(wanted)
    return 0


def main() -> int:
    chosen = arguments()
    if chosen.draw or chosen.check:
        return draw(write=chosen.draw)
    if chosen.revision:
        found = sources.from_revision(CHECKOUT, chosen.revision)
    else:
        found = sources.from_checkout(CHECKOUT)
    counted = numbers.numbers_of(found)
    sys.stdout.write(json.dumps(counted, indent=2) + "\n" if chosen.json else numbers.as_text(counted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
