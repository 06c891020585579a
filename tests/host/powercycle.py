# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A guest runs by its recipe when the power of its host fails. ``before`` starts it, ``after`` checks the host
and starts it again.

Run by ``power-cycle``, which turns the host off and on in between.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

from conftest import run_module
from libvirthost import (
    STATE,
    default_script,
    definition,
    in_guest,
    install,
    is_running,
    ours,
    run,
    uninstall,
    virsh,
    wait_for,
)

GUEST = "power"
PLACE = pathlib.Path("/var/tmp/racefree-powercycle")


def before():
    PLACE.mkdir()
    install()
    image, data = PLACE / "root.raw", PLACE / "data.raw"
    for path in (image, data):
        path.write_bytes(os.urandom(1 << 20))
    (PLACE / "guest.xml").write_text(definition(GUEST))
    virsh("define", str(PLACE / "guest.xml"))
    run_module(
        "libvirt_disks",
        disks=[
            {"domain": GUEST, "vdev": "xvda", "source": {"file": str(image)}},
            {
                "domain": GUEST,
                "vdev": "xvdb",
                "source": {"table": f"0 2048 linear file:{data} 0"},
                "mode": "r",
            },
        ],
    )
    # Under emulation, Xen's own script often takes more than its 40 s for two disks.
    with default_script():
        virsh("start", GUEST)
    in_guest(GUEST, "echo written by the guest | dd of=/dev/xvda conv=fsync 2>/dev/null")
    assert len(ours()) == 2
    # The host's data must survive the power cut; the guest calls fsync itself.
    os.sync()


def after():
    try:
        assert not is_running(GUEST) and ours() == [] and run("losetup", "-a") == ""
        assert virsh("dumpxml", GUEST, "--inactive").count("<racefree:disk ") == 2
        other = PLACE / "other.raw"
        other.write_bytes(b"other   " * 1024)
        # Device names and sequence numbers start again: /dev/loop0 may be a different device now.
        taken = run("losetup", "--show", "-f", str(other))
        with default_script():
            virsh("start", GUEST)
        assert in_guest(GUEST, "head -n 1 /dev/xvda") == "written by the guest"
        for vdev, name in (("xvda", "root.raw"), ("xvdb", "data.raw")):
            assert (
                in_guest(GUEST, f"sha256sum < /dev/{vdev}").split()[0]
                == hashlib.sha256((PLACE / name).read_bytes()).hexdigest()
            )
        run("losetup", "-d", taken)
        virsh("destroy", GUEST)
        assert wait_for(lambda: not ours() and run("losetup", "-a") == "", 20)
        assert [name for name in os.listdir(STATE) if name != "lock"] == []
    finally:
        with contextlib.suppress(AssertionError):
            virsh("destroy", GUEST)
        virsh("undefine", GUEST)
        uninstall()
        run("rm", "-r", str(PLACE))
    print("the guest had the right bytes after the power cut, and nothing is left")


if __name__ == "__main__":
    {"before": before, "after": after}[sys.argv[1]]()
