# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Which devices are held for names that were looked up, and until when.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A device is held open (pinned) from its lookup until the kernel has forgotten its inode as often as it looked
it up, plus a grace time. The grace time is for tools that resolve the path, drop it and come back by the
device number.
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
from .schedule import Schedule

# A new device is held for at least so many seconds, until the lookup that opened it takes it.
_TAKEN = 1.0


class Pin:
    """
    A held device. ``lookups`` is the kernel's lookup count of its inode. If that is 0, the device may be
    closed at ``until``. ``current`` is False when the name no longer stands for this device.
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
    All pins, by name and by inode number. Thread-safe. Methods return devices for the caller to close,
    because closing can take long.
    """

    def __init__(self, limit: int, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Hold at most ``limit`` devices, each for ``grace`` seconds after the kernel has forgotten it."""
        self._limit = limit
        self._grace = grace
        self._clock = clock
        self._lock = threading.Lock()
        self._forgotten = threading.Condition(self._lock)
        # Called with the time at which a pin may expire, from any thread.
        self.expires: Callable[[float], None] = lambda when: None
        self._ends: Schedule[int] = Schedule()
        self._by_name: dict[DiskName, Pin] = {}
        self._by_node: dict[int, Pin] = {}

    def __len__(self) -> int:
        return len(self._by_node)

    def check_room(self) -> None:
        """Raise KernelError (ENFILE) if the limit is reached."""
        if len(self._by_node) >= self._limit:
            raise KernelError(
                f"{self._limit} devices are held for names, which is the limit",
                errno=errno.ENFILE,
                hint="Raise the limit of the service that serves the names, or look up fewer names at once",
            )

    def put(self, name: DiskName, device: Device) -> Device | None:
        """
        Hold a device that was opened and verified, at least for the grace time. Returns the device if it
        cannot be kept: the name is already held, or the limit is reached.
        """
        with self._lock:
            pin = Pin(name, device, self._clock() + max(self._grace, _TAKEN))
            if name in self._by_name or pin.node in self._by_node or len(self._by_node) >= self._limit:
                return device
            self._by_name[name] = self._by_node[pin.node] = pin
            self._ends.put(pin.node, pin.until)
        self.expires(pin.until)
        return None

    def take(self, name: DiskName) -> Pin | None:
        """
        Verify the pin of a name and count one more lookup. None if there is no pin, or the name no longer
        stands for its device.
        """
        with self._lock:
            pin = self._by_name.get(name)
            if pin is None or not pin.current:
                return None
            if hold.is_still(pin.device):
                pin.lookups += 1
                return pin
            # This is final: no disk gets an old sequence number back.
            pin.current, pin.until = False, self._clock()
            self._ends.put(pin.node, pin.until)
        self.expires(pin.until)
        return None

    def of_node(self, node: int) -> Pin | None:
        """The pin of an inode that the kernel knows, or None."""
        return self._by_node.get(node)

    def forget(self, node: int, count: int) -> None:
        """Reduce the lookup count: the kernel has forgotten ``count`` lookups of the inode."""
        with self._lock:
            pin = self._by_node.get(node)
            if pin is None:
                return
            pin.lookups -= count
            pin.until = self._clock() + (self._grace if pin.current else 0)
            if pin.lookups > 0:
                return
            self._ends.put(node, pin.until)
            self._forgotten.notify_all()
        self.expires(pin.until)

    def is_known(self, name: DiskName) -> bool:
        """Whether the kernel knows an inode for this name."""
        pin = self._by_name.get(name)
        return pin is not None and pin.lookups > 0

    def expire(self) -> tuple[list[Device], float | None]:
        """
        Remove expired pins. Return their devices, and when (monotonic clock) the next one expires, or None.
        """
        with self._lock:
            pins = [self._by_node[node] for node in self._ends.take(self._clock())]
            over = [pin for pin in pins if pin.lookups <= 0]
            for pin in over:
                self._drop(pin)
            return [pin.device for pin in over], self._ends.next()

    def names_of(self, diskseq: int) -> list[DiskName]:
        """The names for which devices of this disk are held: the disk and its partitions."""
        with self._lock:
            return [name for name in self._by_name if name.diskseq == diskseq]

    def let_go(self, diskseq: int, seconds: float) -> tuple[list[Device], int]:
        """
        Wait at most ``seconds`` for the kernel to forget the disk's inodes, then remove the disk's forgotten
        pins without their grace time. Return their devices, and how many pins the kernel still knows.
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
        self._ends.drop(pin.node)
