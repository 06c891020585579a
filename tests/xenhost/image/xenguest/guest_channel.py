# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Commands to a guest and their results, over the guest's console.

Commands are written to the console's pseudo terminal; answers are read in xenconsoled's log of that console,
so that any number of commands can run at once and a human can watch with "xl console". The lines are
described in the guest's init. It needs xenstored only to find the console, and nothing of the disks under
test.
"""

from __future__ import annotations

import binascii
import fcntl
import os
import sys
import time

from guest_errors import GuestProblem
from guest_store import Store

STATE = "/run/xenguest"
LOGS = "/var/log/xen/console"


def crc32(data):
    """As busybox's crc32 prints it."""
    return f"{binascii.crc32(data):08x}"


class Log:
    """What xenconsoled writes of one guest from now on; a restored guest's log has a longer name."""

    def __init__(self, name):
        self._paths = [f"{LOGS}/guest-{name}.log", f"{LOGS}/guest-{name}--incoming.log"]
        self._offsets = {path: self._size(path) for path in self._paths}
        self._rest = dict.fromkeys(self._paths, b"")

    @staticmethod
    def _size(path):
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            return 0

    def lines(self):
        """The whole lines that came since the last call."""
        found = []
        for path in self._paths:
            if self._size(path) <= self._offsets[path]:
                continue
            with open(path, "rb") as file:
                file.seek(self._offsets[path])
                data = file.read()
            self._offsets[path] += len(data)
            *lines, self._rest[path] = (self._rest[path] + data).split(b"\n")
            found += [line.rstrip(b"\r") for line in lines]
        return found


def wait_ready(name, log, seconds):
    """Until the guest's init takes commands; returns the guest's kernel release."""
    deadline = time.monotonic() + seconds
    seen = []
    while time.monotonic() < deadline:
        for line in log.lines():
            seen.append(line.decode(errors="replace"))
            if line.startswith(b"@READY "):
                return seen[-1][7:]
        if any("Kernel panic" in line for line in seen):
            raise GuestProblem(f"guest {name}'s kernel panicked; its console:\n" + "\n".join(seen[-15:]), 125)
        time.sleep(0.05)
    tail = "\n".join(seen[-15:]) or "(nothing)"
    raise GuestProblem(
        f"guest {name} did not take commands within {seconds:g} s; its console's last lines:\n{tail}", 125
    )


def find_tty(name):
    store = Store()
    try:
        domain = store.domains().get(name)
        if domain is None:
            raise GuestProblem(f"there is no guest {name}: xenguest list shows those that there are")
        tty = store.read(f"/local/domain/{domain}/console/tty")
    finally:
        store.close()
    if not tty:
        raise GuestProblem(f"guest {name} (domain {domain}) has no console yet: is xenconsoled running?")
    return tty


def cached_tty(name):
    """The console of the last call, for when xenstored itself is what a test has stopped."""
    try:
        with open(f"{STATE}/{name}.tty", encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def locate(name):
    try:
        tty = find_tty(name)
    except GuestProblem as problem:
        tty = cached_tty(name)
        if tty is None or "xenstored" not in str(problem):
            raise
        print(f"xenguest: {problem}; using the console of the last call, {tty}", file=sys.stderr)
        return tty
    if cached_tty(name) != tty:
        os.makedirs(STATE, exist_ok=True)
        with open(f"{STATE}/{name}.tty", "w", encoding="utf-8") as file:
            file.write(tty)
    return tty


def send(name, tty, lines, seconds=30.0):
    """Write lines to the guest's console; one writer per guest at a time, or their lines would mix."""
    deadline = time.monotonic() + seconds
    os.makedirs(STATE, exist_ok=True)
    with open(f"{STATE}/{name}.lock", "w", encoding="utf-8") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise GuestProblem(
                        f"timed out after {seconds:g} s waiting for another writer to guest {name}'s console",
                        125,
                    ) from None
                time.sleep(0.02)
        data = "".join(line + "\n" for line in lines).encode()
        fd = os.open(tty, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            while data:
                try:
                    data = data[os.write(fd, data) :]
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise GuestProblem(
                            f"guest {name} read nothing from its console for {seconds:g} s", 125
                        ) from None
                    time.sleep(0.02)
        finally:
            os.close(fd)


class Answer:
    """What came of one job's answer so far."""

    def __init__(self, job):
        self._job = job.encode()
        self._stream = None
        self._found = {}
        self.ended = None

    def take(self, line):
        """One line of the console; True when the answer has ended with it."""
        fields = line.split(b" ")
        if fields[0] in (b"@O", b"@S", b"@E") and len(fields) >= 2:
            self._stream = None
            if fields[1] != self._job:
                return False
            if fields[0] == b"@E":
                self.ended = fields[2:]
                return True
            self._stream = self._found[fields[0]] = []
        elif self._stream is not None and line:
            self._stream.append(line)
        return False

    def _data(self, kind):
        *lines, crc = self._found.get(kind) or [b"00000000"]
        data = binascii.a2b_base64(b"".join(lines))
        if crc32(data) != crc.split(b" ")[0].decode():
            raise ValueError("checksum")
        return data

    def result(self):
        """(exit code, output, errors, timed out); ValueError when anything was lost or came between."""
        exit_code, late, *sent = self.ended
        if {b"@" + word for word in sent} != set(self._found):
            raise ValueError("a stream is missing")
        return int(exit_code), self._data(b"@O"), self._data(b"@S"), late == b"1"


def run(name, command, seconds, grace):
    """
    Run a shell command in the guest.

    Returns exit code, standard output, standard error (both bytes) and whether the guest killed it after
    ``seconds``. GuestProblem with code 125 when the guest does not answer at all within ``seconds`` and
    ``grace``, the time that it may need beyond the command's own.
    """
    tty = locate(name)
    log = Log(name)
    job = os.urandom(5).hex()
    send(name, tty, [f"J {job} {line}" for line in command.split("\n")] + [f"X {job} {max(1, int(seconds))}"])
    deadline = time.monotonic() + seconds + grace
    answer = Answer(job)
    damaged = 0
    pause = 0.01
    while time.monotonic() < deadline:
        for line in log.lines():
            if not answer.take(line):
                continue
            try:
                result = answer.result()
            except ValueError:
                damaged += 1
                if damaged > 5:
                    raise GuestProblem(f"guest {name}'s answer came damaged {damaged} times", 125) from None
                answer = Answer(job)
                send(name, tty, [f"R {job}"])
                continue
            send(name, tty, [f"F {job}"])
            return result
        time.sleep(pause)
        pause = min(pause * 1.3, 0.1)
    raise GuestProblem(
        f"timed out after {seconds + grace:g} s waiting for guest {name} to answer (paused, crashed, or "
        "its command cannot be killed?)",
        125,
    )
