# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The block hotplug script, which libxl calls when a disk is attached to a guest and after it is detached.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

libxl calls ``SCRIPT add|remove`` with XENBUS_PATH set, waits for the exit code and reads the node
hotplug-error (device_hotplug in tools/libs/light/libxl_device.c of Xen). The script needs no global lock,
leaks nothing and runs no other program. Xen starts it twice for every disk, so each layer is imported only
where it is needed.
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

# Of the 40 s that libxl gives a script (LIBXL_HOTPLUG_TIMEOUT): limit for the work, and for the whole call if
# storage does not respond.
SECONDS = 20.0
LONGEST = 27.0
# Where the role xen_host moves Xen's own script when it installs this one, and the path that this one then
# has.
STOCK_KEPT = "/etc/xen/scripts/block.stock"
STOCK_PLACE = "/etc/xen/scripts/block"
_HANDED_ON = "RACEFREE_HANDED_ON"


def main(argv: list[str], environ: Mapping[str, str], form: str = "diskseq") -> int:
    """
    Run the script's command and return its exit code. Errors are printed to stderr, and those of ``add`` are
    also written to the node that libxl reads.

    ``form``: how the disk sequence number is passed to the backend (_xen.vbd_nodes.FORMS).
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
    """Parse the script's arguments into ``(command, Key)``. Raises InvalidValue."""
    if len(argv) != 2 or argv[1] not in ("add", "remove"):
        raise InvalidValue("arguments", " ".join(argv[1:]), "must be add or remove, as libxl calls it")
    return argv[1], parse_path(environ.get("XENBUS_PATH", ""))


def parse_path(path: str) -> Key:
    """Parse a XENBUS_PATH into a Key. Raises InvalidValue."""
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
    """Give the vbd its device, in a child process that is given up if it hangs."""
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
    Remove the vbd's state file. Its XenStore nodes may already be gone.

    There is usually nothing to tear down: a loop device made by ``add`` is removed when blkback closes it,
    which can be after this. But Xen's own script may have made a loop device for this disk before it was
    replaced by this one; then that script is executed to remove it.
    """
    known = state.forget(key)
    state.reap()
    # STOCK_KEPT may by mistake be this script.
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
    Whether Xen's own script made a loop device: it writes the node ``node`` for a file, and has nothing to
    tear down without it (tools/hotplug/Linux/block of Xen).
    """
    from .._xenstore.session import Session

    with Session() as store:
        return store.exists(f"{key.backend}/node")
