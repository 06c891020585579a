# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Disk A, its names, and disk B that an adversary puts in its place: by plain ioctls, in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

import rawdev
from names_service import Service, wait_for

SIZE = 4 * 2**20
# Bytes at the end of each disk, all of them its letter.
MARKED = 4096
NAME = "names-adversary"
_NUMBER = 77


class World:
    """
    The files of A and B, and what both kinds of disk have in common. ``names`` are the paths of A, by the
    words of the table. ``replaced`` is whether B has A's place.
    """

    kind = ""
    ways: tuple[str, ...] = ()

    def __init__(self, place: str, disks: Service, identities: str) -> None:
        self.place, self.disks, self.identities = place, disks, identities
        self.files = [f"{place}/{letter}.raw" for letter in "ab"]
        self.fds: list[int] = []
        self.names: dict[str, str] = {}
        self.diskseq = 0
        self.replaced = False

    def fill(self, prepare: Callable[[str], None]) -> None:
        """Create the files, filled by ``prepare``, and open them."""
        for letter, path in zip("ab", self.files):
            with open(path, "wb") as file:
                file.truncate(SIZE)
            prepare(path)
            with open(path, "r+b") as file:
                file.seek(SIZE - MARKED)
                file.write(letter.encode() * MARKED)
            self.fds.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def close(self) -> None:
        """Close the files, and remove what the world has made."""
        while self.fds:
            os.close(self.fds.pop())

    def make(self) -> None:
        """Create disk A again."""
        raise NotImplementedError

    def swap(self) -> bool:
        """Replace A by B, once; return whether the kernel permitted it."""
        raise NotImplementedError

    def remove(self) -> None:
        """Remove the disk. Waits until its users have closed it."""
        raise NotImplementedError


class LoopWorld(World):
    """A loop device that gets another file. ``a link`` stands for a link of udev's to its node."""

    kind, ways = "loop", ("by-diskseq", "/dev/loopN", "a link")
    node = f"/dev/loop{_NUMBER}"

    def __init__(self, place: str, disks: Service, identities: str) -> None:
        super().__init__(place, disks, identities)
        rawdev.add_loop(_NUMBER)
        os.symlink(self.node, f"{place}/link")

    def make(self) -> None:
        assert rawdev.bind(self.node, self.fds[0]), self.node
        self.replaced, self.diskseq = False, _number(self.node)
        self.names = {
            "by-diskseq": self.disks.path(self.diskseq),
            "/dev/loopN": self.node,
            "a link": f"{self.place}/link",
        }

    def swap(self) -> bool:
        rawdev.unbind(self.node)
        self.replaced = rawdev.bind(self.node, self.fds[1])
        return self.replaced

    def remove(self) -> None:
        _detach(self.node, lambda: self.disks.let_go(self.diskseq))

    def close(self) -> None:
        super().close()
        rawdev.remove_loop(_NUMBER)


class MappedWorld(World):
    """A mapped device that is recreated with the same name and number, another UUID and over another disk."""

    kind, ways = "mapped", ("by-diskseq", "/dev/racefree/dm-uuid", "/dev/mapper")
    path = f"/dev/mapper/{NAME}"
    # What the device consists of, and the prefix of its UUID.
    target, parameters, prefix = "linear", "{} 0", "RACEFREE-TEST"

    def __init__(self, place: str, disks: Service, identities: str) -> None:
        super().__init__(place, disks, identities)
        self.below = [f"/dev/loop{_NUMBER + 1 + index}" for index in range(2)]
        for index in range(2):
            rawdev.add_loop(_NUMBER + 1 + index)

    def fill(self, prepare: Callable[[str], None]) -> None:
        super().fill(prepare)
        for node, fd in zip(self.below, self.fds):
            assert rawdev.bind(node, fd), node

    def close(self) -> None:
        super().close()
        for index, node in enumerate(self.below):
            _detach(node, lambda: None)
            rawdev.remove_loop(_NUMBER + 1 + index)

    def make(self) -> None:
        self.replaced = False
        node = self._map(0)
        self.diskseq = _number(node)
        self.names = {
            "by-diskseq": self.disks.path(self.diskseq),
            "/dev/racefree/dm-uuid": f"{self.identities}/dm-uuid/{self.uuid(0)}",
            "/dev/mapper": self.path,
        }

    def swap(self) -> bool:
        if not rawdev.remove_mapped(NAME):
            return False
        self.replaced = True
        self._map(1)
        return True

    def remove(self) -> None:
        while kernel_name(NAME):
            self.disks.let_go(self.diskseq)
            rawdev.remove_mapped(NAME) or time.sleep(0.005)
        _unlink(self.path)

    @classmethod
    def uuid(cls, index: int) -> str:
        return f"{cls.prefix}-{'ab'[index]}"

    def _map(self, index: int) -> str:
        """Create the mapped device, and its link as udev would; return its node."""
        row = (0, SIZE // 512, self.target, self.parameters.format(self.below[index]))
        rawdev.make_mapped(NAME, self.uuid(index), [row])
        node = f"/dev/{kernel_name(NAME)}"
        _unlink(self.path)
        os.symlink(node, self.path)
        return node


class CryptWorld(MappedWorld):
    """The same of a mapping that ``cryptsetup close`` takes for its own; it is removed by its name."""

    kind, ways = "mapping of cryptsetup", ("the mapping's name",)
    target, parameters, prefix = "crypt", "cipher_null-ecb - 0 {} 0", "CRYPT-PLAIN-names"

    def make(self) -> None:
        super().make()
        self.names = {"the mapping's name": NAME}

    def letter_there(self) -> str:
        """The letter of the mapping that exists, or an empty text."""
        name = kernel_name(NAME)
        return read(f"/sys/block/{name}/dm/uuid")[-1:] if name else ""


class Striker:
    """The adversary's thread: it tries to replace A until it succeeds, or the tool has ended."""

    def __init__(self) -> None:
        self._world: World | None = None
        self._pauses = (0.0, 0.0)
        self._go, self._idle = threading.Semaphore(0), threading.Semaphore(0)
        self._stopped = True
        self._wake = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def start(self, world: World, delay: float, pause: float) -> None:
        """Begin after ``delay`` seconds, and try again every ``pause`` seconds."""
        self._world, self._pauses, self._stopped = world, (delay, pause), False
        self._wake.clear()
        self._go.release()

    def stop(self) -> None:
        """Stop, and wait until it has stopped."""
        if not self._stopped:
            self._stopped = True
            self._wake.set()
            self._idle.acquire()

    def _run(self) -> None:
        while True:
            self._go.acquire()
            delay, pause = self._pauses
            self._wake.wait(delay)
            while not self._stopped and self._world is not None and not self._world.swap():
                time.sleep(pause)
            self._idle.release()


def kernel_name(name: str) -> str:
    """The kernel name of a mapped device, such as ``dm-3``; empty if there is none."""
    for found in os.listdir("/sys/block"):
        if found.startswith("dm-") and read(f"/sys/block/{found}/dm/name") == name:
            return found
    return ""


def remove_mapped(name: str) -> None:
    """Remove a tool's mapped device, if there is one, and its node."""
    if kernel_name(name):
        wait_for(lambda: rawdev.remove_mapped(name) or not kernel_name(name))
    _unlink(f"/dev/mapper/{name}")


def read(path: str) -> str:
    """The text of an attribute in sysfs, or an empty text."""
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        return file.read().strip()
    return ""


def _number(node: str) -> int:
    return int(read(f"/sys/block/{os.path.basename(node)}/diskseq"))


def _detach(node: str, let_go: Callable[[], object]) -> None:
    """Detach the file of a loop device; ``let_go`` makes the service close it."""
    bound = f"/sys/block/{os.path.basename(node)}/loop"
    while os.path.exists(bound):
        rawdev.unbind(node)
        let_go()
        if os.path.exists(bound):
            time.sleep(0.002)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
