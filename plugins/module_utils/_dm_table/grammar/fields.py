# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Field types of targets: read a word or structured data, check it, and print it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A field's ``read`` takes a word of a line, ``load`` a value of the structured form. Both return the value, or
``BAD`` after reporting an error. Numbers consist of decimal digits only: the kernel's ``sscanf("%u%c")``
would accept a sign and wraps silently, so that 4294967296 becomes 0.
"""

from __future__ import annotations

import re

from .limits import Limits
from .slot import canonical_slot, check_plain, check_word, slot_text
from .text import HIDDEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Callable

    from .report import LineReport

    # (path, field, value) of a field that is present, and a function that returns a new value for these.
    FieldValue = tuple[str, "Field", Any]
    Change = Callable[[str, "Field", Any], Any]

_DIGITS = re.compile(r"[0-9]+\Z")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*\Z")


class _Bad:
    __slots__ = ()

    def __repr__(self) -> str:
        return "BAD"


BAD = _Bad()


class _Required:
    __slots__ = ()


REQUIRED = _Required()


def is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


class Field:
    """
    ``default`` is the value of an optional field that is absent. ``implied`` is a value that the kernel
    assumes by default and does not print back. ``secret`` values are never shown.
    """

    rule: str
    secret = False
    is_device = False
    access: str | None = None

    def __init__(self, name: str, default: Any = REQUIRED, implied: Any = None) -> None:
        self.name = name
        self.default = default
        self.implied = implied

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    def read(self, word: str, path: str, report: LineReport) -> Any:
        raise NotImplementedError

    def load(self, plain: Any, path: str, report: LineReport) -> Any:
        if not isinstance(plain, str):
            report.error(path, plain, self.rule)
            return BAD
        return self.read(plain, path, report)

    def show(self, value: Any) -> Any:
        return value

    def dump(self, value: Any) -> Any:
        return value

    def canonical(self, value: Any) -> Any:
        return value

    def redact(self, value: Any) -> Any:
        """The value as it may be shown; not for device fields, for which see ``_dm_table.redact``."""
        return value


class Number(Field):
    """
    A whole number from ``low`` to ``high``, with ``power`` a power of two, with ``step`` a multiple of it.
    ``unit`` is for messages.
    """

    def __init__(
        self,
        name: str,
        low: int = 0,
        high: int = Limits.U32,
        power: bool = False,
        step: int = 1,
        unit: str | None = None,
        default: Any = REQUIRED,
        implied: Any = None,
    ) -> None:
        super().__init__(name, default, implied)
        self.low = low
        self.high = high
        self.power = power
        self.step = step
        text = f"a whole number{' of ' + unit if unit else ''} from {low} to {high}"
        if power:
            text += ", a power of 2"
        if step != 1:
            text += f", a multiple of {step}"
        self.rule = text

    def _check(self, number: int, shown: object, path: str, report: LineReport) -> Any:
        if (
            self.low <= number <= self.high
            and not (self.power and not is_power_of_two(number))
            and number % self.step == 0
        ):
            return number
        report.error(path, shown, self.rule)
        return BAD

    def read(self, word: str, path: str, report: LineReport) -> Any:
        if len(word) <= 40 and _DIGITS.match(word):
            return self._check(int(word), word, path, report)
        report.error(path, word, self.rule)
        return BAD

    def load(self, plain: Any, path: str, report: LineReport) -> Any:
        if isinstance(plain, int) and not isinstance(plain, bool):
            return self._check(plain, plain, path, report)
        if isinstance(plain, str):
            return self.read(plain, path, report)
        report.error(path, plain, self.rule)
        return BAD

    def show(self, value: Any) -> Any:
        return str(value)


def Sectors(name: str, low: int = 0, default: Any = REQUIRED) -> Number:
    """An offset in sectors."""
    return Number(name, low=low, high=Limits.SECTORS, unit="sectors", default=default)


class Signed(Number):
    """A whole number with an optional sign, as accepted by kstrtoint()."""

    def read(self, word: str, path: str, report: LineReport) -> Any:
        if len(word) <= 40 and re.match(r"[+-]?[0-9]+\Z", word):
            return self._check(int(word), word, path, report)
        report.error(path, word, self.rule)
        return BAD


class Word(Field):
    """One of ``choices``. ``fold``: the kernel ignores case."""

    def __init__(
        self,
        name: str,
        choices: Iterable[str],
        fold: bool = True,
        default: Any = REQUIRED,
        implied: Any = None,
    ) -> None:
        super().__init__(name, default, implied)
        self.choices = tuple(choices)
        self.fold = (
            {choice.lower(): choice for choice in self.choices}
            if fold
            else {choice: choice for choice in self.choices}
        )
        self.folds = fold
        self.rule = f"one of {', '.join(self.choices)}"

    def read(self, word: str, path: str, report: LineReport) -> Any:
        value = self.fold.get(word.lower() if self.folds else word)
        if value is None:
            report.error(path, word, self.rule)
            return BAD
        return value


class Text(Field):
    """A word that matches ``pattern``; ``rule`` describes the pattern."""

    def __init__(
        self, name: str, pattern: str, rule: str, default: Any = REQUIRED, implied: Any = None
    ) -> None:
        super().__init__(name, default, implied)
        self.pattern = re.compile(pattern)
        self.rule = rule

    def read(self, word: str, path: str, report: LineReport) -> Any:
        if not self.pattern.match(word):
            report.error(path, word, self.rule)
            return BAD
        return word


class Hex(Field):
    """
    Bytes as an even number of hex digits; with ``dash``, ``-`` means none. Printed in lower case, as by the
    kernel.
    """

    def __init__(self, name: str, dash: bool = False, default: Any = REQUIRED) -> None:
        super().__init__(name, default)
        self.dash = dash
        self.rule = "an even number of hex digits" + (", or - for none" if dash else "")

    def read(self, word: str, path: str, report: LineReport) -> Any:
        if word and (_HEX.match(word) or (self.dash and word == "-")):
            return word.lower()
        report.error(path, word, self.rule)
        return BAD


class Device(Field):
    """
    A device slot. ``access`` is the mode in which the kernel opens it, None if that depends on the table's
    mode.
    """

    is_device = True

    def __init__(self, name: str, access: str | None = None, default: Any = REQUIRED) -> None:
        super().__init__(name, default)
        self.access = access

    def read(self, word: str, path: str, report: LineReport) -> Any:
        value, rule = check_word(word)
        if rule is not None:
            report.error(path, word, rule)
            return BAD
        return value

    def load(self, plain: Any, path: str, report: LineReport) -> Any:
        value, rule = check_plain(plain)
        if rule is not None:
            report.error(path, plain, rule)
            return BAD
        return value

    def show(self, value: Any) -> Any:
        return slot_text(value)

    def canonical(self, value: Any) -> Any:
        return canonical_slot(value)


class Secret(Field):
    """Base class of fields whose value, or part of it, is never shown."""

    secret = True

    def redact(self, value: Any) -> Any:
        return None if value is None else HIDDEN
