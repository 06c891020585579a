# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Recipes: sources that are kept in a domain definition, and are still correct after the next boot.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A recipe is JSON in ASCII on one line, so that rewriting the XML around it cannot change it. It contains no
secrets, because many users can read a definition. It does not depend on disk sequence numbers of one boot,
because a definition outlives the boot.
"""

from __future__ import annotations

import functools
import json
import os

from .. import _dm_table
from .._base.errors import DefinitionError, InvalidValue
from .._base.record import Record
from .._dm import live_table
from . import spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .spec import Source


MOST_CHARACTERS = 65536
_FIRST_COMER = (
    "cannot be kept: the kernel gives this name to whichever device comes first: give the file, the table, "
    "or a path in /dev/mapper with its uuid"
)
_EVERY_BOOT = (
    "cannot be kept: numbers start again with every boot, and a definition outlives it: give the file, the "
    "table, or the path with its uuid; or the boot_id beside it, "
    "for a guest that must not start after this boot"
)
_PASSING = {
    "/dev/loop": _FIRST_COMER,
    "/dev/dm-": _FIRST_COMER,
    "/dev/block/": _FIRST_COMER,
    "/dev/disk/by-diskseq/": _EVERY_BOOT,
    "/dev/racefree/link/disk/by-diskseq/": _EVERY_BOOT,
}
# The role block_names serves udev's links there, too.
_SERVED = "/dev/racefree/link/"
# Fields of a file that are only checked, and do not select which file is meant.
_GUARDS: dict[str, Any] = {"mtime_ns": None, "format": None, "overlap": False, "trusted_path": False}
# Links named after a hardware ID or a location. Labels and UUIDs do not last: anyone who writes to the disk,
# such as a guest, can change them.
_LASTING = ("/dev/disk/by-id/", "/dev/disk/by-path/")


class Seal(Record):
    """
    Whether the guest's disk is ``sealed`` while the guest has it, and ``sealed_below`` the loop and mapped
    devices below it too. Kept in the recipe beside the source.
    """

    sealed: bool = False
    sealed_below: bool = False

    def with_options(self, sealed: bool | None, sealed_below: bool | None) -> Seal:
        """As the options say, and otherwise as it is here. Without ``sealed`` there is nothing below."""
        is_sealed = self.sealed if sealed is None else sealed
        return Seal(is_sealed, is_sealed and (self.sealed_below if sealed_below is None else sealed_below))


def check(source: Source, option: str = "source") -> None:
    """
    Raise InvalidValue for a source (of ``_source.spec.parse``) that names nothing, or another device, after
    the next boot.
    """
    if (
        isinstance(source, spec.NumberSource)
        or isinstance(source, spec.DiskseqSource)
        and source.boot_id is None
    ):
        raise InvalidValue(option, str(source), _EVERY_BOOT)
    if isinstance(source, spec.PathSource):
        _check_path(source, option)
    elif isinstance(source, spec.TableSource):
        _check_table(source, option)


def boot_of(source: Source) -> str | None:
    """
    The boot_id to which the source, or a device in its table, is bound; None if it is valid after the next
    boot.
    """
    if isinstance(source, spec.TableSource):
        slots = _dm_table.parse_table(source.table).devices(source.read_only)
        return next(filter(None, (boot_of(spec.parse_slot(slot)) for dummy, slot in slots)), None)
    return getattr(source, "boot_id", None)


def doubt(path: str, is_mapped: bool, uuid: str | None) -> str | None:
    """
    A warning about a path that may lead to another device after the next boot, or None. ``uuid``: of the
    mapped device, as kept with the path.
    """
    plain = _plain(path)
    link = "/dev/" + plain[len(_SERVED) :] if plain.startswith(_SERVED) else plain
    if uuid or not is_mapped and link.startswith(_LASTING):
        return None
    advice = "give its uuid too, or make it with a uuid" if is_mapped else "use its path in /dev/disk/by-id"
    return f"{path} can name another disk after the next boot, and no uuid is kept to detect that: {advice}"


def text_of(source: Source, seal: Seal | None = None) -> str:
    """
    The text of the recipe; equal sources with equal seals have equal texts. InvalidValue if it is too long,
    or cannot be kept (:func:`check`).
    """
    check(source)
    parts = dict(source._asdict(), **({} if seal is None else seal._asdict()))
    plain = {key: value for key, value in parts.items() if value not in (None, False, 0)}
    text = json.dumps(plain, sort_keys=True, ensure_ascii=True)
    if len(text) > MOST_CHARACTERS:
        raise InvalidValue(
            "source",
            text[:100] + "...",
            f"is too long: a recipe in a definition has {MOST_CHARACTERS} characters at most",
        )
    return text


def without_guards(source: Source) -> Source:
    """The source without the fields that are only checked, which do not change which storage is meant."""
    if isinstance(source, spec.FileSource):
        return source._replace(**_GUARDS)
    if isinstance(source, spec.TableSource):
        return source._replace(table=_without_guards(source.table))
    return source


def cut_of(kept: Source, wanted: Source) -> int | None:
    """
    The length in sectors of the disk ``kept``, if ``wanted`` is the same snapshot or thin volume (encrypted
    or not) but shorter; otherwise None.

    The length of such a disk is recorded nowhere else, and the guest could not reach the data behind the new
    end any more.
    """
    if (
        not isinstance(kept, spec.TableSource)
        or not isinstance(wanted, spec.TableSource)
        or _storage(kept) is None
    ):
        return None
    length = _dm_table.parse_table(kept.table).length
    return (
        length
        if _storage(kept) == _storage(wanted) and _dm_table.parse_table(wanted.table).length < length
        else None
    )


def _storage(source: Source) -> tuple[object, ...] | None:
    """
    What identifies the storage: the COW device of a snapshot, or the pool and number of a thin volume. None
    for other sources.
    """
    if not isinstance(source, spec.TableSource):
        return None
    targets = _dm_table.parse_table(source.table).targets
    if len(targets) != 1:
        return None
    slots = {slot.field: without_guards(spec.parse_slot(slot)) for slot in targets[0].devices()}
    if targets[0].TYPE == "snapshot":
        return "snapshot", slots["cow"]
    if targets[0].TYPE == "thin":
        # The pool's length is not compared, because a pool may grow.
        pool = slots["pool"]
        return "thin", getattr(pool, "uuid", None) or str(pool), targets[0].id
    return _storage(slots["device"]) if targets[0].TYPE == "crypt" else None


def _without_guards(plain: Any) -> Any:
    if isinstance(plain, dict):
        unchecked = _GUARDS if "file" in plain else ()
        return {key: _without_guards(value) for key, value in plain.items() if key not in unchecked}
    return [_without_guards(part) for part in plain] if isinstance(plain, list) else plain


def parse(text: str, target: str = "source") -> Source:
    """
    The source from the text of a recipe. DefinitionError for text that this collection cannot have written.
    """
    return _parse(text, target)[0]


def seal_of(text: str, target: str = "source") -> Seal:
    """The Seal from the text of a recipe. DefinitionError as for :func:`parse`."""
    return _parse(text, target)[1]


@functools.lru_cache(maxsize=16)
def _parse(text: str, target: str) -> tuple[Source, Seal]:
    if len(text) > MOST_CHARACTERS:
        raise DefinitionError(f"the recipe has more than {MOST_CHARACTERS} characters", device=target)
    try:
        plain = json.loads(text, parse_constant=_no_constant)
        if not isinstance(plain, dict):
            raise ValueError("it is not an object")
        seal = Seal(*(_flag(plain.pop(name, False), name) for name in Seal._fields))
        source = spec.parse(plain, option=f"recipe of {target}")
        check(source, option=f"recipe of {target}")
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"the recipe cannot be read: {error}", device=target) from error
    return source, seal


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is neither true nor false")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _plain(path: str) -> str:
    # normpath keeps two leading slashes, as POSIX requires.
    return "/" + os.path.normpath(path).lstrip("/")


def _check_path(source: spec.PathSource, option: str) -> None:
    if source.boot_id is not None:
        # The boot_id protects it: opening the path fails unless it leads to this device.
        return
    if source.diskseq is not None:
        allowed = (
            "cannot be kept: numbers start again with every boot, and a definition outlives it: "
            "give the uuid instead, or the boot_id beside the number"
        )
        raise InvalidValue(f"{option}.diskseq", source.diskseq, allowed)
    path = _plain(source.path)
    for start, allowed in _PASSING.items():
        if path.startswith(start):
            raise InvalidValue(option, source.path, allowed)


def _check_table(source: spec.TableSource, option: str) -> None:
    table = _dm_table.parse_table(source.table)
    for dummy, slot in table.devices(source.read_only):
        check(spec.parse_slot(slot), option=f"{option}.table {slot.field}")
    if live_table.has_secrets(table):
        allowed = (
            "must hold no key: a definition can be read by many users. Name a key of the kernel's keyring "
            "(:SIZE:TYPE:DESCRIPTION)"
        )
        raise InvalidValue(f"{option}.table", "(not shown)", allowed)
