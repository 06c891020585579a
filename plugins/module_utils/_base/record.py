# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Tuples with named fields, for the modules that Xen's hotplug script imports.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A subset of ``typing.NamedTuple``. Importing typing, and with it re and enum, takes as long as starting
Python, and Xen starts the script twice for every disk.
"""

from __future__ import annotations

from _operator import itemgetter  # the module operator only adds another file to find and read

__all__ = ("Record",)

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Type checkers see a NamedTuple, whose fields they understand.
    from typing import Any
    from typing import NamedTuple as Record
else:

    class Record(tuple):
        """
        Base class of records. A subclass's annotated names are its fields, in order; a value assigned to such
        a name is the field's default.

        Raises TypeError if a field is missing, given twice or unknown.
        """

        __slots__ = ()
        # Make a record from a tuple of all fields, unchecked; for records that are created by the thousand.
        _make = classmethod(tuple.__new__)
        _fields = ()
        _defaults = {}

        def __init_subclass__(cls) -> None:
            cls._fields = tuple(cls.__annotations__)
            cls._defaults = {name: cls.__dict__[name] for name in cls._fields if name in cls.__dict__}
            for index, name in enumerate(cls._fields):
                setattr(cls, name, property(itemgetter(index)))

        def __new__(cls, *values: Any, **named: Any) -> Record:
            fields = cls._fields
            if named or len(values) != len(fields):
                values += tuple(_take(cls, name, named) for name in fields[len(values) :])
                if named or len(values) != len(fields):
                    raise TypeError(
                        f"{cls.__name__} has the fields {', '.join(fields)}; "
                        f"too much: {', '.join(named) or values[len(fields) :]}"
                    )
            return tuple.__new__(cls, values)

        def __repr__(self) -> str:
            fields = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({fields})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

        def _replace(self, **changes: Any) -> Record:
            """A copy with these fields changed."""
            return type(self)(**dict(self._asdict(), **changes))

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self))


def _take(cls: Any, name: str, named: dict[str, Any]) -> Any:
    if name in named:
        return named.pop(name)
    if name in cls._defaults:
        return cls._defaults[name]
    raise TypeError(f"{cls.__name__}: the field {name} is missing")
