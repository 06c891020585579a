# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Check whether this host can have seals, and find where: the root cgroup, and the file system of type bpf.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os

from ..._base import gone
from ..._base.errors import KernelError, NotSupported

BPF_FS = "/sys/fs/bpf"
DIRECTORY = f"{BPF_FS}/racefree"
_MOUNTS = "/proc/self/mountinfo"
# include/linux/proc_ns.h: inode numbers of the initial namespaces.
_FIRST = {"cgroup": 0xEFFFFFFB, "pid": 0xEFFFFFFC, "user": 0xEFFFFFFD}
_IN_CONTAINER = "Run the task on the host itself, not in a container"


def in_use() -> bool:
    """
    Whether DIRECTORY exists: this host has seals, or had some that were not cleared away. Costs one
    stat(2).
    """
    return bool(gone.exists(DIRECTORY))


def check() -> None:
    """Raise NotSupported that says what is missing, before anything is created."""
    for kind, first in _FIRST.items():
        if _namespace(kind) != first:
            raise NotSupported(
                f"seals are for the whole host, and this process has a {kind} namespace of its own",
                hint=_IN_CONTAINER,
            )
    cgroup_root()
    if "bpf" not in _mounted_at(BPF_FS):
        raise NotSupported(
            "the file system of type bpf, which keeps the seals, is not mounted there",
            device=BPF_FS,
            hint=f"Mount it: mount -t bpf bpf {BPF_FS}. A kernel without CONFIG_BPF_SYSCALL has no "
            "such file system, and cannot seal devices",
        )


def cgroup_root() -> str:
    """The mount point of the root of the cgroup v2 hierarchy. NotSupported if it is not mounted."""
    for root, place, kind in _mounts():
        # Skip it if something else is mounted over it.
        if kind == "cgroup2" and root == "/" and _mounted_at(place)[-1:] == ["cgroup2"]:
            return place
    raise NotSupported(
        "control groups of version 2, which seals need, are not mounted",
        hint="Mount them: mount -t cgroup2 cgroup2 /sys/fs/cgroup, or start systemd with them "
        "(systemd.unified_cgroup_hierarchy=1)",
    )


def _mounted_at(place: str) -> list[str]:
    """The types of the file systems mounted at a path; the last one is visible."""
    return [kind for dummy, where, kind in _mounts() if where == place]


def _mounts() -> list[tuple[str, str, str]]:
    """(root, mount point, type) of each mount (proc_pid_mountinfo(5))."""
    try:
        with open(_MOUNTS, "rb") as file:
            lines = os.fsdecode(file.read()).splitlines()
    except OSError as error:
        raise KernelError.from_oserror(error, f"read {_MOUNTS}", device=_MOUNTS) from error
    rows = []
    for line in lines:
        words, dummy, rest = line.partition(" - ")
        fields = words.split(" ")
        rows.append((fields[3], fields[4], rest.split(" ", 1)[0]))
    return rows


def _namespace(kind: str) -> int:
    path = f"/proc/self/ns/{kind}"
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        # A kernel built without this kind of namespace has only the initial one.
        return _FIRST[kind]
    except OSError as error:
        raise gone.not_seen(error, path) from error
