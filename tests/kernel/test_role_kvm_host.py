# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role kvm_host on a system with systemd and libvirt: installed, used by a guest, and removed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import qemuhost
from conftest import run_module
from qemuhost import HOOK, URI, defined, definition, nothing_left, virsh
from role_play import (
    changed_tasks,
    changes,
    failing,
    files_but_libvirts,
    main_pid,
    play_role,
    run_libvirtd,
    run_playbook,
)

pytestmark = [pytest.mark.systemd, pytest.mark.qemu]

README = Path("/root/site/ansible_collections/racefree/block/README.md")


@pytest.fixture
def role(tmp_path):
    """Apply the role and return the names of changed tasks: ``role(check=False, **variables)``."""

    def apply(check=False, **variables):
        return changes(
            play_role(tmp_path, "kvm_host", check, dict({"kvm_host_kernel_modules": []}, **variables))
        )

    return apply


@pytest.fixture(autouse=True)
def daemon():
    # The role leaves the folder when it is removed.
    os.makedirs(os.path.dirname(HOOK), exist_ok=True)
    run_libvirtd()


def test_installed_used_and_removed(role, image, tmp_path):
    before, earlier = files_but_libvirts(), main_pid("libvirtd")
    predicted = role(check=True)
    assert files_but_libvirts() == before
    restart = "Restart libvirt's daemon"
    assert {"Install the hook", restart} <= predicted
    # A restart that failed is repeated.
    with failing(tmp_path, "systemctl", "restart"):
        ended = play_role(tmp_path, "kvm_host", variables={"kvm_host_kernel_modules": []})
    assert ended.returncode and main_pid("libvirtd") == earlier
    done = role()
    assert done == {restart} and main_pid("libvirtd") not in (0, earlier)
    assert predicted <= done | changed_tasks(ended.stdout)
    installed = files_but_libvirts()
    assert os.access(HOOK, os.X_OK) and installed != before
    assert not role() and files_but_libvirts() == installed

    with defined(definition("role")) as domain:
        run_module("libvirt_disk", domain=domain, vdev="vda", source={"file": image()}, uri=URI)
        virsh("start", "role", "--paused")
        # The hook and its library are removed while the guest runs, which keeps its disk.
        assert "Remove the hook" in role(kvm_host_state="absent")
        assert files_but_libvirts() == before
        assert qemuhost.opened("role") and virsh("domstate", "role") == "paused"
        virsh("destroy", "role")
        assert nothing_left()
        # It does not start without the hook.
        refused = subprocess.run(
            ["virsh", "-c", URI, "start", "role"], capture_output=True, text=True, timeout=120, check=False
        )
        assert refused.returncode and f"/dev/mapper/racefree-{domain}-vda" in refused.stderr


def test_kernel_modules_that_could_not_be_loaded(tmp_path):
    before = files_but_libvirts()
    # A text is a list, too, as in options of modules.
    variables = {"kvm_host_kernel_modules": "loop, no-such-module"}
    for _again in range(2):
        done = play_role(tmp_path, "kvm_host", variables=variables)
        assert done.returncode and "no-such-module" in done.stdout.split("TASK [")[-1], done.stdout
    listed = Path("/etc/modules-load.d/racefree-kvm-host.conf")
    assert listed.read_text(encoding="ascii") == "loop\nno-such-module\n"
    changes(play_role(tmp_path, "kvm_host", variables={"kvm_host_state": "absent"}))
    assert files_but_libvirts() == before


def test_quick_start_of_the_readme(tmp_path):
    """The playbook as README.md has it, and how README.md says that it is undone."""
    section = README.read_text(encoding="utf-8").split("\n### A KVM guest\n")[1]
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", section.split("\n### ")[0], re.M | re.S)
    inventory = tmp_path / "inventory"
    host = "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3"
    inventory.write_text(f"[kvm_hosts]\n{host}\n", encoding="utf-8")
    before = files_but_libvirts()

    def play(text):
        (tmp_path / "disk.yml").write_text(text, encoding="utf-8")
        # The modules are part of this kernel.
        more = json.dumps({"kvm_host_kernel_modules": []})
        words = ("-i", str(inventory), "--extra-vars", more, str(tmp_path / "disk.yml"))
        return changes(run_playbook(tmp_path, *words))

    disk = Path("/srv/guests/web1.raw")
    disk.parent.mkdir(parents=True, exist_ok=True)
    with disk.open("wb") as file:
        file.truncate(20 << 30)
    try:
        with defined(definition("web1")):
            assert {"Install the hook", "Give web1 this image as its disk"} <= play(text)
            assert not play(text)
            virsh("start", "web1", "--paused")
            assert qemuhost.opened("web1")
            virsh("destroy", "web1")
            assert nothing_left()
            absent = text.replace("vdev: vda\n", "vdev: vda\n        state: absent\n")
            assert absent != text and play(absent) == {"Give web1 this image as its disk"}
            assert "<disk" not in virsh("dumpxml", "web1")
    finally:
        disk.unlink()
        undone = play_role(tmp_path, "kvm_host", variables={"kvm_host_state": "absent"})
    assert "Remove the hook" in changes(undone) and files_but_libvirts() == before
