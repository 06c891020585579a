# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The devices of a command: opened, proved, claimed, and the texts that stand for them.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

from .._base import late
from .._base.errors import BlockError, DeviceBusy, InvalidValue, KernelError, WrongDevice
from .._block import let_go, node
from .._block.device import Device
from .._block.seal import place
from .._by_diskseq import served
from .._source import journal, lookup, needed_locks, opener, slots, spec
from .._source.resources import Resources
from . import tools

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._block.seal import seals
    from .._source.spec import Source
else:
    seals = late.Module(__name__, ".._block.seal.seals")

# The descriptors that a command inherits have numbers from here on. Shell scripts choose small numbers for
# their own descriptors, and would replace ours.
FIRST_FD = 700


class Choice:
    """
    How the devices are given to a command. ``style`` is one of ``tools.STYLES``. ``exclusive``: whether they
    are to be claimed. ``hands_over``: the claim is released when the tool starts, because the tool claims the
    device itself.
    """

    def __init__(self, program: str, style: str | None, exclusive: bool) -> None:
        """``style`` None: the one for the program in the table. NotSupported if the service is missing."""
        tool = tools.find(program)
        self.style = style or tool.style
        self.exclusive = exclusive
        self.needs_node = tool.needs_node and self.style == tools.DESCRIPTOR
        self.hands_over = exclusive and tool.claims and self.style != tools.NUMBER
        if self.style == tools.BY_DISKSEQ:
            self._need_names(program, tool, style)

    @staticmethod
    def _need_names(program: str, tool: tools.Tool, style: str | None) -> None:
        try:
            served.need()
        except BlockError as error:
            why = "" if style else f"{os.path.basename(program)} {tool.does}, so it needs a name there; "
            error.message = why + error.message
            if not style and tool is tools.UNKNOWN:
                error.hint = (
                    f"{error.hint}, or choose the style {tools.DESCRIPTOR} if the program itself opens it"
                )
            raise


class Devices:
    """
    The devices of a command by name, held until the resources (``resources``) are closed. What the command
    inherits stays open until ``kept`` is closed, by default with them.

    ``texts``: what stands for each of them in the command. ``inherited``: descriptors that the command must
    inherit. ``to_hold``: descriptors for ``holding.hold_until_ended``.
    """

    def __init__(
        self, resources: Resources, choice: Choice, kept: contextlib.ExitStack | None = None
    ) -> None:
        self._resources = resources
        self._kept = kept or resources
        self._choice = choice
        self._claims: list[int] = []
        self.found: dict[str, Device] = {}
        self.texts: dict[str, str] = {}
        self.inherited: list[int] = []
        self.to_hold: list[int] = []

    def look(self, sources: Mapping[str, Source]) -> None:
        """
        Check what :meth:`open` would refuse, without creating anything: devices that do not exist yet are
        left out of ``found``.
        """
        for name, source in sources.items():
            device = lookup.find(source, self._resources)
            if device is not None:
                self._add(name, self._resources.enter_context(device))
                opener.refuse_broken(self._resources, device)
            elif isinstance(source, spec.TableSource):
                slots.host_slots(self._resources, source.table).look(source.table, source.read_only)
        for device in self.found.values():
            self._check(device)
            if self._choice.exclusive:
                os.close(_claim(device, os.O_RDONLY))

    def open(self, sources: Mapping[str, Source]) -> list[str]:
        """
        Open the devices, create those that do not exist, and claim them if that is chosen. Returns warnings.

        Created devices are removed when their last user closes them. Other runs on the same files and names
        are waited for, and can run again when this returns: the open descriptors identify the devices.
        """
        locks = [lock for source in sources.values() for lock in needed_locks.of_source(source)]
        self._resources.locks.take(locks)
        try:
            # Nothing else needs root, so that users can name a device that they may open.
            told = journal.recover(self._resources) if locks else []
            maker = opener.Opener(self._resources)
            for name, source in sources.items():
                self._add(name, maker.open(source))
            if not self._resources.settle():
                told.append(
                    "udev did not answer in time, or another program removed the udev cookie: "
                    "links such as those in /dev/mapper may be late"
                )
        finally:
            self._resources.locks.release(locks)
        for name, device in self.found.items():
            self._give(name, device)
        return told

    def start(self) -> None:
        """Called right before the command starts: the last proof, and claims that are handed over end."""
        for device in self.found.values():
            device.prove()
        if self._choice.hands_over:
            self._release_claims()

    def prove(self) -> None:
        """Raise WrongDevice or DeviceGone if a device got another medium while the command ran."""
        for name, device in self.found.items():
            try:
                device.prove()
            except BlockError as error:
                error.message = f"while the command ran, the medium of {name} was replaced: {error.message}"
                raise

    def let_go(self) -> None:
        """Ask the service of the names to close the devices, so that they are not in use any more."""
        if self._choice.style == tools.BY_DISKSEQ:
            for device in self.found.values():
                let_go.ask(device.id.diskseq)

    def _add(self, name: str, device: Device) -> None:
        for other, same in self.found.items():
            if same.id == device.id:
                raise InvalidValue(
                    f"devices.{name}",
                    device.path,
                    f"is the device of {other}, too: one name for it is enough",
                )
        self.found[name] = device

    def _check(self, device: Device) -> None:
        device.prove()
        # Only root has opened a sealed device, and only root can look for seals.
        if self._choice.style == tools.NUMBER or os.geteuid() or not place.in_use():
            return
        if seals.find(device.id.major, device.id.minor, device.id.diskseq) is not None:
            raise DeviceBusy(
                "it is sealed: a program that opens its path gets EPERM",
                device=device.path,
                hint=f"Lift the seal first (sealed: false). A program that takes the number of an open "
                f"descriptor can use it: choose the style {tools.NUMBER}",
            )

    def _give(self, name: str, device: Device) -> None:
        self._check(device)
        held = device.fd
        if self._choice.style == tools.NUMBER:
            held = self._own(_usable(device, self._choice.exclusive))
        elif self._choice.exclusive:
            held = _claim(device, os.O_RDONLY)
            self._claims.append(held)
            self._resources.callback(self._release_claims)
        if self._choice.style == tools.BY_DISKSEQ:
            self.texts[name] = served.name_of(device)
            self.to_hold.append(device.fd if self._choice.hands_over else held)
            return
        fd = self._own(_high(device.fd if self._choice.hands_over else held, device))
        self.inherited.append(fd)
        if self._choice.needs_node:
            _need_node(fd, device)
        self.texts[name] = str(fd) if self._choice.style == tools.NUMBER else f"/proc/self/fd/{fd}"

    def _own(self, fd: int) -> int:
        self._kept.callback(os.close, fd)
        return fd

    def _release_claims(self) -> None:
        while self._claims:
            os.close(self._claims.pop())


def _high(fd: int, device: Device) -> int:
    """A duplicate that shell scripts leave alone."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD)
    except OSError as error:
        raise KernelError.from_oserror(
            error,
            "make a descriptor for the command",
            device=device.path,
            hint=f"Raise the limit of open files above {FIRST_FD} (ulimit -n)",
        ) from error


def _need_node(fd: int, device: Device) -> None:
    """
    WrongDevice unless the path at the end of /proc/self/fd/N leads to the device. As long as the device is
    held, no other device can get its number.
    """
    path = os.readlink(f"/proc/self/fd/{fd}")
    if not node.is_node_of(path, device.id.rdev):
        raise WrongDevice(
            "its node is missing or belongs to another device, and this program opens it by its node",
            device=path,
            hint=node.advice(device.name, device.id.major, device.id.minor),
        )


def _claim(device: Device, access: int) -> int:
    """
    Open the held device once more, exclusively: until it is closed, nobody else can mount it, map it or open
    it this way. DeviceBusy if somebody has done so, KernelError.
    """
    try:
        return node.open_block(f"/proc/self/fd/{device.fd}", access | os.O_EXCL | node.OPEN_FLAGS)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DeviceBusy(
                "somebody has it open exclusively: it is mounted, mapped, swapped to or being formatted",
                device=device.path,
                errno=error.errno,
                hint="See lsblk, and end that use first",
            ) from error
        raise KernelError.from_oserror(error, "open it exclusively", device=device.path) from error


def _usable(device: Device, exclusive: bool) -> int:
    """A descriptor for reading, and for writing if the device can be written."""
    access = os.O_RDONLY if device.read_only else os.O_RDWR
    if exclusive:
        return _claim(device, access)
    try:
        return node.open_block(f"/proc/self/fd/{device.fd}", access | node.OPEN_FLAGS)
    except OSError as error:
        raise KernelError.from_oserror(error, "open it for the command", device=device.path) from error
