# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What is known about each attached vbd: its nodes, the device that blkback has open for it, whether that is
the device that was meant, the size that the guest was told, and statistics. Read-only; opens no device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Sources: drivers/block/xen-blkback/xenbus.c of Linux (the attributes below the vbd's device in sysfs, and the
node sectors).
"""

from __future__ import annotations

from typing import Any

from .._base import digits
from .._base.errors import XenStoreError
from .._base.record import Record
from .._block import sysfs
from .._xenstore.nodes import Nodes
from . import vbd_nodes, vbd_read
from .guest import Guest
from .vbd_nodes import Key, Vbd

_SECTOR = 512  # the unit of the node sectors, and of the statistics
_STATISTICS = {
    "rd_req": "read_requests",
    "wr_req": "write_requests",
    "f_req": "flush_requests",
    "ds_req": "discard_requests",
    "oo_req": "out_of_requests",
    "rd_sect": "bytes_read",
    "wr_sect": "bytes_written",
}
_IN_SECTORS = ("rd_sect", "wr_sect")


class Served(Record):
    """
    The device that blkback has open. ``path`` is None unless the kernel's name for it is known; ``size`` in
    bytes.
    """

    number: tuple[int, int]
    name: str | None
    diskseq: int | None
    size: int | None
    read_only: bool | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "major": self.number[0],
            "minor": self.number[1],
            "diskseq": self.diskseq,
            "size": self.size,
            "read_only": self.read_only,
        }


class Facts(Record):
    """
    One vbd. ``vbd`` is None if its nodes are invalid, and ``problem`` then says which. ``is_intended``:
    whether blkback has the device open that the nodes name by number and disk sequence number; None if it has
    none open, or if the nodes have no disk sequence number. ``announced``: the size in bytes that the backend
    told the guest.
    """

    key: Key
    vbd: Vbd | None
    served: Served | None
    is_intended: bool | None
    announced: int | None
    statistics: dict[str, int] | None
    problem: str | None


def read(store: Nodes, guest: Guest | None = None) -> list[Facts]:
    """
    The Facts of all vbds that blkback of this domain serves, or of one guest's. XenStoreError, KernelError.
    """
    keys = vbd_read.list_keys(store, guest)
    paths = [path for key in keys for path in (*vbd_nodes.read_paths(key), f"{key.backend}/sectors")]
    values = store.read_many(paths)
    found = []
    for key in keys:
        vbd, problem = None, None
        try:
            vbd = vbd_nodes.from_nodes(key, values)
            if vbd is None:
                # Detached since the vbds were listed.
                continue
        except XenStoreError as error:
            problem = str(error)
        found.append(_facts(key, vbd, values[f"{key.backend}/sectors"], problem))
    return found


def _facts(key: Key, vbd: Vbd | None, sectors: str | None, problem: str | None) -> Facts:
    served = _served(key)
    is_intended = None if vbd is None or served is None else _is_intended(vbd, served)
    if vbd is not None:
        problem = _problem(vbd, served, is_intended)
    return Facts(
        key=key,
        vbd=vbd,
        served=served,
        is_intended=is_intended,
        announced=int(sectors) * _SECTOR if sectors and digits.is_decimal(sectors, 19) else None,
        statistics=_statistics(f"{key.sysfs}/statistics"),
        problem=problem,
    )


def _served(key: Key) -> Served | None:
    """
    blkback has the device open, so its number cannot be reused while the same number is read before and
    after. None if nothing is open, or if that changed meanwhile.
    """
    number = vbd_read.opened_number(key)
    if number is None:
        return None
    base = f"/sys/dev/block/{number[0]}:{number[1]}"
    size, read_only = sysfs.read(f"{base}/size"), sysfs.read(f"{base}/ro")
    served = Served(
        number=number,
        name=sysfs.kernel_name(*number),
        diskseq=sysfs.diskseq_of(*number),
        size=None if size is None else int(size) * _SECTOR,
        read_only=None if read_only is None else read_only == "1",
    )
    return served if vbd_read.opened_number(key) == number else None


def _is_intended(vbd: Vbd, served: Served) -> bool | None:
    if vbd.number is not None and vbd.number != served.number:
        return False
    return None if vbd.diskseq is None else vbd.diskseq == served.diskseq


def _problem(vbd: Vbd, served: Served | None, is_intended: bool | None) -> str | None:
    if vbd.error:
        return f"the backend reports: {vbd.error}"
    if is_intended is False and served is not None:
        there, meant = (vbd_nodes.device_words(one.number, one.diskseq) for one in (served, vbd))
        return f"blkback has {there} open, but the nodes name {meant}"
    return None


def _statistics(directory: str) -> dict[str, int] | None:
    """Counters since the vbd was attached; None if blkback does not serve the vbd (any more)."""
    found = {}
    for name, title in _STATISTICS.items():
        text = sysfs.read(f"{directory}/{name}")
        if text is None or not digits.is_decimal(text, 20):
            return None
        found[title] = int(text) * (_SECTOR if name in _IN_SECTORS else 1)
    return found
