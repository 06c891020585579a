# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Compares the parser and the kernel of this host on generated tables. Every disagreement must have a name
(known.py). If the kernel is newer than the data about kernels, disagreements without a name are only printed.

Runs as root, and stops udevd while it runs: nobody may read from the devices made here, because some of them
make the kernel panic at a wrong read. ``differential.py --help`` lists the options. Exit code 0: every
disagreement has a name; 1: some have none; 3: the kernel did not answer in time, and the table was printed.

A table is loaded and then resumed, on a device without a table. What the kernel accepted is read back and
compared with what was sent: the two must be equal for the parser. Removing these devices takes most of the
time, so several processes share the tables. They take turns only where the lines of the kernel's log must be
told apart.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import glob
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import namedtuple

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import generate
import known
import udevd
from ansible_collections.racefree.block.plugins.module_utils import _dm_table
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    BlockError,
    KernelError,
    TableError,
)
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import bind
from ansible_collections.racefree.block.plugins.module_utils._dm import (
    codec,
    kernel_log,
    load,
    mapped,
    names,
    udev,
)
from ansible_collections.racefree.block.plugins.module_utils._dm import (
    control as _control,
)
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar import kernels, stops
from ansible_collections.racefree.block.plugins.module_utils._source import resources
from ansible_collections.racefree.block.plugins.module_utils._source import slots as _slots

BLKDISCARD = 0x1277
SECTORS = 98304
POOL_DEVICES = 12
# Targets that leave something on their devices that makes other targets fail.
WRITERS = frozenset(
    (
        "cache",
        "clone",
        "era",
        "integrity",
        "log-writes",
        "mirror",
        "raid",
        "snapshot",
        "snapshot-merge",
        "thin-pool",
        "vdo",
        "writecache",
        "zoned",
    )
)
# Targets that open a device with fewer permissions than the table has.
MIXED = frozenset(("clone", "snapshot", "snapshot-merge", "thin", "thin-pool", "verity"))
SILENCE = 60
JOBS = 3
EVENT = (udev.HIDDEN | udev.PRIMARY_SOURCE) << 16
_U64 = 1 << 64

# ``phase``: load or resume, or None if the kernel accepted it; ``table``: what it prints back.
Verdict = namedtuple("Verdict", ("phase", "errno", "reason", "table"))
TAKEN = Verdict(None, None, None, None)
Disagreement = namedtuple("Disagreement", ("kind", "name", "about"))


def load_targets():
    """Load every device-mapper target that the host's kernel has: {type: version}."""
    directory = f"/lib/modules/{os.uname().release}/kernel/drivers/md"
    paths = (
        glob.glob(f"{directory}/dm-*.ko*")
        + glob.glob(f"{directory}/dm-vdo/*.ko*")
        + glob.glob(f"{directory}/persistent-data/*.ko*")
    )
    modules = sorted({os.path.basename(path).split(".")[0] for path in paths})
    subprocess.run(["modprobe", "-a", "-q", *modules, "raid0", "raid1", "raid10", "raid456"], check=False)
    with _control.Control() as control:
        return control.target_versions()


@contextlib.contextmanager
def udev_stopped():
    """Stops udevd, which would handle the events of thousands of devices that exist only for milliseconds."""
    if not os.path.isdir("/run/systemd/system"):
        with _udevd_stopped():
            yield
        return
    units = ["systemd-udevd.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket"]
    running = subprocess.run(["systemctl", "-q", "is-active", units[0]], check=False).returncode == 0
    if running:
        subprocess.run(["systemctl", "stop", *units], check=True)
    try:
        yield
    finally:
        if running:
            subprocess.run(["systemctl", "start", *reversed(units)], check=True)


@contextlib.contextmanager
def _udevd_stopped():
    """The same for an udevd that was started by hand."""
    running = os.path.exists(udevd.CONTROL)
    if running:
        udevd.stop()
    try:
        yield
    finally:
        if running:
            udevd.start()


@contextlib.contextmanager
def _setting(path, value):
    if not os.path.exists(path):
        # Not every kernel has this file.
        yield
        return
    with open(path, encoding="ascii") as file:
        before = file.read()
    with open(path, "w", encoding="ascii") as file:
        file.write(value)
    try:
        yield
    finally:
        with open(path, "w", encoding="ascii") as file:
            file.write(before)


@contextlib.contextmanager
def fast_removal():
    """
    Shortens the wait for the kernel's RCU when a device is removed, which takes most of the time of a table.
    Silences the console.
    """
    with _setting("/sys/kernel/rcu_expedited", "1"), _setting("/proc/sys/kernel/printk", "1"):
        yield


class Devices:
    """
    The loop devices below the tables: ordinary ones, one with blocks of 4096 bytes, one that is read-only.
    """

    def __init__(self, directory):
        self.held = []
        self.pool = []
        for number in range(POOL_DEVICES):
            path = os.path.join(directory, f"{number}.raw")
            with open(path, "wb") as file:
                file.truncate(SECTORS * 512)
            block = 4096 if number == 0 else 512
            read_only = number == 1
            with _backing.Backing(path, read_only=read_only) as backing:
                device = bind.attach(backing, sector_size=block, read_only=read_only)
            self.held.append((device, None if read_only else os.open(device.path, os.O_RDWR | os.O_CLOEXEC)))
            self.pool.append(generate.PoolDevice(device.id.number, SECTORS, block))

    def wipe(self, numbers):
        for device, fd in self.held:
            if fd is not None and device.id.number in numbers:
                fcntl.ioctl(fd, BLKDISCARD, struct.pack("QQ", 0, SECTORS * 512))

    def close(self):
        for device, fd in self.held:
            if fd is not None:
                os.close(fd)
            device.close()


class ThinPool:
    """A live thin-pool with the volumes 0 to 3, over two files."""

    def __init__(self, control, directory):
        self.held = []
        for name in ("meta", "data"):
            path = os.path.join(directory, f"{name}.raw")
            with open(path, "wb") as file:
                file.truncate(SECTORS * 512)
            with _backing.Backing(path) as backing:
                self.held.append(bind.attach(backing))
        meta, data = (device.id.number for device in self.held)
        table = load.Table(((0, SECTORS, b"thin-pool", f"{meta} {data} 128 0".encode()),))
        uuid = names.new_uuid()
        self.device = mapped.make(
            control, f"differential-pool-{os.getpid()}", uuid, table, EVENT, persist=False
        )
        for number in range(4):
            control.message(_control.by_device(self.device), f"create_thin {number}")

    def close(self):
        self.device.close()
        for device in self.held:
            device.close()


class Turn:
    """One process at a time, so that the lines of the kernel's log in between are its own."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self):
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __exit__(self, *exc):
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def close(self):
        os.close(self.fd)


class Kernel:
    """One mapped device, made again after each table. ``turn``: a :class:`Turn`."""

    def __init__(self, control, turn):
        self.control = control
        self.turn = turn
        self.log = kernel_log.KernelLog()
        self.made = 0
        self.address = None
        self.number = None
        self._create()

    def _create(self):
        self.made += 1
        uuid = names.new_uuid()
        status = self.control.create(f"differential-{os.getpid()}-{self.made}", uuid)
        self.address, self.number = _control.by_uuid(uuid), status.number

    def judge(self, targets, read_only):
        """The Verdict on a list of ``(start, length, type, params)``, sent unchanged."""
        with self.turn:
            announce(targets, read_only)
            verdict = self._judge(targets, read_only)
        if verdict.phase != "load":
            self._remove()
            self._create()
        return verdict

    def _judge(self, targets, read_only):
        self.log.lines()
        phase = "load"
        try:
            self.control.load(self.address, targets, read_only, strict=False)
            phase = "resume"
            self.control.resume(self.address, event_nr=EVENT)
        except KernelError as error:
            return Verdict(
                phase, error.errno_name, kernel_log.find_reason(self.log.lines(), self.number), None
            )
        return Verdict(
            None, None, None, [codec.line_text(line) for line in self.control.table(self.address)[1]]
        )

    def _remove(self):
        until = time.monotonic() + 60
        while True:
            try:
                self.control.remove(self.address, event_nr=EVENT)
                return
            except KernelError as error:
                # The work queues of a target may hold it for a moment.
                if error.errno_name != "EBUSY" or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def close(self):
        self.log.close()
        with contextlib.suppress(BlockError):
            self.control.remove(self.address, deferred=True, event_nr=EVENT)


def announce(targets, read_only):
    """Record what will be sent, for the message after a crash of the kernel (RACEFREE_NOW)."""
    if os.environ.get("RACEFREE_NOW"):
        lines = [
            f"{start} {length} {kind.decode()} {params.decode()}" for start, length, kind, params in targets
        ]
        with open(os.environ["RACEFREE_NOW"], "w", encoding="utf-8") as file:
            file.write(
                "the table" + (" (read-only)" if read_only else "") + "".join(f"\n  {line}" for line in lines)
            )


def sendable(lines):
    """The lines as the kernel's interface accepts them, or None if a value does not fit into its field."""
    targets = []
    for line in lines:
        start, length, kind, params = (line.split(" ", 3) + ["", "", ""])[:4]
        if not (
            re.fullmatch("[0-9]+", start)
            and re.fullmatch("[0-9]+", length)
            and int(start) < _U64
            and int(length) < _U64
        ):
            return None
        kind, params = kind.encode(), params.encode()
        if not 1 <= len(kind) <= 15:
            return None
        targets.append((int(start), int(length), kind, params))
    return targets or None


def is_dangerous(lines, read_only, errors):
    """
    Whether the table may crash or hang the kernel (``device-modes``, ``integrity-recovery`` and the tables
    that stop this kernel, see the documentation, and a switch with very many regions). Such a table is never
    sent. In a table that the parser could not read, every device that occurs twice counts, every
    recalculation in mode R, and every word of a table that stops this kernel.
    """
    if any(
        "stops" in error or "would use freed memory" in error["rule"] or "stops with a BUG" in error["rule"]
        for error in errors
    ):
        return True
    if errors and _may_stop(lines):
        return True
    for line in lines:
        # One step for each region, without a pause: minutes with the lengths that are generated here to be
        # refused.
        if " switch " in line and re.match(r"[0-9]+ [0-9]{8,} ", line):
            return True
    words = [word for line in lines for word in line.split(" ")]
    devices = [word for word in words if re.fullmatch("[0-9]+:[0-9]+", word)]
    if "integrity" in words and "R" in words and any("recalculate" in word for word in words):
        return True
    return (
        bool(errors)
        and len(set(devices)) < len(devices)
        and bool(MIXED.intersection(words) or read_only and WRITERS.intersection(words))
    )


def data_for(release):
    """
    (the known kernel whose data is used for the running one (``uname -r``), whether they are the same).

    A kernel that is not in the data is compared with the newest one that is. If they differ, correct the
    data, not the code that was changed last.
    """
    same = kernels.same_grammar(release)
    return same or kernels.KERNELS[-1], same is not None


def _may_stop(lines):
    """
    Whether a table that the parser could not read may be one of those that stop this kernel (``_stops``), by
    its words.
    """
    if kernels.version_of(os.uname().release) < min(stop.since for stop in stops.STOPS):
        return False
    rows = [line.split(" ") for line in lines]
    return any(
        "discard_zeroes_cow" in (word.lower() for word in row) or "raid" in row and "sync" in row
        for row in rows
    )


class Run:
    """The comparison, or the share of one process."""

    def __init__(self, options, targets):
        self.options = options
        self.kernel_name, self.known = data_for(os.uname().release)
        self.targets = targets
        self.types = [name for name in generate.TYPES if name in targets and name not in options.without]
        if options.types:
            self.types = [name for name in self.types if name in options.types]
        self.seconds = {"parser": 0.0, "kernel": 0.0}
        self.counts = {}
        self.classes = {}
        self.totals = dict.fromkeys(
            (
                "tables",
                "both took",
                "both refused",
                "no table to the interface",
                "dangerous, never sent",
                "disagreements",
                "without a name",
            ),
            0,
        )

    def result(self):
        """The counts as plain data, for :func:`add_up`."""
        return {"counts": self.counts, "classes": self.classes, "totals": self.totals, "spent": self.seconds}

    def work(self, tell, place, number):
        """
        The tables of process ``number``, in threes: the kinds alternate, and every process must get some of
        each. ``place`` is for files, ``tell`` is called before each table.
        """
        options = self.options
        with contextlib.ExitStack() as stack:
            directory = os.path.join(place, str(number))
            os.mkdir(directory)
            host = stack.enter_context(resources.Resources())
            devices = Devices(directory)
            stack.callback(devices.close)
            thin_pool = None
            if "thin" in self.types and "thin-pool" in self.targets:
                thin_pool = ThinPool(host.dm, directory)
                stack.callback(thin_pool.close)
            turn = Turn(os.path.join(place, "turn"))
            stack.callback(turn.close)
            kernel = Kernel(host.dm, turn)
            stack.callback(kernel.close)
            slots = _slots.Slots(host, kernels=(self.kernel_name,), targets=self.targets)
            maker = generate.Generator(
                options.seed,
                devices.pool,
                self.types,
                None if thin_pool is None else thin_pool.device.id.number,
            )
            for index, (kind, lines) in enumerate(maker.tables(options.skip + options.count)):
                words = [line.split(" ") for line in lines]
                read_only = any("verity" in row for row in words) or maker.random.random() < 0.1
                if index < options.skip or index // 3 % options.jobs != number:
                    continue
                tell({"index": index, "lines": lines, "read_only": read_only})
                self._one(kind, lines, read_only, slots, kernel)
                if any(WRITERS.intersection(row) for row in words):
                    devices.wipe({word for row in words for word in row})

    def _one(self, kind, lines, read_only, slots, kernel):
        started = time.monotonic()
        errors, table = judge(lines, read_only, slots)
        self.seconds["parser"] += time.monotonic() - started
        targets = sendable(lines)
        self.totals["tables"] += 1
        if is_dangerous(lines, read_only, errors):
            self.totals["dangerous, never sent"] += 1
            return
        started = time.monotonic()
        verdict = None if targets is None else kernel.judge(targets, read_only)
        spent = time.monotonic() - started
        self.seconds["kernel"] += spent
        types = {line.split(" ")[2] for line in lines if line.count(" ") > 1} & set(generate.TYPES)
        for name in types:
            row = self.counts.setdefault(name, {"tables": 0, "taken": 0, "seconds": 0.0})
            row["tables"] += 1
            row["seconds"] += spent
            row["taken"] += verdict is not None and verdict.phase is None
        if verdict is None:
            self.totals["no table to the interface"] += 1
            found = [] if errors else [Disagreement("cannot be sent, accepted by the parser", None, "")]
        else:
            found = compare(errors, table, verdict, types)
            if not found:
                self.totals["both refused" if errors else "both took"] += 1
        for disagreement in found:
            self._note(disagreement, kind, lines, read_only, errors, verdict)

    def _note(self, disagreement, kind, lines, read_only, errors, verdict):
        self.totals["disagreements"] += 1
        self.totals["without a name"] += disagreement.name is None
        key = " | ".join((disagreement.kind, disagreement.name or "WITHOUT A NAME", disagreement.about))
        row = self.classes.setdefault(key, {"count": 0, "name": disagreement.name, "examples": []})
        row["count"] += 1
        if len(row["examples"]) < (1 if disagreement.name else 3):
            row["examples"].append(
                {
                    "lines": lines,
                    "made as": kind,
                    "read_only": read_only,
                    "parser": [
                        f"line {error['line']}: {error['field']} {error['value']!r}: {error['rule']}"
                        for error in errors
                    ],
                    "kernel": None if verdict is None else verdict._asdict(),
                }
            )


def judge(lines, read_only, slots):
    """``(errors, Table or None)`` of the parser. A missing device is an error, too."""
    try:
        return [], slots.look(lines, read_only).table
    except TableError as error:
        return error.errors, None
    except BlockError as error:
        return [
            {
                "line": None,
                "target": None,
                "field": "device",
                "value": str(error.device),
                "rule": error.message,
            }
        ], None


def compare(errors, table, verdict, types):
    """The Disagreements, a list. ``types``: the target types of the lines, known to the generator."""
    if errors and known.words_taken(types, verdict):
        return [
            Disagreement(
                "refused by the parser, accepted by the kernel",
                known.stricter(error, errors),
                f"{error['target']} {error['field']}: {plain(error['rule'])}",
            )
            for error in errors
        ]
    if not errors and verdict.phase is not None:
        types = ",".join(sorted({target.TYPE for target in table}))
        about = f"{verdict.phase} {verdict.errno} {plain(verdict.reason or f'({types}, no reason logged)')}"
        return [
            Disagreement(
                "accepted by the parser, refused by the kernel", known.undecided(table, verdict), about
            )
        ]
    if verdict.phase is None:
        return _compare_printed(table, verdict.table)
    return []


def _compare_printed(table, printed):
    try:
        again = _dm_table.parse_table(printed)
    except TableError as error:
        row = error.errors[0]
        return [
            Disagreement(
                "printed back in a form that the parser refuses",
                None,
                f"{row['target']} {row['field']}: {plain(row['rule'])}",
            )
        ]
    differences = table.same_as(again).differences
    return [
        Disagreement("printed back differently", None, f"{row['target']} {row['field']}")
        for row in differences
    ]


def plain(text):
    """``text`` without numbers, so that the same error for another value is in the same class."""
    return re.sub(r"'[^']*'", "'...'", re.sub(r"[0-9]+", "N", text))


class Worker:
    """A process with its share of the run, which may hang in the kernel forever."""

    def __init__(self, run, place, number):
        self.reading, writing = os.pipe()
        self.child = os.fork()
        if not self.child:
            self._work(run, place, number, writing)
        os.close(writing)
        self.buffer = b""
        self.last = None
        self.heard = time.monotonic()

    def _work(self, run, place, number, writing):
        code = 2
        try:
            os.close(self.reading)
            out = os.fdopen(writing, "w", encoding="utf-8")
            run.work(lambda row: print(json.dumps(row), file=out, flush=True), place, number)
            print(json.dumps(run.result()), file=out, flush=True)
            code = 0
        finally:
            if code:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(code)

    def hear(self, trace):
        """Read its messages; returns whether it has ended."""
        piece = os.read(self.reading, 1 << 16)
        self.heard = time.monotonic()
        *rows, self.buffer = (self.buffer + piece).split(b"\n")
        if rows:
            self.last = json.loads(rows[-1])
        for row in rows if trace else ():
            print(row.decode(), flush=True)
        return not piece

    def end(self):
        """Its result, or None and a message if there is none."""
        os.close(self.reading)
        code = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        if code == 0 and "totals" in (self.last or {}):
            return self.last
        print(f"a process ended with {code} after: {self.last}", flush=True)
        return None

    def kill(self):
        """Kill it without waiting: a process that hangs in the kernel does not die."""
        os.kill(self.child, signal.SIGKILL)
        os.close(self.reading)


def watch(run):
    """
    Run as many processes as the options say; returns their results, or None if one of them hung or failed.
    """
    place = tempfile.mkdtemp(prefix="differential-", dir=run.options.directory)
    try:
        workers = {}
        for number in range(run.options.jobs):
            worker = Worker(run, place, number)
            workers[worker.reading] = worker
        results = []
        while workers:
            for fd in select.select(list(workers), [], [], 5)[0]:
                if workers[fd].hear(run.options.trace):
                    results.append(workers.pop(fd).end())
            silent = [worker for worker in workers.values() if time.monotonic() > worker.heard + SILENCE]
            if silent or None in results:
                for worker in silent:
                    print(f"nothing for {SILENCE} s after: {worker.last}", flush=True)
                for worker in workers.values():
                    worker.kill()
                return None
        return results
    finally:
        shutil.rmtree(place)


def add_up(results):
    """Combine the results of all processes."""
    total = {"counts": {}, "classes": {}, "totals": {}, "spent": {}}
    for result in results:
        for name, row in result["counts"].items():
            _add(total["counts"].setdefault(name, {}), row)
        for key, row in result["classes"].items():
            same = total["classes"].setdefault(key, {"count": 0, "name": row["name"], "examples": []})
            same["count"] += row["count"]
            same["examples"] += row["examples"]
        _add(total["totals"], result["totals"])
        _add(total["spent"], result["spent"])
    return total


def _add(sums, row):
    for name, value in row.items():
        sums[name] = sums.get(name, 0) + value


def compare_tables(**options):
    """``(exit code, result or None)`` of a whole run; options are those of the command line."""
    options = argparse.Namespace(
        **dict(
            {
                "seed": 1,
                "count": 600,
                "skip": 0,
                "types": [],
                "without": [],
                "jobs": JOBS,
                "directory": "/var/tmp",
                "trace": False,
                "report": None,
            },
            **options,
        )
    )
    run = Run(options, load_targets())
    started = time.monotonic()
    with udev_stopped(), fast_removal():
        results = watch(run)
    if results is None:
        return 3, None
    result = add_up(results)
    result.update(
        seed=options.seed,
        skip=options.skip,
        kernel=os.uname().release,
        compared_with=run.kernel_name,
        known=run.known,
        seconds=round(time.monotonic() - started, 1),
        types=run.types,
    )
    if options.report:
        with open(options.report, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
    return (1 if run.known and result["totals"]["without a name"] else 0), result


def summary(result):
    """One line: seed, kernel and totals."""
    totals = result["totals"]
    kernel = (
        result["kernel"]
        if result["known"]
        else f"{result['kernel']} (not in the data, compared with {result['compared_with']})"
    )
    return (
        f"seed {result['seed']}, Linux {kernel}: {totals['tables']} tables in {result['seconds']} s, "
        + ", ".join(f"{value} {name}" for name, value in totals.items() if name != "tables")
    )


def show(result):
    """The result as text."""
    print(summary(result))
    for name, row in sorted(result["counts"].items()):
        print(
            f"  {name:16} {row['tables']:6} tables, {row['taken']:6} taken by the kernel, "
            f"{1000 * row['seconds'] / row['tables']:6.0f} ms each"
        )
    for key, row in sorted(
        result["classes"].items(), key=lambda item: (item[1]["name"] is not None, -item[1]["count"])
    ):
        print(f"{row['count']:6} {key}")
        example = row["examples"][0]
        print(
            "       "
            + "\n       ".join(example["lines"])
            + ("   (read-only)" if example["read_only"] else "")
        )
        if row["name"] is None:
            for text in example["parser"][:3]:
                print(f"       parser: {text}")
            if example["kernel"]:
                print(f"       kernel: {example['kernel']}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=600, help="how many tables")
    parser.add_argument("--skip", type=int, default=0, help="skip this many tables")
    parser.add_argument(
        "--types", type=lambda text: text.split(","), default=[], help="only these target types"
    )
    parser.add_argument(
        "--without", type=lambda text: text.split(","), default=[], help="all but these target types"
    )
    parser.add_argument("--jobs", type=int, default=JOBS, help="number of processes that share the tables")
    parser.add_argument("--directory", default="/var/tmp", help="directory for the files of loop devices")
    parser.add_argument("--report", help="write the whole result to this file, as JSON")
    parser.add_argument("--trace", action="store_true", help="print every table before it is tried")
    options = parser.parse_args()
    code, result = compare_tables(**vars(options))
    if result is not None:
        show(result)
    return code


if __name__ == "__main__":
    sys.exit(main())
