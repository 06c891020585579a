# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Kill runs that seal a device, open it by a pass, and lift the seal, runs that remove a stale seal, and the
keeper, after one of their system calls.

A device that was reported as sealed can never be opened, and after the next run nothing is stale. Exit code 1
if that is not so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from typing import Callable, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import killing
import ptrace
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._block.seal import keeper, place, seals
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from sealing import is_refused, mount_bpf, no_keeper
from uevents import Udev

VICTIM, WITNESS = "seal-kills-victim", "seal-kills-witness"
SECTORS = 2048
Number = tuple[int, int, int]


class Pipes(NamedTuple):
    """What a run reports, and the keeper's output: the ends to read and to write."""

    said: tuple[int, int]
    ready: tuple[int, int]


PIPES = Pipes(os.pipe(), os.pipe())


def say(word: str) -> None:
    os.write(PIPES.said[1], word.encode())


def heard() -> str:
    """What runs have reported since the last call."""
    os.set_blocking(PIPES.said[0], False)
    with contextlib.suppress(BlockingIOError):
        return os.read(PIPES.said[0], 1000).decode()
    return ""


def seal_use_lift(number: Number) -> None:
    seals.seal(*number)
    say("sealed")
    with _device.open_number(number[0], number[1], diskseq=number[2]):
        pass
    say(" lifting")
    seals.lift(*number)
    say(" lifted")


def seal(numbers: list[Number]) -> None:
    for number in numbers:
        seals.seal(*number)


def lift(number: Number) -> bool:
    return seals.lift(*number)


def reap() -> int:
    return seals.reap()


def keep() -> None:
    """Be the keeper."""
    os.dup2(PIPES.ready[1], 1)
    keeper.main()


def replace_victim(keeper_pid: int, is_last: bool) -> None:
    """
    Once the keeper is ready: replace the victim by another device with the same number, and wait until that
    can be opened. ``is_last``: then remove the other sealed device, and wait until the keeper has cleared
    away everything. Ends when the keeper is killed, and kills it in the end.
    """
    with _control.Control() as control:
        wait_for(keeper_pid, lambda: bool(os.read(PIPES.ready[0], 100)))
        remove(control, VICTIM)
        make(control, VICTIM)
        node = node_of(number_of(control, VICTIM))
        wait_for(keeper_pid, lambda: not is_refused(node))
        if is_last:
            remove(control, WITNESS)
            wait_for(keeper_pid, lambda: not os.path.exists(place.DIRECTORY))
        else:
            # The keeper finishes its work, and waits for events again.
            time.sleep(0.2)
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper_pid, signal.SIGKILL)


def wait_for(keeper_pid: int, condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, or the keeper has ended."""

    def is_done() -> bool:
        with contextlib.suppress(BlockingIOError):
            if condition():
                return True
        return not os.path.exists(f"/proc/{keeper_pid}")

    killing.until(is_done, "the keeper")


def make(control: _control.Control, name: str) -> None:
    """Create a mapped device without waiting for udev."""
    control.create(name)
    control.load(_control.by_name(name), ((0, SECTORS, b"zero", b""),))
    control.resume(_control.by_name(name))


def remove(control: _control.Control, name: str) -> None:
    control.remove(_control.by_name(name), deferred=True)


def number_of(control: _control.Control, name: str) -> Number:
    status = control.status(_control.by_name(name))
    with open(f"/sys/dev/block/{status.major}:{status.minor}/diskseq", encoding="ascii") as file:
        return status.major, status.minor, int(file.read())


def node_of(number: Number) -> str:
    return f"/dev/dm-{number[1]}"


def kill_keepers(runs: killing.Runs, helpers: killing.Runs, stride: int, every: bool, is_last: bool) -> int:
    """Kill the keeper after each ``stride``-th call; returns the number of tries."""
    tries = 0
    with _control.Control() as control:
        while kill_keeper(control, runs, helpers, (tries * stride, every, is_last)):
            tries += 1
    return tries


def kill_keeper(
    control: _control.Control, runs: killing.Runs, helpers: killing.Runs, what: tuple[int, bool, bool]
) -> bool:
    """One try; returns whether the keeper was killed."""
    count, every, is_last = what
    killing.now(f"seal_kills: the keeper after call {count}, the last seal {is_last}")
    for name in (VICTIM, WITNESS):
        make(control, name)
    witness = number_of(control, WITNESS)
    with no_keeper():
        runs.run(seal, [number_of(control, VICTIM), witness])
    keeper_pid = runs.start(keep, traced=True)
    helper = helpers.start(replace_victim, keeper_pid, is_last)
    killed, code = ptrace.killed(keeper_pid, 0, count, every)
    assert code == (0 if is_last and not killed else -signal.SIGKILL), f"the keeper ended with {code}"
    # It may have been waited for already, while the keeper was traced.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(helper, 0)
    with contextlib.suppress(BlockingIOError):
        os.read(PIPES.ready[0], 100)
    successor = number_of(control, VICTIM)
    if not is_last:
        assert is_refused(node_of(witness)), "a sealed device can be opened after the keeper was killed"
    with no_keeper():
        runs.run(reap)
        assert not is_refused(node_of(successor)), "a stale seal is left"
        assert is_last or is_refused(node_of(witness)), "a sealed device can be opened after the next run"
        assert len(seals.found()) == (0 if is_last else 1), "stale seals are left"
        runs.run(lift, witness)
        assert not os.path.exists(place.DIRECTORY), "seals are left"
    for name in (VICTIM,) if is_last else (VICTIM, WITNESS):
        remove(control, name)
    return killed


def kill_reapers(runs: killing.Runs, stride: int, every: bool) -> int:
    """Kill a run that removes a stale seal, after each ``stride``-th call; returns the number of tries."""
    tries, killed = 0, True
    with _control.Control() as control, no_keeper():
        while killed:
            killing.now(f"seal_kills: the next run, call {tries * stride}")
            for name in (VICTIM, WITNESS):
                make(control, name)
            witness = number_of(control, WITNESS)
            runs.run(seal, [number_of(control, VICTIM), witness])
            remove(control, VICTIM)
            make(control, VICTIM)
            killed = runs.killed(tries * stride, every, reap)
            assert is_refused(node_of(witness)), "a sealed device can be opened"
            runs.run(reap)
            assert not is_refused(node_of(number_of(control, VICTIM))), "a stale seal is left"
            assert is_refused(node_of(witness)) and len(seals.found()) == 1
            runs.run(lift, witness)
            assert not os.path.exists(place.DIRECTORY), "seals are left"
            for name in (VICTIM, WITNESS):
                remove(control, name)
            tries += killed
    return tries


def kill_sealers(runs: killing.Runs, disk: tuple[str, Number], stride: int, every: bool) -> int:
    """Kill a run that seals, opens and lifts, after each ``stride``-th call; returns the number of tries."""
    (node, number), tries, seen = disk, 0, set()
    partition = f"{node}p1"
    while True:
        killing.now(f"seal_kills: sealing, call {tries * stride}")
        killed = runs.killed(tries * stride, every, seal_use_lift, number)
        said = heard()
        seen.add(said)
        if said == "sealed":
            assert is_refused(node) and is_refused(partition), "open after it was reported as sealed"
        runs.run(reap)
        sealed = seals.find(*number) is not None
        assert is_refused(node) == is_refused(partition) == sealed == os.path.exists(place.DIRECTORY)
        runs.run(lift, number)
        assert not is_refused(node) and not is_refused(partition) and not os.path.exists(place.DIRECTORY)
        if not killed:
            assert said == "sealed lifting lifted" and not sealed
            # With long strides, few of the states between the first and the last one are met.
            assert len(seen) > (2 if every or stride < 20 else 1), seen
            return tries
        tries += 1


@contextlib.contextmanager
def loop_with_partition():
    """A loop device with one partition: (node, number)."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        row = struct.pack("<4xB3xII", 0x83, 64, 64)
        file.write(bytes(446) + row.ljust(64, b"\0") + b"\x55\xaa")
        file.truncate(2**20)
        file.flush()
        command = ["losetup", "--find", "--show", "--partscan", file.name]
        node = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        try:
            killing.until(lambda: os.path.exists(f"{node}p1"), "the partition")
            subprocess.run(["udevadm", "settle"], check=True)
            there = os.stat(node).st_rdev
            with open(f"/sys/block/{os.path.basename(node)}/diskseq", encoding="ascii") as diskseq:
                yield node, (os.major(there), os.minor(there), int(diskseq.read()))
        finally:
            subprocess.run(["losetup", "--detach", node], check=True)


def play(stride: int, every: bool) -> dict[str, int]:
    """Returns the number of tries of each kind."""
    os.set_blocking(PIPES.ready[0], False)
    with loop_with_partition() as disk, Udev() as udev:
        udev.real(False)
        # Objects that are cached are then there before the first run.
        seal_use_lift(disk[1])
        heard()
        killing.until(lambda: not os.path.exists(place.DIRECTORY), "nothing sealed")
        functions = (seal_use_lift, seal, lift, reap, keep, replace_victim)
        with killing.Runs(*functions) as runs, killing.Runs(*functions) as helpers:
            with no_keeper():
                tries = {"sealing and lifting": kill_sealers(runs, disk, stride, every)}
            tries["removing a stale seal"] = kill_reapers(runs, stride, every)
            tries["keeper, others sealed"] = kill_keepers(runs, helpers, stride, every, False)
            tries["keeper, the last seal"] = kill_keepers(runs, helpers, stride, every, True)
            # This starts a keeper each time, which takes a second.
            tries["sealing with a new keeper"] = kill_sealers(runs, disk, 4 * stride, every)
    return tries


def main() -> int:
    options = killing.options(__doc__)
    mount_bpf()
    started = time.monotonic()
    tries = play(options.stride, options.every)
    print(f"tries: {tries}, in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
