# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An error is never taken for an answer: something that could not be examined is neither gone nor free.

This searches the source for handlers of very general errors (OSError, BlockError ...) that only return a
constant, pass or continue, or raise another error that tells nothing of the first one (``from error`` is in
no message), and do not examine the errno; for contextlib.suppress of such errors; and for
os.path.exists and similar functions, which return False on every error. The allowed ones are listed here,
with the reason.
"""

from __future__ import annotations

import ast
import collections
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
WIDE = {
    "OSError",
    "IOError",
    "EnvironmentError",
    "BlockError",
    "KernelError",
    "XenStoreError",
    "GuestError",
    "Exception",
    "BaseException",
}
ASKING = {"exists", "lexists", "isdir", "isfile", "islink", "ismount", "samefile", "access"}

CLEANING = "takes back after an error, and that is the one which is told"
WORDS = "only words of an error that is told anyway"
PLAN = "the plan does the same after that, and tells the error"

# {(file, function): why nothing is concluded from the error}
STAY = {
    ("_block/let_go.py", "ask"): "whether the disk is in use is for the removal to find out",
    ("_by_diskseq/program.py", "_invalidate"): "it is tried again for as long as the kernel knows the file",
    ("_by_diskseq/requests.py", "Requests._run"): "a client that has gone needs no answer",
    ("_by_diskseq/identity_operations.py", "IdentityOperations.readdir"): "who looks at that name is told",
    ("_process/descriptors.py", "raise_limit"): "whatever runs out of descriptors then says so",
    ("_dm/mapped.py", "taken"): WORDS,
    ("_dm/mapped.py", "describe"): WORDS,
    ("_dm/removal.py", "_busy"): WORDS,
    ("_dm/mapped.py", "_roll_back"): CLEANING,
    ("_dm/reload.py", "_Reload._restore"): "udev's event is then not waited for",
    ("_dm/reload.py", "_locked"): "the table is then compared without the locks",
    (
        "_dm/keys.py",
        "reachable",
    ): "the kernel looks for the keys at the load, and says that they are not there",
    (
        "_module/dm_order.py",
        "mapped_names",
    ): "the plan of the entry reads the table too, and says all that is wrong with it",
    ("_xl/disk_change.py", "DiskChange._is_named"): "a recipe that may be named stays",
    ("_xl/guest_config.py", "Exchange._write"): CLEANING,
    ("_module/features.py", "_blkback_diskseq"): "the answer is that it cannot be told",
    ("_module/features.py", "_libvirt_daemon"): "the answer is that there is none",
    ("_module/features.py", "_has_seals"): "the answer is that none can be made here, whatever the reason",
    ("_hotplug/script.py", "remove"): "a script that cannot be run is not run",
    ("_hotplug/add.py", "give_up"): "the disk counts as another call's then, and is left as it is",
    ("_hotplug/add.py", "_Add.fail"): CLEANING,
    ("_hotplug/add.py", "_Add._unseal"): CLEANING,
    ("_hotplug/keeper.py", "Keeper._stand_in"): CLEANING,
    ("_hotplug/worker.py", "may_be_opened"): "the device is kept then",
    ("_xen/stock_script.py", "is_needed"): "the script is run then, and sees for itself",
    ("_xen/stock_script.py", "run_remove"): "a script that cannot be run is not run, as by libxl",
    ("_hotplug/service.py", "_or_none"): "there is no descriptor then, and another is given up for it",
    ("_hotplug/service.py", "_has_open"): "what cannot be seen to be the script is not signalled",
    ("_hotplug/service.py", "_print_there"): WORDS,
    ("_libvirt/kept_format.py", "_says_raw"): "the file is looked at then, which refuses more",
    ("_libvirt/attach.py", "_roll_back"): "whether the disk is still there is read afterwards",
    ("_base/locks.py", "_describe"): WORDS,
    ("_block/backing.py", "_not_opened"): WORDS,
    ("_module/xen_vbd.py", "VbdItem.locks"): PLAN,
    ("_source/orphans.py", "_settle"): "what cannot be removed now is found again by the next run",
    ("_volumes/snapshot_store.py", "learn"): "the checksum is worked out again then",
    ("roles/xen_host/files/hotplug_start.py", "Codes.__init__"): "the modules are imported one by one then",
}


def names(kind):
    """The last components of the names that a handler catches."""
    if kind is None:
        return {"BaseException"}
    return {
        getattr(each, "id", getattr(each, "attr", ""))
        for each in (kind.elts if isinstance(kind, ast.Tuple) else [kind])
    }


def is_constant(value):
    if isinstance(value, (ast.List, ast.Tuple, ast.Set)):
        return all(is_constant(each) for each in value.elts)
    return value is None or isinstance(value, ast.Constant) or isinstance(value, ast.Dict) and not value.keys


def is_quiet(statement, error):
    """``error``: the name of the exception in its handler, or None."""
    if isinstance(statement, ast.Raise):
        told = {node.id for node in ast.walk(statement.exc or statement) if isinstance(node, ast.Name)}
        return statement.exc is not None and error not in told
    if isinstance(statement, (ast.Return, ast.Assign)):
        return is_constant(statement.value)
    return isinstance(statement, (ast.Pass, ast.Continue, ast.Break))


def problem_of(node):
    """A description of the problem with a node of the tree, or None."""
    if isinstance(node, ast.ExceptHandler):
        is_silent = all(is_quiet(statement, node.name) for statement in node.body)
        is_blind = names(node.type) & WIDE and is_silent and "errno" not in ast.dump(node)
        return f"except {', '.join(sorted(names(node.type)))}" if is_blind else None
    if not isinstance(node, ast.Call) or not isinstance(node.func, (ast.Attribute, ast.Name)):
        return None
    called = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if called == "suppress":
        wide = {name for each in node.args for name in names(each)} & WIDE
        return f"suppress({', '.join(sorted(wide))})" if wide else None
    owner = ast.unparse(node.func).rpartition(".")[0]
    return f"{owner}.{called}" if called in ASKING and owner in ("os", "os.path") else None


def found_in(tree, place=()):
    """``(qualified name of the function, problem, line)`` of all problems in a tree."""
    for node in ast.iter_child_nodes(tree):
        problem = problem_of(node)
        if problem:
            yield ".".join(place), problem, node.lineno
        is_named = isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
        yield from found_in(node, (*place, node.name) if is_named else place)


def everywhere():
    """``{(file, function): [(problem, line)]}`` for all code that runs on hosts."""
    found = collections.defaultdict(list)
    for folder in ("plugins", "roles"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for function, problem, line in found_in(ast.parse(path.read_text(encoding="utf-8"))):
                name = path.relative_to(ROOT).as_posix().removeprefix("plugins/module_utils/")
                found[name, function].append((problem, line))
    return found


def test_no_handler_takes_an_error_for_an_answer():
    new = [
        f"{file}:{line}: {function}: {problem}"
        for (file, function), places in everywhere().items()
        for problem, line in places
        if (file, function) not in STAY
    ]
    assert not new, (
        "name the errnos that mean it (_gone), let the rest be an error; or say in STAY of this file why "
        "nothing is concluded from it:\n" + "\n".join(new)
    )


def test_every_listed_handler_exists():
    gone = set(STAY) - set(everywhere())
    assert not gone, f"mended, so to be taken off the list: {sorted(gone)}"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("try:\n  a()\nexcept OSError:\n  pass", 1),
        ("try:\n  a()\nexcept OSError as error:\n  return []", 1),
        ("try:\n  a()\nexcept (ValueError, errors.BlockError):\n  continue", 1),
        ("try:\n  a()\nexcept:\n  x = None", 1),
        ("try:\n  a()\nexcept FileNotFoundError:\n  return None", 0),
        ("try:\n  a()\nexcept DeviceGone:\n  return False", 0),
        ("try:\n  a()\nexcept OSError as error:\n  if error.errno != ENOENT:\n    raise\n  return None", 0),
        ("try:\n  a()\nexcept OSError as error:\n  raise KernelError(str(error)) from error", 0),
        ("try:\n  a()\nexcept OSError as error:\n  raise of(error, b) from error", 0),
        ("try:\n  a()\nexcept OSError:\n  b()\n  raise", 0),
        ("try:\n  a()\nexcept OSError:\n  raise", 0),
        ("try:\n  a()\nexcept OSError as error:\n  raise NotSupported(b) from error", 1),
        ("try:\n  a()\nexcept OSError:\n  raise NotSupported from None", 1),
        ("with contextlib.suppress(BlockError):\n  a()", 1),
        ("with contextlib.suppress(FileNotFoundError):\n  a()", 0),
        ("os.path.exists(a)", 1),
        ("os.access(a, os.X_OK)", 1),
        ("_gone.exists(a)", 0),
        ("os.path.join(a)", 0),
    ],
)
def test_the_search_finds_handlers(text, expected):
    source = "for _ in x:\n" + "\n".join("  " + line for line in text.split("\n"))
    assert len(list(found_in(ast.parse(source)))) == expected
