# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Which module has which target type.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A type is imported when a table first names it: most tables need one or two of them. The imports are written out so that what packs a module can see them.
"""

from __future__ import annotations

from collections.abc import Mapping


def _cache():
    from .cache import Cache

    return Cache


def _clone():
    from .clone import Clone

    return Clone


def _crypt():
    from .crypt import Crypt

    return Crypt


def _delay():
    from .delay import Delay

    return Delay


def _dust():
    from .dust import Dust

    return Dust


def _ebs():
    from .ebs import Ebs

    return Ebs


def _era():
    from .era import Era

    return Era


def _error():
    from .error import Error

    return Error


def _flakey():
    from .flakey import Flakey

    return Flakey


def _integrity():
    from .integrity import Integrity

    return Integrity


def _linear():
    from .linear import Linear

    return Linear


def _log_writes():
    from .log_writes import LogWrites

    return LogWrites


def _mirror():
    from .mirror import Mirror

    return Mirror


def _multipath():
    from .multipath import Multipath

    return Multipath


def _raid():
    from .raid import Raid

    return Raid


def _snapshot():
    from .snapshot import Snapshot

    return Snapshot


def _snapshot_merge():
    from .snapshot_merge import SnapshotMerge

    return SnapshotMerge


def _snapshot_origin():
    from .snapshot_origin import SnapshotOrigin

    return SnapshotOrigin


def _striped():
    from .striped import Striped

    return Striped


def _switch():
    from .switch import Switch

    return Switch


def _thin():
    from .thin import Thin

    return Thin


def _thin_pool():
    from .thin_pool import ThinPool

    return ThinPool


def _unstriped():
    from .unstriped import Unstriped

    return Unstriped


def _vdo():
    from .vdo import Vdo

    return Vdo


def _verity():
    from .verity import Verity

    return Verity


def _writecache():
    from .writecache import Writecache

    return Writecache


def _zero():
    from .zero import Zero

    return Zero


def _zoned():
    from .zoned import Zoned

    return Zoned


class _Targets(Mapping):
    """The target types by name; a class is imported on first use."""

    def __init__(self, makers):
        self._makers = makers
        self._classes = {}

    def __getitem__(self, name):
        kind = self._classes.get(name)
        if kind is None:
            kind = self._classes[name] = self._makers[name]()
        return kind

    def __iter__(self):
        return iter(self._makers)

    def __len__(self):
        return len(self._makers)

    def __contains__(self, name):
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
