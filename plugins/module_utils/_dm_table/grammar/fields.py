# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The kinds of values that fields of targets have: reading a word or structured data, checking, printing.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A field's ``read`` takes a word of a line, ``load`` a value of the structured form; both return the value or ``BAD`` after noting an error. Numbers
are decimal digits and nothing else: the kernel's ``sscanf("%u%c")`` takes a sign and wraps silently, so that 4294967296 becomes 0.
"""

from __future__ import annotations

import re

from .limits import Limits
from .slot import canonical_slot, check_plain, check_word, slot_text
from .text import HIDDEN

_DIGITS = re.compile(r"[0-9]+\Z")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*\Z")


class _Bad:
    __slots__ = ()

    def __repr__(self):
        return "BAD"


BAD = _Bad()


class _Required:
    __slots__ = ()


REQUIRED = _Required()


def is_power_of_two(number):
    return number > 0 and number & (number - 1) == 0


class Field:
    """
    ``default`` is the value of an optional field that is absent; ``implied`` is a value that the kernel does not print back, because it is what
    it takes when nothing is said; ``secret`` values are never shown.
    """

    secret = False
    is_device = False

    def __init__(self, name, default=REQUIRED, implied=None):
        self.name = name
        self.default = default
        self.implied = implied

    @property
    def required(self):
        return self.default is REQUIRED

    def read(self, word, path, report):
        raise NotImplementedError

    def load(self, plain, path, report):
        if not isinstance(plain, str):
            report.error(path, plain, self.rule)
            return BAD
        return self.read(plain, path, report)

    def show(self, value):
        return value

    def dump(self, value):
        return value

    def canonical(self, value):
        return value

    def redact(self, value):
        """What may be shown of the value of any field but a device's, for which see ``_dm_table.redact``."""
        return value


class Number(Field):
    """A whole number from ``low`` to ``high``; with ``power`` a power of two; with ``step`` a multiple of it; ``unit`` is for messages."""

    def __init__(
        self, name, low=0, high=Limits.U32, power=False, step=1, unit=None, default=REQUIRED, implied=None
    ):
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

    def _check(self, number, shown, path, report):
        if (
            self.low <= number <= self.high
            and not (self.power and not is_power_of_two(number))
            and number % self.step == 0
        ):
            return number
        report.error(path, shown, self.rule)
        return BAD

    def read(self, word, path, report):
        if len(word) <= 40 and _DIGITS.match(word):
            return self._check(int(word), word, path, report)
        report.error(path, word, self.rule)
        return BAD

    def load(self, plain, path, report):
        if isinstance(plain, int) and not isinstance(plain, bool):
            return self._check(plain, plain, path, report)
        if isinstance(plain, str):
            return self.read(plain, path, report)
        report.error(path, plain, self.rule)
        return BAD

    def show(self, value):
        return str(value)


def Sectors(name, low=0, default=REQUIRED):
    """An offset in sectors."""
    return Number(name, low=low, high=Limits.SECTORS, unit="sectors", default=default)


class Signed(Number):
    """A whole number that may have a sign, as kstrtoint() takes it."""

    def read(self, word, path, report):
        if len(word) <= 40 and re.match(r"[+-]?[0-9]+\Z", word):
            return self._check(int(word), word, path, report)
        report.error(path, word, self.rule)
        return BAD


class Word(Field):
    """One of ``choices``; ``fold`` when the kernel compares without case."""

    def __init__(self, name, choices, fold=True, default=REQUIRED, implied=None):
        super().__init__(name, default, implied)
        self.choices = tuple(choices)
        self.fold = (
            {choice.lower(): choice for choice in self.choices}
            if fold
            else {choice: choice for choice in self.choices}
        )
        self.folds = fold
        self.rule = f"one of {', '.join(self.choices)}"

    def read(self, word, path, report):
        value = self.fold.get(word.lower() if self.folds else word)
        if value is None:
            report.error(path, word, self.rule)
            return BAD
        return value


class Text(Field):
    """A word that matches ``pattern``; ``rule`` says it in words."""

    def __init__(self, name, pattern, rule, default=REQUIRED, implied=None):
        super().__init__(name, default, implied)
        self.pattern = re.compile(pattern)
        self.rule = rule

    def read(self, word, path, report):
        if not self.pattern.match(word):
            report.error(path, word, self.rule)
            return BAD
        return word


class Hex(Field):
    """Bytes as an even number of hex digits; with ``dash``, ``-`` stands for none. Printed in lower case, as the kernel does."""

    def __init__(self, name, dash=False, default=REQUIRED):
        super().__init__(name, default)
        self.dash = dash
        self.rule = "an even number of hex digits" + (", or - for none" if dash else "")

    def read(self, word, path, report):
        if word and (_HEX.match(word) or (self.dash and word == "-")):
            return word.lower()
        report.error(path, word, self.rule)
        return BAD


class Device(Field):
    """A device slot; ``access`` is what the kernel opens it for, ``None`` when that follows the table's mode."""

    is_device = True

    def __init__(self, name, access=None, default=REQUIRED):
        super().__init__(name, default)
        self.access = access

    def read(self, word, path, report):
        value, rule = check_word(word)
        if rule is not None:
            report.error(path, word, rule)
            return BAD
        return value

    def load(self, plain, path, report):
        value, rule = check_plain(plain)
        if rule is not None:
            report.error(path, plain, rule)
            return BAD
        return value

    def show(self, value):
        return slot_text(value)

    def canonical(self, value):
        return canonical_slot(value)


class Secret(Field):
    """Base of fields whose value, or a part of it, is never shown."""

    secret = True

    def redact(self, value):
        return None if value is None else HIDDEN
