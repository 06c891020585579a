# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The playbook luks_guest without its guest, which needs Xen: an open file takes the guest's place.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from conftest import snapshot, wait_until
from test_role_xen_host import ANSIBLE, NO_INVENTORY, changed_tasks

pytestmark = pytest.mark.systemd
PASSPHRASE = "the passphrase of a test"
ENCRYPT, OPEN, LEAVE = "Encrypt it", "Open it", "Let it go with its last user, the guest"


@pytest.fixture
def play(tmp_path):
    """A function that runs the playbook, and returns the names of the changed tasks."""
    if not os.path.isdir(ANSIBLE):
        pytest.skip("Ansible is not there: tests/kernel/run --systemd brings it along")
    inventory = tmp_path / "hosts"
    inventory.write_text(
        "[xen_hosts]\nlocalhost ansible_connection=local ansible_python_interpreter=auto_silent\n"
    )
    variables = {
        "luks_file": str(tmp_path / "data.luks"),
        "luks_size": "64M",
        "luks_name": "luks-guest",
        "luks_passphrase": PASSPHRASE,
    }
    words = [word for item in variables.items() for word in ("-e", "{}='{}'".format(*item))]

    def run(*options):
        done = subprocess.run(
            [
                "python3",
                "-m",
                "ansible",
                "playbook",
                "-vvv",
                "-i",
                str(inventory),
                *words,
                *options,
                "racefree.block.luks_guest",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env=dict(
                os.environ,
                PYTHONPATH=ANSIBLE,
                ANSIBLE_COLLECTIONS_PATH="/root/site",
                ANSIBLE_HOME=str(tmp_path),
                ANSIBLE_NOCOLOR="1",
            ),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "[WARNING]" not in done.stderr.replace(NO_INVENTORY, ""), done.stderr
        assert PASSPHRASE not in done.stdout + done.stderr
        return changed_tasks(done.stdout)

    return run


def test_an_encrypted_file_that_goes_with_its_guest(play, tmp_path):
    before = snapshot()
    assert {ENCRYPT, OPEN} <= play("--skip-tags", "guest,leave")
    with open("/dev/mapper/luks-guest", "r+b") as guest:
        # It is not encrypted or opened again, and stays as long as the guest has it.
        assert play("--skip-tags", "guest") == {LEAVE}
        guest.write(b"of the guest")
    wait_until(lambda: snapshot() == before, 20)
    # The next guest would get the same contents.
    assert play("--skip-tags", "guest") == {OPEN, LEAVE}
    wait_until(lambda: snapshot() == before, 20)
    assert "data.luks" in os.listdir(tmp_path)
