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
from .._source.spec import FileSource, TableSource

if TYPE_CHECKING:
    from .._source.spec import Source


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
            f"is not possible with state={gone}: the disk is taken away and none comes instead",
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
