# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The playbook luks_guest without its guest, which needs Xen: an open file takes the guest's place.
"""

from __future__ import annotations

import stat

import pytest
from conftest import snapshot, wait_until
from role_play import changes, run_playbook

pytestmark = pytest.mark.systemd
PASSPHRASE = "the passphrase of a test"
ENCRYPT, OPEN, LEAVE = "Encrypt it", "Open it", "Let it go with its last user, the guest"


@pytest.fixture
def play(tmp_path):
    """A function that runs the playbook, and returns the names of the changed tasks."""
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
        done = run_playbook(
            tmp_path, "-vvv", "-i", str(inventory), *words, *options, "racefree.block.luks_guest"
        )
        assert PASSPHRASE not in done.stdout + done.stderr
        return changes(done)

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
    assert stat.S_IMODE((tmp_path / "data.luks").stat().st_mode) == 0o600
