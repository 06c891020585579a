# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An image of another format, as the user describes it for a disk, and the golden image that is made of it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure; runs on the controller. The module golden_image checks the values again, on the host.
"""

from __future__ import annotations

from typing import Any

from .._base.errors import InvalidValue, one_value
from .._base.record import Record
from .._base.values import boolean, check_keys, whole
from .._block.image_format import CONVERTED

_KEYS = ("path", "format", "golden", "backing", "timeout", "memory")
_OPTIONAL = ("timeout", "memory")


class Conversion(Record):
    """
    ``path`` of the image and its ``format``; ``golden``: the path of the raw image. ``more``: other options.
    """

    path: str
    format: str
    golden: str
    backing: bool
    more: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """The options for the module golden_image."""
        given = {"path": self.golden, "image": self.path, "format": self.format, "backing": self.backing}
        return dict(given, **self.more)


def conversion_of(value: Any, option: str) -> Conversion | None:
    """The Conversion, None for the path of a raw image. Raises InvalidValue."""
    if not isinstance(value, dict):
        return None
    check_keys(value, option, _KEYS)
    for key in ("path", "golden"):
        check_image_path(value.get(key), f"{option}.{key}")
    if value.get("format") not in CONVERTED:
        wrong = f"must be one of {', '.join(CONVERTED)}. It is never guessed. Give a raw image as path"
        raise InvalidValue(f"{option}.format", one_value(value.get("format")), wrong)
    more = {key: value[key] for key in _OPTIONAL if value.get(key) is not None}
    if "timeout" in more:
        more["timeout"] = whole(more["timeout"], f"{option}.timeout")
    backing = value.get("backing") is not None and boolean(value["backing"], f"{option}.backing")
    return Conversion(value["path"], value["format"], value["golden"], backing, more)


def check_image_path(path: Any, option: str) -> None:
    """InvalidValue unless it is an absolute path in one line."""
    if path is None or not str(path).startswith("/") or len(str(path).splitlines()) != 1:
        raise InvalidValue(option, one_value(path), "must be an absolute path")
