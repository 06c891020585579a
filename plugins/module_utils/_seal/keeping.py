# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Starting the keeper of the seals: a fresh Python, which has nothing of its starter's memory, gets its code
through a pipe.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The directory from which Ansible runs a module is gone when that ends, and a copy of the process (fork) would
keep whatever secrets the module was given.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import select
import subprocess
import sys

from .._base import locks as _locks
from .._base.deadline import Deadline
from .._base.errors import KernelError
from . import keeper

SECONDS = 30.0
_PACKAGE = "racefree_block"
# cd: a process that stays must not keep a directory's file system busy. The shell ends at once, so that
# nobody has to wait for the keeper.
_SHELL = 'cd / && exec 3<&0 && { "$0" -I -B -c "$1" "$2" <&3 3<&- & }'
# What people see of the process: short, and what it is.
_COMMAND = "import json, sys; given = json.load(sys.stdin); exec(given['begin'])"
_TITLE = "keeper of the seals of racefree.block"
# Modules come from the dictionary: name -> (source, whether it is a package).
_BEGIN = """
import importlib.abc, importlib.util
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name not in given["sources"]:
            return None
        return importlib.util.spec_from_loader(name, self, is_package=given["sources"][name][1])
    def exec_module(self, module):
        exec(compile(given["sources"][module.__name__][0], module.__name__, "exec"), module.__dict__)
sys.meta_path.insert(0, Finder())
importlib.import_module(given["main"]).main()
"""


def have_keeper() -> None:
    """
    Have a keeper run; when this returns, it will see whatever happens from now on. Whoever changes seals has
    attachment.LOCK, so that no two start one. KernelError, DeadlineExceeded.
    """
    with _locks.Locks() as locks:
        if not locks.try_take(keeper.LOCK):
            return
    start()


def start() -> None:
    """Start a keeper, which ends at once if there is one already."""
    given = json.dumps(
        {"begin": _BEGIN, "main": f"{_PACKAGE}{_inside(keeper.__name__)}", "sources": sources()}
    )
    try:
        with subprocess.Popen(
            ["/bin/sh", "-c", _SHELL, sys.executable, _COMMAND, _TITLE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/bin:/bin"},
            start_new_session=True,
        ) as process:
            _hand_over(process, given.encode("utf-8"))
    except OSError as error:
        raise KernelError.from_oserror(error, "start the keeper of the seals") from error


def _hand_over(process: subprocess.Popen[bytes], given: bytes) -> None:
    """Give it its code, and wait until it is ready."""
    assert process.stdin is not None and process.stdout is not None
    limit = Deadline(SECONDS)
    try:
        process.stdin.write(given)
        process.stdin.close()
    except BrokenPipeError:  # it has ended already, and said why
        pass
    heard = b""
    while not heard.startswith(keeper.READY):
        if not select.select([process.stdout], [], [], limit.left())[0]:
            raise limit.exceeded("the keeper of the seals to begin")
        part = os.read(process.stdout.fileno(), 65536)
        if not part:
            said = heard.decode("utf-8", "replace").strip().splitlines()
            raise KernelError(
                f"the keeper of the seals ended at once: {said[-1] if said else 'it said nothing'}"
            )
        heard += part


def sources() -> dict[str, tuple[str, bool]]:
    """
    The modules that the keeper needs, by the names they have there: source, and whether it is a package.
    """
    found: dict[str, tuple[str, bool]] = {_PACKAGE: ("", True)}
    wanted = [_inside(keeper.__name__)]
    while wanted:
        name = wanted.pop()
        if _PACKAGE + name in found:
            continue
        try:
            spec = importlib.util.find_spec(_root() + name)
        except ModuleNotFoundError:
            spec = None
        if spec is None:
            continue  # what is imported from a module, and is no module itself
        source = spec.loader.get_source(spec.name)  # type: ignore[union-attr]
        found[_PACKAGE + name] = (source, spec.submodule_search_locations is not None)
        wanted.extend(_imported(name, source))
    return found


def _imported(name: str, source: str) -> list[str]:
    """
    What a module that is no package imports from its own collection, with the packages that these are in.
    """
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = name.rsplit(".", node.level)[0] + (f".{node.module}" if node.module else "")
            names += [base, base.rpartition(".")[0]] if base else []
            names += [f"{base}.{alias.name}" for alias in node.names]
    return [found for found in names if found]


def _root() -> str:
    """The package of all module utils."""
    return keeper.__name__.rsplit(".", 2)[0]


def _inside(name: str) -> str:
    """A module's name below that package, with the dot before it."""
    return name[len(_root()) :]
