# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The tools that names_adversary.py stops: how each is called, and which disk it has used.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import NamedTuple

import names_world
from names_service import wait_for
from names_world import MARKED, SIZE, CryptWorld, World

VICTIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "names_victim")
KEY = "/run/names-adversary.key"
# Without udev, which is stopped: device-mapper's library would wait for it.
ENVIRONMENT = dict(os.environ, DM_DISABLE_UDEV="1")
USER = "names-user"
_MARK = SIZE - MARKED
_LIBC = ctypes.CDLL(None, use_errno=True)


class Tool(NamedTuple):
    """
    ``command(path, world)`` are the arguments of names_victim. ``used(world, code)`` returns the letters of
    the disks that were used. ``undo`` cleans up, ``prepare`` fills a file. ``costly`` tools take 100 ms or
    more a try.
    """

    command: Callable[[str, World], list[str]]
    used: Callable[[World, int], str]
    undo: Callable[[World], None] = lambda world: None
    prepare: Callable[[str], None] = lambda path: None
    costly: bool = False


def begin(command: list[str]) -> int:
    """Start a victim, and return its process ID. It is traced by this thread, and has stopped."""
    pid = os.posix_spawn(VICTIM, [VICTIM, *command], ENVIRONMENT)
    dummy, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"the victim ended before it began: {command}: {status}"
    return pid


def _opened(world: World, code: int) -> str:
    return {10: "a", 11: "b"}.get(code, "")


def _mounted(world: World, code: int) -> str:
    try:
        return os.listdir(f"{world.place}/mnt/which")[0]
    except FileNotFoundError:
        return ""


def _unmount(world: World) -> None:
    path = f"{world.place}/mnt"
    wait_for(lambda: not os.path.ismount(path) or _LIBC.umount2(os.fsencode(path), 0) == 0)


def _with_file_system(path: str) -> None:
    """Create an ext4 file system with a directory ``which`` that contains a file named after the disk."""
    tree = f"{path}.tree"
    shutil.rmtree(tree, ignore_errors=True)
    os.makedirs(f"{tree}/which")
    with open(f"{tree}/which/{os.path.basename(path)[0]}", "w", encoding="ascii"):
        pass
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", tree, path, f"{_MARK // 1024 - 64}k"],
        check=True,
    )


def _written(magic: bytes, offset: int) -> Callable[[World, int], str]:
    """A function that returns the letters of the files that have this content at the offset now."""

    def look(world: World, code: int) -> str:
        return "".join(
            letter for letter, fd in zip("ab", world.fds) if os.pread(fd, len(magic), offset) == magic
        )

    return look


def _wipe(world: World) -> None:
    for fd in world.fds:
        os.pwrite(fd, bytes(8192), 0)


def _mapped_over(offset: int) -> Callable[[World, int], str]:
    """A function that returns the letter at the offset of the mapped device that the tool has made."""

    def look(world: World, code: int) -> str:
        name = names_world.kernel_name(USER)
        if not name:
            return ""
        try:
            with open(f"/dev/{name}", "rb", buffering=0) as disk:
                return {b"a": "a", b"b": "b"}.get(
                    disk.read(1) if not offset else _at(disk.fileno(), offset), ""
                )
        except OSError:
            return ""

    return look


def _at(fd: int, offset: int) -> bytes:
    return os.pread(fd, 1, offset)


def _remove_user(world: World) -> None:
    names_world.remove_mapped(USER)


def _with_luks(path: str) -> None:
    """Create a LUKS device whose content begins with the letter of the disk."""
    subprocess.run([*_FORMAT, path, KEY], check=True, env=ENVIRONMENT)
    command = ["cryptsetup", "open", *_QUICK, f"--key-file={KEY}", path, USER]
    subprocess.run(command, check=True, env=ENVIRONMENT)
    with open(f"/dev/{names_world.kernel_name(USER)}", "wb") as disk:
        disk.write(os.path.basename(path)[:1].encode() * MARKED)
    subprocess.run(["cryptsetup", "close", USER], check=True, env=ENVIRONMENT)


def _closed(world: World, code: int) -> str:
    """The letter of the mapping that was removed, if the tool succeeded."""
    if code or not isinstance(world, CryptWorld):
        return ""
    return "" if world.letter_there() else "b" if world.replaced else "a"


_QUICK = ("--disable-keyring",)
_FORMAT = ("cryptsetup", "luksFormat", "--batch-mode", "--type=luks1", "--pbkdf-force-iterations=1000")
_MKFS = ("mkfs.ext4", "-q", "-F", "-b", "1024", "-N", "16", "-E", "nodiscard")
_CREATE = ("dmsetup", "create", "--noudevsync", "--noudevrules", USER, "--table")

TOOLS = {
    "open": Tool(lambda path, world: ["open", path, str(_MARK)], _opened),
    "realpath, open": Tool(lambda path, world: ["realpath", path, str(_MARK)], _opened),
    "mount": Tool(
        lambda path, world: ["run", "mount", "-o", "ro", path, f"{world.place}/mnt"],
        _mounted,
        _unmount,
        _with_file_system,
    ),
    "mkfs.ext4": Tool(lambda path, world: ["run", *_MKFS, path, "512k"], _written(b"\x53\xef", 1080), _wipe),
    "dmsetup create": Tool(
        lambda path, world: ["run", *_CREATE, f"0 {SIZE // 512} linear {path} 0"],
        _mapped_over(_MARK),
        _remove_user,
    ),
    "cryptsetup luksFormat": Tool(
        lambda path, world: ["run", *_FORMAT, path, KEY], _written(b"LUKS\xba\xbe", 0), _wipe, costly=True
    ),
    "cryptsetup open": Tool(
        lambda path, world: ["run", "cryptsetup", "open", *_QUICK, f"--key-file={KEY}", path, USER],
        _mapped_over(0),
        _remove_user,
        _with_luks,
        costly=True,
    ),
}
# Takes the name of a mapping and no path.
BY_NAME = {
    "cryptsetup close": Tool(lambda path, world: ["run", "cryptsetup", "close", path], _closed, costly=True)
}
