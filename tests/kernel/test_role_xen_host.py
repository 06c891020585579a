# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The role xen_host on a system with systemd and Xen's scripts, but without Xen: installed, applied again, and
removed.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from conftest import wait_until
from role_play import changes, files, play_role

SERVICE = "racefree-block.service"
SCRIPT = "/etc/xen/scripts/block"

pytestmark = pytest.mark.systemd


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


def service_pid():
    """The main process of the running service, or 0."""
    shown = subprocess.run(
        ["systemctl", "show", "--value", "--property=MainPID", SERVICE],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return int(shown)


def is_active():
    return subprocess.run(["systemctl", "is-active", "--quiet", SERVICE], check=False).returncode == 0


def test_installed_again_changed_and_removed(role):
    before = files()
    predicted = role(check=True, xen_host_default_script=True)
    assert files() == before and not is_active()

    done = role(xen_host_default_script=True)
    # Check mode cannot predict what will have to be removed, nor the service that does not exist yet.
    assert predicted <= done and "Install the script" in predicted
    installed = files()
    assert os.readlink(SCRIPT) == "block-racefree" and os.access(SCRIPT, os.X_OK)
    assert installed[f"{SCRIPT}.stock"] == before[SCRIPT]
    assert is_active() and os.path.isdir("/run/racefree-block/service")

    assert not role(xen_host_default_script=True)
    assert files() == installed

    killed = service_pid()
    os.kill(killed, 9)
    wait_until(lambda: is_active() and service_pid() not in (0, killed))

    # The other way round: Xen's own script is the default again, and the script works without the service.
    assert role(xen_host_service=False)
    assert not is_active() and os.path.exists(f"{SCRIPT}-racefree") and files()[SCRIPT] == before[SCRIPT]
    assert f"{SCRIPT}.stock" not in files()

    assert role(xen_host_state="absent")
    assert files() == before and not os.path.exists("/run/racefree-block/service")
    verified = subprocess.run(
        ["dpkg", "--verify", "xen-utils-common"], capture_output=True, text=True, check=False
    ).stdout
    # The image has no documentation and no manual pages.
    assert not [line for line in verified.splitlines() if " /usr/share/" not in line]
    assert not role(xen_host_state="absent")
