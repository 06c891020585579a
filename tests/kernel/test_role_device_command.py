# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The playbook luks_guest without its guest, which needs Xen: an open file takes the guest's place.
"""

from __future__ import annotations

import os
import stat
import subprocess

import pytest
from conftest import snapshot, wait_until
from role_play import changes, run_playbook

pytestmark = pytest.mark.systemd
PASSPHRASE = "the passphrase of a test"
ENCRYPT, OPEN = "Encrypt the blank file", "Open the encrypted file"
LEAVE = "Have it removed when the guest releases it"


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

    def run(*options, playbook="luks_guest"):
        done = run_playbook(
            tmp_path, "-vvv", "-i", str(inventory), *words, *options, f"racefree.block.{playbook}"
        )
        assert PASSPHRASE not in done.stdout + done.stderr
        return changes(done)

    return run


def test_an_encrypted_file_that_goes_with_its_guest(play, tmp_path):
    before = snapshot()
    # A new host has no file yet.
    assert play("--check") == {"Create the file"} and not (tmp_path / "data.luks").exists()
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


def test_what_a_file_contains_is_not_destroyed(play, tmp_path):
    """A file system is refused by the one playbook, and stays as it is with the other, which makes one."""
    path = tmp_path / "data.luks"
    with open(path, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    before = path.read_bytes(), snapshot()
    with pytest.raises(AssertionError, match=f"{path} contains ext4"):
        play("--skip-tags", "guest,leave")
    names = ["-e", f"names_image={path}"]
    made = "Make a file system on the blank disk"
    assert made not in play(*names, playbook="block_names")
    assert (path.read_bytes(), snapshot()) == before
    os.truncate(path, 0)
    os.truncate(path, 64 << 20)
    assert made not in play(*names, "--check", playbook="block_names")
    assert made in play(*names, playbook="block_names") and made not in play(*names, playbook="block_names")
