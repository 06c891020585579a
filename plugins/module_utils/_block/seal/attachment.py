# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The BPF program attached to the root cgroup, and its maps: load, find, replace with a newer version, remove.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The link and the maps are pinned in place.DIRECTORY, so they outlive the process that made them. The link is
attached with BPF_F_ALLOW_MULTI, as every link is: programs of others at the same cgroup run as well, and each
can refuse. A caller that changes anything here holds LOCK.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Callable, NoReturn

from ..._base import locks
from ..._base.errors import KernelError, NotSupported
from . import bpf, entry, place, program

LOCK = locks.Lock("seals", "the seals of this host")
SEALS = f"{place.DIRECTORY}/seals-{entry.LAYOUT}"
PASSES = f"{place.DIRECTORY}/passes-{entry.LAYOUT}"
LINK = f"{place.DIRECTORY}/link"
_NO_CGROUP_BPF = (
    "A kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF, Linux 5.8 or later, is needed: Debian 12 and "
    "13 have them"
)
_REFUSED = (
    "The kernel refuses this even to root: check security modules, kernel lockdown, and whether this is a "
    "container"
)


class Maps(contextlib.ExitStack):
    """The maps ``seals`` and ``passes``, held open; a context manager that closes them."""

    def __init__(self, seals: bpf.Map, passes: bpf.Map) -> None:
        super().__init__()
        self.seals = self.enter_context(seals)
        self.passes = self.enter_context(passes)

    def found(self) -> dict[tuple[int, int], entry.Seal]:
        """All seals, by (major, minor)."""
        rows = ((key, self.seals.get(key)) for key in self.seals.keys())
        return {entry.NUMBER.unpack(key): entry.seal_of(value) for key, value in rows if value is not None}

    def get(self, major: int, minor: int) -> entry.Seal | None:
        value = self.seals.get(entry.NUMBER.pack(major, minor))
        return None if value is None else entry.seal_of(value)

    def put(self, major: int, minor: int, seal: entry.Seal) -> None:
        """Seal the device number. KernelError, also if the map is full (entry.MOST_SEALS)."""
        try:
            self.seals.put(entry.NUMBER.pack(major, minor), seal.encoded())
        except OSError as error:
            hint = (
                f"At most {entry.MOST_SEALS} devices and partitions can be sealed at once"
                if error.errno == errno.E2BIG
                else None
            )
            raise KernelError.from_oserror(
                error, "seal the device", device=f"{major}:{minor}", hint=hint
            ) from error

    def remove(self, major: int, minor: int) -> bool:
        """Remove the seal of the device number; return whether there was one."""
        return self.seals.remove(entry.NUMBER.pack(major, minor))


def probe() -> None:
    """
    Raise NotSupported or KernelError if this host cannot seal devices. Loads the program once; leaves nothing
    behind.
    """
    place.check()
    with _translated(), _new_maps() as maps:
        os.close(_load(maps))


@contextlib.contextmanager
def existing() -> Iterator[Maps | None]:
    """Yield the pinned maps, or None if there are none. Creates nothing."""
    with contextlib.ExitStack() as stack:
        try:
            with _translated():
                seals = stack.enter_context(_pinned(SEALS))
                passes = stack.enter_context(_pinned(PASSES))
        except FileNotFoundError:
            maps = None
        else:
            stack.pop_all()
            maps = stack.enter_context(Maps(seals, passes))
        yield maps


def ensure() -> Maps:
    """
    Return the maps, read by this version of the program or a newer one. Creates and attaches what is missing.
    The caller holds LOCK.
    """
    place.check()
    with _translated(), contextlib.ExitStack() as stack:
        with contextlib.suppress(FileExistsError):
            os.mkdir(place.DIRECTORY, 0o700)
        seals, new_seals = _pinned_or_new(stack, SEALS, _new_seals)
        passes, new_passes = _pinned_or_new(stack, PASSES, _new_passes)
        maps = Maps(seals, passes)
        stack.pop_all()
        try:
            _have_program(maps, new_seals or new_passes)
        except BaseException:
            maps.close()
            raise
    return maps


def take_away() -> None:
    """
    Detach the program and remove everything that is pinned. The caller holds LOCK and has checked that
    nothing is sealed.
    """
    with _translated():
        with contextlib.suppress(FileNotFoundError):
            link = bpf.get_pinned(LINK)
            try:
                if bpf.link_info(link)[1]:
                    bpf.detach_link(link)
            finally:
                os.close(link)
        # Remove the directory last: if this run is killed before, the next run finds the directory and
        # continues.
        for path in (LINK, PASSES, SEALS):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        try:
            os.rmdir(place.DIRECTORY)
        except OSError as error:
            # It contains the maps of another layout, or files of somebody else.
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise


def version_in_place() -> int | None:
    """The version of the attached program, 0 if the program is not ours, None if no program is attached."""
    with _translated():
        try:
            link = bpf.get_pinned(LINK)
        except FileNotFoundError:
            return None
        try:
            return _version(link)
        finally:
            os.close(link)


def _have_program(maps: Maps, is_new: bool) -> None:
    try:
        link = bpf.get_pinned(LINK)
    except FileNotFoundError:
        _attach(maps)
        return
    try:
        version = _version(link)
        if version is None:
            # Somebody detached the link.
            os.unlink(LINK)
            _attach(maps)
        elif is_new or version < program.VERSION:
            loaded = _load(maps)
            try:
                bpf.update_link(link, loaded)
            finally:
                os.close(loaded)
    finally:
        os.close(link)


def _attach(maps: Maps) -> None:
    with contextlib.ExitStack() as stack:
        loaded = _load(maps)
        stack.callback(os.close, loaded)
        root = os.open(place.cgroup_root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        link = bpf.create_link(loaded, root)
        stack.callback(os.close, link)
        bpf.pin(link, LINK)


def _version(link: int) -> int | None:
    """The version of the link's program: 0 if the program is not ours, None if the link is detached."""
    identity, cgroup = bpf.link_info(link)
    if not cgroup:
        return None
    number = bpf.program_name(identity).partition(program.PREFIX)[2]
    return int(number) if number.isdecimal() else 0


def _load(maps: Maps) -> int:
    return bpf.load_program(program.NAME, program.build(maps.seals.fd, maps.passes.fd))


def _new_maps() -> Maps:
    with contextlib.ExitStack() as stack:
        maps = Maps(stack.enter_context(_new_seals()), _new_passes())
        stack.pop_all()
    return maps


def _new_seals() -> bpf.Map:
    return bpf.create_map("racefree_seals", entry.NUMBER.size, entry.SEAL_SIZE, entry.MOST_SEALS)


def _new_passes() -> bpf.Map:
    return bpf.create_map("racefree_passes", entry.PASS_KEY_SIZE, entry.PASS_SIZE, entry.MOST_PASSES)


def _pinned(path: str) -> bpf.Map:
    sizes = (entry.NUMBER.size, entry.SEAL_SIZE) if path == SEALS else (entry.PASS_KEY_SIZE, entry.PASS_SIZE)
    return bpf.Map(bpf.get_pinned(path), *sizes)


def _pinned_or_new(
    stack: contextlib.ExitStack, path: str, make: Callable[[], bpf.Map]
) -> tuple[bpf.Map, bool]:
    """Return the map pinned at ``path``, and whether this call created it with ``make``."""
    try:
        return stack.enter_context(_pinned(path)), False
    except FileNotFoundError:
        made = stack.enter_context(make())
        bpf.pin(made.fd, path)
        return made, True


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """
    Raise an OSError of a BPF call as NotSupported or KernelError with a hint. FileNotFoundError passes
    unchanged: callers handle it.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    if error.errno in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        raise NotSupported(
            "this kernel has no BPF programs for control groups, which seals need",
            errno=error.errno,
            hint=_NO_CGROUP_BPF,
        ) from error
    hint = _REFUSED if error.errno in (errno.EPERM, errno.EACCES) and os.geteuid() == 0 else None
    raise KernelError.from_oserror(
        error, "use BPF to seal devices", device=place.DIRECTORY, hint=hint
    ) from error
