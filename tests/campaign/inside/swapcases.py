# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The cases of the family swaps: a victim, and an adversary who replaces the victim's device with somebody
else's device of the same name.

Every case creates the initial state, starts the task, replaces the device, and judges the final state of the
kernel.
"""

from __future__ import annotations

import contextlib
import os

import rawdev
from victim import Program, Run
from world import loops, mapped, read, settled

NAME, OTHER, UUID, FOREIGN = "campaign", "campaign-b", "CAMPAIGN-1", "FOREIGN-1"
LENGTH = 8


class Case:
    """
    ``title``. ``begin()``: creates the initial state and returns the victim. ``exchange()``: what the
    adversary does, once. ``wrong()``: what the victim did to somebody else's device; ``untrue()``: how an
    answer "ok" differs from the actual state; both as text. ``is_done``: whether "ok" was already true before
    the exchange, because the victim cannot know what the adversary does after that.
    """

    title = ""
    ours = True

    def __init__(self, world, place, way):
        self.world, self.place, self.way = world, place, way

    def begin(self):
        self.victim = self.victim_of()
        return self.victim

    def victim_of(self):
        raise NotImplementedError

    is_done = False

    def exchange(self):
        raise NotImplementedError

    def wrong(self):
        raise NotImplementedError

    def untrue(self):
        raise NotImplementedError

    def meet(self):
        """The adversary's turn."""
        self.is_done = not self.untrue()
        self.exchange()

    def judge(self, is_ok):
        """The problems, for a Score."""
        untrue = self.untrue() if is_ok and not self.is_done else ""
        problems = [(kind, seen) for kind, seen in (("wrong", self.wrong()), ("lies", untrue)) if seen]
        if self.ours and not is_ok:
            problems += [("left", seen) for seen in self.left()]
        return problems

    def left(self):
        """What a refused run left behind that the next run of the same task does not remove, as texts."""
        if settled(lambda: not self.more(), 1):
            return []
        run = self.victim
        Run(run.module, run.arguments).plainly()
        return [] if settled(lambda: not self.more(), 1) else self.more()

    def more(self):
        """What exists in addition to the initial state and the adversary's devices, as texts."""
        loop = os.path.basename(self.place.node)
        over = [
            f"{name} over {row[1]}"
            for name, row in loops().items()
            if name not in self.world.start[0] and name != loop and row[1] != self.place.path("B")
        ]
        known = {*(row[1] for row in self.world.start[1].values()), self.foreign}
        for name, row in mapped().items():
            if row[1] not in known and (self.before is None or (row[1], name) != (self.before[1], NAME)):
                over.append(f"{name} (uuid {row[0]})")
        return over

    # The mapped device of the initial state, and the diskseq of the adversary's device, where these exist.
    before = foreign = None


class Load(Case):
    """
    A mapped device on a loop device whose file is replaced: A is wanted, and B must never be read through it.
    """

    def __init__(self, world, place, way):
        super().__init__(world, place, way)
        self.title = f"dm table load, {way}"
        self.ours = way != "dmsetup with the path"

    def victim_of(self):
        diskseq = self.place.begin()
        if not self.ours:
            return Program(
                "dmsetup", "create", "--noudevsync", NAME, "--table", f"0 {LENGTH} linear {self.place.node} 0"
            )
        file = self.place.path("A")
        device = {
            "diskseq": {"diskseq": diskseq},
            "path and diskseq": {"path": self.place.node, "diskseq": diskseq},
            "file": {"file": file},
        }
        row = {"start": 0, "length": LENGTH, "target": "linear", "device": device[self.way], "offset": 0}
        return Run("dm_device", {"name": NAME, "uuid": UUID, "table": [row], "timeout": 3})

    def exchange(self):
        names = [name for name, row in loops().items() if row[1] == self.place.path("A")]
        for name in names if self.way == "file" else [os.path.basename(self.place.node)]:
            self.place.rebind(f"/dev/{name}", "B")

    def _letter(self):
        found = mapped().get(NAME)
        return read(f"/dev/{found[2]}") if found else None

    def wrong(self):
        return "the device has the other file" if self._letter() == b"B" else ""

    def untrue(self):
        letter = self._letter()
        return (
            "no such device" if letter is None else "" if letter == b"A" else "the device has not this file"
        )


class Mapped(Case):
    """A mapped device that is removed and created again under its name, as somebody else's."""

    def __init__(self, world, place, way):
        super().__init__(world, place, way)
        self.title = f"dm removal, {way}" if way != "rename" else "dm rename, uuid and diskseq"
        self.ours = not way.startswith("dmsetup")

    def victim_of(self):
        make(NAME, UUID)
        self.before, self.foreign = mapped()[NAME], None
        guards = {
            "name and diskseq": ("name", "diskseq"),
            "name and uuid": ("name", "uuid"),
            "uuid and diskseq": ("uuid", "diskseq"),
        }
        given = {"name": NAME, "uuid": UUID, "diskseq": int(self.before[1])}
        if self.way == "rename":
            return Run("dm_device", {"name": OTHER, "uuid": UUID, "diskseq": int(self.before[1])})
        if self.way == "dmsetup remove":
            return Program("dmsetup", "remove", "--noudevsync", NAME)
        if self.way == "dmsetup rename":
            return Program("dmsetup", "rename", "--noudevsync", NAME, OTHER)
        return Run(
            "dm_device", dict({key: given[key] for key in guards[self.way]}, state="absent", timeout=3)
        )

    def exchange(self):
        for name, row in mapped().items():
            if row[1] == self.before[1]:
                rawdev.remove_mapped(name)
        with contextlib.suppress(OSError):
            make(NAME, FOREIGN)
            self.foreign = mapped()[NAME][1]

    def wrong(self):
        name = [name for name, row in mapped().items() if self.foreign and row[1] == self.foreign]
        if not self.foreign or name == [NAME]:
            return ""
        return f"somebody else's device is {'called ' + name[0] if name else 'gone'}"

    def untrue(self):
        names = [name for name, row in mapped().items() if row[1] == self.before[1]]
        if names == ([OTHER] if "rename" in self.way else []):
            return ""
        return f"the device is still there, as {names[0]}" if names else "the device is gone"


def make(name, uuid):
    """Create a mapped device without the collection's code."""
    rawdev.make_mapped(name, uuid, [(0, LENGTH, "zero", "")])


class Loop(Case):
    """A loop device whose file is replaced with somebody else's while the device is detached or changed."""

    def __init__(self, world, place, way):
        super().__init__(world, place, way)
        self.title = f"loop {way}"
        self.ours = not way.startswith("losetup")

    def victim_of(self):
        diskseq = self.place.begin()
        self.theirs = None
        file, node = self.place.path("A"), self.place.node
        if self.way == "losetup -d":
            return Program("losetup", "--detach", node)
        if self.way == "losetup -c":
            os.ftruncate(self.place.files["B"], 1 << 21)
            return Program("losetup", "--set-capacity", node)
        if self.way == "detach, path and diskseq":
            return Run("loop_device", {"path": node, "diskseq": diskseq, "state": "absent", "timeout": 3})
        if self.way == "detach, file":
            return Run("loop_device", {"backing_file": file, "state": "absent", "timeout": 3})
        return Run("loop_device", {"backing_file": file, "direct_io": True, "timeout": 3})

    def exchange(self):
        self.place.rebind(self.place.node, "B")
        row = loops().get(os.path.basename(self.place.node))
        if row and row[1].endswith("/B"):
            self.theirs = self._state()

    def _state(self):
        name = os.path.basename(self.place.node)
        row = loops().get(name)
        if row is None:
            return None
        return row, [_attribute(name, attribute) for attribute in ("size", "loop/dio", "ro")]

    def wrong(self):
        now = self._state()
        if not self.theirs or now == self.theirs:
            return ""
        return f"somebody else's loop device was {self.theirs}, is {now}"

    def untrue(self):
        file = self.place.path("A")
        over = [name for name, row in loops().items() if row[1] == file]
        if self.way in ("changed", "losetup -c"):
            direct = [name for name in over if _attribute(name, "loop/dio") == "1" or self.way != "changed"]
            return "" if direct else "nothing has the file, and is changed"
        return f"{over} still has the file" if over else ""


def _attribute(name, attribute):
    with contextlib.suppress(OSError), open(f"/sys/block/{name}/{attribute}", encoding="ascii") as file:
        return file.read().strip()
    return None


def cases(world, place):
    """All Cases, in this World and on this Place."""
    loads = [
        Load(world, place, way) for way in ("diskseq", "path and diskseq", "file", "dmsetup with the path")
    ]
    ways = (
        "name and diskseq",
        "name and uuid",
        "uuid and diskseq",
        "rename",
        "dmsetup remove",
        "dmsetup rename",
    )
    changes = ("detach, path and diskseq", "detach, file", "changed", "losetup -d", "losetup -c")
    return loads + [Mapped(world, place, way) for way in ways] + [Loop(world, place, way) for way in changes]


def undo(place):
    """Remove what a try may have left behind."""
    for name in mapped():
        if name in (NAME, OTHER):
            rawdev.remove_mapped(name)
    for name, row in loops().items():
        if row[1].startswith(place.directory):
            rawdev.unbind(f"/dev/{name}")
    os.ftruncate(place.files["B"], 1 << 20)
