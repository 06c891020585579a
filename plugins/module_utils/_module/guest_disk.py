# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What the modules for guests' disks (``xen_vbd``, ``libvirt_disk``, ``xl_disk``) have in common.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._base.errors import InvalidValue
from .._base.values import bytes_of
from .._source import files
from .._source.spec import FileSource, TableSource

if TYPE_CHECKING:
    from .._source.spec import Source

SIZE_ARGUMENTS = {"size": {"type": "str"}}


def check_source_mode(source: Source, mode: str) -> Source:
    """
    The source as needed for a guest with this ``mode`` (``r`` or ``w``). InvalidValue for a read-only source
    and ``w``.
    """
    if isinstance(source, (FileSource, TableSource)) and source.read_only and mode == "w":
        raise InvalidValue("mode", "w", "must be r: the source is read_only")
    if isinstance(source, FileSource) and mode == "r":
        # Storage that the guest may only read is opened read-only.
        return source._replace(read_only=True)
    return source


def check_replace(params: dict[str, Any], gone: str) -> None:
    """InvalidValue if ``replace`` does not make sense; ``gone``: the state in which there is no disk."""
    if not params["replace"]:
        return
    if params["state"] == gone:
        raise InvalidValue(
            "replace",
            True,
            f"is not possible with state={gone}: the disk is removed and no other takes its place",
        )
    if params.get("force"):
        raise InvalidValue(
            "force",
            True,
            "is not possible with replace: the guest is asked to release its disk. To take it away from a "
            "guest that does not, detach it first with state=detached and force=true",
        )
    if params.get("live") is False:
        raise InvalidValue(
            "replace", True, "is possible only with live=true: only a running guest has a disk to release"
        )


def wanted_size(params: dict[str, Any], source: Source | None, gone: str) -> int:
    """
    The option ``size`` in bytes, 0 if it is not given. ``gone``: the state in which there is no disk.
    InvalidValue if it does not make sense with the other options.
    """
    given = params["size"]
    if given is None:
        return 0
    if params["state"] == gone:
        raise InvalidValue("size", given, f"must be left out with state={gone}")
    size = bytes_of(given)
    if size + getattr(source, "offset", 0) >= 1 << 63:
        raise InvalidValue("size", given, "must be less than 8 EiB: no file is larger")
    if isinstance(source, TableSource):
        raise InvalidValue("size", given, "must be left out beside a table, whose lines say how long it is")
    if not isinstance(source, FileSource):
        raise InvalidValue(
            "size",
            given,
            "is possible only for a source with file. Make another device larger with its own tool first "
            "(such as lvextend), and run this without size",
        )
    if source.size or source.partition:
        which = "size" if source.size else "partition"
        raise InvalidValue(
            "size", given, f"must be left out beside source.{which}, which says how large the disk is"
        )
    if source.read_only or params["mode"] == "r":
        raise InvalidValue("size", given, "is possible only with mode=w and without source.read_only")
    return size


def file_to_grow(source: Source | None, size: int) -> tuple[int, int] | None:
    """
    ``(bytes now, bytes wanted)`` of a source's file that must become larger for a disk of ``size`` bytes;
    otherwise None. InvalidValue if the file is too large.
    """
    if not size or not isinstance(source, FileSource):
        return None
    with files.backing_of(source, read_only=True) as backing:
        has = backing.size
    if has > source.offset + size:
        raise InvalidValue(
            "size",
            size,
            f"must be {has - source.offset} or more: {source.file} is that large, and cutting it would lose "
            "data. Leave size out to use the file as it is",
        )
    return (has, source.offset + size) if has < source.offset + size else None
