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
# What no two items of a task may have in common, and words for it.
Identities = dict[Any, str]
LONGEST_SECONDS = 86400


class Plan(NamedTuple):
    """What an item would do: whether anything changes, and its state before and after as plain data for the diff."""

    changed: bool
    before: dict[str, Any]
    after: dict[str, Any]


class Item:
    """
    One device and what is wanted of it. Subclasses set ARGUMENTS (an argument_spec) and fill in the methods.

    The order of calls: ``check`` (pure), ``locks``, ``plan`` (reads), and, unless in check mode or unchanged, ``apply`` (makes,
    temporarily), ``apply_together``, then ``commit`` or ``undo``; ``result`` at any time.
    """

    ARGUMENTS: ClassVar[dict[str, Any]] = {}
    CONSTRAINTS: ClassVar[dict[str, Any]] = {}
    # Whether ``plan`` makes something for a moment, so that other runs must not do so meanwhile, in check mode either.
    PLANS_UNDER_LOCK = False
    # For how long other runs are waited for.
    LOCK_SECONDS = _locks.SECONDS

    def __init__(self, params: Params, host: Resources) -> None:
        self.params = params
        self.host = host
        self.warnings: list[str] = []

    def key(self) -> tuple[str, Any]:
        """The option that says which device it is, and its value, as ``(option, value)``: for messages."""
        raise NotImplementedError

    def identities(self) -> Identities:
        """
        What no two items of a task may have in common, as ``{identity: words for it}``: asked after ``check``, when it can only be what was
        written, and again after ``look`` and ``plan``, when it is what the kernel, XenStore or libvirt says.
        """
        option, value = self.key()
        return {(option, value): ""}

    def title(self) -> str:
        """The item's name in a diff."""
        return str(self.key()[1])

    def check(self) -> None:
        """Raise InvalidValue for options that can be refused without looking at the host."""

    def locks(self) -> list[_locks.Lock]:
        """What no other run may work on until this one has ended (``_base.locks.Lock``); a list, told by a look at the host, before ``plan``."""
        return []

    def unneeded_locks(self) -> list[_locks.Lock]:
        """Those of ``locks`` that are of no use any more after ``plan``."""
        return []

    @classmethod
    def prepare(cls, host: Resources) -> None:
        """What is done once before the plans are made, save in check mode."""

    def look(self) -> None:
        """Find the device that is there, for :meth:`identities`, if ``plan`` would do more than look."""

    @classmethod
    def in_order(cls, items: Sequence[Any]) -> Sequence[Item]:
        """The items in the order in which they are planned and done; those of a list may need each other."""
        return items

    def plan(self) -> Plan:
        raise NotImplementedError

    def apply(self) -> None:
        raise NotImplementedError

    @classmethod
    def apply_together(cls, items: Sequence[Any]) -> list[BlockError | None]:
        """What all applied items do in one go; an error or None for each."""
        return [None] * len(items)

    def made(self) -> list[Device]:
        """The held devices that ``apply`` has made, the lowest of a stack first."""
        return []

    def lasting(self) -> list[Device]:
        """Those that ``commit`` makes permanent; until then they go with their last user."""
        return self.made() if self.params.get("persist") else []

    def risks(self) -> list[Any]:
        """Loop devices that ``apply`` removes, and that a killed run shall leave to those who use them."""
        return []

    def commit(self) -> None:
        """Make what was applied last."""

    def to_hold(self) -> list[Device]:
        """The devices that a process is to hold for ``hold`` seconds after the task."""
        return []

    def finish(self) -> None:
        """What cannot be rolled back, when everything else of the task is done."""

    def undo(self) -> None:
        """Roll back what was applied; not called for a removal, for which that is impossible."""

    def is_removal(self) -> bool:
        """Whether something is gone that nothing brings back."""
        return self.params.get("state") in ("absent", "detached")

    def remains(self) -> list[str]:
        """What is changed after all that ``undo`` could do, as texts; for a removal what is gone, or may be."""
        return []

    def result(self) -> dict[str, Any]:
        """The item's own return values."""
        return {}

    def outcome(self) -> dict[str, Any]:
        """Those of them that are true of an item that failed, or was rolled back, too."""
        return {}


def known(value: T | None) -> T:
    """A value that an earlier step of the item has set."""
    assert value is not None
    return value


def check_seconds(params: Params, option: str, least: int = 0) -> None:
    """InvalidValue unless the option has from ``least`` seconds to a day; more is a mistake, and too much for the clock."""
    if not least <= params[option] <= LONGEST_SECONDS:
        raise InvalidValue(option, params[option], f"must be seconds from {least} to {LONGEST_SECONDS}")


def undo_steps(steps: list[Callable[[], Any]]) -> None:
    """Do them, the last one first, whatever becomes of each, and empty the list; the first error is raised at the end."""
    problem = None
    while steps:
        try:
            steps.pop()()
        except BlockError as error:
            problem = problem or error
    if problem is not None:
        raise problem
