# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
xen_vbd and xen_vbds on a Xen host: stopped before one of their system calls while an adversary exchanges the
device or the disk that they work on, or killed after one.

What blkback has open is read through its device number. The counts are those of docs/campaign.md. Exit code 1
if anything was wrong, left, or not true.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys

if __name__ == "__main__":
    SITE = os.environ.get("RACEFREE_SITE", "/root/site")
    sys.path[:0] = [SITE, f"{SITE}/campaign"]

import hotplug
import rawdev
import victim
from ansible_collections.racefree.block.plugins.module_utils._xen import guest
from place import Place
from score import Score, finish, options, rounds
from world import World, loops, read, settled

GUEST = "attacked"
NUMBER, OTHER = 244, 245
VDEVS = ("xvdb", "xvdc")
MODULES = ("xen_vbd", "xen_vbds")
# Seconds that a disk may take to go.
GOING = 20
ENDLESS = 10**9


class Disks:
    """
    The disks of the guest that are used here: what blkback has for them, and their end. ``place``: of the
    device that is meant. ``others``: of the adversary's device.
    """

    def __init__(self, store, world, place, others):
        self.store, self.world, self.place, self.others = store, world, place, others
        self.guest = guest.find(store, GUEST)
        # These objects only name the disks, or write somebody else's: modules write their own.
        self.disks = [hotplug.Disk(store, self.guest, number, others.node) for number in range(len(VDEVS))]

    def letter(self, number=0):
        """The first byte of what blkback has open for a disk; empty if it has nothing open."""
        try:
            with open(f"{self.disks[number].key.sysfs}/physical_device", encoding="ascii") as file:
                major, minor = (int(part, 16) for part in file.read().split(":"))
        except FileNotFoundError:
            return b""
        return read("/dev/" + os.path.basename(os.path.realpath(f"/sys/dev/block/{major}:{minor}")))

    def has_nodes(self, number=0):
        return self.store.exists(self.disks[number].key.backend)

    def give_to_other(self):
        """Detach the first disk without the module, and attach the adversary's device in its place."""
        disk = self.disks[0]
        disk.remove_nodes(GOING)
        self.store.transaction(disk.lay, GOING)
        disk.wait_for_backend()
        self.store.write(f"{disk.key.backend}/physical-device", f"7:{OTHER:x}")
        hotplug.wait_until(lambda: self.letter() == b"B", GOING, "blkback to open the other device")

    def end_holders(self):
        """
        End the processes that hold devices for killed runs. They would end by themselves within some minutes.
        """
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                comm, _state, parent = (entry / "stat").read_text("utf-8").partition(" ")[2].split()[:3]
                opened = [os.readlink(fd) for fd in (entry / "fd").iterdir()] if parent == "1" else []
                if comm == "(sleep)" and any(path.startswith("/dev/loop") for path in opened):
                    os.kill(int(entry.name), signal.SIGKILL)

    def _more_loops(self):
        """(name, file) of loop devices other than those of the initial state and of the two places."""
        known = {os.path.basename(place.node) for place in (self.place, self.others)}
        known.update(self.world.start[0])
        return [(name, row[1]) for name, row in loops().items() if name not in known]

    def left(self):
        """What should not be there after a disk is gone, as text."""
        more = [f"{name} over {path}" for name, path in self._more_loops()]
        more += [f"nodes of {VDEVS[number]}" for number in range(len(VDEVS)) if self.has_nodes(number)]
        return ", ".join(more)

    def clear(self):
        """Remove everything that a try may have left."""
        self.end_holders()
        for number, disk in enumerate(self.disks):
            if self.has_nodes(number):
                disk.remove_nodes(GOING)
        for name, _path in self._more_loops():
            rawdev.unbind(f"/dev/{name}")
        if not settled(lambda: not self.left(), GOING):
            raise RuntimeError(f"cannot be removed: {self.left()}")


def arguments(vdev=VDEVS[0], **more):
    return {"domain": GUEST, "vdev": vdev, "toolstack": "xenstore", "timeout": 10, **more}


def detached(**more):
    # The guest has no frontend that could agree.
    return arguments(state="detached", force=True, **more)


class Attach:
    """A device is attached, by ``way``, while its file is exchanged: A is right, and B wrong."""

    def __init__(self, disks, way):
        self.disks, self.way, self.title = disks, way, f"attach, {way}, exchanged"

    def begin(self):
        place = self.disks.place
        diskseq = place.begin()
        source = {
            "diskseq": {"diskseq": diskseq},
            "path and diskseq": {"path": place.node, "diskseq": diskseq},
            "file": {"file": place.path("A")},
        }[self.way]
        return victim.Run("xen_vbd", arguments(source=source, persist=False))

    def exchange(self):
        place = self.disks.place
        names = [name for name, row in loops().items() if row[1] == place.path("A")]
        for name in names if self.way == "file" else [os.path.basename(place.node)]:
            place.rebind(f"/dev/{name}", "B")

    def is_done(self):
        return self.disks.letter() == b"A"

    def problems(self, is_ok, was_done):
        letter = self.disks.letter()
        if letter == b"B":
            return [("wrong", "the guest has the other file")]
        if is_ok and letter != b"A" and not was_done:
            return [("lies", f"said ok, and blkback has {letter!r}")]
        if not is_ok and not settled(lambda: not self.disks.left(), GOING):
            return [("left", self.disks.left())]
        return []


class Detach:
    """
    A disk is detached if it still has the device that is meant, while somebody else's device takes its place.
    """

    title = "detach, diskseq, exchanged"

    def __init__(self, disks):
        self.disks = disks

    def begin(self):
        disks = self.disks
        diskseq = disks.place.begin()
        disks.others.clear()
        assert rawdev.bind(disks.others.node, disks.others.files["B"])
        answer = victim.run("xen_vbd", **arguments(source={"diskseq": diskseq}))
        assert victim.is_ok(answer), answer
        self.is_exchanged = False
        return victim.Run("xen_vbd", detached(diskseq=diskseq))

    def exchange(self):
        self.is_exchanged = True
        self.disks.give_to_other()

    def is_done(self):
        return not self.disks.has_nodes()

    def problems(self, is_ok, was_done):
        if self.is_exchanged and self.disks.letter() != b"B":
            return [("wrong", "somebody else's disk was detached")]
        return []


class Kill:
    """A run that is killed; ``made``: the arguments of the same run with the opposite state."""

    def __init__(self, disks, title, module, wanted, opposite, letters):
        self.disks, self.module, self.wanted, self.opposite = disks, module, wanted, opposite
        self.letters = letters
        self.title = f"{module} {title}, killed"

    def begin(self):
        self.disks.place.clear()
        if not any(self.letters):
            self._run(self.opposite)
        return victim.Run(self.module, self.wanted)

    def problems(self):
        """What is not as it should be after the next run, and after the opposite."""
        answer = victim.run(self.module, **self.wanted)
        if not victim.is_ok(answer):
            return [("left", f"the next run: {victim.words(answer)}")]
        seen = [self.disks.letter(number) for number in range(len(self.letters))]
        if seen != self.letters:
            return [("lies", f"the next run said ok, and blkback has {seen}")]
        if any(self.letters):
            self._run(self.opposite)
        self.disks.end_holders()
        return [] if settled(lambda: not self.disks.left(), GOING) else [("left", self.disks.left())]

    def _run(self, entry):
        answer = victim.run(self.module, **entry)
        if not victim.is_ok(answer):
            raise RuntimeError(f"{self.module} without a kill: {victim.words(answer)}")


def kills(disks):
    files = [disks.place.path("A"), disks.world.file("second", b"S")]
    one, gone = arguments(source={"file": files[0]}, persist=False), detached()
    both = {
        "vbds": [arguments(vdev, source={"file": file}, persist=False) for vdev, file in zip(VDEVS, files)]
    }
    none = {"vbds": [dict(detached(), vdev=vdev) for vdev in VDEVS]}
    return [
        Kill(disks, "attach", "xen_vbd", one, gone, [b"A"]),
        Kill(disks, "detach", "xen_vbd", gone, one, [b""]),
        Kill(disks, "attach", "xen_vbds", both, none, [b"A", b"S"]),
        Kill(disks, "detach", "xen_vbds", none, both, [b"", b""]),
    ]


def swapped(case, count):
    """``(whether the adversary had a turn, outcome, problems, number of system calls)``."""
    run, done = case.begin(), []

    def meet(pid, number):
        done.append(case.is_done())
        case.exchange()

    met, code, calls = run.stopped(count, meet)
    is_ok = victim.is_ok(run.answer())
    problems = case.problems(is_ok, any(done))
    if code == -14:
        problems.append(("left", "the run hung"))
    return met, "right" if is_ok else "refused", problems, calls


def killed(case, count):
    """The same for a kill."""
    was_killed, code = case.begin().killed(count)
    problems = [("left", "the run hung")] if code == -14 else case.problems()
    return was_killed, "refused", problems


class Tries:
    """All rows, each once in a round."""

    def __init__(self, disks, score, only):
        self.disks, self.score = disks, score
        swaps = [Attach(disks, way) for way in ("path and diskseq", "diskseq", "file")] + [Detach(disks)]
        self.swaps = [case for case in swaps if only in case.title]
        self.kills = [case for case in kills(disks) if only in case.title]
        self.calls = {}

    def count(self, case):
        """The number of system calls of an undisturbed run: all of them, or those that change something."""
        if case not in self.calls:
            every = case in self.swaps
            self.calls[case] = case.begin().stopped(ENDLESS, lambda pid, number: None, every)[2]
            self.disks.clear()
        return self.calls[case]

    def round(self, random):
        for case in self.swaps:
            victim.seed(random.random())
            count = random.randint(1, self.count(case))
            met, outcome, problems, _calls = swapped(case, count)
            self._note(met, case, outcome, problems, f"exchanged before call {count}")
        for case in self.kills:
            victim.seed(random.random())
            count = random.randint(0, self.count(case))
            met, outcome, problems = killed(case, count)
            self._note(met, case, outcome, problems, f"killed after call {count}")

    def _note(self, met, case, outcome, problems, example):
        if not self.disks.world.is_intact():
            problems.append(("wrong", "the bystander was touched"))
        if met:
            self.score.note(case.title, outcome, problems, example)
        self.disks.clear()


class _NoUdev:
    """udev is stopped for all rounds: it probes each new device, which takes longer than a run."""

    def real(self, wanted):
        pass


def main():
    chosen = options(__doc__)
    score = Score("xen_vbd", chosen.seed)
    with contextlib.ExitStack() as held:
        held.enter_context(hotplug.without_udev())
        held.enter_context(hotplug.mute_guest(GUEST))
        victim.load_all(1, MODULES)
        world = held.enter_context(World())
        places = [held.enter_context(Place(number)) for number in (NUMBER, OTHER)]
        store = held.enter_context(hotplug.connect())
        disks = Disks(store, world, *places)
        held.callback(disks.clear)
        tries = Tries(disks, score, chosen.only)
        for _is_cold, random in rounds(score, chosen, _NoUdev()):
            tries.round(random)
    return finish(score, chosen.report)


if __name__ == "__main__":
    sys.exit(main())
