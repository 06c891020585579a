# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
One device of a task, and what is wanted of it: the class that every module fills in.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

from .._base import locks as _locks
from .._base.errors import BlockError, InvalidValue
from .._block.device import Device
from .._source.resources import Resources

T = TypeVar("T")
# The options of an item, checked by Ansible.
Params = dict[str, Any]
# What two items of a task must not have in common, with a description.
Identities = dict[Any, str]
LONGEST_SECONDS = 86400


class Plan(NamedTuple):
    """
    What an item would do: whether anything changes, and its state before and after, as plain data for the
    diff.
    """

    changed: bool
    before: dict[str, Any]
    after: dict[str, Any]


class Item:
    """
    One device and what is wanted of it. Subclasses set ARGUMENTS (an argument_spec) and fill in the methods.

    Order of calls: ``check`` (pure), ``locks``, ``look``, ``plan`` (reads only). Then, unless in check mode
    or unchanged: ``apply`` (creates devices that do not outlive the run), ``apply_together``, then ``commit``
    and ``finish``, or ``undo``. At last, unless in check mode: ``remember``. ``result`` can be called at any
    time.
    """

    ARGUMENTS: ClassVar[dict[str, Any]] = {}
    CONSTRAINTS: ClassVar[dict[str, Any]] = {}
    # Whether ``plan`` briefly creates something, so that it needs the locks, even in check mode.
    PLANS_UNDER_LOCK = False
    # For how long other runs are waited for.
    LOCK_SECONDS = _locks.SECONDS
    # Whether ``commit`` mostly waits in the kernel, so that many items are committed at once, by threads.
    COMMITS_AT_ONCE = False

    def __init__(self, params: Params, resources: Resources) -> None:
        self.params = params
        self.resources = resources
        self.warnings: list[str] = []
        # Set by the task that the item is part of.
        self.check_mode = False

    def key(self) -> tuple[str, Any]:
        """``(option, value)`` of the option that names the device, for messages."""
        raise NotImplementedError

    def identities(self) -> Identities:
        """
        What two items of a task must not have in common, as ``{identity: description}``. Called after
        ``check``, when only the options are known, and again after ``look`` and ``plan``, when the kernel,
        XenStore or libvirt was asked.
        """
        option, value = self.key()
        return {(option, value): ""}

    def title(self) -> str:
        """The item's name in a diff."""
        return str(self.key()[1])

    def check(self) -> None:
        """Raise InvalidValue for options that can be refused without looking at the host."""

    def locks(self) -> list[_locks.Lock]:
        """
        The locks (``_base.locks.Lock``) that the run needs from before ``plan`` to its end. Found by looking
        at the host.
        """
        return []

    def unneeded_locks(self) -> list[_locks.Lock]:
        """Those of ``locks`` that are not needed any more after ``plan``."""
        return []

    @classmethod
    def prepare(cls, resources: Resources) -> None:
        """Called once for all items before the plans are made, except in check mode."""

    def look(self) -> None:
        """Find the existing device for :meth:`identities`, if ``plan`` would do more than read."""

    @classmethod
    def in_order(cls, items: Sequence[Any]) -> Sequence[Item]:
        """The items in the order in which they are planned and applied, because one may need another."""
        return items

    def plan(self) -> Plan:
        raise NotImplementedError

    def apply(self) -> None:
        raise NotImplementedError

    @classmethod
    def apply_together(cls, items: Sequence[Any]) -> list[BlockError | None]:
        """The step that all applied items take together. Returns an error or None for each."""
        return [None] * len(items)

    def made(self) -> list[Device]:
        """The held devices that ``apply`` has created, the lowest of a stack first."""
        return []

    def lasting(self) -> list[Device]:
        """
        Those that ``commit`` makes persistent. Until then they are removed when their last user closes them.
        """
        return self.made() if self.params.get("persist") else []

    def risks(self) -> list[Any]:
        """Loop devices that ``apply`` removes, and that must stay with their users if the run is killed."""
        return []

    def commit(self) -> None:
        """Make the applied changes persistent."""

    def to_hold(self) -> list[Device]:
        """The devices that a process must hold for ``hold`` seconds after the task."""
        return []

    def finish(self) -> None:
        """Take the step that cannot be rolled back, after everything else of the task."""

    def remember(self) -> None:
        """
        Write down what the run has learned, for the next run. Called last, also for an unchanged item: this
        is no change, and an error becomes a warning.
        """

    def undo(self) -> None:
        """Roll back what was applied; not called for a removal, for which that is impossible."""

    def is_removal(self) -> bool:
        """Whether the item removes something, which cannot be rolled back."""
        return self.params.get("state") in ("absent", "detached")

    def remains(self) -> list[str]:
        """What remains changed after ``undo``, as texts. For a removal, what is gone or may be gone."""
        return []

    def result(self) -> dict[str, Any]:
        """The item's own return values."""
        return {}

    def outcome(self) -> dict[str, Any]:
        """Those return values that are also valid for an item that failed or was rolled back."""
        return {}


def known(value: T | None) -> T:
    """Return a value that an earlier step of the item must have set."""
    if value is None:
        raise AssertionError
    return value


def check_seconds(params: Params, option: str, least: int = 0) -> None:
    """
    InvalidValue unless the option is between ``least`` seconds and one day. More is a mistake, and overflows
    timers.
    """
    if not least <= params[option] <= LONGEST_SECONDS:
        raise InvalidValue(option, params[option], f"must be seconds from {least} to {LONGEST_SECONDS}")


def check_percent(params: Params) -> None:
    """InvalidValue unless ``warn_percent`` is None or from 1 to 100."""
    value = params["warn_percent"]
    if value is not None and not 1 <= value <= 100:
        raise InvalidValue("warn_percent", value, "must be a whole number from 1 to 100")


def undo_steps(steps: list[Callable[[], Any]]) -> None:
    """
    Call all of them in reverse order, even if some fail, and empty the list. Raises the first error at the
    end.
    """
    problem = None
    while steps:
        try:
            steps.pop()()
        except BlockError as error:
            problem = problem or error
    if problem is not None:
        raise problem


def seen(look: Callable[[], list[str]]) -> list[str]:
    """
    What ``look()`` says remains changed, or that it could not look, which must not hide what else remains.
    """
    try:
        return look()
    except BlockError as error:
        return [f"it could not be seen what the guest has: {error}"]


def error_of(function: Callable[[], object]) -> BlockError | None:
    """Call the function; the BlockError that it raised, or None."""
    try:
        function()
    except BlockError as error:
        return error
    return None
