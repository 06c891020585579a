# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Start the keeper of the seals: a new Python process that shares no memory with its starter and gets its code
through a pipe.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Ansible removes the directory of a module when the module ends, so the keeper cannot import from it. A fork
would keep all secrets that were passed to the module in memory.
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

from ..._base import locks as _locks
from ..._base.deadline import Deadline
from ..._base.errors import KernelError
from . import keeper

SECONDS = 30.0
_PACKAGE = "racefree_block"
# cd /: a long-running process must not keep a file system busy by its working directory. The shell exits at
# once, so that nobody has to wait for the keeper.
_SHELL = 'cd / && exec 3<&0 && { "$0" -I -B -c "$1" "$2" <&3 3<&- & }'
# The command line as shown by ps: short, with a title.
_COMMAND = "import json, sys; given = json.load(sys.stdin); exec(given['begin'])"
_TITLE = "keeper of the seals of racefree.block"
# An importer that loads modules from given["sources"]: name -> (source, is a package).
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
    Make sure that a keeper runs. When this returns, the keeper receives all further events. The caller holds
    attachment.LOCK, so that two runs never start a keeper at once. Raises KernelError or DeadlineExceeded.
    """
    with _locks.Locks() as locks:
        if not locks.try_take(keeper.LOCK):
            return
    start()


def start() -> None:
    """Start a keeper. It exits at once if another one runs."""
    given = json.dumps(
        {"begin": _BEGIN, "main": f"{_PACKAGE}{_inside(keeper.__name__)}", "sources": sources()}
    )
    try:
        # The keeper outlives its maker, so AnsibleModule.run_command, which waits, does not serve.
        with subprocess.Popen(  # pylint: disable=ansible-bad-function
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
    """Send the keeper its code, and wait until it prints READY."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError
    limit = Deadline(SECONDS)
    try:
        process.stdin.write(given)
        process.stdin.close()
    except BrokenPipeError:  # it has already exited; its message is read below
        pass
    heard = b""
    while not heard.startswith(keeper.READY):
        if not select.select([process.stdout], [], [], limit.left())[0]:
            raise limit.exceeded("the keeper of the seals to start")
        part = os.read(process.stdout.fileno(), 65536)
        if not part:
            said = heard.decode("utf-8", "replace").strip().splitlines()
            raise KernelError(
                f"the keeper of the seals exited at once: {said[-1] if said else 'without a message'}"
            )
        heard += part


def sources() -> dict[str, tuple[str, bool]]:
    """The modules that the keeper needs: name in the keeper -> (source, whether it is a package)."""
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
            continue  # an imported function, class or constant: no module
        source = spec.loader.get_source(spec.name)  # type: ignore[union-attr]
        found[_PACKAGE + name] = (source, spec.submodule_search_locations is not None)
        wanted.extend(_imported(name, source))
    return found


def _imported(name: str, source: str) -> list[str]:
    """
    Names of the collection's modules and their packages that the module ``name``, not a package, may import.
    Includes names of functions, classes and constants imported from modules.
    """
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = name.rsplit(".", node.level)[0] + (f".{node.module}" if node.module else "")
            names += [base, base.rpartition(".")[0]] if base else []
            names += [f"{base}.{alias.name}" for alias in node.names]
    return [found for found in names if found]


def _root() -> str:
    """The package that contains all module utils."""
    return keeper.__name__.rsplit(".", 3)[0]


def _inside(name: str) -> str:
    """The module's name relative to that package, with a leading dot."""
    return name[len(_root()) :]
