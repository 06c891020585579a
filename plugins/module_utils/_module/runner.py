# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The runner of all modules: options, check and diff mode, errors, and modules for one device or for a list.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A module is an :class:`Item` class. The runner plans every item before it changes anything. Devices that the
items create become persistent only after all items have succeeded, so after an error or when the process is
killed, the kernel removes them.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .._base.errors import BlockError, of_oserror
from .._process import descriptors
from .._source.resources import Resources
from . import worker
from .item import LONGEST_SECONDS, Item, Params
from .row import Row, Unexpected
from .task import Task

# Seconds for a system call on storage, unless something is removed or the option timeout is longer.
_STORAGE_SECONDS = 60


def run_one(item_class: type[Item], **module_options: Any) -> None:
    """main() of a singular module."""
    module = AnsibleModule(
        argument_spec=item_class.ARGUMENTS,
        supports_check_mode=True,
        **dict(item_class.CONSTRAINTS, **module_options),
    )
    _finish(module, _worked(module, lambda: _one(module, item_class), [module.params]))


def run_many(item_class: type[Item], list_option: str = "devices") -> None:
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


def run_info(collect: Callable[[Params, Resources], dict[str, Any]], argument_spec: dict[str, Any]) -> None:
    """main() of a module that only reads: ``collect(params, host)`` returns its values."""
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=True)

    def read(resources: Resources) -> dict[str, Any]:
        return dict(collect(module.params, resources), changed=False)

    run_with(module, [module.params], read)


def run_with(
    module: AnsibleModule, rows: list[Params], function: Callable[[Resources], dict[str, Any]]
) -> None:
    """
    Run ``function(resources)`` and end the module with the values that it returns; it has failed if there is
    an ``error`` among them. ``rows``: as for :func:`_worked`.
    """

    def work() -> dict[str, Any]:
        warnings: list[str] = []
        with _resources(warnings) as resources:
            result = function(resources)
        return {"result": result, "warnings": warnings, "failed": "error" in result}

    _finish(module, _worked(module, work, rows))


def _patience(row: Params) -> float:
    """
    Seconds that a system call on storage may take for an entry: a little longer than its own timeout, whose
    error says more.
    """
    given = row.get("timeout")
    own = min(given, LONGEST_SECONDS) + 1 if isinstance(given, int) else _STORAGE_SECONDS
    # Creating a device can take as long as a slow disk needs to write the page cache.
    return max(own, 1) if row.get("state") in ("absent", "detached") else max(own, _STORAGE_SECONDS)


def _worked(module: AnsibleModule, body: Callable[[], dict[str, Any]], rows: list[Params]) -> dict[str, Any]:
    """Return what ``body()`` returns, or call fail_json. ``rows``: the options of each entry."""
    try:
        # Every device stays open until the task ends, so many descriptors are needed.
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


def _one(module: AnsibleModule, item_class: type[Item]) -> dict[str, Any]:
    warnings: list[str] = []
    with _resources(warnings) as resources:
        task = Task([item_class(module.params, resources)], module.check_mode, "rollback")
        task.run()
        row = task.rows[0]
        result = row.values(task.was_stopped, module._diff)
    return _outcome(task, result, warnings)


def _many(module: AnsibleModule, item_class: type[Item], list_option: str) -> dict[str, Any]:
    warnings: list[str] = []
    with _resources(warnings) as resources:
        items = [item_class(params, resources) for params in module.params[list_option]]
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
def _resources(warnings: list[str]) -> Iterator[Resources]:
    """
    A context with the run's Resources. An error on leaving it becomes a warning, so that the task's result is
    still returned.
    """
    resources = Resources()
    resources.warnings = warnings
    try:
        yield resources
    finally:
        try:
            resources.close()
        except BlockError as error:
            warnings.append(f"after everything else: {error}")


def _outcome(task: Task, result: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """What :func:`_finish` reports to Ansible, as plain data."""
    result.pop("failed", None)
    errors = [row.error for row in task.rows if row.error is not None]
    traces = [error.trace for error in errors if isinstance(error, Unexpected)]
    if traces:
        result["exception"] = traces[0]
    warnings = [text for row in task.rows for text in row.item.warnings] + task.warnings + warnings
    return {"result": result, "warnings": warnings, "failed": bool(errors)}


def _finish(module: AnsibleModule, outcome: dict[str, Any]) -> None:
    for warning in outcome["warnings"]:
        module.warn(warning)
    if outcome["failed"]:
        module.fail_json(**outcome["result"])
    module.exit_json(**outcome["result"])


def _summary(failed: list[Row], task: Task) -> str:
    total = len(task.rows)
    # Several entries can have the same error.
    told = list(dict.fromkeys(str(row.error) for row in failed))
    text = f"{len(failed)} of {total} failed: " + "; ".join(told[:5])
    if len(told) > 5:
        text += f"; and {len(told) - 5} more"
    if task.was_stopped:
        if not task.has_begun:
            return text + ". Nothing was begun (on_error=rollback)"
        kept = sum(row.changed for row in task.rows)
        which = f" except {kept}, which cannot be rolled back and are changed" if kept else ""
        return text + f". All that was done was rolled back{which} (on_error=rollback)"
    return text + f". The others were done (on_error={task.on_error})"
