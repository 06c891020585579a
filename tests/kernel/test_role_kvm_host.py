# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role kvm_host on a system with systemd and libvirt: installed, used by a guest, and removed."""

from __future__ import annotations

import os
import subprocess

import pytest
import qemuhost
from conftest import run_module
from qemuhost import HOOK, URI, defined, definition, nothing_left, virsh
from role_play import changes, files, play_role

pytestmark = [pytest.mark.systemd, pytest.mark.qemu]


@pytest.fixture
def role(tmp_path):
    """Apply the role and return the names of changed tasks: ``role(check=False, **variables)``."""

    def apply(check=False, **variables):
        return changes(
            play_role(tmp_path, "kvm_host", check, dict({"kvm_host_kernel_modules": []}, **variables))
        )

    return apply


def kept():
    """Files that the role may touch, without those that libvirt writes when it starts."""
    return {
        path: entry
        for path, entry in files().items()
        if not path.startswith("/etc/libvirt/") or path.startswith(f"{os.path.dirname(HOOK)}/")
    }


def test_installed_used_and_removed(role, image):
    before = kept()
    predicted = role(check=True)
    assert kept() == before
    done = role()
    # In check mode handlers only say what they would do.
    assert predicted <= done and "Install the hook" in predicted
    installed = kept()
    assert os.access(HOOK, os.X_OK) and installed != before
    assert not role() and kept() == installed

    with defined(definition("role")) as domain:
        run_module("libvirt_disk", domain=domain, vdev="vda", source={"file": image()}, uri=URI)
        virsh("start", "role", "--paused")
        # The hook and its library are removed while the guest runs, which keeps its disk.
        assert "Remove the hook" in role(kvm_host_state="absent")
        assert kept() == before
        assert qemuhost.opened("role") and virsh("domstate", "role") == "paused"
        virsh("destroy", "role")
        assert nothing_left()
        # It does not start without the hook.
        refused = subprocess.run(
            ["virsh", "-c", URI, "start", "role"], capture_output=True, text=True, timeout=120, check=False
        )
        assert refused.returncode and f"/dev/mapper/racefree-{domain}-vda" in refused.stderr
