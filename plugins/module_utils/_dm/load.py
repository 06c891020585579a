# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Tables to load, and the first table of a new mapped device: loaded once its store or pool is free.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import errno
from typing import NamedTuple

from .._base import gone
from .._base.deadline import Deadline
from .._base.errors import DeviceBusy, KernelError
from . import keys

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._block.device import Device
    from .control import Address, Control, MappedStatus


# Seconds to wait for another snapshot with the same store; and the target types that have a store.
_STORE_SECONDS = 5.0
_SNAPSHOTS = (b"snapshot", b"snapshot-merge")
_POOL = b"thin-pool"
# _block.seal.place.DIRECTORY: it exists while any device of this host is sealed.
_SEALS = "/sys/fs/bpf/racefree"


class Table(NamedTuple):
    """
    A table to load: ``targets`` as ``(start, length, type, params)`` in sectors and bytes. ``secure``:
    whether it contains a key. ``held``: the Devices that the targets name by number.
    """

    targets: tuple[tuple[int, int, bytes, bytes], ...]
    read_only: bool = False
    secure: bool = False
    held: tuple[Device, ...] = ()

    def prove(self) -> None:
        """
        Call this after the load: raises WrongDevice or DeviceGone unless every device is still the one that
        was looked up.

        Once loaded, the table has the devices open exclusively, so LOOP_CONFIGURE cannot bind a loop device
        to another file.
        """
        for device in self.held:
            device.prove()


@contextlib.contextmanager
def sealed_let_in(table: Table) -> Iterator[None]:
    """
    A context in which this thread can load the table even if devices that it names are sealed.
    """
    if not table.held or not gone.exists(_SEALS):
        yield
        return
    from .._block.seal import way_in  # rarely needed, and it imports many more files

    with way_in.let_in([(device.id.major, device.id.minor) for device in table.held]):
        yield


def load_new(control: Control, address: Address, table: Table) -> MappedStatus:
    """
    Load the first table of a device. DeviceBusy if another device has a snapshot with the same store;
    KernelError.

    On resume, the kernel would hand over the records of the other snapshot to the new one (snapshot_ctr in
    drivers/md/dm-snap.c). It rejects the resume while the other snapshot is live. If the other snapshot is
    gone by then, the new one has no records: its I/O fails, and earlier changes are invisible. A snapshot is
    removed shortly after its last close, so this function waits for that. The chunk size is 0 while the
    handover is pending.
    """
    limit = Deadline(_STORE_SECONDS)
    while True:
        status = _load_pool(control, address, table, limit)
        if not any(target[2] in _SNAPSHOTS for target in table.targets):
            return status
        lines = control.table(address, inactive=True, secure=True)[1]
        if not any(line.type in _SNAPSHOTS and line.params.split()[3:4] == [b"0"] for line in lines):
            return status
        control.clear(address)
        if limit.expired:
            raise DeviceBusy(
                "the store of its snapshot belongs to another snapshot",
                device=str(address),
                hint="Remove the other snapshot first: a store belongs to one snapshot at a time",
            )
        limit.sleep(0.02)


def _load_pool(control: Control, address: Address, table: Table, limit: Deadline) -> MappedStatus:
    """
    Load a table. For a thin pool, retry while another device uses the same pool (__pool_find in
    drivers/md/dm-thin.c: EBUSY).

    A pool that is being removed loses its name before it releases its metadata device.
    """
    while True:
        try:
            with keys.reachable(table.targets), sealed_let_in(table):
                return control.load(address, table.targets, table.read_only, table.secure)
        except KernelError as error:
            if (
                error.errno != errno.EBUSY
                or all(target[2] != _POOL for target in table.targets)
                or limit.expired
            ):
                raise
        limit.sleep(0.02)
