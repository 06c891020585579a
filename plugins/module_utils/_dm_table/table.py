# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A table: an ordered sequence of targets.

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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Callable, Union

    from .compare import Comparison
    from .grammar.context import Context
    from .grammar.fields import Field
    from .grammar.report import LineReport
    from .grammar.slot import Slot
    from .grammar.target import Target

    Resolver = Union[Mapping[str, Any], Callable[[Slot], Any]]


class Table:
    """
    ``targets``: a tuple of typed targets. A table from ``parse_table`` is valid; one that is constructed from
    targets is checked by ``validate``.
    """

    __slots__ = ("targets",)

    targets: tuple[Target, ...]

    def __init__(self, targets: Iterable[Target]) -> None:
        object.__setattr__(self, "targets", tuple(targets))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("Table is immutable")

    def __eq__(self, other: object) -> bool:
        return self.targets == other.targets if isinstance(other, Table) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __iter__(self) -> Iterator[Target]:
        return iter(self.targets)

    def __repr__(self) -> str:
        return f"Table({list(self.targets)!r})"

    @property
    def length(self) -> int:
        """The size of the mapped device in sectors of 512 bytes."""
        return self.targets[-1].end if self.targets else 0

    def lines(self) -> list[str]:
        """The lines as dmsetup prints them. They contain plain keys: see ``redacted``."""
        return [target.line() for target in self.targets]

    def to_list(self) -> list[dict[str, Any]]:
        """The structured form. It contains plain keys: see ``redacted``."""
        return [target.to_dict() for target in self.targets]

    def redacted(self) -> Table:
        """A copy that is safe to print."""
        return Table([redact.target(target) for target in self.targets])

    def devices(self, read_only: bool | None = False) -> list[tuple[int, Slot]]:
        """``(index of the target, Slot)`` for every device slot."""
        return [
            (index, slot)
            for index, target in enumerate(self.targets)
            for slot in target.devices(None, read_only)
        ]

    def with_devices(self, resolver: Resolver) -> Table:
        """
        A copy with every slot resolved to ``MAJ:MIN``. ``resolver`` maps the text of a slot (``Slot.text``)
        to a device, or is called with the ``Slot``. It returns ``MAJ:MIN``, a pair of numbers, or an object
        with ``major`` and ``minor``. Slots that already are numbers stay unchanged if a mapping does not
        contain them. Raises ``InvalidValue`` for a slot that is not resolved.
        """
        targets = []
        for target in self.targets:
            slots = {slot.field: slot for slot in target.devices()}
            if slots:
                target = target.map_values(_Resolve(slots, resolver))
            targets.append(target)
        return Table(targets)

    def kernel_targets(self) -> list[tuple[int, int, bytes, bytes]]:
        """
        ``(start, length, type, params)`` of every target, type and params as bytes, for ``TABLE_LOAD``.
        Raises ``InvalidValue`` if a slot is not yet resolved to ``MAJ:MIN``.
        """
        result = []
        for target in self.targets:
            for slot in target.devices():
                if not isinstance(slot.value, str) or parse_numbers(slot.value) is None:
                    raise InvalidValue(
                        slot.field,
                        redact.shown(slot),
                        "must be MAJ:MIN: the kernel is given numbers only, never names, which can come to "
                        "mean another device",
                    )
            result.append(
                (target.start, target.length, target.TYPE.encode("ascii"), target.params().encode("ascii"))
            )
        return result

    def canonical(self) -> Table:
        """
        The table as the kernel prints it back, with normalized default options, option order and device
        names.
        """
        return Table([target.canonical() for target in self.targets])

    def same_as(self, other: Table, devices: Resolver | None = None) -> Comparison:
        """
        Compare with ``other``, the newer table. ``devices``, if given, is a resolver as for ``with_devices``,
        applied to both. Returns a ``Comparison``, which is true if they are equal.
        """
        old, new = self, other
        if devices is not None:
            old, new = old.with_devices(devices), new.with_devices(devices)
        return compare(old.targets, new.targets)

    def check_replaces(self, old: Table) -> None:
        """
        Raise ``TableError`` if this table cannot be loaded in place of ``old``: an immutable target type must
        be kept, unless the new table contains the target ``error`` (table_load() in
        ``drivers/md/dm-ioctl.c``).
        """
        report = Report(None, redact)
        types = {target.TYPE for target in self.targets}
        for name in sorted({target.TYPE for target in old.targets} & IMMUTABLE - types):
            if WILDCARD not in types:
                report.line(1, redact.target(self.targets[0]).line(), self.targets[0].TYPE).error(
                    "target",
                    self.targets[0].TYPE,
                    f"{name}, as in the table that it replaces: this type cannot be replaced by another",
                )
        report.raise_if_any()

    def validate(self, context: Context | None = None) -> Table:
        """
        Check a table that was constructed from targets, and return it. Raises ``TableError`` with all errors.
        """
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
    """A report for a single line that is given its number in the whole table."""

    def __init__(self, report: Report, number: int) -> None:
        self.report = report
        self.number = number
        self.context = report.context
        self.redactor = report.redactor
        self.errors = report.errors

    def line(self, number: int | None, text: Any, target: str | None = None) -> LineReport:
        return self.report.line(self.number, text, target)


class _Resolve:
    """Replaces device slots by device numbers."""

    def __init__(self, slots: dict[str, Slot], resolver: Resolver) -> None:
        self.slots = slots
        self.resolver = resolver

    def __call__(self, path: str, field: Field, value: Any) -> Any:
        slot = self.slots.get(path)
        if slot is None:
            return value
        if callable(self.resolver):
            answer = self.resolver(slot)
        else:
            answer = self.resolver.get(
                slot.text, self.resolver.get(canonical_slot(value) if isinstance(value, str) else "")
            )
            if answer is None and isinstance(value, str) and parse_numbers(value):
                answer = value
        if answer is None:
            raise InvalidValue(slot.field, redact.shown(slot), "must be a device that exists")
        try:
            return _resolved_text(answer, slot)
        except ValueError as error:
            raise InvalidValue(slot.field, redact.shown(slot), str(error)) from error


def _resolved_text(answer: Any, slot: Slot) -> str:
    """
    Convert a resolver's result to ``MAJ:MIN``: text, a pair of numbers, or an object with ``major`` and
    ``minor``. Raises ValueError.
    """
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


def parse_table(value: Any, *, context: Context | None = None) -> Table:
    """
    Parse ``value``: text with one target per line (``#`` starts a comment, empty lines are ignored), or a
    list of such lines and of dictionaries ``{start, length, target, ...}``. ``context`` describes where the
    table will be loaded. Raises ``TableError`` with all errors found.
    """
    key = _key_of(value) if context is None else None
    if key is not None and key in _parsed:
        return _parsed[key]
    report = Report(context, redact)
    lines = read_all(value, report)
    rules.check(lines, report)
    report.raise_if_any()
    table = Table([line.target for line in lines])
    if key is not None:
        if len(_parsed) >= _MOST_PARSED:
            _parsed.clear()
        _parsed[key] = table
    return table


# The last tables that were parsed. One table is checked several times on its way to a recipe. A long one is
# parsed once, and would only take memory here.
_parsed: dict[Any, Table] = {}
_MOST_PARSED, _MOST_LINES = 8, 64


def _key_of(value: Any) -> Any:
    """A hashable value that is equal for equal plain data; None for a long list, and for other objects."""
    if not isinstance(value, list) or len(value) > _MOST_LINES:
        return None
    try:
        return _frozen(value)
    except TypeError:
        return None


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return dict, tuple((_frozen(key), _frozen(part)) for key, part in value.items())
    if isinstance(value, list):
        return list, tuple(_frozen(part) for part in value)
    # 1, 1.0 and True are equal, but not the same in a table.
    if type(value) in (str, int, bool, float, type(None)):
        return type(value), value
    raise TypeError


def format_table(table: Table) -> list[str]:
    """The lines as dmsetup prints them. They contain plain keys: see ``Table.redacted``."""
    return table.lines()
