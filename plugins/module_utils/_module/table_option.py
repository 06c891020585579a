# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The option ``table`` as lines.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any

from .._base.errors import InvalidValue


def table_lines(value: Any) -> list[str | dict[str, Any]]:
    """A table option as a list: text is cut into lines, also inside a list."""
    rows = value if isinstance(value, list) else [value]
    result: list[str | dict[str, Any]] = []
    for row in rows:
        if isinstance(row, dict):
            result.append(row)
        elif isinstance(row, str):
            result.extend(row.splitlines())
        else:
            raise InvalidValue(
                "table",
                # It may hold a key, for example in a list inside the list.
                "(not shown)",
                "must be text lines as for dmsetup, or dictionaries with start, length and target",
            )
    return result
