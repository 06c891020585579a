# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Says what is wrong with areas that are to be, with a library that is not installed: ``{"library": {path:
text}, "areas": {...}}`` on standard input. The library is in a temporary directory while this runs.
"""

import io
import json
import os
import sys
import tempfile


def main():
    given = json.load(sys.stdin)
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory(prefix="racefree-encrypted-swap-") as place:
        for path, text in {"__init__.py": "", **given["library"]}.items():
            target = os.path.join(place, "racefree_block", path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w", encoding="utf-8") as file:
                file.write(text)
        sys.path.insert(0, place)
        from racefree_block._swap import program

        sys.stdin = io.StringIO(json.dumps(given["areas"]))
        sys.exit(program.main(["plan"]))


if __name__ == "__main__":
    main()
