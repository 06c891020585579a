# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""
What tools do with the path of a device: each tool runs with strace, once with /proc/self/fd/N of an inherited
descriptor and once with /dev/disk/by-diskseq/N.

Prints a line of JSON for each run:

- ``ok``: it succeeded; ``error``: what it printed otherwise
- ``opens``: how the device was opened, also by the kernel for it. ``given``: by the path that the tool was
  given; ``node``: by the kernel's name of the node; ``number``: by the device number. ``calls``: in detail
- ``claims``: whether it, or the kernel for it, opened the device exclusively (O_EXCL)
- ``closes``: whether it closed the inherited descriptor before its end
- ``with_claim``: whether it also works while somebody else has the device open exclusively
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

from names_service import Service, diskseq_of, losetup, wait_for

WAYS = ("descriptor", "by_diskseq")
BY_DISKSEQ = "/dev/disk/by-diskseq"
DESCRIPTOR = 700
MIB = 2**20
KEY = "/run/tool-paths.key"
MAPPED = "tool-paths"
TRACED = "%file,fsconfig,ioctl,close,close_range"
LUKS = ("--batch-mode", "--type=luks2", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000")
EXT4 = ("mkfs.ext4", "-q", "-F")
# lvm takes a device only by a name that its own scan has found.
LVM = f'devices {{ use_devicesfile=0 obtain_device_list_from_udev=0 scan=["{BY_DISKSEQ}"] }}'
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+|\?)")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Case(NamedTuple):
    """
    A command of a tool; ``@`` stands for the path, ``%`` for an empty directory. ``undo`` are commands that
    clean up, ``prepare`` fills the file before it is bound. ``size`` in bytes.
    """

    command: tuple[str, ...]
    prepare: tuple[str, ...] = ()
    undo: tuple[tuple[str, ...], ...] = ()
    size: int = 64 * MIB

    @property
    def tool(self) -> str:
        return self.command[0]


CASES = {
    "cryptsetup luksFormat": Case(("cryptsetup", "luksFormat", *LUKS, "@", KEY)),
    "cryptsetup open": Case(
        ("cryptsetup", "open", f"--key-file={KEY}", "@", MAPPED),
        ("cryptsetup", "luksFormat", *LUKS, "@", KEY),
        (("cryptsetup", "close", MAPPED),),
    ),
    "cryptsetup luksDump": Case(
        ("cryptsetup", "luksDump", "@"), ("cryptsetup", "luksFormat", *LUKS, "@", KEY)
    ),
    "integritysetup format": Case(("integritysetup", "format", "--batch-mode", "--no-wipe", "@")),
    "mkfs.ext4": Case((*EXT4, "@")),
    "mkfs.xfs": Case(("mkfs.xfs", "-q", "-f", "@"), size=320 * MIB),
    "mkfs.btrfs": Case(("mkfs.btrfs", "-q", "-f", "@"), size=160 * MIB),
    "mkfs.vfat": Case(("mkfs.vfat", "-I", "@")),
    "mkswap": Case(("mkswap", "@")),
    "e2fsck": Case(("e2fsck", "-f", "-y", "@"), (*EXT4, "@")),
    "tune2fs": Case(("tune2fs", "-L", "label", "@"), (*EXT4, "@")),
    "resize2fs": Case(("resize2fs", "@", "32M"), (*EXT4, "@")),
    "xfs_repair": Case(("xfs_repair", "@"), ("mkfs.xfs", "-q", "-f", "@"), size=320 * MIB),
    "mount": Case(("mount", "-o", "ro", "@", "%"), (*EXT4, "@"), (("umount", "%"),)),
    "swapon": Case(("swapon", "@"), ("mkswap", "@"), (("swapoff", "--all"),)),
    "losetup": Case(("losetup", "--find", "@"), (), (("losetup", "--detach-all"),)),
    "pvcreate": Case(("pvcreate", "--config", LVM, "-y", "@")),
    "mdadm --create": Case(
        (
            "mdadm",
            "--create",
            "/dev/md/tool-paths",
            "--run",
            "--force",
            "--level=1",
            "--raid-devices=1",
            "--metadata=1.2",
            "@",
        ),
        (),
        (("mdadm", "--stop", "/dev/md/tool-paths"),),
    ),
    "blkid": Case(("blkid", "-c", "/dev/null", "@"), (*EXT4, "@")),
    "wipefs": Case(("wipefs", "-a", "@"), (*EXT4, "@")),
    "parted": Case(("parted", "-s", "@", "mklabel", "gpt")),
    "sgdisk": Case(("sgdisk", "--clear", "@")),
    "blockdev": Case(("blockdev", "--getsize64", "@")),
    "dd": Case(("dd", "if=/dev/zero", "of=@", "bs=1M", "count=1", "conv=notrunc")),
    "cp": Case(("cp", "/dev/null", "@")),
    "qemu-img convert": Case(("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "/etc/passwd", "@")),
    "qemu-img info": Case(("qemu-img", "info", "@")),
    "dmsetup create": Case(
        ("dmsetup", "create", MAPPED, "--table", "0 2048 linear @ 0"),
        (),
        (("dmsetup", "remove", "--retry", MAPPED),),
    ),
}

# Those that fail while somebody else has the device open exclusively.
CLAIMING = frozenset(CASES) - {
    "cryptsetup luksDump",
    "tune2fs",
    "losetup",
    "blkid",
    "parted",
    "sgdisk",
    "blockdev",
    "dd",
    "cp",
    "qemu-img convert",
    "qemu-img info",
}


class Trace:
    """
    What a trace shows of one device. ``path`` is what the tool was given, ``node`` the kernel's name,
    ``number`` is ``major:minor``.
    """

    def __init__(self, lines: Iterator[str], path: str, node: str, number: str) -> None:
        self.path, self.node, self.number = path, node, number
        self.opens: set[str] = set()
        self.calls: list[str] = []
        self.claims = self.closes = False
        for line in lines:
            found = _CALL.match(line)
            if found is not None:
                self._add(*found.groups())

    def _add(self, call: str, arguments: str, result: str) -> None:
        if call in ("close", "close_range"):
            self.closes |= _closes(call, arguments)
            return
        kinds = [kind for text in _TEXT.findall(arguments) if (kind := self._kind(call, text))]
        if not kinds or call == "execve" or (call == "ioctl" and "DM_TABLE_LOAD" not in arguments):
            return
        flags = " O_EXCL" if "O_EXCL" in arguments else ""
        flags += " for writing" if "O_RDWR" in arguments or "O_WRONLY" in arguments else ""
        flags += "" if not result.startswith("-") else " (failed)"
        text = f"{'open' if call.startswith('open') else call} {kinds[0]}{flags}"
        if text not in self.calls:
            self.calls.append(text)
        by_kernel = call in ("fsconfig", "mount", "swapon", "ioctl")
        if not result.startswith("-") and (
            by_kernel or call.startswith("open") and "O_PATH" not in arguments
        ):
            self.opens.add(kinds[0])
            # The kernel claims what it mounts, swaps to or maps.
            self.claims |= by_kernel or "O_EXCL" in arguments

    def _kind(self, call: str, text: str) -> str | None:
        # Reading sysfs does not open the device.
        if text.startswith("/sys/"):
            return None
        words = text.split() if call == "ioctl" else [text]
        for kind, wanted in (("given", self.path), ("node", self.node), ("number", self.number)):
            if wanted in words or (kind == "number" and any(word.endswith(f"/{wanted}") for word in words)):
                return kind
        return None


def _closes(call: str, arguments: str) -> bool:
    first = arguments.split(",")[0].strip()
    if not first.isdigit():
        return False
    if call == "close":
        return int(first) == DESCRIPTOR
    return 2 < int(first) <= DESCRIPTOR and "CLOEXEC" not in arguments


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def is_there(case: Case) -> bool:
    return any(os.access(f"{place}/{case.tool}", os.X_OK) for place in ("/usr/sbin", "/usr/bin"))


def attempt(case: Case, way: str, place: str, claimed: bool = True) -> dict[str, object]:
    """Run the case once by one of WAYS and, with ``claimed``, once more while the device is claimed."""
    image, directory = f"{place}/disk.raw", f"{place}/mnt"
    os.makedirs(directory, exist_ok=True)
    seen, error = _traced(case, way, place, image, directory)
    works = claimed and _traced(case, way, place, image, directory, os.O_EXCL)[1] == ""
    return {
        "ok": not error,
        "error": error,
        "opens": sorted(seen.opens),
        "claims": seen.claims,
        "closes": way == "descriptor" and seen.closes,
        "with_claim": works,
        "calls": seen.calls,
    }


def _traced(
    case: Case, way: str, place: str, image: str, directory: str, flags: int = 0
) -> tuple[Trace, str]:
    """Run the case while the device is held, opened with ``flags``: the trace, and the error or ""."""
    _fill(case, image)
    node = losetup(image)
    try:
        handle = os.open(node, os.O_RDONLY | flags)
        os.dup2(handle, DESCRIPTOR)
        try:
            path = (
                f"/proc/self/fd/{DESCRIPTOR}" if way == "descriptor" else f"{BY_DISKSEQ}/{diskseq_of(node)}"
            )
            words = [word.replace("@", path).replace("%", directory) for word in case.command]
            done = subprocess.run(
                ["strace", "-f", "-v", "-s", "300", "-o", f"{place}/trace", "-e", f"trace={TRACED}", *words],
                pass_fds=[DESCRIPTOR] if way == "descriptor" else (),
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
                stdin=subprocess.DEVNULL,
            )
            there = os.fstat(handle).st_rdev
            with open(f"{place}/trace", encoding="utf-8", errors="replace") as lines:
                seen = Trace(iter(lines), path, node, f"{os.major(there)}:{os.minor(there)}")
        finally:
            os.close(DESCRIPTOR)
            os.close(handle)
        for command in case.undo if done.returncode == 0 else ():
            run(*(directory if word == "%" else word for word in command))
    finally:
        subprocess.run(["losetup", "-d", node], capture_output=True, check=False)
    wait_for(lambda: not os.path.exists(f"/sys/block/{os.path.basename(node)}/loop"))
    return seen, (done.stderr.strip()[-300:] or f"code {done.returncode}") if done.returncode else ""


def _fill(case: Case, image: str) -> None:
    with open(image, "wb") as file:
        file.truncate(case.size)
    if case.prepare:
        run(*(image if word == "@" else word for word in case.prepare))


@contextlib.contextmanager
def named() -> Iterator[str]:
    """Names of disks are served at their usual place. Returns a directory for files."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="tool-paths-", dir="/var/tmp"))
        with open(KEY, "wb") as file:
            file.write(b"key")
        stack.callback(os.unlink, KEY)
        stack.callback(Service(BY_DISKSEQ, f"{place}/state", ()).stop)
        yield place


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=list(CASES), action="append")
    options = parser.parse_args()
    with named() as place:
        for name in options.case or CASES:
            if not is_there(CASES[name]):
                print(json.dumps({"case": name, "missing": True}), flush=True)
                continue
            for way in WAYS:
                try:
                    print(
                        json.dumps({"case": name, "way": way, **attempt(CASES[name], way, place)}), flush=True
                    )
                except AssertionError as error:
                    print(json.dumps({"case": name, "way": way, "broken": str(error)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
