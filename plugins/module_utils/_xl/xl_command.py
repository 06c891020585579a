# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Have ``xl`` attach and detach disks of running guests. Then a disk is also in its own copy of the guest's
configuration, which it uses for a reboot and for ``xl save`` (libxl_retrieve_domain_configuration in
tools/libs/light/libxl_domain.c of Xen).

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import subprocess

from .._base.deadline import Deadline
from .._base.errors import DeadlineExceeded, GuestError, NotSupported

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# xl's own limits (10 s for the backend, 40 s for the hotplug script), after which it rolls back, and some
# time to do so. To kill it earlier would leave half a disk.
LEAST_SECONDS = 75.0


def attach(domid: int, text: str, device: str, seconds: float) -> None:
    """``xl block-attach``. GuestError with what xl prints, DeadlineExceeded, NotSupported without xl."""
    _run(["block-attach", str(domid), text], device, seconds)


def detach(domid: int, devid: int, device: str, seconds: float) -> None:
    """``xl block-detach``, of a disk that the guest has released. Errors as for :func:`attach`."""
    _run(["block-detach", str(domid), str(devid)], device, seconds)


def _run(words: list[str], device: str, seconds: float) -> None:
    limit = Deadline(max(seconds, LEAST_SECONDS))
    # If this process is killed, xl must finish its work. So its output goes into a file: a pipe without a
    # reader would end it by SIGPIPE. And it gets no signals that are sent to the process group.
    with open(os.memfd_create("xl"), "w+b") as output:
        try:
            # There is no AnsibleModule here, and xl needs an environment of its own.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                ["xl", *words],
                env={"PATH": _PATH, "LC_ALL": "C"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit.left(),
                start_new_session=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise NotSupported(
                "the program xl is missing on this host", hint="Install xen-utils (Debian)"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise DeadlineExceeded(f"xl {words[0]}", limit.seconds or 0, device=device) from error
        if done.returncode:
            output.seek(0)
            said = " ".join(output.read().decode("utf-8", "replace").split())
            raise GuestError(f"xl {words[0]} failed: {said[-600:] or 'without a message'}", device=device)
