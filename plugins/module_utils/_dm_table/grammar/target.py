# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The base class of all target types.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A type is a class with a ``TYPE``, a ``LAYOUT`` (see ``_dm_table.grammar.layout``) and the checks that involve
several fields. Instances are immutable, with ``start`` and ``length`` in sectors and one attribute per field.
An absent option is None, or False if it is a flag.
"""

from __future__ import annotations

from .fields import BAD, REQUIRED
from .layout import Options, Words, items
from .slot import Slot
from .text import HIDDEN, join_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TypeVar

    from .context import Facts
    from .fields import Change, Field, FieldValue
    from .layout import Item
    from .report import LineReport

    Self = TypeVar("Self", bound="Target")
    # An alias, since Target has a property named type.
    Class = type[Self]

_set = object.__setattr__


class TargetType(type):
    """Creates ``__slots__`` from the layout's fields."""

    def __new__(mcs, name: str, bases: tuple[Any, ...], namespace: dict[str, Any]) -> Any:
        layout = namespace.get("LAYOUT")
        if layout is None:
            namespace.setdefault("__slots__", ())
        else:
            parts = items(layout)
            names: list[str] = []
            defaults: dict[str, Any] = {}
            part: Any
            for part in parts:
                for field in part.names:
                    names.append(field)
                if isinstance(part, Options):
                    defaults.update((option.name, option.default) for option in part.options)
                elif hasattr(part, "field") and not part.field.required:
                    defaults[part.field.name] = part.field.default
                elif getattr(part, "optional", False):
                    defaults[part.name] = None
            clash = [name for base in bases for name in names if hasattr(base, name)]
            if clash:
                raise TypeError(f"fields cannot be called {', '.join(clash)}")
            namespace["ITEMS"] = parts
            namespace["NAMES"] = tuple(names)
            namespace["DEFAULTS"] = defaults
            namespace["__slots__"] = tuple(names)
        return super().__new__(mcs, name, bases, namespace)


class Target(metaclass=TargetType):
    """
    One line of a table. ``TYPE`` is the kernel's name of the target type.

    The constructor checks only that no field is missing; ``Table.validate`` checks the values.
    """

    __slots__ = ("start", "length")

    start: int
    length: int

    if TYPE_CHECKING:
        # One attribute per field of the layout.
        def __getattr__(self, name: str) -> Any: ...

    TYPE: str = ""
    ITEMS: tuple[Item, ...] = ()
    NAMES: tuple[str, ...] = ()
    DEFAULTS: dict[str, Any] = {}
    # Names of the device fields for which ``owns`` is true.
    OWN: tuple[str, ...] = ()
    # {name: field} of the fields with secrets, and names of positional fields that are public but may have as
    # many hex digits as a key.
    SECRETS: dict[str, Field] = {}
    PUBLIC_HEX: tuple[str, ...] = ()
    # The source of the grammar, for readers of the code.
    SOURCE = None

    def __init__(self, start: Any, length: Any, **values: Any) -> None:
        _set(self, "start", start)
        _set(self, "length", length)
        for name in self.NAMES:
            value = values.pop(name, self.DEFAULTS.get(name, REQUIRED))
            if value is REQUIRED:
                raise TypeError(f"{self.TYPE}: {name} is missing")
            _set(self, name, value)
        if values:
            raise TypeError(f"{self.TYPE}: no such field: {', '.join(sorted(values))}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _restore,
            (type(self), self.start, self.length, {name: getattr(self, name) for name in self.NAMES}),
        )

    @property
    def type(self) -> str:
        return self.TYPE

    @property
    def end(self) -> int:
        """The sector after the last one."""
        return self.start + self.length

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (
            self.start == other.start
            and self.length == other.length
            and all(getattr(self, name) == getattr(other, name) for name in self.NAMES)
        )

    def __hash__(self) -> int:
        return hash((self.TYPE, self.start, self.length))

    def __repr__(self) -> str:
        shown = self.map_values(_show)
        fields = "".join(
            f", {name}={getattr(shown, name)!r}"
            for name in self.NAMES
            if getattr(shown, name) != self.DEFAULTS.get(name, REQUIRED)
        )
        return f"{type(self).__name__}({self.start}, {self.length}{fields})"

    def replace(self: Self, **changes: Any) -> Self:
        """A copy with other values."""
        values = {name: getattr(self, name) for name in self.NAMES}
        start = changes.pop("start", self.start)
        length = changes.pop("length", self.length)
        values.update(changes)
        return type(self)(start, length, **values)

    # Reading

    @classmethod
    def from_words(
        cls: Class[Self],
        start: Any,
        length: Any,
        words: Sequence[str],
        columns: Sequence[int],
        end: int,
        report: LineReport,
    ) -> Self | None:
        """A target from the words of a line, or None after reporting errors."""
        stream = Words(words, columns, end, report)
        out: dict[str, Any] = {}
        for part in cls.ITEMS:
            part.read(stream, out)
        if stream.left() and not report.failed:
            report.error(
                "parameters",
                stream.peek(),
                "is not a parameter: this target takes no more words",
                column=stream.column(),
            )
        return cls._finish(start, length, out, report)

    @classmethod
    def from_dict(
        cls: Class[Self], start: Any, length: Any, plain: dict[str, Any], report: LineReport
    ) -> Self | None:
        """A target from its fields in structured form, or None after reporting errors."""
        for key in plain:
            if key not in cls.NAMES:
                report.error(
                    str(key), None, f"is not a field; fields of {cls.TYPE}: {', '.join(cls.NAMES) or 'none'}"
                )
        out: dict[str, Any] = {}
        for part in cls.ITEMS:
            part.load(plain, out, report)
        return cls._finish(start, length, out, report)

    @classmethod
    def _finish(
        cls: Class[Self], start: Any, length: Any, out: dict[str, Any], report: LineReport
    ) -> Self | None:
        if report.failed or start is BAD or length is BAD or BAD in out.values():
            return None
        target = cls(start, length, **{name: out[name] for name in cls.NAMES})
        target.check(report)
        return target

    def check(self, report: LineReport) -> None:
        """Report errors that involve several fields."""

    # Writing

    def words(self) -> list[str]:
        """The words of the parameters, without escapes."""
        words = []
        for part in self.ITEMS:
            words.extend(part.show(self))
        return words

    def params(self) -> str:
        """The parameters as written in a line. They contain plain keys: see ``_dm_table.redact``."""
        return join_words(self.words())

    def line(self) -> str:
        """
        ``start length type params``, as dmsetup prints it. Contains plain keys: see ``_dm_table.redact``.
        """
        params = self.params()
        head = f"{self.start} {self.length} {self.TYPE}"
        return f"{head} {params}" if params else head

    def to_dict(self) -> dict[str, Any]:
        """
        The structured form as plain data, without absent fields. Contains plain keys: see
        ``_dm_table.redact``.
        """
        out = {"start": self.start, "length": self.length, "target": self.TYPE}
        for part in self.ITEMS:
            part.dump(self, out)
        return out

    # Fields

    def fields(self) -> list[FieldValue]:
        """``(path, field, value)`` of every field that is present."""
        result: list[FieldValue] = []
        for part in self.ITEMS:
            result.extend(part.fields(self))
        return result

    def map_values(self: Self, change: Change) -> Self:
        """A copy with every value replaced by ``change(path, field, value)``."""
        changes = {}
        for part in self.ITEMS:
            changes.update(part.rebuild(self, change))
        return self.replace(**changes) if changes else self

    # Secrets

    @classmethod
    def secret_fields(cls) -> tuple[str, ...]:
        """The names of the fields with secrets."""
        return tuple(cls.SECRETS)

    @classmethod
    def secret_words(cls, words: Sequence[str]) -> Iterable[tuple[int, int]]:
        """
        ``(index, number of characters before the secret)`` for the words of a line's parameters that contain
        a secret, also in an invalid line.
        """
        return ()

    @classmethod
    def public_words(cls) -> tuple[int, ...]:
        """
        The indexes of the words of a line's parameters that are public but may have as many hex digits as a
        key.
        """
        return tuple(cls.NAMES.index(name) for name in cls.PUBLIC_HEX)

    # Devices

    def devices(self, facts: Facts | None = None, read_only: bool | None = False) -> list[Slot]:
        """
        The device slots in order. ``facts`` (``{path of the field: DeviceFacts}``) allows for areas that
        depend on a device's size. In a ``read_only`` table the kernel opens all devices for reading only,
        except those for which the target type sets the mode.
        """
        areas = self.areas(facts or {})
        return [
            Slot(
                path,
                value,
                self.access(path, field) or ("r" if read_only else "rw"),
                areas.get(path),
                self.owns(path),
            )
            for path, field, value in self.fields()
            if field.is_device
        ]

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        """
        The areas that the kernel checks (``iterate_devices``): {path of the field: (offset, length)} in
        sectors.
        """
        return {}

    def access(self, path: str, field: Field) -> str | None:
        """
        The mode in which the kernel opens a slot regardless of the table's mode: "r", "rw", "w" or None.
        """
        return field.access

    def owns(self, path: str) -> bool:
        """Whether the target keeps its own records on a slot's device, starting at the first sector."""
        return path.rpartition(".")[2] in self.OWN

    def logical_block(self) -> int:
        """The logical block size in bytes that the target itself requires (``io_hints``)."""
        return 512

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        """Report errors of the devices. ``facts`` maps paths of fields to ``DeviceFacts`` or None."""

    # Comparing

    def canonical(self: Self) -> Self:
        """The same target as the kernel prints it back."""

        def change(path: str, field: Field, value: Any) -> Any:
            if value == field.implied:
                return None
            return field.canonical(value)

        return self.map_values(change)

    def same_field(self, path: str, mine: Any, theirs: Any) -> bool | None:
        """
        Whether two different canonical values of a field may be equivalent: True, False, or None if the
        kernel hides one of them.
        """
        return False


def _show(path: str, field: Field, value: Any) -> Any:
    """The value for ``repr``. A source may contain a table with keys, so it is not shown."""
    if field.is_device:
        return value if isinstance(value, str) else "{...}"
    return field.redact(value)


def _restore(kind: Any, start: Any, length: Any, values: dict[str, Any]) -> Any:
    return kind(start, length, **values)


def must_differ(facts: Facts, first: str, second: str, report: LineReport) -> None:
    """Report an error if two slots are the same device."""
    one, other = facts.get(first), facts.get(second)
    if one is not None and other is not None and one.number == other.number:
        report.error(second, f"{other.major}:{other.minor}", f"a different device from {first}")


__all__ = ("HIDDEN", "Target", "must_differ")
