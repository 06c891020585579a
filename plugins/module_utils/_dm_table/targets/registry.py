# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Map target type names to classes.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A type is imported when a table first names it, as most tables need only one or two types. The imports are
written out so that Ansible's module packaging finds them.
"""

from __future__ import annotations

from collections.abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Callable

    from ..grammar.target import Target


def _cache() -> type[Target]:
    from .cache import Cache

    return Cache


def _clone() -> type[Target]:
    from .clone import Clone

    return Clone


def _crypt() -> type[Target]:
    from .crypt import Crypt

    return Crypt


def _delay() -> type[Target]:
    from .delay import Delay

    return Delay


def _dust() -> type[Target]:
    from .dust import Dust

    return Dust


def _ebs() -> type[Target]:
    from .ebs import Ebs

    return Ebs


def _era() -> type[Target]:
    from .era import Era

    return Era


def _error() -> type[Target]:
    from .error import Error

    return Error


def _flakey() -> type[Target]:
    from .flakey import Flakey

    return Flakey


def _integrity() -> type[Target]:
    from .integrity import Integrity

    return Integrity


def _linear() -> type[Target]:
    from .linear import Linear

    return Linear


def _log_writes() -> type[Target]:
    from .log_writes import LogWrites

    return LogWrites


def _mirror() -> type[Target]:
    from .mirror import Mirror

    return Mirror


def _multipath() -> type[Target]:
    from .multipath import Multipath

    return Multipath


def _raid() -> type[Target]:
    from .raid import Raid

    return Raid


def _snapshot() -> type[Target]:
    from .snapshot import Snapshot

    return Snapshot


def _snapshot_merge() -> type[Target]:
    from .snapshot_merge import SnapshotMerge

    return SnapshotMerge


def _snapshot_origin() -> type[Target]:
    from .snapshot_origin import SnapshotOrigin

    return SnapshotOrigin


def _striped() -> type[Target]:
    from .striped import Striped

    return Striped


def _switch() -> type[Target]:
    from .switch import Switch

    return Switch


def _thin() -> type[Target]:
    from .thin import Thin

    return Thin


def _thin_pool() -> type[Target]:
    from .thin_pool import ThinPool

    return ThinPool


def _unstriped() -> type[Target]:
    from .unstriped import Unstriped

    return Unstriped


def _vdo() -> type[Target]:
    from .vdo import Vdo

    return Vdo


def _verity() -> type[Target]:
    from .verity import Verity

    return Verity


def _writecache() -> type[Target]:
    from .writecache import Writecache

    return Writecache


def _zero() -> type[Target]:
    from .zero import Zero

    return Zero


def _zoned() -> type[Target]:
    from .zoned import Zoned

    return Zoned


class _Targets(Mapping):  # type: ignore[type-arg]  # its arguments cost an import
    """The target types by name. A class is imported on first use."""

    def __init__(self, makers: dict[str, Callable[[], type[Target]]]) -> None:
        self._makers = makers
        self._classes: dict[str, type[Target]] = {}

    def __getitem__(self, name: str) -> type[Target]:
        kind = self._classes.get(name)
        if kind is None:
            kind = self._classes[name] = self._makers[name]()
        return kind

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __contains__(self, name: object) -> bool:
        return name in self._makers


TARGETS = _Targets(
    {
        "cache": _cache,
        "clone": _clone,
        "crypt": _crypt,
        "delay": _delay,
        "dust": _dust,
        "ebs": _ebs,
        "era": _era,
        "error": _error,
        "flakey": _flakey,
        "integrity": _integrity,
        "linear": _linear,
        "log-writes": _log_writes,
        "mirror": _mirror,
        "multipath": _multipath,
        "raid": _raid,
        "snapshot": _snapshot,
        "snapshot-merge": _snapshot_merge,
        "snapshot-origin": _snapshot_origin,
        "striped": _striped,
        "switch": _switch,
        "thin": _thin,
        "thin-pool": _thin_pool,
        "unstriped": _unstriped,
        "vdo": _vdo,
        "verity": _verity,
        "writecache": _writecache,
        "zero": _zero,
        "zoned": _zoned,
    }
)
