# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lists hosts and images, and removes images."""

from __future__ import annotations

import json

from common import locks, tree
from common.progress import say
from common.table import moment, size, table

from lib import paths
from lib.instance import all_instances
from lib.recipe import BLKBACKS, RELEASES, Recipe


def images():
    """(directory, metadata or None if it is incomplete) of each image in the cache."""
    if not paths.cache().is_dir():
        return []
    found = []
    for path in sorted(paths.cache().iterdir()):
        if path.is_dir() and path.name.split("-")[0] in RELEASES:
            try:
                found.append((path, json.loads((path / "meta.json").read_text(encoding="utf-8"))))
            except FileNotFoundError:
                found.append((path, None))
    return found


def report():
    rows = [("HOST", "RELEASE", "BLKBACK", "STATE", "PORT", "PID", "UP SINCE", "FROM")]
    for instance in all_instances():
        data = instance.data
        if data is None:
            rows.append((instance.name, "-", "-", "incomplete", "-", "-", "-", "-"))
            continue
        rows.append(
            (
                instance.name,
                data["release"],
                data["blkback"],
                instance.state,
                str(data["port"]),
                str(data["process"]["pid"]),
                moment(data["since"]),
                "snapshot" if data["restored"] else "cold boot",
            )
        )
    parts = [table(rows) if len(rows) > 1 else "no hosts"]
    current = {Recipe(release, blkback).key for release in RELEASES for blkback in BLKBACKS}
    rows = [("IMAGE", "MIB", "BUILT", "SNAPSHOTS", "RECIPE")]
    for path, meta in images():
        kept = len(list(path.glob("snapshot-*")))
        rows.append(
            (
                path.name,
                str(size(path)),
                moment(meta["built"]) if meta else "incomplete",
                str(kept),
                "current" if meta and meta["recipe"] in current else "old",
            )
        )
    parts.append(table(rows) if len(rows) > 1 else "no images")
    return "\n\n".join([*parts, f"cache: {paths.cache()}"])


def clean(stale_only):
    """Remove images that no host uses; with ``stale_only``, images of current recipes stay."""
    used = {instance.data["recipe"] for instance in all_instances() if instance.alive}
    current = {Recipe(release, blkback).key for release in RELEASES for blkback in BLKBACKS}
    for path, meta in images():
        key = path.name.rpartition("-")[2]
        if key in used:
            say(f"{path.name} stays: a host uses it")
        elif not (stale_only and meta and key in current):
            with locks.locked(f"build-{path.name}", 10, f"build {path.name}"):
                mebibytes = size(path)
                tree.remove_tree(path)
                say(f"removed {path.name}, {mebibytes} MiB")
    for left in paths.cache().glob("failed-*.log"):
        left.unlink()
