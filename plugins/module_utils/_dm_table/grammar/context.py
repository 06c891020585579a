# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Facts about the host on which a table will be loaded.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .kernels import KERNELS, version_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Callable

    from .slot import Slot

    # {path of a device's field: facts about the device}
    Facts = Mapping[str, "DeviceFacts | None"]


class DeviceFacts:
    """
    Facts about a block device.

    ``size_sectors`` is in sectors of 512 bytes, ``logical_block`` in bytes. ``dm_uuid`` is the UUID of a
    mapped device, which may be empty, and None for other devices. ``stack`` contains the ``(major, minor)``
    of all devices below. ``cow_chunk`` is a function that returns the chunk size in sectors from the header
    of a persistent snapshot's COW device, or None if there is none.
    """

    __slots__ = (
        "major",
        "minor",
        "size_sectors",
        "logical_block",
        "read_only",
        "dm_uuid",
        "stack",
        "cow_chunk",
    )

    def __init__(
        self,
        major: int,
        minor: int,
        size_sectors: int,
        logical_block: int = 512,
        read_only: bool = False,
        dm_uuid: str | None = None,
        stack: Iterable[tuple[int, int]] = frozenset(),
        cow_chunk: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.major = major
        self.minor = minor
        self.size_sectors = size_sectors
        self.logical_block = logical_block
        self.read_only = read_only
        self.dm_uuid = dm_uuid
        self.stack = frozenset(stack)
        self.cow_chunk = cow_chunk

    @property
    def number(self) -> tuple[int, int]:
        return (self.major, self.minor)

    def __repr__(self) -> str:
        size = f"{self.size_sectors} sectors, logical block {self.logical_block}"
        return f"DeviceFacts({self.major}:{self.minor}, {size})"


class NoDevice:
    """Returned instead of facts for a device that is not available; ``reason`` tells why."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Context:
    """
    Where a table will be loaded.

    ``kernels``: names from ``_dm_table.grammar.kernels.KERNELS``, all of which must accept the table; None:
    one known kernel suffices. ``targets``: the host's target types, ``{type: version}``; None: unknown.
    ``devices``: a function that is called with a ``Slot`` and returns its ``DeviceFacts``, None if the device
    does not exist yet, or ``NoDevice``, which is an error. ``read_only``: whether the table will be loaded
    read-only; None: unknown. ``page_size``: in bytes. ``device``: ``(major, minor)`` of the mapped device
    that the table is for, if it exists; a stack that contains it would be a loop. ``running``: ``(major,
    minor)`` of the version of the kernel that will load the table. ``warn``: a function that is called with a
    sentence about a table that would stop some kernel, if neither ``kernels`` nor ``running`` is given.
    """

    __slots__ = ("kernels", "targets", "devices", "read_only", "page_size", "device", "running", "warn")

    def __init__(
        self,
        kernels: Iterable[str] | None = None,
        targets: Collection[str] | None = None,
        devices: Callable[[Slot], DeviceFacts | NoDevice | None] | None = None,
        read_only: bool | None = False,
        page_size: int = 4096,
        device: tuple[int, int] | None = None,
        running: tuple[int, int] | None = None,
        warn: Callable[[str], object] | None = None,
    ) -> None:
        if kernels is not None:
            unknown = [kernel for kernel in kernels if kernel not in KERNELS]
            if unknown:
                raise ValueError(f"unknown kernels {unknown}, known are {', '.join(KERNELS)}")
        self.kernels = None if kernels is None else tuple(kernels)
        self.targets = targets
        self.devices = devices
        self.read_only = read_only
        self.page_size = page_size
        self.device = device
        self.running = running
        self.warn = warn

    def stopped_since(self, since: tuple[int, int]) -> list[str] | None:
        """
        The versions, as text, of those kernels in question that are ``since``, ``(major, minor)``, or newer;
        None if no kernel was given.
        """
        if self.kernels is None and self.running is None:
            return None
        versions = {self.running, *map(version_of, self.kernels or ())}
        known = sorted(version for version in versions if version is not None)
        return [f"{major}.{minor}" for major, minor in known if (major, minor) >= since]

    def refused_by(self, takes: Collection[str]) -> tuple[str, ...]:
        """
        The kernels that make the table unusable if only those in ``takes`` accept it; empty if it is usable.
        """
        if self.kernels is None:
            return () if takes else KERNELS
        return tuple(kernel for kernel in self.kernels if kernel not in takes)
