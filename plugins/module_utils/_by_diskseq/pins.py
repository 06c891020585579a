# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Which devices are held for names that were looked up, and until when.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A device is held (pinned) from its look-up until the kernel has forgotten its file, as often as it was told of
it, and a grace time longer: for tools that resolve the path, drop it and come back by the device's number.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable

from .._base.errors import KernelError
from .._block.device import Device
from . import hold, node_id
from .disk_name import DiskName

# Seconds within which whoever had a device opened takes it; later it is opened anew.
_TAKEN = 1.0


class Pin:
    """
    One held device: ``lookups`` is how often the kernel was told of its file and has not forgotten it,
    ``until`` when it may be closed if that is 0. ``current`` is False when the name does not stand for it any
    more.
    """

    __slots__ = ("current", "device", "lookups", "name", "node", "until")

    def __init__(self, name: DiskName, device: Device, until: float) -> None:
        self.name = name
        self.device = device
        self.node = node_id.held(name.diskseq, device.id.rdev)
        self.lookups = 0
        self.until = until
        self.current = True


class Pins:
    """
    All pins, by name and by file. Thread-safe; devices that are to be closed are returned, as closing can
    take long.
    """

    def __init__(self, limit: int, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        """At most ``limit`` devices, and ``grace`` seconds after the kernel forgot them."""
        self._limit = limit
        self._grace = grace
        self._clock = clock
        self._lock = threading.Lock()
        self._forgotten = threading.Condition(self._lock)
        self._by_name: dict[DiskName, Pin] = {}
        self._by_node: dict[int, Pin] = {}

    def __len__(self) -> int:
        return len(self._by_node)

    def check_room(self) -> None:
        """KernelError (ENFILE) when as many devices are held as may be."""
        if len(self._by_node) >= self._limit:
            raise KernelError(
                f"{self._limit} devices are held for names, as many as may be",
                errno=errno.ENFILE,
                hint="Raise the limit of the service that serves the names, or look up fewer names at once",
            )

    def put(self, name: DiskName, device: Device) -> Device | None:
        """
        Hold a device that was opened and proved, at least for the grace time. Returns it when it is held
        already, or there is no room for it.
        """
        with self._lock:
            pin = Pin(name, device, self._clock() + max(self._grace, _TAKEN))
            if name in self._by_name or pin.node in self._by_node or len(self._by_node) >= self._limit:
                return device
            self._by_name[name] = self._by_node[pin.node] = pin
            return None

    def take(self, name: DiskName) -> Pin | None:
        """
        The pin of a name, proved again, counted as looked up once more; None when there is none, or the name
        is not its any more.
        """
        with self._lock:
            pin = self._by_name.get(name)
            if pin is None or not pin.current:
                return None
            if not hold.is_still(pin.device):
                # For good: no disk gets its number back.
                pin.current, pin.until = False, self._clock()
                return None
            pin.lookups += 1
            return pin

    def of_node(self, node: int) -> Pin | None:
        """The pin behind a file that the kernel knows."""
        return self._by_node.get(node)

    def forget(self, node: int, count: int) -> None:
        """The kernel has forgotten the file, as often as that."""
        with self._lock:
            pin = self._by_node.get(node)
            if pin is not None:
                pin.lookups -= count
                pin.until = self._clock() + (self._grace if pin.current else 0)
                self._forgotten.notify_all()

    def is_known(self, name: DiskName) -> bool:
        """Whether the kernel knows a file of this name."""
        pin = self._by_name.get(name)
        return pin is not None and pin.lookups > 0

    def expire(self) -> tuple[list[Device], float | None]:
        """The devices whose time is over, which nobody else has now, and when the next one's will be."""
        with self._lock:
            now = self._clock()
            over = [pin for pin in self._by_node.values() if pin.lookups <= 0 and pin.until <= now]
            for pin in over:
                self._drop(pin)
            left = [pin.until for pin in self._by_node.values() if pin.lookups <= 0]
            return [pin.device for pin in over], min(left, default=None)

    def names_of(self, diskseq: int) -> list[DiskName]:
        """The names of a disk and of its partitions that devices are held for."""
        with self._lock:
            return [name for name in self._by_name if name.diskseq == diskseq]

    def let_go(self, diskseq: int, seconds: float) -> tuple[list[Device], int]:
        """
        The devices of a disk that the kernel has forgotten, or does within so many seconds, without their
        grace time; and how many it has not forgotten.
        """
        end = self._clock() + seconds
        with self._forgotten:
            while True:
                pins = [pin for pin in self._by_node.values() if pin.name.diskseq == diskseq]
                known = sum(pin.lookups > 0 for pin in pins)
                left = end - self._clock()
                if not known or left <= 0:
                    break
                self._forgotten.wait(left)
            over = [pin for pin in pins if pin.lookups <= 0]
            for pin in over:
                self._drop(pin)
            return [pin.device for pin in over], known

    def _drop(self, pin: Pin) -> None:
        del self._by_name[pin.name], self._by_node[pin.node]
