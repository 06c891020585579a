# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The role xen_host on a system with systemd and Xen's scripts, but without Xen: installed, applied again, and
removed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import wait_until
from role_play import (
    changed_tasks,
    changes,
    failing,
    files,
    files_but_libvirts,
    main_pid,
    play_role,
    run_libvirtd,
    switch_again,
)

SERVICE = "racefree-block.service"
SCRIPT = "/etc/xen/scripts/block"
HOOK = "/etc/libvirt/hooks/libxl.d/50-racefree"
HOOK_FILE = "/etc/libvirt/hooks/libxl"
FOLDERS = ("/etc/libvirt/hooks", os.path.dirname(HOOK))

pytestmark = [pytest.mark.systemd, pytest.mark.qemu]


@pytest.fixture
def role(tmp_path):
    """
    A function that applies the role and returns the names of changed tasks: ``role(check=False,
    **variables)``.
    """

    def apply(check=False, **variables):
        # This kernel has none of Xen's modules.
        variables = dict({"xen_host_kernel_modules": []}, **variables)
        return changes(play_role(tmp_path, "xen_host", check, variables))

    return apply


def is_active():
    return subprocess.run(["systemctl", "is-active", "--quiet", SERVICE], check=False).returncode == 0


def test_installed_again_changed_and_removed(role, tmp_path):
    run_libvirtd()
    before = files_but_libvirts()
    predicted = role(check=True, xen_host_default_script=True, xen_host_libvirt_hook=True)
    assert files_but_libvirts() == before and not is_active()

    done = role(xen_host_default_script=True, xen_host_libvirt_hook=True)
    # Check mode cannot predict what will have to be removed, nor the service that does not exist yet.
    assert predicted <= done and {"Install the script", "Install the hook"} <= predicted
    installed = files_but_libvirts()
    assert os.readlink(SCRIPT) == "block-racefree" and os.access(SCRIPT, os.X_OK) and os.access(HOOK, os.X_OK)
    assert installed[f"{SCRIPT}.stock"] == before[SCRIPT]
    assert is_active() and os.path.isdir("/run/racefree-block/service")

    # A play that applies the role for another purpose must not take the hook from guests that need it.
    assert not role(xen_host_default_script=True)
    assert files_but_libvirts() == installed
    with open(HOOK, "a", encoding="utf-8") as hook:
        hook.write("# of an older version of the collection\n")
    # A play was ended after it had switched to another library. The daemon's restart fails in the next one.
    switch_again("/usr/local/lib/racefree-block/racefree_block")
    served, daemon = main_pid(SERVICE), main_pid("libvirtd")
    variables = {"xen_host_kernel_modules": [], "xen_host_libvirt_hook": None}
    with failing(tmp_path, "systemctl", "restart libvirtd"):
        ended = play_role(tmp_path, "xen_host", variables=variables)
    assert ended.returncode and "Install the hook" in changed_tasks(ended.stdout)
    assert main_pid(SERVICE) not in (0, served) and main_pid("libvirtd") == daemon
    assert role() == {"Restart it"} and main_pid("libvirtd") not in (0, daemon)
    assert files_but_libvirts() == installed

    killed = main_pid(SERVICE)
    os.kill(killed, 9)
    wait_until(lambda: is_active() and main_pid(SERVICE) not in (0, killed))

    # The other way round: Xen's own script is the default again, and the script works without the service.
    # The hook of an older libvirt goes, too.
    shutil.copy2(HOOK, HOOK_FILE)
    daemon = main_pid("libvirtd")
    assert {"Restart it", "Remove the hook"} <= role(
        xen_host_service=False, xen_host_default_script=False, xen_host_libvirt_hook=False
    )
    assert main_pid("libvirtd") not in (0, daemon) and not os.path.lexists(HOOK_FILE)
    assert not is_active() and os.path.exists(f"{SCRIPT}-racefree") and files()[SCRIPT] == before[SCRIPT]
    assert f"{SCRIPT}.stock" not in files() and not os.path.lexists(HOOK)

    assert role(xen_host_state="absent")
    # Folders for hooks of others stay.
    after = {path: entry for path, entry in files_but_libvirts().items() if path not in FOLDERS}
    assert after == {path: entry for path, entry in before.items() if path not in FOLDERS}
    assert not os.path.exists("/run/racefree-block/service")
    verified = subprocess.run(
        ["dpkg", "--verify", "xen-utils-common"], capture_output=True, text=True, check=False
    ).stdout
    # The image has no documentation and no manual pages.
    assert not [line for line in verified.splitlines() if " /usr/share/" not in line]

    # Somebody's own script, with a copy of Xen's beside it, is not the role's.
    own, stock = Path(SCRIPT), Path(f"{SCRIPT}.stock")
    shutil.copy2(own, stock)
    own.write_text("#!/bin/sh\n", encoding="utf-8")
    assert not role(xen_host_state="absent")
    assert own.read_text(encoding="utf-8") == "#!/bin/sh\n" and stock.exists()
    os.replace(stock, own)
