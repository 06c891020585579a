# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Layouts: the sequence of words in a target's parameters.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A target's ``LAYOUT`` is a sequence of fields and of the items below. Each item can ``read`` words into a
dictionary of attributes, ``load`` them from the structured form, ``show`` them as words and ``dump`` them as
structured data.
"""

from __future__ import annotations

from collections import namedtuple

from . import kernels
from .fields import BAD, REQUIRED, Field, Number
from .limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from .fields import Change, FieldValue
    from .report import LineReport


class Words:
    """The words of one line's parameters with their columns, consumed from left to right."""

    __slots__ = ("words", "columns", "at", "stop", "end", "report")

    def __init__(self, words: Sequence[str], columns: Sequence[int], end: int, report: LineReport) -> None:
        self.words = words
        self.columns = columns
        self.at = 0
        self.stop = len(words)
        self.end = end
        self.report = report

    def left(self) -> int:
        return self.stop - self.at

    def peek(self) -> str | None:
        return self.words[self.at] if self.at < self.stop else None

    def column(self) -> int:
        return self.columns[self.at] if self.at < len(self.columns) else self.end

    def take(self, path: str) -> str | None:
        """The next word, or None at the end; its column is recorded under ``path``."""
        if self.at >= self.stop:
            return None
        self.report.columns[path] = self.columns[self.at]
        word = self.words[self.at]
        self.at += 1
        return word

    def missing(self, path: str, rule: str) -> None:
        self.report.error(path, None, f"is missing: {rule}", column=self.column())


def read_field(field: Field, words: Words, path: str) -> Any:
    """Read a positional field; its value, or BAD."""
    word = words.take(path)
    if word is None:
        words.missing(path, field.rule if hasattr(field, "rule") else "a device")
        return BAD
    return field.read(word, path, words.report)


def load_field(field: Field, plain: Any, path: str, report: LineReport) -> Any:
    """Load a field from the dictionary ``plain``; its value, or BAD."""
    if field.name not in plain or plain[field.name] is None:
        if field.required:
            report.error(path, None, f"is missing: {field.rule if hasattr(field, 'rule') else 'a device'}")
            return BAD
        return field.default
    return field.load(plain[field.name], path, report)


def _check_keys(plain: Any, known: Sequence[str], path: str, report: LineReport) -> None:
    for key in plain:
        if key not in known:
            report.error(
                f"{path}.{key}" if path else str(key),
                None,
                f"is not a field; known fields: {', '.join(known)}",
            )


class Item:
    """Base class of items. ``names`` are the attributes that the item sets."""

    names: tuple[str, ...] = ()

    def fields(self, target: Any) -> Iterable[FieldValue]:
        """``(path, field, value)`` of every field that is present."""
        return ()

    def read(self, words: Words, out: dict[str, Any]) -> None:
        raise NotImplementedError

    def load(self, plain: Any, out: dict[str, Any], report: LineReport) -> None:
        raise NotImplementedError

    def show(self, target: Any) -> list[str]:
        raise NotImplementedError

    def dump(self, target: Any, out: dict[str, Any]) -> None:
        raise NotImplementedError

    def rebuild(self, target: Any, change: Change) -> dict[str, Any]:
        raise NotImplementedError


class Positional(Item):
    """A field at a fixed position. If it has a default, it may be missing at the end of the line."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.names = (field.name,)

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        field = self.field
        if not field.required and not words.left():
            out[field.name] = field.default
        else:
            out[field.name] = read_field(field, words, field.name)

    def load(self, plain: Any, out: dict[str, Any], report: LineReport) -> Any:
        out[self.field.name] = load_field(self.field, plain, self.field.name, report)

    def show(self, target: Any) -> Any:
        value = getattr(target, self.field.name)
        return [] if value is None else [self.field.show(value)]

    def dump(self, target: Any, out: dict[str, Any]) -> Any:
        value = getattr(target, self.field.name)
        if value is not None:
            out[self.field.name] = self.field.dump(value)

    def fields(self, target: Any) -> Iterable[FieldValue]:
        value = getattr(target, self.field.name)
        return () if value is None else ((self.field.name, self.field, value),)

    def rebuild(self, target: Any, change: Change) -> dict[str, Any]:
        name = self.field.name
        value = getattr(target, name)
        return {} if value is None else {name: change(name, self.field, value)}


def _group_type(name: str, fields: Iterable[Field]) -> Any:
    return namedtuple(name.title().replace("_", ""), [field.name for field in fields])


class Group(Item):
    """Several consecutive fields under one name, which may be missing if ``optional``."""

    def __init__(self, name: str, fields: Iterable[Field], optional: bool = False) -> None:
        self.name = name
        self.names = (name,)
        self.parts = tuple(fields)
        self.optional = optional
        self.kind = _group_type(name, self.parts)

    def _read_one(self, words: Words, path: str) -> Any:
        values = [read_field(field, words, f"{path}.{field.name}") for field in self.parts]
        return BAD if BAD in values else self.kind(*values)

    def _load_one(self, plain: Any, path: str, report: LineReport) -> Any:
        if not isinstance(plain, dict):
            report.error(path, plain, f"a dictionary with {', '.join(field.name for field in self.parts)}")
            return BAD
        _check_keys(plain, [field.name for field in self.parts], path, report)
        values = [load_field(field, plain, f"{path}.{field.name}", report) for field in self.parts]
        return BAD if BAD in values else self.kind(*values)

    def _show_one(self, value: Any) -> list[str]:
        return [field.show(part) for field, part in zip(self.parts, value) if part is not None]

    def _dump_one(self, value: Any) -> dict[str, Any]:
        return {field.name: field.dump(part) for field, part in zip(self.parts, value) if part is not None}

    def _fields_one(self, path: str, value: Any) -> list[FieldValue]:
        return [
            (f"{path}.{field.name}", field, part)
            for field, part in zip(self.parts, value)
            if part is not None
        ]

    def _rebuild_one(self, path: str, value: Any, change: Change) -> Any:
        return self.kind(
            *[
                None if part is None else change(f"{path}.{field.name}", field, part)
                for field, part in zip(self.parts, value)
            ]
        )

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        if self.optional and not words.left():
            out[self.name] = None
        else:
            out[self.name] = self._read_one(words, self.name)

    def load(self, plain: Any, out: dict[str, Any], report: LineReport) -> Any:
        if plain.get(self.name) is None:
            if not self.optional:
                report.error(
                    self.name,
                    None,
                    f"is missing: a dictionary with {', '.join(field.name for field in self.parts)}",
                )
            out[self.name] = None if self.optional else BAD
        else:
            out[self.name] = self._load_one(plain[self.name], self.name, report)

    def show(self, target: Any) -> Any:
        value = getattr(target, self.name)
        return [] if value is None else self._show_one(value)

    def dump(self, target: Any, out: dict[str, Any]) -> Any:
        value = getattr(target, self.name)
        if value is not None:
            out[self.name] = self._dump_one(value)

    def fields(self, target: Any) -> Iterable[FieldValue]:
        value = getattr(target, self.name)
        return () if value is None else self._fields_one(self.name, value)

    def rebuild(self, target: Any, change: Change) -> dict[str, Any]:
        value = getattr(target, self.name)
        return {} if value is None else {self.name: self._rebuild_one(self.name, value, change)}


class CountOf(Item):
    """The number of members of a later ``Repeat`` with the same name."""

    def __init__(self, name: str, low: int = 1, high: int = Limits.U32) -> None:
        self.name = name
        self.number = Number(f"#{name}", low=low, high=high)

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        out[f"#{self.name}"] = read_field(self.number, words, f"#{self.name}")

    def load(self, plain: Any, out: dict[str, Any], report: LineReport) -> Any:
        out[f"#{self.name}"] = None

    def show(self, target: Any) -> Any:
        return [str(len(getattr(target, self.name)))]

    def dump(self, target: Any, out: dict[str, Any]) -> Any:
        pass

    def rebuild(self, target: Any, change: Change) -> dict[str, Any]:
        return {}


class Repeat(Group):
    """
    A group that is repeated as often as the ``CountOf`` of the same name says, or, without one, to the end of
    the line.
    """

    def __init__(self, name: str, fields: Iterable[Field], low: int = 1, high: int = Limits.U32) -> None:
        super().__init__(name, fields)
        self.low = low
        self.high = high

    def _wrong_number(self, number: int, report: LineReport) -> bool:
        if not self.low <= number <= self.high:
            report.error(self.name, number, f"a list of {self.low} to {self.high} members")
            return True
        return False

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        count = out.pop(f"#{self.name}", None)
        if count is BAD:
            # The rest of the line cannot be parsed without the count.
            words.at = words.stop
            out[self.name] = BAD
            return
        width = len(self.parts)
        if count is None:
            count = -(-words.left() // width)
            if self._wrong_number(count, words.report):
                out[self.name] = BAD
                return
        elif words.left() < count * width and count > words.left():
            words.report.error(
                f"#{self.name}",
                str(count),
                f"the number of groups of {width} words that follow; there are {words.left()} words",
            )
            words.at = words.stop
            out[self.name] = BAD
            return
        members = []
        for index in range(count):
            members.append(self._read_one(words, f"{self.name}[{index}]"))
            if not words.left() and members[-1] is BAD:
                break
        out[self.name] = BAD if BAD in members else tuple(members)

    def load(self, plain: Any, out: dict[str, Any], report: LineReport) -> Any:
        out.pop(f"#{self.name}", None)
        members = plain.get(self.name)
        if not isinstance(members, (list, tuple)):
            report.error(
                self.name,
                members,
                "a list of dictionaries with " + ", ".join(field.name for field in self.parts),
            )
            out[self.name] = BAD
            return
        if self._wrong_number(len(members), report):
            out[self.name] = BAD
            return
        values = [
            self._load_one(member, f"{self.name}[{index}]", report) for index, member in enumerate(members)
        ]
        out[self.name] = BAD if BAD in values else tuple(values)

    def show(self, target: Any) -> Any:
        words = []
        for member in getattr(target, self.name):
            words.extend(self._show_one(member))
        return words

    def dump(self, target: Any, out: dict[str, Any]) -> Any:
        out[self.name] = [self._dump_one(member) for member in getattr(target, self.name)]

    def fields(self, target: Any) -> Iterable[FieldValue]:
        result = []
        for index, member in enumerate(getattr(target, self.name)):
            result.extend(self._fields_one(f"{self.name}[{index}]", member))
        return result

    def rebuild(self, target: Any, change: Change) -> dict[str, Any]:
        return {
            self.name: tuple(
                self._rebuild_one(f"{self.name}[{index}]", member, change)
                for index, member in enumerate(getattr(target, self.name))
            )
        }


class Option:
    """An option of ``Options``. ``word`` is its text in the line, ``name`` the attribute."""

    repeats = False

    def __init__(self, name: str, word: str | None = None) -> None:
        self.name = name
        self.word = word or name
        self.default: Any = None

    def matches(self, word: str) -> bool:
        raise NotImplementedError

    def read(self, word: str, words: Words, report: LineReport) -> Any:
        raise NotImplementedError

    def load(self, plain: Any, report: LineReport) -> Any:
        raise NotImplementedError

    def show(self, value: Any) -> list[str]:
        raise NotImplementedError

    def dump(self, value: Any) -> Any:
        raise NotImplementedError

    def fields(self, value: Any) -> Iterable[FieldValue]:
        raise NotImplementedError

    def rebuild(self, value: Any, change: Change) -> Any:
        raise NotImplementedError

    def absent(self, value: Any) -> bool:
        raise NotImplementedError


class Flag(Option):
    """A word that is present or not; the attribute is True or False."""

    def __init__(self, name: str, word: str | None = None) -> None:
        super().__init__(name, word)
        self.default = False

    def matches(self, word: str) -> bool:
        return word == self.word

    def read(self, word: str, words: Words, report: LineReport) -> Any:
        return True

    def load(self, plain: Any, report: LineReport) -> Any:
        if not isinstance(plain, bool):
            report.error(self.name, plain, "true or false")
            return BAD
        return plain

    def show(self, value: Any) -> Any:
        return [self.word] if value else []

    def dump(self, value: Any) -> Any:
        return value

    def fields(self, value: Any) -> Iterable[FieldValue]:
        return ()

    def rebuild(self, value: Any, change: Change) -> Any:
        return value

    def absent(self, value: Any) -> bool:
        return not value


class Choice(Option):
    """One of several words; the attribute is the word."""

    def __init__(self, name: str, words: Sequence[str]) -> None:
        super().__init__(name, "|".join(words))
        self.words = tuple(words)
        self.rule = f"one of {', '.join(words)}"

    def matches(self, word: str) -> bool:
        return word in self.words

    def read(self, word: str, words: Words, report: LineReport) -> Any:
        return word

    def load(self, plain: Any, report: LineReport) -> Any:
        if isinstance(plain, str) and plain.lower() in self.words:
            return plain.lower()
        report.error(self.name, plain, self.rule)
        return BAD

    def show(self, value: Any) -> Any:
        return [value]

    def dump(self, value: Any) -> Any:
        return value

    def fields(self, value: Any) -> Iterable[FieldValue]:
        return ()

    def rebuild(self, value: Any, change: Change) -> Any:
        return value

    def absent(self, value: Any) -> bool:
        return value is None


class Pair(Option):
    """``word value``: two words in the line; the attribute is the value of ``field``."""

    def __init__(self, field: Field, word: str | None = None) -> None:
        super().__init__(field.name, word)
        self.field = field

    def matches(self, word: str) -> bool:
        return word == self.word

    def read(self, word: str, words: Words, report: LineReport) -> Any:
        return read_field(self.field, words, self.name)

    def load(self, plain: Any, report: LineReport) -> Any:
        return self.field.load(plain, self.name, report)

    def show(self, value: Any) -> Any:
        return [self.word, self.field.show(value)]

    def dump(self, value: Any) -> Any:
        return self.field.dump(value)

    def fields(self, value: Any) -> Iterable[FieldValue]:
        return ((self.name, self.field, value),)

    def rebuild(self, value: Any, change: Change) -> Any:
        return change(self.name, self.field, value)

    def absent(self, value: Any) -> bool:
        return value is None


class Colon(Pair):
    """``word:value``: a single word in the line."""

    def matches(self, word: str) -> bool:
        return word.startswith(f"{self.word}:")

    def read(self, word: str, words: Words, report: LineReport) -> Any:
        column = words.columns[words.at - 1]
        skip = len(self.word) + 1
        report.columns[self.name] = column + skip
        return self.field.read(word[skip:], self.name, report)

    def show(self, value: Any) -> Any:
        return [f"{self.word}:{self.field.show(value)}"]


class Several(Option):
    """``word v1 v2 ...``: an option with several values; the attribute is a named tuple."""

    def __init__(self, name: str, fields: Iterable[Field], word: str | None = None) -> None:
        super().__init__(name, word)
        self.group = Group(name, fields)

    def matches(self, word: str) -> bool:
        return word == self.word

    def read(self, word: str, words: Words, report: LineReport) -> Any:
        return self.group._read_one(words, self.name)

    def load(self, plain: Any, report: LineReport) -> Any:
        return self.group._load_one(plain, self.name, report)

    def show(self, value: Any) -> Any:
        return [self.word] + self.group._show_one(value)

    def dump(self, value: Any) -> Any:
        return self.group._dump_one(value)

    def fields(self, value: Any) -> Iterable[FieldValue]:
        return self.group._fields_one(self.name, value)

    def rebuild(self, value: Any, change: Change) -> Any:
        return self.group._rebuild_one(self.name, value, change)

    def absent(self, value: Any) -> bool:
        return value is None


class Many(Pair):
    """
    ``word value``, which may be repeated. The attribute is a tuple of distinct values, the structured form a
    list.
    """

    repeats = True

    def __init__(self, field: Field, word: str | None = None) -> None:
        super().__init__(field, word)
        self.default = ()

    def load(self, plain: Any, report: LineReport) -> Any:
        if not isinstance(plain, (list, tuple)):
            report.error(self.name, plain, f"a list, each entry {self.field.rule}")
            return BAD
        values = [
            self.field.load(value, f"{self.name}[{index}]", report) for index, value in enumerate(plain)
        ]
        if BAD in values:
            return BAD
        if len(set(values)) != len(values):
            report.error(self.name, list(plain), "must not repeat a value")
            return BAD
        return tuple(values)

    def show(self, value: Any) -> Any:
        words: list[str] = []
        for part in value:
            words.extend((self.word, self.field.show(part)))
        return words

    def dump(self, value: Any) -> Any:
        return [self.field.dump(part) for part in value]

    def fields(self, value: Any) -> Iterable[FieldValue]:
        return [(f"{self.name}[{index}]", self.field, part) for index, part in enumerate(value)]

    def rebuild(self, value: Any, change: Change) -> Any:
        return tuple(change(f"{self.name}[{index}]", self.field, part) for index, part in enumerate(value))

    def absent(self, value: Any) -> bool:
        return not value


class Options(Item):
    """
    ``#n word ...``: a count and that many words. ``required``: the count must be present even if it is 0.
    ``fold``: the kernel ignores case. The count must match the number of words, although most constructors
    ignore surplus ones.
    """

    def __init__(
        self,
        options: Iterable[Option],
        name: str = "features",
        high: int | None = None,
        required: bool = False,
        fold: bool = True,
        show_zero: bool = False,
    ) -> None:
        self.name = name
        self.path = f"#{name}"
        self.options = tuple(options)
        self.names = tuple(option.name for option in self.options)
        self.high = high
        self.required = required
        self.folds = fold
        self.show_zero = show_zero or required
        self.rule = f"one of {', '.join(option.word for option in self.options)}"
        self.last = True

    def _find(self, word: str) -> Option | None:
        lookup = word.lower() if self.folds else word
        for option in self.options:
            if option.matches(lookup):
                return option
        return None

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        report = words.report
        for option in self.options:
            out[option.name] = option.default
        if not words.left() and not self.required:
            return
        count = read_field(Number(self.path), words, self.path)
        if count is BAD:
            words.at = words.stop
            return
        self._check_count(report, count, str(count))
        if count > words.left() or (self.last and count < words.left()):
            report.error(self.path, str(count), f"the number of words that follow, which is {words.left()}")
            count = min(count, words.left())
        stop = words.stop
        words.stop = words.at + count
        self.read_words(words, out)
        words.stop = stop

    def read_words(self, words: Words, out: dict[str, Any]) -> None:
        """Read all words up to ``words.stop`` as options."""
        report = words.report
        while words.left():
            column = words.column()
            word = words.take(self.name) or ""
            option = self._find(word)
            if isinstance(option, Choice) and self.folds:
                word = word.lower()
            if option is None:
                report.error(self.name, word, self.rule)
                continue
            known = option.name in report.columns
            report.columns[option.name] = column
            value = option.read(word, words, report)
            if option.repeats:
                if value is not BAD and out[option.name] is not BAD:
                    if value in out[option.name]:
                        report.error(option.name, word, "must not repeat a value")
                    value = out[option.name] + (value,)
            elif known:
                report.error(
                    option.name,
                    word,
                    "cannot be combined with another of these options, or be repeated"
                    if isinstance(option, Choice)
                    else "must not be repeated",
                    column=column,
                )
            out[option.name] = value
            report.columns[option.name] = column
            self._check_kernel(report, option, word)

    def _check_count(self, report: LineReport, count: int, value: object) -> None:
        limits = kernels.COUNTS.get((report.target or "", self.name))
        if limits:
            takes = [kernel for kernel in kernels.KERNELS if count <= limits[kernel]]
            report.need(
                takes,
                self.path,
                value,
                f"at most {max(limits.values())}" if not takes else f"more than {min(limits.values())} words",
            )
        elif self.high is not None and count > self.high:
            report.error(self.path, value, f"at most {self.high}")

    def _check_kernel(self, report: LineReport, option: Option, value: Any) -> None:
        word = value if isinstance(option, Choice) else option.word
        takes = kernels.OPTIONS.get((report.target or "", word))
        if takes is not None:
            report.need(takes, option.name, word, "is not an option of this kernel")

    def _words(self, out: dict[str, Any]) -> int:
        """The number of words of the options in ``out``."""
        return sum(
            len(option.show(out[option.name]))
            for option in self.options
            if not option.absent(out[option.name])
        )

    def load(self, plain: Any, out: dict[str, Any], report: LineReport) -> Any:
        failed = False
        for option in self.options:
            value = plain.get(option.name)
            if value is None:
                out[option.name] = option.default
                continue
            out[option.name] = option.load(value, report)
            failed = failed or out[option.name] is BAD
            if out[option.name] is not BAD and not option.absent(out[option.name]):
                self._check_kernel(report, option, out[option.name])
        if not failed:
            count = self._words(out)
            self._check_count(report, count, count)

    def show(self, target: Any) -> Any:
        words = []
        for option in self.options:
            value = getattr(target, option.name)
            if not option.absent(value):
                words.extend(option.show(value))
        return [str(len(words))] + words if words or self.show_zero else []

    def dump(self, target: Any, out: dict[str, Any]) -> Any:
        for option in self.options:
            value = getattr(target, option.name)
            if not option.absent(value):
                out[option.name] = option.dump(value)

    def fields(self, target: Any) -> Iterable[FieldValue]:
        result: list[FieldValue] = []
        for option in self.options:
            value = getattr(target, option.name)
            if not option.absent(value):
                result.extend(option.fields(value))
        return result

    def rebuild(self, target: Any, change: Change) -> dict[str, Any]:
        result = {}
        for option in self.options:
            value = getattr(target, option.name)
            if not option.absent(value):
                result[option.name] = option.rebuild(value, change)
        return result


class Pairs(Options):
    """Options up to the end of the line, without a count."""

    def __init__(self, options: Iterable[Option], fold: bool = True) -> None:
        super().__init__(options, fold=fold)

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        for option in self.options:
            out[option.name] = option.default
        self.read_words(words, out)

    def _check_count(self, report: LineReport, count: int, value: object) -> None:
        pass

    def show(self, target: Any) -> Any:
        return super().show(target)[1:]


class Texts(Item):
    """``#n word ...``: a count and that many words, which are not interpreted; the attribute is a tuple."""

    def __init__(self, name: str, high: int = 1024) -> None:
        self.name = name
        self.names = (name,)
        self.number = Number(f"#{name}", high=high)
        self.rule = f"a list of at most {high} words of printable ASCII"
        self.high = high

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        count = read_field(self.number, words, f"#{self.name}")
        if count is not BAD and count > words.left():
            words.report.error(
                f"#{self.name}", str(count), f"the number of words that follow; there are {words.left()}"
            )
            count = BAD
        if count is BAD:
            words.at = words.stop
            out[self.name] = BAD
            return
        out[self.name] = tuple(words.take(f"{self.name}[{index}]") for index in range(count))

    def load(self, plain: Any, out: dict[str, Any], report: LineReport) -> Any:
        value = plain.get(self.name)
        value = [] if value is None else value
        good = isinstance(value, (list, tuple)) and len(value) <= self.high
        if good:
            value = [
                str(word) if isinstance(word, int) and not isinstance(word, bool) else word for word in value
            ]
            good = all(
                isinstance(word, str) and word and word.isascii() and word.isprintable() for word in value
            )
        if not good:
            report.error(self.name, value, self.rule)
        out[self.name] = tuple(value) if good else BAD

    def show(self, target: Any) -> Any:
        value = getattr(target, self.name)
        return [str(len(value))] + list(value)

    def dump(self, target: Any, out: dict[str, Any]) -> Any:
        if getattr(target, self.name):
            out[self.name] = list(getattr(target, self.name))

    def rebuild(self, target: Any, change: Change) -> dict[str, Any]:
        return {}


class Fixed(Item):
    """A constant word, such as the number of optional arguments of a target that has none."""

    def __init__(self, name: str, word: str) -> None:
        self.word = word
        self.label = name

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        word = words.take(self.label)
        if word is None:
            words.missing(self.label, f"always {self.word}")
        elif word != self.word:
            words.report.error(self.label, word, f"always {self.word}")

    def load(self, plain: Any, out: dict[str, Any], report: LineReport) -> Any:
        pass

    def show(self, target: Any) -> Any:
        return [self.word]

    def dump(self, target: Any, out: dict[str, Any]) -> Any:
        pass

    def rebuild(self, target: Any, change: Change) -> dict[str, Any]:
        return {}


def items(layout: Iterable[Any]) -> tuple[Item, ...]:
    """
    The layout with plain fields wrapped in Positional. Options that are not the last item get ``last`` False.
    """
    result = tuple(Positional(part) if isinstance(part, Field) else part for part in layout)
    for part in result[:-1]:
        if isinstance(part, Options):
            part.last = False
    return result


__all__ = (
    "BAD",
    "REQUIRED",
    "Choice",
    "Colon",
    "CountOf",
    "Fixed",
    "Flag",
    "Group",
    "Item",
    "Many",
    "Option",
    "Options",
    "Pair",
    "Pairs",
    "Positional",
    "Repeat",
    "Several",
    "Texts",
    "Words",
    "items",
    "load_field",
    "read_field",
)
