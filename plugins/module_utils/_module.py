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

import resource
import traceback
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule

from . import _duplicates, _lock, _module_locks
from ._errors import BlockError
from ._host import UDEV_SECONDS, Host


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
    LOCK_SECONDS = _lock.SECONDS

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
        written, and again after ``plan``, when it is what the kernel, XenStore or libvirt says.
        """
        option, value = self.key()
        return {(option, value): ""}

    def title(self):
        """The item's name in a diff."""
        return str(self.key()[1])

    def check(self):
        """Raise InvalidValue for options that can be refused without looking at the host."""

    def locks(self):
        """What no other run may work on until this one has ended (``_lock.Lock``); a list, told by a look at the host, before ``plan``."""
        return []

    def unneeded_locks(self):
        """Those of ``locks`` that are of no use any more after ``plan``."""
        return []

    @classmethod
    def prepare(cls, host):
        """What is done once before the plans are made, save in check mode."""

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

    def commit(self):
        """Make what was applied last."""

    def finish(self):
        """What cannot be taken back, when everything else of the task is done."""

    def undo(self):
        """Take back what was applied; not called for a removal, which cannot be."""

    def is_removal(self):
        """Whether something is gone that nothing brings back."""
        return self.params.get("state") in ("absent", "detached")

    def result(self):
        """The item's own return values."""
        return {}


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
    module = AnsibleModule(argument_spec=item_class.ARGUMENTS, supports_check_mode=True, **dict(item_class.CONSTRAINTS, **module_options))
    _guarded(module, lambda: _one(module, item_class))


def run_many(item_class, list_option="devices"):
    """main() of a plural module."""
    elements = dict(item_class.CONSTRAINTS, type="list", elements="dict", required=True, options=item_class.ARGUMENTS)
    module = AnsibleModule(
        argument_spec={list_option: elements, "on_error": {"type": "str", "choices": ["rollback", "keep"], "default": "rollback"}},
        supports_check_mode=True,
    )
    _guarded(module, lambda: _many(module, item_class, list_option))


def run_info(collect, argument_spec):
    """main() of a module that only reads: ``collect(params, host)`` returns its values."""
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=True)

    def read():
        with Host() as host:
            return collect(module.params, host)

    _guarded(module, lambda: module.exit_json(changed=False, **read()))


def _guarded(module, body):
    try:
        _allow_many_files()
        body()
    except BlockError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except Exception as error:
        module.fail_json(msg=f"unexpected {type(error).__name__}: {error}", exception=traceback.format_exc())


def _one(module, item_class):
    with Host() as host:
        task = _Task([item_class(module.params, host)], module.check_mode, "rollback")
        task.run()
        row = task.rows[0]
        values = row.values(module._diff)
    _finish(module, task, dict(values), row.error is not None)


def _many(module, item_class, list_option):
    with Host() as host:
        items = [item_class(params, host) for params in module.params[list_option]]
        task = _Task(items, module.check_mode, module.params["on_error"], list_option)
        task.run()
        result = {"changed": any(row.changed for row in task.rows), list_option: [row.values(False) for row in task.rows]}
        if module._diff:
            result["diff"] = [row.diff() for row in task.rows if row.plan is not None and row.error is None]
    failed = [row for row in task.rows if row.error is not None]
    if failed:
        result["msg"] = _summary(failed, task)
    _finish(module, task, result, bool(failed))


def _finish(module, task, result, failed):
    for warning in [text for row in task.rows for text in row.item.warnings] + task.warnings:
        module.warn(warning)
    result.pop("failed", None)
    if failed:
        module.fail_json(**result)
    module.exit_json(**result)


def _summary(failed, task):
    total = len(task.rows)
    text = f"{len(failed)} of {total} failed: " + "; ".join(str(row.error) for row in failed[:5])
    if len(failed) > 5:
        text += f"; and {len(failed) - 5} more"
    if task.on_error == "rollback":
        removed = sum(row.changed for row in task.rows)
        kept = f" but {removed} removals, which cannot be taken back" if removed else ""
        return text + f". Nothing was kept of the others{kept} (on_error=rollback)"
    return text + ". The others were done (on_error=keep)"


class _Row:
    """One item of the task and how it went."""

    def __init__(self, item):
        self.item = item
        self.plan = None
        self.error = None
        self.locks = []
        self.applied = False
        self.changed = False
        self.taken_back = False

    def values(self, with_diff):
        values = {"changed": self.changed}
        if self.error is not None:
            values.update(failed=True, error=self.error.as_dict(), msg=str(self.error))
            return values
        if self.taken_back:
            values["taken_back"] = True
            return values
        values.update(self.item.result())
        if with_diff:
            values["diff"] = self.diff()
        return values

    def diff(self):
        return {
            "before": self.plan.before, "after": self.plan.after,
            "before_header": self.item.title(), "after_header": self.item.title(),
        }


class _Task:
    """Plan all, apply all, settle once, commit all, finish all."""

    def __init__(self, items, check_mode, on_error, list_option="devices"):
        self.list_option = list_option
        self.rows = [_Row(item) for item in items]
        self.check_mode = check_mode
        self.on_error = on_error
        self.warnings = []

    def run(self):
        self._each(self.rows, lambda row: row.item.check())
        self._refuse_duplicates()
        self._lock()
        if not self.check_mode:
            self._each(self._good()[:1], lambda row: row.item.prepare(row.item.host))
        self._each(self._good(), self._plan)
        self._refuse_duplicates()
        if self._stopped():
            return
        _module_locks.settle(self._good())
        if self.check_mode:
            for row in self._good():
                row.changed = row.plan.changed
            return
        try:
            self._apply()
        except BaseException:
            self._undo(row for row in reversed(self.rows) if row.applied)
            raise

    def _lock(self):
        rows = [row for row in self._good() if not self.check_mode or row.item.PLANS_UNDER_LOCK]
        if rows:
            _module_locks.take(rows, rows[0].item.host.locks, rows[0].item.LOCK_SECONDS)

    def _apply(self):
        pending = [row for row in self._good() if row.plan.changed]
        for row in pending:
            self._each([row], self._apply_one)
            if self._stopped():
                return
        self._apply_together([row for row in pending if row.error is None])
        self._refuse_doubles(pending)
        if self._stopped():
            return
        if pending and not pending[0].item.host.settle():
            self.warnings.append(f"udev did not answer within {UDEV_SECONDS} s: links such as those in /dev/mapper may be late")
        for step in (lambda row: row.item.commit(), lambda row: row.item.finish()):
            for row in pending:
                if row.error is None:
                    self._each([row], step)
                    if self._stopped():
                        return

    def _apply_together(self, rows):
        if not rows:
            return
        for row, error in zip(rows, type(rows[0].item).apply_together([row.item for row in rows])):
            if error is not None:
                row.error = error
                self._undo([row])

    def _refuse_doubles(self, rows):
        doubles = rows[0].item.host.loops.doubles() if rows else {}
        for row in rows if doubles else ():
            found = [doubles[device.id] for device in row.item.made() if device.id in doubles]
            if found and row.error is None:
                row.error = found[0]
                self._undo([row])

    def _plan(self, row):
        row.plan = row.item.plan()

    def _apply_one(self, row):
        # Set first: what a failing apply has done by then is for undo to take back.
        row.applied = True
        row.item.apply()
        row.changed = True

    def _each(self, rows, function):
        for row in rows:
            try:
                function(row)
            except BlockError as error:
                row.error = error
                if row.applied:
                    self._undo([row])

    def _good(self):
        return [row for row in self.rows if row.error is None]

    def _stopped(self):
        """Whether an error ends the task here; what was applied until now is taken back then."""
        if self.on_error == "keep" or not any(row.error is not None for row in self.rows):
            return False
        self._undo(row for row in reversed(self.rows) if row.applied)
        for row in self._good():
            row.taken_back = not row.changed
        return True

    def _undo(self, rows):
        for row in rows:
            row.applied = False
            if row.item.is_removal():
                # What is gone is gone; the result says that it was changed.
                continue
            try:
                row.item.undo()
                row.changed = False
            except Exception as error:  # the others are to be taken back all the same
                self.warnings.append(f"could not be taken back: {error}")

    def _refuse_duplicates(self):
        """Of two rows for one device neither is done: nobody can tell which one is meant."""
        found = {}
        self._each(self._good(), lambda row: found.update({row: row.item.identities()}))
        entries = [(row.item.key(), found.get(row, {})) for row in self.rows]
        for index, error in _duplicates.find(entries, self.list_option):
            self.rows[index].error = error


def _allow_many_files():
    """Every device is held open until the task is done: hundreds of them are more than the usual soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65536, hard))
