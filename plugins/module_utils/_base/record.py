# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Tuples with named fields, for the floors that Xen's hotplug script stands on.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The same as ``typing.NamedTuple`` for what is used of it. Importing typing, and re and enum with it, takes as
long as starting Python does, and Xen starts the script twice for every disk.
"""

from __future__ import annotations

from _operator import itemgetter  # the module operator adds a file to be found and read

__all__ = ("Record",)

TYPE_CHECKING = False
if TYPE_CHECKING:
    # For a type checker a Record is a NamedTuple, whose fields it knows.
    from typing import Any
    from typing import NamedTuple as Record
else:

    class Record(tuple):
        """
        Base for a class whose annotated names are its fields, in order; what is assigned to a name in the
        class is its default.

        TypeError when a field is missing, given twice or unknown.
        """

        __slots__ = ()
        # From a tuple of all fields, unchecked; for what is made by the thousand.
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
            """Another one with these fields changed."""
            return type(self)(**dict(self._asdict(), **changes))

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self))


def _take(cls: Any, name: str, named: dict[str, Any]) -> Any:
    if name in named:
        return named.pop(name)
    if name in cls._defaults:
        return cls._defaults[name]
    raise TypeError(f"{cls.__name__}: the field {name} is missing")
