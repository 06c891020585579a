# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Makes the directory named by the argument from ``{path: text}`` on standard input, with compiled modules; it
is made completely or not at all.

The roles block_names, boot_devices, encrypted_swap and xen_host run this on the host, so that a hundred files
need one transfer and not a hundred.
"""

from __future__ import annotations
import __future__

import ast
import compileall
import importlib.util
import json
import marshal
import os
import shutil
import sys
import tempfile

PACKAGE = "racefree_block"
# The hotplug script's first module, and the size of its file's index in bytes (see hotplug_start.py).
ENTRY = "_hotplug.script"
# Needed for few disks, and it imports the whole table language: these modules are read from their own files.
APART = "_hotplug.recipe_target"
INDEX_SIZE = 4096


def unpack(texts, destination):
    parent = os.path.dirname(destination)
    os.makedirs(parent, 0o755, exist_ok=True)
    place = tempfile.mkdtemp(prefix=".unpack-", dir=parent)
    try:
        os.chmod(place, 0o755)
        for path, text in {"__init__.py": "", **texts}.items():
            target = os.path.join(place, path)
            os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
            with open(target, "w", encoding="utf-8") as file:
                file.write(text)
        # Nothing must be compiled when the script starts. The compiled code does not contain the directory's
        # name.
        if not compileall.compile_dir(
            place, quiet=1, stripdir=place, prependdir=os.path.join(parent, PACKAGE)
        ):
            raise SystemExit("the library could not be compiled")
        if any(path in texts for path in files_of(ENTRY)):
            with open(os.path.join(place, "hotplug.codes"), "wb") as file:
                file.write(codes(texts, os.path.join(parent, PACKAGE)))
        os.rename(place, destination)
    except BaseException:
        shutil.rmtree(place)
        raise


def codes(texts, directory):
    """
    The modules that the hotplug script may need, compiled, in one file: the interpreter's magic number, an
    index, the code.

    The index is ``{module: (offset and size of its code in bytes, whether it is a package)}``.
    """
    index, parts, end = {}, [], INDEX_SIZE
    for name, (path, tree) in {"": ("__init__.py", ast.parse("")), **reachable(texts)}.items():
        # Only the compiler needs imports of __future__, and nothing needs docstrings here.
        tree.body = [
            node
            for node in tree.body
            if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        ]
        code = compile(
            tree,
            os.path.join(directory, path),
            "exec",
            flags=__future__.annotations.compiler_flag,
            dont_inherit=True,
            optimize=2,
        )
        parts.append(marshal.dumps(code))
        index[f"{PACKAGE}.{name}".rstrip(".")] = (end, len(parts[-1]), is_package(path))
        end += len(parts[-1])
    head = importlib.util.MAGIC_NUMBER + marshal.dumps(index)
    if len(head) > INDEX_SIZE:
        raise SystemExit(
            f"the index of the hotplug script's modules has {len(head)} bytes, more than {INDEX_SIZE}"
        )
    return b"".join([head.ljust(INDEX_SIZE, b"\0"), *parts])


def is_package(path):
    return os.path.basename(path) == "__init__.py"


def reachable(texts):
    """
    ``{module: (path, syntax tree)}`` of all modules that the hotplug script can import, directly or not,
    including imports inside functions, except for APART.

    Modules are named without the package's own name: ``_block`` and ``_block.loop``.
    """
    found, new = {}, [ENTRY]
    while new:
        name = new.pop()
        path = next((path for path in files_of(name) if path in texts), None)
        if name in found or name == APART or path is None:
            continue
        tree = without_types(ast.parse(texts[path]))
        found[name] = (path, tree)
        new.append(name.rpartition(".")[0])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                new += imported(name.split(".") if is_package(path) else name.split(".")[:-1], node)
    return found


def without_types(tree):
    """The module with blocks ``if TYPE_CHECKING:`` at its top replaced by what is after their ``else``."""
    body = []
    for node in tree.body:
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        body += node.orelse if is_for_types else [node]
    tree.body = body
    return tree


def files_of(name):
    """The two possible files of a module; none for the package itself."""
    path = name.replace(".", "/")
    return (f"{path}.py", f"{path}/__init__.py") if path else ()


def imported(package, node):
    """The modules that a relative import may name. ``package``: the importing package, as a list of names."""
    above = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
    return [".".join(above)] + [".".join([*above, alias.name]) for alias in node.names]


if __name__ == "__main__":
    os.umask(0o022)
    unpack(json.load(sys.stdin), sys.argv[1])
