# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Kills the hotplug script at one system call after the other, and counts what is left when the guest has lost the disk and the script has run once more.

strace kills it when it enters the call, by the call's name and how often it was made before. ``hotplug_kill.py --help`` has the options.
Exit code 1 when anything was ever left.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import hotplug

GUEST = "killed"
_LINE = re.compile(r"(?:[0-9]+ +)?([a-z_0-9]+)\(")
# What shows in short time: the calls by which something comes into being or goes away.
SAMPLE = {
    "add": {"rename": (1, 2), "ioctl": (12, 34, 38, 40, 42), "clone": (1,), "sendto": (1, 2, 4, 6, 7, 8, 9, 11, 12), "wait4": (1,), "kill": (1,)},
    "remove": {"unlink": (1,), "getdents64": (1, 3), "exit_group": (1,)},
}


def traced(disk, command, *options):
    """The script under strace; its exit code."""
    argv = ["strace", "-f", *options, hotplug.SCRIPT, command]
    return subprocess.run(
        argv, env=hotplug.environment(disk.key), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300, check=False,
    ).returncode


def names(disk, command):
    """The names of the system calls that the script makes. Traced whole it may be too slow for its own limit, which does not matter here."""
    with tempfile.NamedTemporaryFile() as log:
        traced(disk, command, "-o", log.name)
        lines = log.read().decode(errors="replace").splitlines()
    return sorted({match.group(1) for match in map(_LINE.match, lines) if match} - {"execve"})


def kill_at(disk, command, point):
    name, count = point
    # Not with --seccomp-bpf: strace 6.1 then injects no signal.
    return traced(disk, command, "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={count}")


def left():
    """What there is to be left: loop devices, state, copies of the script, mapped devices, nodes."""
    states = os.listdir(hotplug.STATE) if os.path.isdir(hotplug.STATE) else []
    copies = []
    for pid in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if pid.isdigit() and hotplug.SCRIPT.encode() in open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0"):
                copies.append(f"process {pid}")
    mapped = subprocess.run(["dmsetup", "ls"], stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
    nodes = subprocess.run(["xenstore-list", "/local/domain/0/backend/vbd"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return sorted(hotplug.loops() + states + copies + mapped + nodes.stdout.decode().splitlines())


def run_killed(store, image, command, point):
    """``(exit code, what is left)`` after a kill, the end of the disk, and one more disk of another number through the script."""
    with hotplug.Disk(store, GUEST, 0, image) as disk:
        if command == "remove":
            assert disk.call("add")[0] == 0
            disk.ask_back()
        code = kill_at(disk, command, point)
    with hotplug.Disk(store, GUEST, 1, image) as other:
        # The next run: what the killed one had to itself is nobody's.
        assert other.call("remove")[0] == 0
    end = time.monotonic() + 15
    while left() != BEFORE and time.monotonic() < end:
        time.sleep(0.05)
    return code, [entry for entry in left() if entry not in BEFORE]


BEFORE = []


def kill(every=None, commands=("add", "remove")):
    """
    ``(number of kills, [(command, point, what was left)])``, at each ``every``-th call of each name, as long as there are that many; None: at those
    of the SAMPLE.
    """
    kills, bad = 0, []
    BEFORE[:] = left()
    with tempfile.TemporaryDirectory(prefix="kill-", dir="/var/tmp") as place, hotplug.connect() as store:
        image = os.path.join(place, "disk.raw")
        with open(image, "wb") as file:
            file.truncate(1 << 20)
        for command in commands:
            found = SAMPLE[command] if every is None else {name: itertools.count(every, every) for name in seen(store, image, command)}
            for name, counts in found.items():
                for count in counts:
                    code, rest = run_killed(store, image, command, (name, count))
                    if rest:
                        bad.append((command, (name, count), rest))
                        print(f"left after a kill of {command} at {name} {count}: {rest}", file=sys.stderr, flush=True)
                    if code == 0 and every is not None:
                        # There were not so many of them.
                        break
                    kills += code not in (0, 1)
    return kills, bad


def seen(store, image, command):
    with hotplug.Disk(store, GUEST, 0, image) as disk:
        if command == "remove":
            assert disk.call("add")[0] == 0
            disk.ask_back()
        found = names(disk, command)
        disk.call("remove")
    hotplug.wait_no_loops(BEFORE, 60)
    return found


@contextlib.contextmanager
def guest():
    subprocess.run(["xenguest", "start", GUEST, "--memory", "128", "--no-frontend"], check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run(["xenguest", "stop", GUEST], check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every so many calls of each name")
    parser.add_argument("--command", choices=["add", "remove"], action="append", help="only this one")
    options = parser.parse_args()
    started = time.monotonic()
    with hotplug.installed(), guest():
        kills, bad = kill(options.every, options.command or ("add", "remove"))
    print(f"{kills} kills, {len(bad)} left something, {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
