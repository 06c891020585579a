# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A task: all items are planned, then all are applied, and only then made persistent; and the result of each.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._base.errors import BlockError
from .._block.device import Device
from .._process import holder as _holder
from .._process import threads
from .._source import journal
from .._source.resources import UDEV_SECONDS
from . import duplicates, locks, worker
from .item import Item
from .row import Row, error_of

# Fewer devices are made persistent one after the other.
_LEAST_AT_ONCE = 8


class Task:
    """Plan all, apply all, settle once, commit all, finish all."""

    def __init__(
        self, items: Sequence[Item], check_mode: bool, on_error: str, list_option: str = "devices"
    ) -> None:
        self.list_option = list_option
        self.rows = [Row(item) for item in items]
        # The same rows, in the order in which they are processed.
        self._ordered = list(self.rows)
        self.check_mode = check_mode
        for item in items:
            item.check_mode = check_mode
        self.on_error = on_error
        self.warnings: list[str] = []
        self.was_stopped = False
        # Whether anything was applied, even if it was rolled back since.
        self.has_begun = False
        self._journals: list[journal.Journal] = []
        self._all_stay = False

    def run(self) -> None:
        self._each(self.rows, lambda row: row.item.check())
        self._refuse_duplicates()
        self._lock()
        self._each(self._good()[:1], self._recover)
        # Devices are found before the plans, because a plan may wait until nobody else uses its device, and
        # another entry of the list may be using it.
        self._each(self._good(), lambda row: row.item.look())
        self._refuse_duplicates()
        self._order()
        self._each(self._good(), self._plan)
        self._refuse_duplicates()
        if self._stopped():
            return
        if self.check_mode:
            for row in self._good():
                row.changed = row.would_change
            return
        locks.settle(self._good())
        if self._stopped():
            return
        try:
            self._apply()
        except BaseException:
            self._roll_back()
            raise
        finally:
            self._remove_journal()
        if not self.was_stopped:
            self._remember()

    def _lock(self) -> None:
        rows = [row for row in self._good() if not self.check_mode or row.item.PLANS_UNDER_LOCK]
        if rows:
            locks.take(rows, rows[0].item.resources.locks, rows[0].item.LOCK_SECONDS)

    def _recover(self, row: Row) -> None:
        """Clean up after killed runs. In check mode, the plans only ignore what would be removed."""
        resources = row.item.resources
        if self.check_mode:
            going, told = journal.doomed(resources)
            resources.loops.leave_out(going)
            self.warnings += told
            return
        self.warnings += journal.recover(resources)
        row.item.prepare(resources)

    def _order(self) -> None:
        by_item = {row.item: row for row in self._good()}
        if len(by_item) > 1:
            rows = [by_item[item] for item in type(self.rows[0].item).in_order(list(by_item))]
            self._ordered = rows + [row for row in self.rows if row.error is not None]

    def _apply(self) -> None:
        pending = [row for row in self._good() if row.would_change]
        self._list_removals([row for row in pending if row.item.risks()])
        if self._stopped():
            return
        pending = _good(pending)
        for row in pending:
            self._each([row], self._apply_one)
            if row.error is not None and self._stopped():
                return
        self._apply_together([row for row in pending if row.error is None])
        self._refuse_doubles(pending)
        if self._stopped():
            return
        if pending and not pending[0].item.resources.settle():
            self.warnings.append(
                f"udev did not answer within {UDEV_SECONDS} s, or another program removed the udev cookie: "
                "links such as those in /dev/mapper may be late"
            )
        self._make_permanent(pending)

    def _make_permanent(self, pending: list[Row]) -> None:
        self._each(pending[:1], lambda row: self._write_journal(_good(pending)))
        for rows in _commit_batches(pending):
            self._commit(_good(rows))
            # The errors of these rows are checked first, because there can be thousands of rows.
            if any(row.error is not None for row in rows) and self._stopped():
                return
        # Immediately: a device that somebody else removes later would look like one that was never made
        # persistent.
        self._all_stay = True
        self._remove_journal()
        self._hold(_good(pending))
        if self._stopped():
            return
        for row in pending:
            if row.error is None:
                self._each([row], lambda row: row.item.finish())
            if row.error is not None and self._stopped():
                return

    def _commit(self, rows: list[Row]) -> None:
        if len(rows) < 2:
            self._each(rows, lambda row: row.item.commit())
            return
        worker.works_on(f"{rows[0].item.title()} and {len(rows) - 1} others")
        for row, error in zip(rows, threads.each(lambda row: row.item.commit(), rows)):
            if error is not None:
                self._fail(row, error if isinstance(error, BlockError) else error_of(error))
        worker.works_on("")

    def _list_removals(self, rows: Iterable[Row]) -> None:
        if not rows:
            return
        try:
            devices = [device for row in rows for device in row.item.risks()]
            self._journals.append(journal.Journal([], devices))
        except BlockError as error:
            for row in rows:
                self._fail(row, error)

    def _write_journal(self, rows: list[Row]) -> None:
        devices = [device for row in rows for device in row.item.lasting()]
        # No journal is needed for a single device: making it persistent is atomic.
        if len(devices) > 1:
            self._journals.append(journal.Journal(devices))

    def _remove_journal(self) -> None:
        for written in self._journals:
            try:
                written.remove()
            except BlockError as error:
                self.warnings.append(str(error))
        self._journals = []

    def _hold(self, rows: Iterable[Row]) -> None:
        """
        Start one process that holds all devices, so that a killed task has held all or none. With
        on_error=keep, one process for each row.
        """
        groups: dict[Any, list[tuple[Row, list[Device]]]] = {}
        for row in rows:
            devices = row.item.to_hold()
            if devices:
                key = row if self.on_error == "keep" else row.item.params["hold"]
                groups.setdefault(key, []).append((row, devices))
        for members in groups.values():
            devices = [device for dummy, held in members for device in held]
            try:
                holder = _holder.hold(devices, members[0][0].item.params["hold"])
            except BlockError as error:
                for row, dummy in members:
                    self._fail(row, error)
            else:
                for row, dummy in members:
                    row.holder = holder

    def _apply_together(self, rows: list[Row]) -> None:
        if not rows:
            return
        try:
            errors = type(rows[0].item).apply_together([row.item for row in rows])
        except BlockError as failure:
            errors = [failure] * len(rows)
        except Exception as failure:  # assigned to all items, because it is unknown which one caused it
            errors = [error_of(failure)] * len(rows)
        for row, error in zip(rows, errors):
            if error is not None:
                self._fail(row, error)

    def _refuse_doubles(self, rows: list[Row]) -> None:
        doubles = rows[0].item.resources.loops.doubles() if rows else {}
        for row in rows if doubles else ():
            found = [doubles[device.id] for device in row.item.made() if device.id in doubles]
            if found and row.error is None:
                self._fail(row, found[0])

    def _remember(self) -> None:
        for row in self._good():
            worker.works_on(row.item.title())
            try:
                row.item.remember()
            except BlockError as error:
                self.warnings.append(f"{row.item.title()}: the next run has to look again: {error}")
        worker.works_on("")

    def _plan(self, row: Row) -> None:
        row.plan = row.item.plan()

    def _apply_one(self, row: Row) -> None:
        # Set before the call, so that undo rolls back what a failing apply has done.
        row.applied = self.has_begun = True
        row.item.apply()
        row.changed = True

    def _each(self, rows: Iterable[Row], function: Callable[[Row], Any]) -> None:
        for row in rows:
            worker.works_on(row.item.title())
            try:
                function(row)
            except BlockError as error:
                self._fail(row, error)
            except Exception as error:  # the other items must still be processed or rolled back
                self._fail(row, error_of(error))
        worker.works_on("")

    def _fail(self, row: Row, error: BlockError) -> None:
        row.error = error
        if row.applied:
            if self.on_error != "keep":
                self._list_again()
            self._undo([row])

    def _good(self) -> list[Row]:
        return _good(self._ordered)

    def _stopped(self) -> bool:
        """Whether an error ends the task here. If so, what was applied until now is rolled back."""
        if self.on_error == "keep" or not any(row.error is not None for row in self.rows):
            return False
        self.was_stopped = True
        self._roll_back()
        return True

    def _roll_back(self) -> None:
        """
        Roll back everything that was applied. Persistent devices are listed in a journal meanwhile, so that
        if the run is killed, either all of them stay or none.
        """
        self._list_again()
        self._undo(row for row in reversed(self._ordered) if row.applied)

    def _list_again(self) -> None:
        if self._all_stay:
            self._all_stay = False
            try:
                self._write_journal([row for row in self._ordered if row.applied])
            except BlockError as error:
                self.warnings.append(str(error))

    def _undo(self, rows: Iterable[Row]) -> None:
        for row in rows:
            row.applied = False
            if row.holder is not None:
                row.holder.release()
            # Changed, unless the rollback was complete.
            texts = self._undo_row(row)
            row.changed = bool(texts)
            self.warnings += [f"{row.item.title()}: {text}" for text in texts]

    @staticmethod
    def _undo_row(row: Row) -> list[str]:
        """What was not rolled back, as texts. An error of one step does not hide what the other one says."""
        texts: list[str] = []
        try:
            if not row.item.is_removal():
                row.item.undo()
        except Exception as error:  # the others must still be rolled back
            texts.append(f"could not be rolled back: {error}")
        try:
            texts += [f"not rolled back: {text}" for text in row.item.remains()]
        except Exception as error:  # as above
            texts.append(f"it could not be seen whether it was rolled back: {error}")
        return texts

    def _refuse_duplicates(self) -> None:
        """If two rows are about one device, neither is applied, because it is unknown which one is meant."""
        found = {}
        self._each(self._good(), lambda row: found.update({row: row.item.identities()}))
        entries = [(row.item.key(), found.get(row, {})) for row in self.rows]
        for index, error in duplicates.find(entries, self.list_option):
            self.rows[index].error = error


def _commit_batches(rows: list[Row]) -> list[list[Row]]:
    """
    The rows in the order in which they are committed; those of one batch in no certain order. The last device
    of the journal is alone: once it is persistent, all of them count as persistent.
    """
    lasting = [row for row in rows if row.item.COMMITS_AT_ONCE and row.error is None and row.item.lasting()]
    if len(lasting) < _LEAST_AT_ONCE:
        return [[row] for row in rows]
    first = lasting[:-1]
    at_once = set(map(id, first))
    return [first, *([row] for row in rows if id(row) not in at_once)]


def _good(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.error is None]
