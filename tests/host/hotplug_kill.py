# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Kills the hotplug script after each of its system calls in turn, and counts what is left after the guest has
lost the disk and the script has run once more.

``add`` has two processes, the one that libxl waits for and the one that works; each is killed after each of
its calls, and ``remove`` after each of its own. A call that only reads changes nothing of what is left, so
only the others count, but with ``--all``. The part ``work`` is what is done when the interpreter has been
started; ``start`` begins with the program itself, whose first thousand calls import modules. The part
``service`` kills the service instead while it does an ``add``, in its first thread, its keeper and the thread
that works; and the script that waits for it. ``hotplug_kill.py --help`` has the options. Exit code 1 when
anything was ever left.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import tempfile
import time

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import hotplug
import ptrace
from ansible_collections.racefree.block.plugins.module_utils._hotplug import service as _service

GUEST = "killed"
# Which process of which call, and which process or thread of the service.
PROCESSES = {"add": 0, "worker": 1, "remove": 0}
SERVICE = {"script": None, "service": 0, "keeper": 1, "thread": 2}
_PR_SET_CHILD_SUBREAPER = 36


def left(store):
    """Everything that can be left: loop devices, state, processes, mapped devices, nodes."""
    states = os.listdir(hotplug.STATE) if os.path.isdir(hotplug.STATE) else []
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
        processes = [f"process {pid}" for pid in children.read().split() if not _has_ended(int(pid))]
    blocks = os.listdir("/sys/block")
    loops = [name for name in blocks if name.startswith("loop") and os.path.exists(f"/sys/block/{name}/loop")]
    return sorted(
        loops
        + states
        + processes
        + [name for name in blocks if name.startswith("dm-")]
        + (store.list("/local/domain/0/backend/vbd") or [])
    )


def _has_ended(pid):
    """Orphaned processes become children of this process, which reaps them."""
    return os.waitpid(pid, os.WNOHANG) != (0, 0)


def run_killed(store, image, name, count, part, every):
    """
    ``(whether it was killed, what is left)`` after a kill, the end of the disk, and one more call of the
    script.
    """
    before = left(store)
    command = "remove" if name == "remove" else "add"
    with hotplug.Disk(store, GUEST, 0, image) as disk:
        if command == "remove":
            assert disk.fork("add").wait(40) == 0
            disk.ask_back()
        if part == "service":
            killed = _served_and_killed(disk, SERVICE[name], count, every)
        else:
            run = (
                _quietly(lambda: disk.main(command))
                if part == "work"
                else _quietly(lambda: disk.execute(command))
            )
            killed = ptrace.run_killed(run, PROCESSES[name], count, every)[0]
    # The next run, for any other disk, removes what the killed one left.
    assert hotplug.Disk(store, GUEST, 1, image).fork("remove").wait(40) == 0
    end = time.monotonic() + 15
    while (now := left(store)) != before and time.monotonic() < end:
        time.sleep(0.02)
    return killed, [entry for entry in now if entry not in before]


def _served_and_killed(disk, which, count, every):
    """
    Returns whether it was killed. The script must get an answer in any case, and if it reports the disk as
    connected, that must be true.
    """
    serve = _quietly(lambda: _service.serve() or 0)
    tracer = hotplug.Forked(
        serve if which is None else lambda: ptrace.run_killed(serve, which, count, every)[0]
    )
    hotplug.wait_until(lambda: hotplug.is_served() or tracer.poll() is not None, 60, "the service to begin")
    if which is None:
        killed = ptrace.run_killed(_quietly(lambda: disk.execute("add")), 0, count, every)[0]
        os.kill(hotplug.is_served(), signal.SIGTERM)
        tracer.wait(60)
        return killed
    code = disk.call("add")[0]
    assert code or disk.node("hotplug-status") == "connected", (
        f"exit code 0 and {disk.node('hotplug-status')}"
    )
    service = hotplug.is_served()
    if service:
        os.kill(service, signal.SIGTERM)
    return bool(tracer.wait(60))


def _quietly(function):
    def run():
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        return function()

    return run


def kill(step=1, names=None, part="work", first=0, every=False):
    """
    ``(number of kills by name, [(name, count, what was left)])``, after each ``step``-th call from ``first``
    on.
    """
    kills, bad = {}, []
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="kill-", dir="/var/tmp") as place, hotplug.connect() as store:
        image = os.path.join(place, "disk.raw")
        with open(image, "wb") as file:
            file.truncate(1 << 20)
        for name in names or (SERVICE if part == "service" else PROCESSES):
            kills[name], count, killed = 0, first, True
            while killed:
                killed, rest = run_killed(store, image, name, count, part, every)
                if rest:
                    bad.append((name, count, rest))
                    print(f"left after a kill of {name} at call {count}: {rest}", file=sys.stderr, flush=True)
                kills[name] += killed
                count += step
                if kills[name] % 20 == 0:
                    print(f"{kills[name]} kills of {name}", file=sys.stderr, flush=True)
    return kills, bad


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step", type=int, default=1, help="only after every so many calls")
    parser.add_argument("--first", type=int, default=0, help="from this call on")
    parser.add_argument("--all", action="store_true", help="after calls that only read, too")
    parser.add_argument("--part", choices=["work", "start", "service"], default="work")
    parser.add_argument("--name", choices=[*PROCESSES, *SERVICE], action="append", help="only this one")
    options = parser.parse_args()
    started = time.monotonic()
    with hotplug.installed(), hotplug.mute_guest(GUEST):
        kills, bad = kill(options.step, options.name, options.part, options.first, options.all)
    counted = ", ".join(f"{count} kills of {name}" for name, count in kills.items())
    print(f"{options.part}: {counted}; {len(bad)} left something, {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
