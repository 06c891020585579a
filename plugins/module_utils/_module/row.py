# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
One item of a task and how it went.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import traceback
from typing import Any

from .._base import locks as _locks
from .._base.errors import BlockError, DeviceBusy, of_oserror
from .._process import holder as _holder
from .item import Item, Plan, known


class Unexpected(BlockError):
    """A bug in this collection; ``trace`` is the traceback."""

    HINT = "This is a mistake of the collection racefree.block: report it, with the traceback"

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"unexpected {type(error).__name__}: {error}")
        self.trace = traceback.format_exc()


def error_of(error: BaseException) -> BlockError:
    """Convert any other exception to a BlockError."""
    return of_oserror(error) if isinstance(error, OSError) else Unexpected(error)


class Row:
    """One item of the task and how it went."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.plan: Plan | None = None
        self.error: BlockError | None = None
        self.locks: list[_locks.Lock] = []
        # Whether apply was called and not rolled back since, and whether any of its changes exist now.
        self.applied = False
        self.changed = False
        self.holder: _holder.Holder | None = None

    def values(self, was_stopped: bool, with_diff: bool = False) -> dict[str, Any]:
        """
        The item's return values. ``was_stopped``: whether an error stopped the task, which was then rolled
        back.
        """
        values: dict[str, Any] = {"changed": self.changed}
        try:
            if self.error is not None:
                values.update(self.item.outcome())
            elif was_stopped and not self.changed and (self.plan is None or self.plan.changed):
                values.update(self.item.outcome(), rolled_back=True)
            else:
                values.update(self.item.result())
                if with_diff:
                    values["diff"] = self.diff()
        except BlockError as error:
            self.fail_late(error)
        except Exception as error:  # the change is reported anyway
            self.fail_late(error_of(error))
        if self.error is not None:
            values.update(failed=True, error=self.error.as_dict(), msg=str(self.error))
        return values

    def fail_late(self, error: BlockError) -> None:
        """
        Report an error of the return values. The change itself was made, but its result could not be read, or
        is not as wanted any more.
        """
        if self.error is None:
            self.error = error
            if not isinstance(error, DeviceBusy):
                done = "it was changed, but its" if self.changed else "its"
                text = f"{done} current state cannot be read: {error.message}"
            else:
                text = f"it was done, but {error.message}" if self.changed else error.message
            self.error.message = text

    @property
    def would_change(self) -> bool:
        """Whether its plan, which was made, changes anything."""
        return known(self.plan).changed

    def diff(self) -> dict[str, Any]:
        plan = known(self.plan)
        return {
            "before": plan.before,
            "after": plan.after,
            "before_header": self.item.title(),
            "after_header": self.item.title(),
        }
