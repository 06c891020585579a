# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The pieces of the campaign: which program runs each family, in how many pieces, and which files determine the
result.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
PACKAGE = "ansible_collections.racefree.block.plugins."
SEED = 20261121
TABLES = 2500


# Test kernels, the newest first, and the time limit in seconds for a piece of the full size.
RELEASES = ("forky", "trixie", "bookworm")
HOUR = 3300


class Family(NamedTuple):
    """
    ``rounds``: the number of tries of each row on each kernel in the full size, in ``pieces``. ``on_newest``:
    on the newest kernel, if not the same: the older ones trace their processes (ptrace) and take three times
    as long, so that they do a smaller part of what the kernels do together. ``modules``:
    the modules under test (names in plugins/modules; none for the tables). ``tests``: the test files that
    determine the result. ``is_shared``: the kernels take turns in the rounds, so that no two of them do the
    same; otherwise each kernel does the same rounds.
    """

    name: str
    rounds: int
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    pieces: int = 1
    is_shared: bool = True
    on_newest: int | None = None

    def rounds_on(self, release: str) -> int:
        is_newest = release == RELEASES[0]
        return self.on_newest if is_newest and self.on_newest is not None else self.rounds


_MODULES = (
    "loop_device",
    "loop_devices",
    "dm_device",
    "dm_devices",
    "thin_volumes",
    "snapshot_stores",
    "kernel_key",
)
_INSIDE = (
    *(f"tests/campaign/inside/{name}.py" for name in ("victim", "world", "score", "rawdev", "uevents")),
    "tests/kernel/udevd.py",
)
_JOBS = (*_INSIDE, "tests/campaign/inside/jobs.py")

FAMILIES = (
    Family(
        "tables",
        20000,
        (),
        (
            "tests/kernel/differential.py",
            "tests/kernel/known.py",
            "tests/unit/plugins/module_utils/_dm_table/generate.py",
        ),
        20000 // TABLES,
        is_shared=False,
    ),
    # On all kernels together, 10,000 tries of each row.
    Family(
        "swaps",
        1250,
        ("loop_device", "dm_device"),
        (
            *_INSIDE,
            "tests/campaign/inside/place.py",
            "tests/campaign/inside/swapcases.py",
            "tests/campaign/inside/swaps.py",
        ),
        on_newest=7500,
    ),
    # Enough to kill each module after each of its system calls that change something, on each kernel.
    Family("kills", 400, _MODULES, (*_JOBS, "tests/campaign/inside/kills.py"), is_shared=False),
    # On the newest kernel, each error of each system call (errnos.py); on the others, a sample.
    Family(
        "errors",
        400,
        _MODULES,
        (*_JOBS, "tests/campaign/inside/errors.py", "tests/campaign/inside/errnos.py"),
        on_newest=6400,
    ),
    # On all kernels together, 500 tries of each row.
    Family("pairs", 100, _MODULES, (*_JOBS, "tests/campaign/inside/pairs.py"), on_newest=300),
    # Six rows with an adversary: 10,000 of its tries on all kernels together.
    Family(
        "libvirt",
        150,
        ("libvirt_disk",),
        (*_JOBS, "tests/campaign/inside/kills.py", "tests/campaign/inside/qemu.py"),
        on_newest=1368,
    ),
)
# On an emulated host. Its tries are counted in minutes: equal shares for the programs of hosts.py.
HOST = Family(
    "host",
    30,
    ("xen_vbd", "xen_vbds", "libvirt_disk"),
    tuple(
        f"tests/host/{name}.py"
        for name in ("rebind", "hotplug_kill", "swaplibvirt", "hookkill", "vbd_adversary")
    ),
)
HOST_RELEASES = ("bookworm", "trixie")
# Files under test that no module imports.
_MORE = {"tables": ("_source/slots.py",), "host": ("_hotplug/script.py", "_libvirt/hook.py")}


def program(
    family: Family, index: int, first: int, tries: int, seconds: int, release: str | None = None
) -> list[str]:
    """
    The command line for piece ``index``, or for ``tries`` rounds after the first ``first``, without the
    option for the report. If a release is given, these are its kernel's share of the rounds.
    """
    if family.name == "tables":
        words = ["differential.py", "--seed", SEED, "--count", TABLES, "--skip", TABLES * index, "--jobs", 1]
    else:
        name = "qemu" if family.name == "libvirt" else family.name
        words = [f"../campaign/{name}.py", "--seed", SEED, "--first", first, "--tries", tries]
        words += ["--seconds", seconds]
        if release and family.is_shared:
            words += ["--share", RELEASES.index(release) + 1, len(RELEASES)]
    return [str(word) for word in words]


def key(family: Family) -> str:
    """
    A hash of all code that determines a family's result. It covers every definition, wherever it is, but not
    comments, docstrings, modules' documentation, annotations, imports, the order of definitions, or file
    names.
    """
    starts = [PLUGINS / "modules" / f"{name}.py" for name in family.modules]
    starts += [PLUGINS / "module_utils" / name for name in _MORE.get(family.name, ())]
    parts = set()
    for path in {*closure(starts), *(ROOT / name for name in family.tests)}:
        parts.update(meaning(path.read_text(encoding="utf-8")))
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]


def meaning(text: str) -> set[str]:
    """The top-level statements of a Python file, without anything that does not affect its behaviour."""
    tree = _Plain().visit(ast.parse(text))
    return {ast.dump(node) for node in tree.body if not isinstance(node, ast.Pass) and not _is_text(node)}


def _is_text(node: ast.stmt) -> bool:
    """Whether it is a module's documentation, which ansible-doc reads and no code does."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("DOCUMENTATION", "EXAMPLES", "RETURN")
    )


class _Plain(ast.NodeTransformer):
    """Removes docstrings, annotations and imports from a tree."""

    def visit_Import(self, node: ast.AST) -> ast.AST:
        return ast.Pass()

    visit_ImportFrom = visit_Import

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return ast.Pass() if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        # A record's fields matter even without a default value.
        node.annotation = ast.Constant("")
        return self.generic_visit(node)


def closure(starts: list[Path]) -> set[Path]:
    """The files below plugins/ that these files import, directly or indirectly."""
    found: set[Path] = set()
    todo = list(starts)
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo.extend(_imported(path))
    return found


def _imported(path: Path) -> Iterator[Path]:
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
