# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lists and removes what is in the cache."""

from __future__ import annotations

import json

from common import program
from common.progress import say
from common.table import moment, size, table

from uml import build
from uml.recipe import RELEASES, System


def parts():
    """(directory, metadata) of each part in the cache."""
    return [
        (path.parent, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(program.cache().glob("*/meta.json"))
    ]


def _current():
    return {part.name for release in RELEASES for part in (System(release), System(release).source) if part}


def report():
    rows = [("PART", "KERNEL", "MIB", "BUILT", "RECIPE")]
    for path, meta in parts():
        kernel = meta.get("version") or meta.get("packages", {}).get("user-mode-linux", "-")
        rows.append(
            (
                path.name,
                kernel,
                str(size(path)),
                moment(meta["built"]),
                "current" if _name(path) in _current() else "old",
            )
        )
    return "\n\n".join([table(rows) if len(rows) > 1 else "nothing is built", f"cache: {program.cache()}"])


def _name(path):
    return path.name.rpartition(".")[0]


def clean(stale_only):
    """Remove parts that are not in use; with ``stale_only``, parts of current recipes stay."""
    current = _current()
    for path, _meta in parts():
        if stale_only and _name(path) in current:
            continue
        mebibytes = size(path)
        say(
            f"removed {path.name}, {mebibytes} MiB"
            if build.remove(path)
            else f"{path.name} stays: a kernel uses it"
        )
    for left in program.cache().glob("failed-*.log"):
        left.unlink()
