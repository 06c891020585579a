# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run the hotplug script of a disk that xl or libvirt attached, when the disk is detached.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Only the script itself can tear down what it set up at ``add``, such as a loop device or a network disk.
Environment and arguments are the same as libxl's (get_hotplug_env in tools/libs/light/libxl_linux.c of Xen).
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess

from .vbd_nodes import STOCK_SCRIPT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .vbd_key import Key
    from .vbd_nodes import Vbd

SECONDS = 40.0  # LIBXL_HOTPLUG_TIMEOUT


def is_needed(vbd: Vbd) -> bool:
    """
    Whether the script has anything to tear down for the vbd.

    A vbd that this collection's modules attached names the stock script, which was never run for it. The
    stock script's ``remove`` does nothing for a block device.
    """
    if not vbd.script or (vbd.diskseq is not None and vbd.script == STOCK_SCRIPT):
        return False
    if vbd.script != STOCK_SCRIPT or not vbd.params:
        return True
    path = vbd.params if vbd.params.startswith("/") else "/dev/" + vbd.params
    try:
        return not stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return True


def run_remove(script: str | None, key: Key, seconds: float = SECONDS) -> None:
    """Run ``script remove`` for the vbd and wait up to ``seconds`` for it. Like libxl, ignore its failure."""
    if not script or not script.startswith("/") or not os.access(script, os.X_OK):
        return
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "script": script,
        "XENBUS_TYPE": "vbd",
        "XENBUS_PATH": f"backend/vbd/{key.domid}/{key.devid}",
        "XENBUS_BASE_PATH": "backend",
    }
    # AnsibleModule.run_command has no time limit.
    process = subprocess.Popen(  # pylint: disable=ansible-bad-function
        [script, "remove"],
        env=environment,
        cwd="/",
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            # The shell scripts wait for child processes, so kill the whole process group.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
