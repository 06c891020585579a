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
import collections
import contextlib
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
# The interpreter's own start comes before anything of ours; exit is the end.
_LINE = re.compile(r"(?:([0-9]+) +)?([a-z_0-9]+)\(")


def traced(disk, command, *options):
    """The script under strace; its exit code."""
    argv = ["strace", "-f", "--seccomp-bpf", *options, hotplug.SCRIPT, command]
    return subprocess.run(
        argv, env=hotplug.environment(disk.key), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300, check=False,
    ).returncode


def points(disk, command):
    """``[(name of the call, how many of this name there were up to it)]`` in the order in which the script makes them."""
    with tempfile.NamedTemporaryFile() as log:
        assert traced(disk, command, "-o", log.name) == 0
        lines = log.read().decode(errors="replace").splitlines()
    own = _LINE.match(lines[0]).group(1)
    seen, found = collections.Counter(), []
    for line in lines:
        match = _LINE.match(line)
        if match and match.group(1) == own and match.group(2) != "execve":
            seen[match.group(2)] += 1
            found.append((match.group(2), seen[match.group(2)]))
    return found


def kill_at(disk, command, point):
    name, count = point
    return traced(disk, command, "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={count}")


def left():
    """What there is to be left: loop devices, state, copies of the script, mapped devices, nodes."""
    states = [name for name in os.listdir(hotplug.STATE)] if os.path.isdir(hotplug.STATE) else []
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


def kill(every, commands=("add", "remove")):
    """``(number of kills, [(command, point, what was left)])``, at each ``every``-th system call."""
    kills, bad = 0, []
    BEFORE[:] = left()
    with tempfile.TemporaryDirectory(prefix="kill-", dir="/var/tmp") as place, hotplug.connect() as store:
        image = os.path.join(place, "disk.raw")
        with open(image, "wb") as file:
            file.truncate(1 << 20)
        for command in commands:
            with hotplug.Disk(store, GUEST, 0, image) as disk:
                if command == "remove":
                    assert disk.call("add")[0] == 0
                    disk.ask_back()
                found = points(disk, command)
                if command == "add":
                    disk.call("remove")
            hotplug.wait_no_loops(BEFORE)
            for index in range(every - 1, len(found), every):
                code, rest = run_killed(store, image, command, found[index])
                # A call that is not made this time (a pause that was not needed) kills nothing.
                kills += code not in (0, 1)
                if rest:
                    bad.append((command, found[index], rest))
                    print(f"left after a kill of {command} at {found[index]}: {rest}", file=sys.stderr, flush=True)
    return kills, bad


@contextlib.contextmanager
def guest():
    subprocess.run(["xenguest", "start", GUEST, "--memory", "128", "--no-frontend"], check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run(["xenguest", "stop", GUEST], check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every so many system calls")
    parser.add_argument("--command", choices=["add", "remove"], action="append", help="only this one")
    options = parser.parse_args()
    hotplug.install()
    started = time.monotonic()
    with guest():
        kills, bad = kill(options.every, options.command or ("add", "remove"))
    print(f"{kills} kills, {len(bad)} left something, {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
