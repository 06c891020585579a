# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
List the vbds and what blkback has opened for them. Read-only.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base import gone
from .._block import sysfs
from . import vbd_nodes
from .vbd_nodes import Key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .._xenstore.nodes import Nodes
    from .guest import Guest
    from .vbd_nodes import Vbd


def read_vbd(store: Nodes, domid: int, devid: int, backend_domid: int = 0) -> Vbd | None:
    """
    Read a vbd; None if it does not exist. Raises an XenStoreError that names the node if one is invalid.
    """
    key = Key(domid, devid, backend_domid)
    return vbd_nodes.from_nodes(key, store.read_many(vbd_nodes.read_paths(key)))


def list_keys(store: Nodes, guest: Guest | None = None, backend_domid: int = 0) -> list[Key]:
    """The Keys of all vbds that blkback serves, or of one guest's."""
    root = f"/local/domain/{backend_domid}/backend/vbd"
    domids = [str(guest.domid)] if guest else store.list(root) or []
    return [key for dummy, key in _keys_below(store, {root: domids}, {}, backend_domid)]


def list_served(
    store: Nodes, expected: Iterable[str] = (), nodes: Iterable[str] = (), backend_domid: int = 0
) -> tuple[list[tuple[str, Key]], dict[str, str | None]]:
    """
    ``([(path of its nodes, Key)], {path: value})``: all disks that blkback (vbd) or QEMU (qdisk) serves, and
    the values of ``nodes``.

    ``expected`` are backend paths, as in the result, that are likely to exist; their parents are listed in
    the same batch of requests.
    """
    roots = [f"/local/domain/{backend_domid}/backend/{kind}" for kind in ("vbd", "qdisk")]
    listed, values = store.list_and_read([*roots, *(path.rpartition("/")[0] for path in expected)], nodes)
    return _keys_below(store, {root: listed.pop(root) for root in roots}, listed, backend_domid), values


def _keys_below(
    store: Nodes,
    domids: Mapping[str, list[str] | None],
    listed: Mapping[str, list[str] | None],
    backend_domid: int,
) -> list[tuple[str, Key]]:
    """``domids``: the names below each root. ``listed``: what is already known to be below those."""
    places = [(root, int(name)) for root, names in domids.items() for name in names or [] if name.isdigit()]
    listed = dict(
        listed,
        **store.list_many(
            [path for path in (f"{root}/{domid}" for root, domid in places) if path not in listed]
        ),
    )
    return [
        (f"{root}/{domid}/{name}", Key(domid, int(name), backend_domid))
        for root, domid in sorted(places)
        for name in sorted(listed[f"{root}/{domid}"] or [])
        if name.isdigit()
    ]


def list_vbds(store: Nodes, guest: Guest | None = None, backend_domid: int = 0) -> list[Vbd]:
    """All vbds that blkback serves, or one guest's, as Vbds."""
    keys = list_keys(store, guest, backend_domid)
    values = store.read_many([path for key in keys for path in vbd_nodes.read_paths(key)])
    return [vbd for vbd in (vbd_nodes.from_nodes(key, values) for key in keys) if vbd is not None]


def opened_number(key: Key) -> tuple[int, int] | None:
    """
    ``(major, minor)`` of the device that blkback has open for the vbd, or None. Works only for backends in
    this domain.
    """
    path = key.sysfs + "/physical_device"
    # This is polled often and for many disks at once. Checking for the file costs less than a failed open.
    text = sysfs.read(path) if gone.exists(path, gone.SYSFS) else None
    if text is None:
        return None
    try:
        major, minor = text.split(":")
        return int(major, 16), int(minor, 16)
    except ValueError:
        return None


def offers_opened(store: Nodes, backend_domid: int = 0) -> bool | None:
    """
    Whether blkback compares disk sequence numbers and reports an open device by the node ``opened``. None
    while no guest has a disk by which to tell.

    A backend that supports one supports the other, and writes the node for every disk. Only disks that
    blkback has open are examined, as other programs serve vbds too.
    """
    keys = [key for key in list_keys(store, backend_domid=backend_domid) if opened_number(key) is not None]
    found = store.read_many([f"{key.backend}/opened" for key in keys])
    return any(value is not None for value in found.values()) if found else None
