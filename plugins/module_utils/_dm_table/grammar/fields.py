# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The kinds of values that fields of targets have: reading a word or structured data, checking, printing.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A field's ``read`` takes a word of a line, ``load`` a value of the structured form; both return the value or
``BAD`` after noting an error. Numbers are decimal digits and nothing else: the kernel's ``sscanf("%u%c")``
takes a sign and wraps silently, so that 4294967296 becomes 0.
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

    # Path, field and value of a field that is present, and what makes another value of these.
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
    ``default`` is the value of an optional field that is absent; ``implied`` is a value that the kernel does
    not print back, because it is what it takes when nothing is said; ``secret`` values are never shown.
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
        """What may be shown of the value of any field but a device's, for which see ``_dm_table.redact``."""
        return value


class Number(Field):
    """
    A whole number from ``low`` to ``high``; with ``power`` a power of two; with ``step`` a multiple of it;
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
    """A whole number that may have a sign, as kstrtoint() takes it."""

    def read(self, word: str, path: str, report: LineReport) -> Any:
        if len(word) <= 40 and re.match(r"[+-]?[0-9]+\Z", word):
            return self._check(int(word), word, path, report)
        report.error(path, word, self.rule)
        return BAD


class Word(Field):
    """One of ``choices``; ``fold`` when the kernel compares without case."""

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
    """A word that matches ``pattern``; ``rule`` says it in words."""

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
    Bytes as an even number of hex digits; with ``dash``, ``-`` stands for none. Printed in lower case, as the
    kernel does.
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
    A device slot; ``access`` is what the kernel opens it for, ``None`` when that follows the table's mode.
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
    """Base of fields whose value, or a part of it, is never shown."""

    secret = True

    def redact(self, value: Any) -> Any:
        return None if value is None else HIDDEN
