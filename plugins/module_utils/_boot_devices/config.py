# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The list of the devices, read from a file that the role writes.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``{"timeout": 30, "devices": [{"name": "scratch", "source": {...}}]}``; ``source`` as for
``_source.spec.parse``.
"""

from __future__ import annotations

import json

from .. import _dm_table
from .._base.errors import BlockError, DefinitionError, InvalidValue, KernelError
from .._base.record import Record
from .._block import trusted_file
from .._source import recipe, spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any

    from .._source.spec import Source

PATH = "/etc/racefree-block/boot-devices.json"
_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_LETTERS = _FIRST | frozenset("._+-")
_LONGEST_NAME = 64
_MOST_DEVICES = 10000
_MOST_BYTES = 2**26
_LONGEST_TIMEOUT = 600
TIMEOUT = 30
_AGAIN = "Apply the role racefree.block.boot_devices again"


class Entry(Record):
    """
    One device. ``source``: a mapped device always has a name and a UUID. ``text``: equal sources have equal
    texts, whatever is only checked, such as the time of a file.
    """

    name: str
    source: Source
    text: str


class Config(Record):
    """
    ``entries`` in their order. ``wrong``: the errors of those that are not valid, by their name or their
    place in the list; they are not among the entries. ``timeout``: how many seconds to wait at boot for disks
    and files below the devices.
    """

    entries: tuple[Entry, ...]
    wrong: dict[str, BlockError]
    timeout: int


def read() -> Config:
    """
    Read the list. DefinitionError if it is not one, or if somebody other than root can change it;
    KernelError.
    """
    try:
        text = trusted_file.read(PATH, _MOST_BYTES, f"Find out who did that. {_AGAIN}")
    except OSError as error:
        raise KernelError.from_oserror(error, "read the list of devices", PATH, hint=_AGAIN) from error
    return parse(text, PATH)


def parse(text: str, path: str) -> Config:
    """The Config from the text of the list. DefinitionError for text that is not one."""
    try:
        found = json.loads(text)
        devices = found.get("devices") if isinstance(found, dict) else None
        if not isinstance(devices, list) or len(devices) > _MOST_DEVICES:
            raise ValueError(f"it must be a dictionary with a list of at most {_MOST_DEVICES} devices")
        timeout = found.get("timeout", TIMEOUT)
        if isinstance(timeout, bool) or not isinstance(timeout, int) or not 0 <= timeout <= _LONGEST_TIMEOUT:
            raise ValueError(f"timeout must be a number of seconds from 0 to {_LONGEST_TIMEOUT}")
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"the list cannot be read: {error}", device=path, hint=_AGAIN) from error
    return _of_list(devices, timeout)


def _of_list(devices: list[Any], timeout: int) -> Config:
    entries: dict[str, Entry] = {}
    wrong: dict[str, BlockError] = {}
    for index, plain in enumerate(devices):
        title = f"devices[{index}]"
        try:
            title = check_name(plain, title)
            entry = _entry(plain)
            if title in entries or title in wrong:
                raise InvalidValue("name", title, "is the name of two devices in the list")
            same = [other.name for other in entries.values() if _is_same(other, entry)]
            if same:
                raise InvalidValue("source", _shown(entry), f"{title} is the same device as {same[0]}")
            entries[title] = entry
        except BlockError as error:
            wrong[title] = error
            entries.pop(title, None)
    return Config(tuple(entries.values()), wrong, timeout)


def check_name(plain: Any, title: str) -> str:
    """The name of an entry; InvalidValue for one that cannot be part of a file's and a device's name."""
    if not isinstance(plain, dict):
        raise InvalidValue(title, plain, "must be a dictionary with name and source")
    name = plain.get("name")
    if (
        not isinstance(name, str)
        or not 1 <= len(name) <= _LONGEST_NAME
        or not _LETTERS.issuperset(name)
        or name[0] not in _FIRST
    ):
        wrong = f"must be 1 to {_LONGEST_NAME} characters A-Z a-z 0-9 . _ + -, the first a letter or digit"
        raise InvalidValue(f"{title}.name", name, wrong)
    return name


def _entry(plain: dict[str, Any]) -> Entry:
    """
    The Entry. InvalidValue, and TableError, for a source that is not valid, or that can be another device
    after the next boot.
    """
    name = plain["name"]
    unknown = ", ".join(sorted(set(plain) - {"name", "source"}))
    if unknown:
        raise InvalidValue(name, unknown, "is not an option of a device; the options are name and source")
    source = spec.parse(plain.get("source"), f"{name}.source")
    if recipe.boot_of(source):
        raise InvalidValue(
            f"{name}.source",
            str(source),
            "is valid in one boot only: leave out its disk sequence number",
        )
    if isinstance(source, spec.TableSource):
        source = source._replace(name=source.name or name, uuid=source.uuid or f"RACEFREE-BOOT-{name}")
    recipe.check(source, f"{name}.source")
    return Entry(name, source, recipe.text_of(recipe.without_guards(source)))


def _is_same(one: Entry, other: Entry) -> bool:
    """Whether the sources name the same device, with the same settings or not."""
    first, second = one.source, other.source
    if isinstance(first, spec.FileSource) and isinstance(second, spec.FileSource):
        return _area(first) == _area(second)
    if isinstance(first, spec.TableSource) and isinstance(second, spec.TableSource):
        return first.name == second.name or first.uuid == second.uuid
    return first == second


def _area(source: spec.FileSource) -> tuple[str, int, int, int | None]:
    return source.file, source.offset, source.size, source.partition


def _shown(entry: Entry) -> str:
    """A source without its table, which may contain keys."""
    return str(entry.source)


def files_of(source: Source) -> list[str]:
    """The paths of all files that the source and the devices below it are on."""
    if isinstance(source, spec.FileSource):
        return [source.file]
    if isinstance(source, spec.TableSource):
        slots = _dm_table.parse_table(source.table).devices(source.read_only)
        return [path for dummy, slot in slots for path in files_of(spec.parse_slot(slot))]
    return []
