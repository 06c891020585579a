# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""
An adversary against names of disks: it gives a name's device to another disk while a tool uses the name.

A tool is started with a name of disk A and stopped before one of its system calls, a different one in each
try. The adversary then replaces A by B as far as the kernel permits: the same loop device or mapped device,
the same node, the same link. Afterwards it is determined which disk the tool has used. ``names_adversary.py
--help`` lists the options. Exit code 1 if a name of this collection ever led to B.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import ptrace
from differential import udev_stopped
from names_service import diskseq_of, service, wait_for

SIZE = 32 * 2**20
MARKED = 4096
KEY = "/run/names-adversary.key"
WITHOUT_UDEV = ("--noudevsync", "--noudevrules")
OURS = ("by-diskseq", "dm-uuid")


class World:
    """
    Disk A, and disk B to replace it. ``kind`` is ``loop``, a loop device that gets another file, or
    ``mapped``, a mapped device recreated with the same name over another loop device.
    """

    def __init__(self, kind: str, place: str, disks: str, identities: str) -> None:
        self.kind, self.place, self.disks, self.identities = kind, place, disks, identities
        self.files = [f"{place}/{letter}.raw" for letter in "ab"]
        self.name = "names-adversary"
        self.node = ""
        self.below: list[str] = []

    def make(self, prepare: Callable[[str], None]) -> dict[str, str]:
        """Create disk A again, with files filled by ``prepare``; return its names."""
        for letter, path in zip("ab", self.files):
            with open(path, "wb") as file:
                file.truncate(SIZE)
            prepare(path)
            with open(path, "r+b") as file:
                file.seek(SIZE - MARKED)
                file.write(letter.encode() * MARKED)
        first = run("losetup", "--find", "--show", self.files[0])
        if self.kind == "loop":
            self.node, link = first, f"{self.place}/link"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link)
            os.symlink(first, link)
            return {"by-diskseq": f"{self.disks}/{diskseq_of(first)}", "node": first, "link": link}
        self.below = [first, run("losetup", "--find", "--show", self.files[1])]
        self.node = f"/dev/mapper/{self.name}"
        self._map(self.below[0], "a")
        return {
            "by-diskseq": f"{self.disks}/{diskseq_of(self.node)}",
            "dm-uuid": f"{self.identities}/dm-uuid/RACEFREE-TEST-a",
            "mapper": self.node,
        }

    def swap(self) -> bool:
        """Replace A by B; return whether the kernel permitted it."""
        if self.kind == "loop":
            quiet("losetup", "-d", self.node)
            return quiet("losetup", self.node, self.files[1])
        if not quiet("dmsetup", "remove", "--noudevsync", self.name):
            return False
        self._map(self.below[1], "b")
        return True

    def _map(self, device: str, letter: str) -> None:
        """Create the mapped device, and its link as udev would."""
        table = f"0 {SIZE // 512} linear {device} 0"
        options = [*WITHOUT_UDEV, "--uuid", f"RACEFREE-TEST-{letter}"]
        subprocess.run(["dmsetup", "create", *options, self.name, "--table", table], check=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.node)
        os.symlink(f"/dev/{kernel_name(self.name)}", self.node)

    def remove(self) -> None:
        """Remove everything. Waits until all users have closed the devices."""
        if self.kind == "mapped":
            remove_mapped(self.name)
            os.unlink(self.node)
        nodes = [self.node] if self.kind == "loop" else self.below
        for node in nodes:
            quiet("losetup", "-d", node)
            wait_for(lambda node=node: not os.path.exists(f"/sys/block/{os.path.basename(node)}/loop"))


class Tool(NamedTuple):
    """
    ``run(path, world)`` runs in the child. ``used(world, code)`` returns the letters of the disks that were
    used. ``undo`` cleans up, ``prepare`` fills a file.
    """

    run: Callable[[str, World], int]
    used: Callable[[World, int], str]
    undo: Callable[[World], None] = lambda world: None
    prepare: Callable[[str], None] = lambda path: None


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def quiet(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def execute(*command: str) -> int:
    """Replace the child by the command; does not return."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.execvp(command[0], command)


def read_letter(path: str, offset: int = SIZE - MARKED) -> int:
    """Read the letter at the offset: 10 for A, 11 for B, 1 if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as disk:
            os.posix_fadvise(disk.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            letter = os.pread(disk.fileno(), 1, offset)
    except OSError:
        return 1
    return {b"a": 10, b"b": 11}.get(letter, 1)


def opened(world: World, code: int) -> str:
    return {10: "a", 11: "b"}.get(code, "")


def mounted(world: World, code: int) -> str:
    try:
        return os.listdir(f"{world.place}/mnt/which")[0]
    except FileNotFoundError:
        return ""


def unmount(world: World) -> None:
    quiet("umount", f"{world.place}/mnt")


def with_file_system(path: str) -> None:
    """Create an ext4 file system with a directory ``which`` that contains a file named after the disk."""
    tree = f"{path}.tree"
    shutil.rmtree(tree, ignore_errors=True)
    os.makedirs(f"{tree}/which")
    with open(f"{tree}/which/{os.path.basename(path)[0]}", "w", encoding="ascii"):
        pass
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", tree, path, f"{(SIZE - MARKED) // 4096 - 16}k"],
        check=True,
    )


def written(magic: bytes, offset: int) -> Callable[[World, int], str]:
    """A function that returns the letters of the files that have this content at the offset now."""

    def look(world: World, code: int) -> str:
        found = ""
        for letter, path in zip("ab", world.files):
            with open(path, "rb") as file:
                file.seek(offset)
                found += letter if file.read(len(magic)) == magic else ""
        return found

    return look


def mapped_over(world: World, code: int, offset: int = SIZE - MARKED) -> str:
    name = kernel_name("names-user")
    return opened(world, read_letter(f"/dev/{name}", offset)) if name else ""


def with_luks(path: str) -> None:
    """Create a LUKS device whose content begins with the letter of the disk."""
    if not os.path.exists(f"{path}.luks"):
        with open(f"{path}.luks", "wb") as file:
            file.truncate(SIZE)
        subprocess.run([*LUKS, f"{path}.luks", KEY], check=True)
        command = ["cryptsetup", "open", f"--key-file={KEY}", f"{path}.luks", "names-user"]
        subprocess.run(command, check=True)
        with open(f"/dev/{kernel_name('names-user')}", "wb") as disk:
            disk.write(os.path.basename(path)[:1].encode() * MARKED)
        subprocess.run(["cryptsetup", "close", "names-user"], check=True)
    shutil.copyfile(f"{path}.luks", path)


def kernel_name(name: str) -> str:
    """The kernel name of a mapped device, such as ``dm-3``; empty if there is none."""
    command = ["dmsetup", "info", "--columns", "--noheadings", "-o", "blkdevname", name]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def remove_mapped(name: str) -> None:
    wait_for(lambda: not kernel_name(name) or quiet("dmsetup", "remove", "--noudevsync", name))


LUKS = ("cryptsetup", "luksFormat", "--batch-mode", "--type=luks1", "--pbkdf-force-iterations=1000")
TABLE = f"0 {SIZE // 512} linear"
TOOLS = {
    "open": Tool(lambda path, world: read_letter(path), opened),
    "realpath, open": Tool(lambda path, world: read_letter(os.path.realpath(path)), opened),
    "mount": Tool(
        lambda path, world: execute("mount", "-o", "ro", path, f"{world.place}/mnt"),
        mounted,
        unmount,
        with_file_system,
    ),
    "mkfs.ext4": Tool(
        lambda path, world: execute("mkfs.ext4", "-q", "-F", path, "16M"), written(b"\x53\xef", 1080)
    ),
    "dmsetup create": Tool(
        lambda path, world: execute(
            "dmsetup", "create", *WITHOUT_UDEV, "names-user", "--table", f"{TABLE} {path} 0"
        ),
        mapped_over,
        lambda world: remove_mapped("names-user"),
    ),
    "cryptsetup open": Tool(
        lambda path, world: execute("cryptsetup", "open", f"--key-file={KEY}", path, "names-user"),
        lambda world, code: mapped_over(world, code, 0),
        lambda world: remove_mapped("names-user"),
        with_luks,
    ),
    "cryptsetup luksFormat": Tool(lambda path, world: execute(*LUKS, path, KEY), written(b"LUKS\xba\xbe", 0)),
}


def attempt(world: World, tool: Tool, way: str, moment: float, patience: float) -> tuple[str, int]:
    """
    Run the tool, stopped before system call number ``moment`` (negative: never). Return the outcome,
    ``right``, ``refused`` or ``wrong``, and the number of calls it made. The adversary strikes ``patience``
    seconds after the stop.
    """
    path = world.make(tool.prepare)[way]

    def strike(pid: int, number: int) -> None:
        time.sleep(patience)
        world.swap()

    try:
        count = 10**6 if moment < 0 else int(moment)
        _met, code, calls = ptrace.run_stopped(lambda: tool.run(path, world), 0, count, strike)
        used = tool.used(world, code)
    finally:
        tool.undo(world)
        world.remove()
    return ("wrong" if "b" in used else "right" if used else "refused"), calls


def play(
    kinds: list[str], tools: list[str], tries: int, seed: int, patience: float, grace_ms: int
) -> Iterator[dict[str, object]]:
    """Yield a row for each kind of disk, tool and name."""
    choose = random.Random(seed)
    with contextlib.ExitStack() as stack:
        stack.enter_context(udev_stopped())
        disks = stack.enter_context(service("--grace-ms", str(grace_ms)))
        identities = stack.enter_context(service("--disks", disks.mount, what="identity"))
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="adversary-", dir="/var/tmp"))
        os.mkdir(f"{place}/mnt")
        with open(KEY, "wb") as file:
            file.write(b"key")
        stack.callback(os.unlink, KEY)
        for kind in kinds:
            world = World(kind, place, disks.mount, identities.mount)
            for name in tools:
                for way in ("by-diskseq", *(("node", "link") if kind == "loop" else ("dm-uuid", "mapper"))):
                    yield row(world, name, way, tries, choose, patience)


def row(
    world: World, name: str, way: str, tries: int, choose: random.Random, patience: float
) -> dict[str, object]:
    counts = {"right": 0, "refused": 0, "wrong": 0}
    outcome, calls = attempt(world, TOOLS[name], way, -1, 0)
    assert outcome == "right", f"{name} by {way}, left alone: {outcome}"
    for _number in range(tries):
        # Starts at the first call, so it includes those that the Python child makes before the tool runs.
        outcome, dummy = attempt(world, TOOLS[name], way, choose.randint(1, calls), patience)
        counts[outcome] += 1
    return {"disk": world.kind, "tool": name, "name": way, "calls": calls, "tries": tries, **counts}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=20, help="of each tool with each name")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=["loop", "mapped"], action="append")
    parser.add_argument("--tool", choices=list(TOOLS), action="append")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds before the adversary strikes")
    parser.add_argument("--grace-ms", type=int, default=200, help="of the service")
    options = parser.parse_args()
    wrong = 0
    for found in play(
        options.kind or ["loop", "mapped"],
        options.tool or list(TOOLS),
        options.tries,
        options.seed,
        options.patience,
        options.grace_ms,
    ):
        print(json.dumps(found), flush=True)
        wrong += int(str(found["wrong"])) if found["name"] in OURS else 0
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
