# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A table: its targets in order.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base.errors import InvalidValue
from . import redact, rules
from .compare import compare
from .grammar.kernels import IMMUTABLE, WILDCARD
from .grammar.limits import Limits
from .grammar.report import Report
from .grammar.slot import canonical_slot, parse_numbers
from .read import Line, read_all


class Table:
    """``targets``: a tuple of typed targets. A table from ``parse_table`` is valid; one made of targets directly is checked by ``validate``."""

    __slots__ = ("targets",)

    def __init__(self, targets):
        object.__setattr__(self, "targets", tuple(targets))

    def __setattr__(self, name, value):
        raise AttributeError("Table is immutable")

    def __eq__(self, other):
        return self.targets == other.targets if isinstance(other, Table) else NotImplemented

    def __hash__(self):
        return hash(self.targets)

    def __len__(self):
        return len(self.targets)

    def __iter__(self):
        return iter(self.targets)

    def __repr__(self):
        return f"Table({list(self.targets)!r})"

    @property
    def length(self):
        """The size of the mapped device in sectors."""
        return self.targets[-1].end if self.targets else 0

    def lines(self):
        """Lines as dmsetup prints them. Keys are in clear: see ``redacted``."""
        return [target.line() for target in self.targets]

    def to_list(self):
        """The structured form. Keys are in clear: see ``redacted``."""
        return [target.to_dict() for target in self.targets]

    def redacted(self):
        """A copy that is safe to print."""
        return Table([redact.target(target) for target in self.targets])

    def devices(self, read_only=False):
        """``(index of the target, Slot)`` of every device slot."""
        return [
            (index, slot)
            for index, target in enumerate(self.targets)
            for slot in target.devices(None, read_only)
        ]

    def with_devices(self, resolver):
        """
        A table in which every slot is ``MAJ:MIN``. ``resolver`` maps the text of a slot (``Slot.text``), or is called with the ``Slot``; it
        answers with ``MAJ:MIN``, a pair of numbers, or anything that has ``major`` and ``minor``. Slots that are numbers already are left alone
        when a mapping does not have them. Raises ``InvalidValue`` for a slot without an answer.
        """
        targets = []
        for target in self.targets:
            slots = {slot.field: slot for slot in target.devices()}
            if slots:
                target = target.map_values(_Resolve(slots, resolver))
            targets.append(target)
        return Table(targets)

    def kernel_targets(self):
        """
        ``(start, length, type, params)`` of every target with bytes for type and params, as ``TABLE_LOAD`` takes them. Raises
        ``InvalidValue`` when a slot is not ``MAJ:MIN`` yet.
        """
        result = []
        for target in self.targets:
            for slot in target.devices():
                if not isinstance(slot.value, str) or parse_numbers(slot.value) is None:
                    raise InvalidValue(
                        slot.field,
                        redact.shown(slot),
                        "must be MAJ:MIN: the kernel is given numbers only, never names that can change hands",
                    )
            result.append(
                (target.start, target.length, target.TYPE.encode("ascii"), target.params().encode("ascii"))
            )
        return result

    def canonical(self):
        """The table as the kernel prints it back: default options, order of options, ways of writing a device."""
        return Table([target.canonical() for target in self.targets])

    def same_as(self, other, devices=None):
        """
        Compares with ``other``, the newer table. ``devices``, when given, is a resolver as for ``with_devices``, for both. Returns a
        ``Comparison``, which is true when both are the same.
        """
        old, new = self, other
        if devices is not None:
            old, new = old.with_devices(devices), new.with_devices(devices)
        return compare(old.targets, new.targets)

    def check_replaces(self, old):
        """
        Raises ``TableError`` when this table cannot be loaded in place of ``old``: an immutable target type stays, unless the new table has the
        target ``error`` (table_load() in ``drivers/md/dm-ioctl.c``).
        """
        report = Report(None, redact)
        types = {target.TYPE for target in self.targets}
        for name in sorted({target.TYPE for target in old.targets} & IMMUTABLE - types):
            if WILDCARD not in types:
                report.line(1, redact.target(self.targets[0]).line(), self.targets[0].TYPE).error(
                    "target",
                    self.targets[0].TYPE,
                    f"{name}, as in the table that it replaces: this type cannot be exchanged for another",
                )
        report.raise_if_any()

    def validate(self, context=None):
        """Checks a table that was made of targets; raises ``TableError`` with all errors."""
        report = Report(context, redact)
        lines = []
        for number, target in enumerate(self.targets, 1):
            lines.extend(read_all([target.to_dict()], _Renumbered(report, number)))
        rules.check(
            [
                Line(number, line.written, line.target, line.start, line.length)
                for number, line in enumerate(lines, 1)
            ],
            report,
        )
        report.raise_if_any()
        return self


class _Renumbered:
    """A report that gives one line the number it has in the table."""

    def __init__(self, report, number):
        self.report = report
        self.number = number
        self.context = report.context
        self.redactor = report.redactor
        self.errors = report.errors

    def line(self, number, text, target=None):
        return self.report.line(self.number, text, target)


class _Resolve:
    """Replaces device slots by their numbers."""

    def __init__(self, slots, resolver):
        self.slots = slots
        self.resolver = resolver

    def __call__(self, path, field, value):
        slot = self.slots.get(path)
        if slot is None:
            return value
        if callable(self.resolver):
            answer = self.resolver(slot)
        else:
            answer = self.resolver.get(
                slot.text, self.resolver.get(canonical_slot(value) if isinstance(value, str) else None)
            )
            if answer is None and isinstance(value, str) and parse_numbers(value):
                answer = value
        if answer is None:
            raise InvalidValue(slot.field, redact.shown(slot), "must be a device that is there")
        try:
            return _resolved_text(answer, slot)
        except ValueError as error:
            raise InvalidValue(slot.field, redact.shown(slot), str(error)) from error


def _resolved_text(answer, slot):
    """``MAJ:MIN`` from what a resolver answered: text, a pair of numbers, or anything with ``major`` and ``minor``."""
    if isinstance(answer, str):
        numbers = parse_numbers(answer)
    elif isinstance(answer, tuple):
        numbers = answer
    elif hasattr(answer, "major") and hasattr(answer, "minor"):
        numbers = (answer.major, answer.minor)
    else:
        numbers = None
    if (
        numbers is None
        or len(numbers) != 2
        or not (0 <= numbers[0] <= Limits.MAJOR and 0 <= numbers[1] <= Limits.MINOR)
    ):
        raise ValueError(f"no device numbers for {slot.field} {redact.shown(slot)!r}: {answer!r}")
    return f"{numbers[0]}:{numbers[1]}"


def parse_table(value, *, context=None):
    """
    The table that ``value`` describes: text with one target per line (``#`` starts a comment, empty lines do not count), or a list of such lines
    and of dictionaries ``{start, length, target, ...}``. ``context`` says where it will be loaded. Raises ``TableError`` with all errors found.
    """
    report = Report(context, redact)
    lines = read_all(value, report)
    rules.check(lines, report)
    report.raise_if_any()
    return Table([line.target for line in lines])


def format_table(table):
    """Lines as dmsetup prints them. Keys are in clear: see ``Table.redacted``."""
    return table.lines()
