# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Kills libvirt's hook during ``prepare``, and looks for anything left after ``release``, or after the next
``prepare`` and ``release``.

Kills the program, the child that does the work, or both, at random moments. With ``--calls``, strace kills
the child at each system call that creates something. The guest has a disk over a file, and one over a table
that contains a table with its own UUID. ``hookkill.py --help`` lists the options; exit code 1 if anything was
ever left.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

from ansible_collections.racefree.block.plugins.module_utils._libvirt import hook as _hook
from conftest import run_module
from libvirthost import HOOK, STATE, defined, hook, run, virsh, wait_for

NAME = "killed"
WHO = ("program", "child", "both")
AFTER = ("release", "prepare")
# System calls of the child that create devices, holders, records and semaphores, with the last count of each
# that is tried.
CALLS = {"ioctl": 60, "semget": 2, "semctl": 8, "vfork": 2, "rename": 2, "write": 4}


@contextlib.contextmanager
def guest(directory):
    """Its definition."""
    with defined(pathlib.Path(directory), NAME):
        for name in ("a.raw", "b.raw"):
            with open(os.path.join(directory, name), "wb") as file:
                file.truncate(1 << 20)
        inner = {
            "table": f"0 2048 linear file:{directory}/b.raw 0",
            "uuid": "KILLED-INNER",
            "name": "killed-inner",
        }
        outer = {"table": [{"start": 0, "length": 1024, "target": "linear", "device": inner, "offset": 0}]}
        run_module(
            "libvirt_disks",
            disks=[
                {"domain": NAME, "vdev": "xvda", "source": {"file": f"{directory}/a.raw"}},
                {"domain": NAME, "vdev": "xvdb", "source": outer},
            ],
        )
        yield virsh("dumpxml", NAME, "--inactive")


def begin(operation, text):
    """
    Start the hook in a process, without starting Python, which takes most of its time; returns its process
    ID.
    """
    pid = os.fork()
    if not pid:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(null, standard)
            os._exit(_hook.main([NAME, operation], text))
        finally:
            os._exit(1)
    return pid


def call(operation, text):
    return os.waitstatus_to_exitcode(os.waitpid(begin(operation, text), 0)[1])


def call_program(operation, text, *before):
    """Run the installed program; returns its exit code."""
    return subprocess.run(
        [*before, HOOK, NAME, operation, "begin", "-"],
        input=text.encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=300,
        check=False,
    ).returncode


def left():
    """Everything that can be left. Unbound loop devices do not count."""
    found = (
        run("dmsetup", "info", "-c", "--noheadings", "-o", "name,uuid,attr").splitlines()
        + run("losetup", "-a").splitlines()
    )
    found += [name for name in (os.listdir(STATE) if os.path.isdir(STATE) else []) if name != "lock"]
    with open("/proc/sysvipc/sem", encoding="ascii") as table:
        found += [f"semaphore {line.split()[1]}" for line in list(table)[1:]]
    return [line for line in found if line != "No devices found"] + processes()


def processes():
    """Processes of the hook, and holders, whatever they are doing."""
    found, own = [], pathlib.Path("/proc/self/cmdline").read_bytes()
    for pid in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if pid.isdigit() and int(pid) != os.getpid():
                line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
                if line == own or HOOK.encode() in line or b"\x003600\0" in line:
                    found.append(f"process {pid} {line[:80]}")
    return found


def child_of(pid):
    with contextlib.suppress(OSError, IndexError):
        return int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])
    return None


def kill_at(moment, who, text):
    """Run ``prepare`` and kill it after so many seconds; returns whether it was still working."""
    program = begin("prepare", text)
    time.sleep(moment)
    child = child_of(program) if who != "program" else None
    for pid in [child] if who == "child" else [program, child]:
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return os.waitpid(program, 0)[1] != 0


def leftovers(after, text):
    """What is left after libvirt has continued."""
    if after == "prepare":
        code = call("prepare", text)
        if code:
            return [f"the next prepare: exit code {code}"] + left()
    call("release", text)
    wait_for(lambda: not left(), 15, 0.2)
    return left()


def at_random(tries, text, seed, verbose=False):
    """``(kills, [(when, who, after, what was left)])``"""
    chance, kills, bad = random.Random(seed), 0, []
    began = time.monotonic()
    call("prepare", text)
    whole = time.monotonic() - began
    call("release", text)
    for turn in range(tries):
        who, after, moment = WHO[turn % 3], AFTER[turn // 3 % 2], chance.uniform(0.1, 1.1) * whole
        killed = kill_at(moment, who, text)
        kills += killed
        found = leftovers(after, text)
        if verbose:
            print(
                f"{moment:.1f} of {whole:.1f} s, {who}, then {after}: "
                f"{'killed' if killed else 'too late'}, left {found}",
                flush=True,
            )
        if found:
            bad.append((f"{moment:.2f} of {whole:.2f} s", who, after, found))
            print(*bad[-1], file=sys.stderr, flush=True)
    return kills, bad


def at_calls(calls, step, text):
    """The same as at_random, with strace."""
    kills, bad = 0, []
    for name, most in calls.items():
        for count in range(1, most + 1, step):
            code = call_program(
                "prepare",
                text,
                "strace",
                "-f",
                "-o",
                "/dev/null",
                "-e",
                f"trace={name}",
                "-e",
                f"inject={name}:signal=KILL:when={count}",
            )
            kills += code != 0
            found = leftovers(AFTER[count // step % 2], text)
            if found:
                bad.append((name, count, AFTER[count // step % 2], found))
                print(*bad[-1], file=sys.stderr, flush=True)
            if code == 0:
                break
    return kills, bad


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=60, help="at random moments")
    parser.add_argument("--calls", type=int, metavar="STEP", help="also at every so manieth call")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="a line for each kill")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, hook(), guest(directory) as text:
        kills, bad = at_random(options.tries, text, options.seed, options.verbose)
        if options.calls:
            more = at_calls(CALLS, options.calls, text)
            kills, bad = kills + more[0], bad + more[1]
    print(f"{kills} kills, {len(bad)} left something, {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
