# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The services of the role block_names: each mounts a file system, serves it, and unmounts it at the end.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from .._base import run_directory
from .._base.errors import BlockError, KernelError, NotSupported
from .._process import descriptors
from . import disk_name, mount_point, node_id, operations
from .dev_tree import DevTree
from .disk_files import DiskFiles
from .forgetter import QUIET, Forgetter, Work
from .identity_operations import IdentityOperations
from .identity_tree import IdentityTree
from .library import pyfuse3, trio
from .pins import Pins
from .requests import Requests
from .served import BY_DISKSEQ, SOURCE
from .udev_record import UdevLinks
from .workers import Workers

_OPTIONS = ("default_permissions", "allow_other", "nosuid", "noexec", "ro")
_THREADS = 64
# A request can disappear after poll reported it and before it is read, if its caller is killed. The read then
# blocks until the next request, and nothing else runs. A signal interrupts it. Seconds.
_TICK = 0.2
# The least time in which a lookup is answered and its name is in use. Seconds.
_LEAST_QUIET = 0.002
# Seconds for which a removal waits until the kernel forgets the names of its disk.
_LET_GO = 0.2


def main(arguments: list[str]) -> int:
    """Run a service. Returns the exit code: 0 after SIGTERM, 1 with a message on standard error."""
    options = _parse(arguments)
    try:
        if os.geteuid():
            raise KernelError(
                "only root may mount this file system",
                device=options.mount,
                errno=errno.EPERM,
                hint="Start it as root, by its service",
            )
        if pyfuse3 is None:
            raise NotSupported(
                "the Python library pyfuse3 cannot be imported", hint="Install the package python3-pyfuse3"
            )
        descriptors.raise_limit()
        run_directory.make(options.state)
        held = mount_point.lock(f"{options.state}/lock")
        try:
            return _serve_disks(options) if options.what == "by-diskseq" else _serve_identities(options)
        finally:
            os.close(held)
    except BlockError as error:
        sys.stderr.write(f"{options.what}: {error}\n")
        return 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="racefree-names", description="Names of disks, as a file system.")
    kinds = parser.add_subparsers(dest="what", required=True)
    disks = kinds.add_parser("by-diskseq", help="by disk sequence number")
    disks.add_argument("--mount", default=BY_DISKSEQ, help="where it is mounted")
    disks.add_argument("--state", default=f"{run_directory.ROOT}/by-diskseq", help="for lock and socket")
    disks.add_argument(
        "--grace-ms", type=_whole, default=200, help="how long a device is held after its name was dropped"
    )
    disks.add_argument("--limit", type=_whole, default=4096, help="how many devices are held at most")
    identities = kinds.add_parser("identity", help="by names that lead to those")
    identities.add_argument("--mount", default="/dev/racefree", help="where it is mounted")
    identities.add_argument("--state", default=f"{run_directory.ROOT}/identity", help="for the lock")
    identities.add_argument("--disks", default=BY_DISKSEQ, help="where by-diskseq is mounted")
    return parser.parse_args(arguments)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number")
    return int(text)


def _serve_disks(options: argparse.Namespace) -> int:
    mount_point.prepare(options.mount, SOURCE)
    pins = Pins(options.limit, options.grace_ms / 1000)
    files = DiskFiles(pins, Workers(_THREADS), Workers(_THREADS))
    handlers = operations.DiskOperations(files)
    forgetter = Forgetter(
        Work(
            lambda name: _invalidate(node_id.ROOT, os.fsencode(name)),
            lambda name: _is_known(pins, name),
            files.expire,
            lambda: handlers.late > 0,
        ),
        _quiet(options.grace_ms / 1000),
    )
    handlers.forgetter, pins.expires = forgetter, forgetter.expires

    def let_go(diskseq: int) -> int:
        for name in pins.names_of(diskseq):
            for spelled in name.spellings:
                forgetter.hurry(spelled)
        return files.let_go(diskseq, _LET_GO)

    requests = Requests(f"{options.state}/socket", let_go)
    return serve(handlers, options.mount, SOURCE, [requests.start, forgetter.start], ("dev",))


def _quiet(grace: float) -> float:
    """Seconds without a lookup before a name is forgotten, for this grace time: it adds at most a half."""
    return max(_LEAST_QUIET, min(QUIET, grace / 2))


def _serve_identities(options: argparse.Namespace) -> int:
    source = "racefree-identity"
    mount_point.prepare(options.mount, source)
    with DevTree() as dev:
        handlers = IdentityOperations(IdentityTree(UdevLinks(dev)), options.disks)

        def forget(path: str) -> None:
            place = handlers.place_of(path)
            if place is not None:
                _invalidate(*place)

        forgetter = Forgetter(Work(forget, handlers.is_known, lambda: None, lambda: False))
        handlers.forgetter = forgetter
        return serve(handlers, options.mount, source, [forgetter.start], ("nodev",))


def _is_known(pins: Pins, spelled: str) -> bool:
    name = disk_name.parse(spelled)
    return name is not None and pins.is_known(name)


def _invalidate(parent: int, name: bytes) -> None:
    try:
        pyfuse3.invalidate_entry(parent, name)
    except OSError:
        # ENOENT: the kernel does not have this entry yet, but a pending answer may create it. Other errors:
        # the file system is being unmounted. The caller retries as long as the kernel knows the file.
        return


def serve(
    handlers: Any, path: str, source: str, starts: list[Callable[[], None]], options: tuple[str, ...] = ()
) -> int:
    """
    Mount, serve until SIGTERM or SIGINT, unmount. Returns 0, or 1 if somebody else unmounted it. KernelError
    if mounting fails.
    """
    try:
        pyfuse3.init(handlers, path, {f"fsname={source}", *_OPTIONS, *options})
    except RuntimeError as error:
        raise KernelError(
            f"it cannot be mounted: {error}", device=path, hint="Look at the messages before this one"
        ) from error
    asked: list[int] = []

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_wait_for_end, asked)
            await pyfuse3.main()
            nursery.cancel_scope.cancel()

    try:
        signal.signal(signal.SIGALRM, lambda number, frame: None)
        signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)
        for start in starts:
            start()
        _notify("READY=1")
        trio.run(run)
        _notify("STOPPING=1")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        pyfuse3.close(unmount=True)
    return 0 if asked else 1


async def _wait_for_end(asked: list[int]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            asked.append(number)
            pyfuse3.terminate()
            return


def _notify(state: str) -> None:
    """Send a state to systemd (sd_notify(3)). Does nothing without NOTIFY_SOCKET."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.sendto(state.encode("ascii"), "\0" + path[1:] if path.startswith("@") else path)
