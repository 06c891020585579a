# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The one runner under all modules: options, check and diff mode, errors, singular and plural.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A module is an :class:`Item` class. The runner plans every item first, and only then changes anything; what the items
make is temporary until all of them have succeeded, so that an error, or a killed process, takes it back by itself.
"""

from __future__ import annotations

import contextlib
import traceback
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule

from .._base import locks as _locks
from .._base.errors import BlockError, InvalidValue, of_oserror
from .._process import descriptors
from .._source import resources
from . import worker
from .task import Task, Unexpected

LONGEST_SECONDS = 86400
# For a call into storage, unless something is to be removed, or the time limit among the options is longer.
_STORAGE_SECONDS = 60


class Plan(NamedTuple):
    """What an item would do: whether anything changes, and its state before and after as plain data for the diff."""

    changed: bool
    before: dict
    after: dict


class Item:
    """
    One device and what is wanted of it. Subclasses set ARGUMENTS (an argument_spec) and fill in the methods.

    The order of calls: ``check`` (pure), ``locks``, ``plan`` (reads), and, unless in check mode or unchanged, ``apply`` (makes,
    temporarily), ``apply_together``, then ``commit`` or ``undo``; ``result`` at any time.
    """

    ARGUMENTS = {}
    CONSTRAINTS = {}
    # Whether ``plan`` makes something for a moment, so that other runs must not do so meanwhile, in check mode either.
    PLANS_UNDER_LOCK = False
    # For how long other runs are waited for.
    LOCK_SECONDS = _locks.SECONDS

    def __init__(self, params, host):
        self.params = params
        self.host = host
        self.warnings = []

    def key(self):
        """The option that says which device it is, and its value, as ``(option, value)``: for messages."""
        raise NotImplementedError

    def identities(self):
        """
        What no two items of a task may have in common, as ``{identity: words for it}``: asked after ``check``, when it can only be what was
        written, and again after ``look`` and ``plan``, when it is what the kernel, XenStore or libvirt says.
        """
        option, value = self.key()
        return {(option, value): ""}

    def title(self):
        """The item's name in a diff."""
        return str(self.key()[1])

    def check(self):
        """Raise InvalidValue for options that can be refused without looking at the host."""

    def locks(self):
        """What no other run may work on until this one has ended (``_base.locks.Lock``); a list, told by a look at the host, before ``plan``."""
        return []

    def unneeded_locks(self):
        """Those of ``locks`` that are of no use any more after ``plan``."""
        return []

    @classmethod
    def prepare(cls, host):
        """What is done once before the plans are made, save in check mode."""

    def look(self):
        """Find the device that is there, for :meth:`identities`, if ``plan`` would do more than look."""

    @classmethod
    def in_order(cls, items):
        """The items in the order in which they are planned and done; those of a list may need each other."""
        return items

    def plan(self):
        raise NotImplementedError

    def apply(self):
        raise NotImplementedError

    @classmethod
    def apply_together(cls, items):
        """What all applied items do in one go; an error or None for each."""
        return [None] * len(items)

    def made(self):
        """The held devices that ``apply`` has made, the lowest of a stack first."""
        return []

    def lasting(self):
        """Those that ``commit`` makes permanent; until then they go with their last user."""
        return self.made() if self.params.get("persist") else []

    def risks(self):
        """Loop devices that ``apply`` removes, and that a killed run shall leave to those who use them."""
        return []

    def commit(self):
        """Make what was applied last."""

    def to_hold(self):
        """The devices that a process is to hold for ``hold`` seconds after the task."""
        return []

    def finish(self):
        """What cannot be rolled back, when everything else of the task is done."""

    def undo(self):
        """Roll back what was applied; not called for a removal, for which that is impossible."""

    def is_removal(self):
        """Whether something is gone that nothing brings back."""
        return self.params.get("state") in ("absent", "detached")

    def remains(self):
        """What is changed after all that ``undo`` could do, as texts; for a removal what is gone, or may be."""
        return []

    def result(self):
        """The item's own return values."""
        return {}

    def outcome(self):
        """Those of them that are true of an item that failed, or was rolled back, too."""
        return {}


def check_seconds(params, option, least=0):
    """InvalidValue unless the option has from ``least`` seconds to a day; more is a mistake, and too much for the clock."""
    if not least <= params[option] <= LONGEST_SECONDS:
        raise InvalidValue(option, params[option], f"must be seconds from {least} to {LONGEST_SECONDS}")


def undo_steps(steps):
    """Do them, the last one first, whatever becomes of each, and empty the list; the first error is raised at the end."""
    problem = None
    while steps:
        try:
            steps.pop()()
        except BlockError as error:
            problem = problem or error
    if problem is not None:
        raise problem


def run_one(item_class, **module_options):
    """main() of a singular module."""
    module = AnsibleModule(
        argument_spec=item_class.ARGUMENTS,
        supports_check_mode=True,
        **dict(item_class.CONSTRAINTS, **module_options),
    )
    _finish(module, _worked(module, lambda: _one(module, item_class), [module.params]))


def run_many(item_class, list_option="devices"):
    """main() of a plural module."""
    elements = dict(
        item_class.CONSTRAINTS, type="list", elements="dict", required=True, options=item_class.ARGUMENTS
    )
    module = AnsibleModule(
        argument_spec={
            list_option: elements,
            "on_error": {"type": "str", "choices": ["rollback", "keep"], "default": "rollback"},
        },
        supports_check_mode=True,
    )
    _finish(
        module, _worked(module, lambda: _many(module, item_class, list_option), module.params[list_option])
    )


def run_info(collect, argument_spec):
    """main() of a module that only reads: ``collect(params, host)`` returns its values."""
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=True)

    def read():
        with resources.Resources() as host:
            return {
                "result": dict(collect(module.params, host), changed=False),
                "warnings": [],
                "failed": False,
            }

    _finish(module, _worked(module, read, [module.params]))


def _patience(row):
    """Seconds that a call into storage may take for an entry: a moment more than its own time limit, which tells more when it is reached."""
    given = row.get("timeout")
    own = min(given, LONGEST_SECONDS) + 1 if isinstance(given, int) else _STORAGE_SECONDS
    # To make a device may take as long as a slow disk takes to write down what is in memory.
    return max(own, 1) if row.get("state") in ("absent", "detached") else max(own, _STORAGE_SECONDS)


def _worked(module, body, rows):
    """What ``body()`` returns, or fail_json. ``rows``: the options of each entry."""
    try:
        # Every device is held open until the task is done.
        descriptors.raise_limit()
        outcome = worker.run(body, max(map(_patience, rows), default=_STORAGE_SECONDS))
    except BlockError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        found = of_oserror(error)
        module.fail_json(msg=str(found), error=found.as_dict(), exception=traceback.format_exc())
    if "raised" in outcome:
        module.fail_json(**outcome["raised"])
    return outcome


def _one(module, item_class):
    warnings = []
    with _host(warnings) as host:
        task = Task([item_class(module.params, host)], module.check_mode, "rollback")
        task.run()
        row = task.rows[0]
        result = row.values(task.was_stopped, module._diff)
    return _outcome(task, result, warnings)


def _many(module, item_class, list_option):
    warnings = []
    with _host(warnings) as host:
        items = [item_class(params, host) for params in module.params[list_option]]
        task = Task(items, module.check_mode, module.params["on_error"], list_option)
        task.run()
        values = [row.values(task.was_stopped) for row in task.rows]
        result = {"changed": any(row.changed for row in task.rows), list_option: values}
        if module._diff:
            result["diff"] = [row.diff() for row in task.rows if row.plan is not None and row.error is None]
    failed = [row for row in task.rows if row.error is not None]
    if failed:
        result["msg"] = _summary(failed, task)
    return _outcome(task, result, warnings)


@contextlib.contextmanager
def _host(warnings):
    """Resources; what goes wrong when it is left is a warning, which hides nothing of what was done."""
    host = resources.Resources()
    host.warnings = warnings
    try:
        yield host
    finally:
        try:
            host.close()
        except BlockError as error:
            warnings.append(f"after everything else: {error}")


def _outcome(task, result, warnings):
    """What :func:`_finish` tells Ansible, as plain data."""
    result.pop("failed", None)
    errors = [row.error for row in task.rows if row.error is not None]
    traces = [error.trace for error in errors if isinstance(error, Unexpected)]
    if traces:
        result["exception"] = traces[0]
    warnings = [text for row in task.rows for text in row.item.warnings] + task.warnings + warnings
    return {"result": result, "warnings": warnings, "failed": bool(errors)}


def _finish(module, outcome):
    for warning in outcome["warnings"]:
        module.warn(warning)
    if outcome["failed"]:
        module.fail_json(**outcome["result"])
    module.exit_json(**outcome["result"])


def _summary(failed, task):
    total = len(task.rows)
    # One error can be that of several entries.
    told = list(dict.fromkeys(str(row.error) for row in failed))
    text = f"{len(failed)} of {total} failed: " + "; ".join(told[:5])
    if len(told) > 5:
        text += f"; and {len(told) - 5} more"
    if task.was_stopped:
        if not task.has_begun:
            return text + ". Nothing was begun (on_error=rollback)"
        kept = sum(row.changed for row in task.rows)
        which = f" but for {kept}, which cannot be and are changed" if kept else ""
        return text + f". All that was done was rolled back{which} (on_error=rollback)"
    return text + f". The others were done (on_error={task.on_error})"
