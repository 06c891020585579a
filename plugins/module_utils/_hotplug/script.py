# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What libxl calls when a guest gets a disk and when it has lost it: the hotplug script, without lock, without
leak, without another program.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

libxl calls ``SCRIPT add|remove`` with XENBUS_PATH, waits for the exit code and reads the node hotplug-error
(device_hotplug in tools/libs/light/libxl_device.c of Xen). Xen starts it twice for every disk, so each floor
is imported only where it is needed.
"""

from __future__ import annotations

import os
import sys

from .._base.errors import BlockError, InvalidValue
from .._xen.vbd_key import Key
from . import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .worker import Link

# Of the 40 s that libxl gives a script (LIBXL_HOTPLUG_TIMEOUT): for the work, and for all of it when storage
# does not answer.
SECONDS = 20.0
LONGEST = 27.0
# Where the role xen_host keeps Xen's own script when this one has its place, and that place.
STOCK_KEPT = "/etc/xen/scripts/block.stock"
STOCK_PLACE = "/etc/xen/scripts/block"
_HANDED_ON = "RACEFREE_HANDED_ON"


def main(argv: list[str], environ: Mapping[str, str], form: str = "diskseq") -> int:
    """
    Do what was called for; the exit code. What went wrong is printed, and for ``add`` written where libxl
    looks for it.

    ``form``: how the disk sequence number is told to the backend (_xen.vbd_nodes.FORMS).
    """
    try:
        command, key = parse_call(argv, environ)
        if command == "add":
            add(key, form)
        else:
            remove(key, environ)
    except (BlockError, OSError) as error:
        sys.stderr.write(f"block-racefree: {' '.join(argv[1:])} {environ.get('XENBUS_PATH', '')}: {error}\n")
        return 1
    return 0


def parse_call(argv: list[str], environ: Mapping[str, str]) -> tuple[str, Key]:
    """``(command, Key)`` of a call, or InvalidValue."""
    if len(argv) != 2 or argv[1] not in ("add", "remove"):
        raise InvalidValue("arguments", " ".join(argv[1:]), "must be add or remove, as libxl calls it")
    return argv[1], parse_path(environ.get("XENBUS_PATH", ""))


def parse_path(path: str) -> Key:
    """The Key of a XENBUS_PATH, or InvalidValue."""
    parts = path.split("/")
    domids = ["0"]
    if path.startswith("/local/domain/"):
        domids, parts = [parts[3]], parts[4:]
    numbers = domids + parts[2:]
    if (
        parts[:2] != ["backend", "vbd"]
        or len(parts) != 4
        or not all(number.isascii() and number.isdigit() and len(number) <= 10 for number in numbers)
    ):
        raise InvalidValue("XENBUS_PATH", path, "must be backend/vbd/DOMID/DEVID, as libxl sets it")
    return Key(int(parts[2]), int(parts[3]), int(domids[0]))


def add(key: Key, form: str) -> None:
    """Give the vbd its device, in a process that is given up when it hangs."""
    from . import worker

    def work(link: Link) -> None:
        from .add import add as add_here

        add_here(key, SECONDS, form, link)

    def give_up(error: BaseException, was_shared: bool) -> None:
        from .add import give_up as give_up_here

        give_up_here(key, error, was_shared)

    worker.run(work, key, LONGEST, give_up)


def remove(key: Key, environ: Mapping[str, str]) -> None:
    """
    Forget the vbd; its nodes may be gone already, and are not looked at.

    There is nothing to take down: what ``add`` made goes when blkback closes it, which can be later than
    this. But Xen's own script may have made a loop device for the disk before this one took its place, and
    that one takes it down.
    """
    known = state.forget(key)
    state.reap()
    # What is kept as Xen's own may be this script by mistake.
    if (
        not known
        and environ.get("script") == STOCK_PLACE
        and os.access(STOCK_KEPT, os.X_OK)
        and _HANDED_ON not in environ
        and _has_stock_loop(key)
    ):
        os.execve(STOCK_KEPT, [STOCK_KEPT, "remove"], dict(environ, **{_HANDED_ON: "1"}))


def _has_stock_loop(key: Key) -> bool:
    """
    Xen's own script writes the node ``node`` for a file, and without it has nothing to take down
    (tools/hotplug/Linux/block of Xen).
    """
    from .._xenstore.session import Session

    with Session() as store:
        return store.exists(f"{key.backend}/node")
