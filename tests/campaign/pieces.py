# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The pieces of the campaign: which family runs with which program, in how many pieces, and which files decide
what comes out.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
PACKAGE = "ansible_collections.racefree.block.plugins."
SEED = 20261121
TABLES = 2500


class Family(NamedTuple):
    """
    ``pieces``: how many make the full size; ``modules`` are what is tried (names in plugins/modules, or of
    module_utils for the tables); ``tests``: the files of tests that decide what comes out.
    """

    name: str
    pieces: int
    modules: tuple
    tests: tuple


_MODULES = (
    "loop_device",
    "loop_devices",
    "dm_device",
    "dm_devices",
    "thin_volumes",
    "snapshot_stores",
    "kernel_key",
)
_TRACER = ("tests/host/ptrace.py", "tests/host/kill_at.c")
_INSIDE = tuple(f"tests/campaign/inside/{name}.py" for name in ("victim", "world", "score"))
_JOBS = (*_TRACER, *_INSIDE, "tests/campaign/inside/jobs.py")

FAMILIES = (
    Family(
        "tables",
        20000 // TABLES,
        (),
        (
            "tests/kernel/differential.py",
            "tests/kernel/known.py",
            "tests/unit/plugins/module_utils/_dm_table/generate.py",
        ),
    ),
    Family(
        "swaps",
        20,
        ("loop_device", "dm_device"),
        (
            *_TRACER,
            *_INSIDE,
            "tests/host/rebind.py",
            "tests/campaign/inside/swapcases.py",
            "tests/campaign/inside/swaps.py",
        ),
    ),
    Family("kills", 4, _MODULES, (*_JOBS, "tests/campaign/inside/kills.py")),
    Family("errors", 8, _MODULES, (*_JOBS, "tests/campaign/inside/errors.py")),
    Family("pairs", 8, _MODULES, (*_JOBS, "tests/campaign/inside/pairs.py")),
)
# Kernels of the tier, and how many seconds a piece of the full size takes at most.
RELEASES = ("forky", "trixie", "bookworm")
HOUR = 3300


def program(family, index, seconds, tries=10**6):
    """The words of the program that does piece ``index``, but for where its report goes."""
    if family.name == "tables":
        return [
            "differential.py",
            "--seed",
            str(SEED),
            "--count",
            str(TABLES),
            "--skip",
            str(TABLES * index),
            "--jobs",
            "1",
        ]
    return [
        f"../campaign/{family.name}.py",
        "--seed",
        str(SEED + index),
        "--tries",
        str(tries),
        "--seconds",
        str(seconds),
    ]


def key(family):
    """A hash of all the files that decide what comes out of a family."""
    starts = [PLUGINS / "modules" / f"{name}.py" for name in family.modules] or [
        PLUGINS / "module_utils" / "_source" / "slots.py"
    ]
    digest = hashlib.sha256()
    for path in sorted({*closure(starts), *(ROOT / name for name in family.tests)}):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + _meaning(path))
    return digest.hexdigest()[:16]


def _meaning(path):
    """The bytes of a file, but for what Python does not mind: comments, line breaks, documentation."""
    content = path.read_bytes()
    if path.suffix != ".py":
        return content
    tree = ast.parse(content)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0] = ast.Pass()
    return ast.dump(tree).encode()


def closure(starts):
    """The files below plugins/ that these import, and so on."""
    found, todo = set(), list(starts)
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo.extend(_imported(path))
    return found


def _imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = path.parents[node.level - 1]
        elif (node.module or "").startswith(PACKAGE):
            base = PLUGINS
        else:
            continue
        module = node.module or "" if node.level else node.module[len(PACKAGE) :]
        parts = base.joinpath(*module.split(".")) if module else base
        for candidate in (parts, *(parts / alias.name for alias in node.names)):
            for file in (candidate.with_suffix(".py"), candidate / "__init__.py"):
                if file.is_file():
                    yield file
