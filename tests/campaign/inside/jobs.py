# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The tasks given to modules in the families kills, errors and pairs: the initial state, the task, and how its
result shows in the kernel.
"""

from __future__ import annotations

import contextlib
import copy
import os
import time

import victim
from score import Score, finish, now, options, rounds
from uevents import Udev
from victim import ColdRun, Run, is_ok, run, words
from world import SECTORS, World, loops, mapped, read, settled

ENDLESS = 10**9
_MOMENT = 3
NAME, OTHER, UUID = "campaign", "campaign-b", "CAMPAIGN-1"


class Job:
    """
    ``begin``: what creates the initial state, a list of (module, arguments). ``asked``: the task, one such
    pair. ``end``: what removes everything again, as a list. ``forget``: called before ``begin``, to remove
    what no module removes. ``shows``: called without arguments after the answer "ok"; returns how the actual
    state differs from the wanted one, or an empty text.
    """

    def __init__(self, title, asked, shows, begin=(), end=(), forget=lambda: None):
        self.title, self.asked, self.shows, self.begin, self.end, self.forget = (
            title,
            asked,
            shows,
            begin,
            end,
            forget,
        )

    def prepare(self):
        self.forget()
        for module, arguments in self.begin:
            answer = run(module, **arguments)
            if not is_ok(answer):
                raise RuntimeError(f"{self.title}: cannot begin: {words(answer)}")

    def finish(self):
        """
        Remove everything that was created; returns what could not be removed, as text. Retried, because the
        kernel releases the devices below a mapped device shortly after that is gone, and the next run of a
        module starts within milliseconds here.
        """
        for module, arguments in self.end:
            limit = time.monotonic() + _MOMENT
            while not is_ok(answer := run(module, **arguments)):
                if time.monotonic() > limit:
                    return f"{module} {arguments}: {words(answer)}"
                time.sleep(0.02)
        return ""


def _loops_of(*paths):
    def shows():
        wrong = [path for path in paths if [row[1] for row in loops().values()].count(path) != 1]
        return f"not exactly one loop device over {wrong}" if wrong else ""

    return shows


def _no_loop_of(*paths):
    def shows():
        there = [name for name, row in loops().items() if row[1] in paths]
        return f"still there: {there}" if there else ""

    return shows


def _device(name, uuid, letter, suspended="0"):
    """
    Returns a function that reports how the mapped device differs from the wanted one, on a file whose first
    byte there is ``letter``.
    """

    def shows():
        found = mapped().get(name)
        if found is None:
            return f"no mapped device {name}"
        if (found[0], found[4]) != (uuid, suspended):
            return f"{name} has the uuid {found[0]}, suspended {found[4]}"
        got = b"" if suspended == "1" else read(f"/dev/{found[2]}")
        return f"{name} reads {got!r}, not {letter!r}" if suspended == "0" and got != letter else ""

    return shows


def _no_device(*names):
    def shows():
        there = [name for name in names if name in mapped()]
        return f"still there: {there}" if there else ""

    return shows


def _all(*several):
    return lambda: "; ".join(text for text in (shows() for shows in several) if text)


def jobs(world):
    """The Jobs, on files of this world."""
    one, two = world.file("one", b"A"), world.file("two", b"B")
    both = [{"backing_file": one}, {"backing_file": two}]
    gone = [dict(row, state="absent") for row in both]
    unloop = [("loop_devices", {"devices": gone})]
    table = f"0 1024 linear file:{one} 0"
    device = {"name": NAME, "uuid": UUID, "table": table, "timeout": 3}
    second = {"name": OTHER, "uuid": UUID + "b", "table": f"0 1024 linear file:{two} 0", "timeout": 3}
    made = [("dm_device", device)]
    undevice = [
        ("dm_devices", {"devices": [{"name": NAME, "state": "absent"}, {"name": OTHER, "state": "absent"}]}),
        *unloop,
    ]
    present = _device(NAME, UUID, b"A")
    result = [
        Job("loop_device present", ("loop_device", {"backing_file": one}), _loops_of(one), end=unloop),
        Job(
            "loop_device absent",
            ("loop_device", {"backing_file": one, "state": "absent"}),
            _no_loop_of(one),
            [("loop_device", {"backing_file": one})],
            unloop,
        ),
        Job("loop_devices present", ("loop_devices", {"devices": both}), _loops_of(one, two), end=unloop),
        Job(
            "loop_devices absent",
            ("loop_devices", {"devices": gone}),
            _no_loop_of(one, two),
            [("loop_devices", {"devices": both})],
            unloop,
        ),
        Job("dm_device present", ("dm_device", device), present, end=undevice),
        Job(
            "dm_device absent",
            ("dm_device", {"name": NAME, "state": "absent", "timeout": 3}),
            _no_device(NAME),
            made,
            undevice,
        ),
        Job(
            "dm_device changed",
            ("dm_device", dict(device, table=table[:-1] + "8")),
            _device(NAME, UUID, b"a"),
            made,
            undevice,
        ),
        Job(
            "dm_device renamed",
            ("dm_device", {"name": OTHER, "uuid": UUID}),
            _all(_device(OTHER, UUID, b"A"), _no_device(NAME)),
            made,
            undevice,
        ),
        Job(
            "dm_device suspended",
            ("dm_device", {"name": NAME, "state": "suspended"}),
            _device(NAME, UUID, b"A", "1"),
            made,
            undevice,
        ),
        Job(
            "dm_devices present",
            ("dm_devices", {"devices": [device, second]}),
            _all(present, _device(OTHER, UUID + "b", b"B")),
            end=undevice,
        ),
        Job(
            "dm_devices absent",
            undevice[0],
            _no_device(NAME, OTHER),
            [("dm_devices", {"devices": [device, second]})],
            undevice,
        ),
        *_storage(world, one),
    ]
    return result


def _storage(world, image):
    cow = os.path.join(world.directory, "cow")
    record = f"{cow}.image"
    meta, data = world.file("meta", size=2 << 20), world.file("data", size=8 << 20)
    pool = {"name": NAME, "uuid": UUID, "table": f"0 {SECTORS} thin-pool file:{meta} file:{data} 128 0"}
    volumes = {"pool": pool, "volumes": [{"id": 1}, {"id": 2}], "timeout": 5}
    untaken = {
        "pool": pool,
        "volumes": [{"id": 1, "state": "absent"}, {"id": 2, "state": "absent"}],
        "timeout": 5,
    }
    key = {"description": "campaign:key", "type": "user", "payload": "00" * 32}

    def has_record():
        try:
            with open(record, encoding="utf-8") as file:
                return "" if image in file.read() else "the record does not name the image"
        except FileNotFoundError:
            return "no record"

    def forget():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(record)

    def has_key():
        with open("/proc/keys", encoding="utf-8") as keys:
            return "" if "campaign:key" in keys.read() else "no key"

    return [
        Job(
            "snapshot_stores",
            ("snapshot_stores", {"stores": [{"path": cow, "image": image}]}),
            has_record,
            forget=forget,
        ),
        Job("thin_volumes", ("thin_volumes", volumes), lambda: "", end=[("thin_volumes", untaken)]),
        Job(
            "kernel_key present",
            ("kernel_key", key),
            has_key,
            end=[("kernel_key", {"description": "campaign:key", "type": "user", "state": "absent"})],
        ),
    ]


def aftermath(world, job, answer, made_wrong):
    """
    The problems after a try that ended with this answer, for a Score: whether the answer is true, how the
    next run ends, and what is left over.
    """
    problems = list(made_wrong)
    if not world.is_intact():
        problems.append(("wrong", "the bystander was touched"))
    if is_ok(answer):
        shown = job.shows()
        if shown:
            problems.append(("lies", f"said ok, but {shown}"))
    again = run(job.asked[0], **job.asked[1])
    shown = job.shows() if is_ok(again) else ""
    if not is_ok(again):
        problems.append(("left", f"the next run fails: {words(again)}"))
    elif shown:
        problems.append(("lies", f"the next run said ok, but {shown}"))
    stays = job.finish()
    if stays:
        problems.append(("left", stays))
    if not settled(lambda: not world.left(), 3):
        problems.append(("left", world.left()))
    return problems


class Way:
    """
    How a job is run: ``begin(lane)`` returns a victim. ``calls``: the number of its system calls, by whether
    all of them are counted or only those that change something. ``cold(which)``: the same from a cold start,
    which makes about as many calls.
    """

    def __init__(self, world, job):
        self.job, self.which = job, None
        self.calls = {}
        for every in (True, False):
            job.prepare()
            self.calls[every] = self.begin().stopped(ENDLESS, lambda pid, number: 0, every)[2]
            job.finish()
            world.clean()

    def cold(self, which):
        other = copy.copy(self)
        other.which = which
        return other

    def begin(self, lane=0):
        if self.which is None:
            return Run(*self.job.asked, lane=lane)
        return ColdRun(*self.job.asked, which=self.which)

    def words(self):
        """A description for messages."""
        return "" if self.which is None else f" of a cold run's {('own process', 'child')[self.which]}"


def play(family, text, attempt):
    """
    The main program of a family: in each round, every job has one try. It ends after the given number of
    rounds, or when the time is over. Returns the exit code.

    ``attempt(score, world, way, random)`` makes one try and records it. Some rounds start cold (victim.py),
    with the real udevd.
    """
    chosen = options(text)
    score = Score(family, chosen.seed)
    victim.load_all(2)
    with World() as world, Udev() as udev:
        rows = [job for job in jobs(world) if chosen.only in job.title]
        ways = {}
        for is_cold, random in rounds(score, chosen, udev):
            for job in rows:
                now(f"{family}: {job.title}, seed {chosen.seed}, round {score.round}")
                victim.seed(random.random())
                if job not in ways:
                    ways[job] = Way(world, job)
                way = ways[job].cold(random.randrange(2)) if is_cold else ways[job]
                attempt(score, world, way, random)
    return finish(score, chosen.report)


def conclude(score, world, way, run, code, how, outcome):
    """
    Record a try whose run ended with this exit code: as ``outcome``, or with its problems if there are any.
    """
    hung = [("left", "the run hung")] if code == -14 else []
    problems = aftermath(world, way.job, run.answer(), hung)
    if problems:
        world.clean()
    score.note(way.job.title, outcome, problems, how + way.words())
