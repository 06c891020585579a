# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Encrypted swap as a unit of systemd, on a Xen host: swapped out and back under memory pressure, and nothing
left after the unit is stopped.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pressure
import pytest
import swap_reboot
from ansible_collections.racefree.block.plugins.module_utils._block.seal import place
from conftest import wait_until
from swap_reboot import DEVICE, FILE, UNIT, key, read, run, swap_out, swapped

pytestmark = [pytest.mark.xen, pytest.mark.long]
ONE = UNIT.format("one")


@pytest.fixture
def area():
    """The area, with its unit started."""
    swap_reboot.install()
    yield
    subprocess.run(["systemctl", "stop", "eater"], check=False, capture_output=True)
    swap_reboot.uninstall()


def keys():
    """The types and descriptions of all keys that root sees, except keyrings, and keys of systemd's units."""
    found = {tuple(line.split()[7:]) for line in read("/proc/keys").splitlines()}
    return {words for words in found if words[0] != "keyring" and not words[1].startswith("invocation_id")}


def assert_nothing_is_left(secret):
    shown = run("dmsetup", "table", "--showkeys")
    assert secret not in shown and DEVICE not in shown
    assert "/dev/dm-" not in read("/proc/swaps")
    assert FILE not in run("losetup", "--all")
    assert secret not in run("journalctl", "--quiet")
    # The keeper of the seals may need a moment.
    wait_until(lambda: not os.path.exists(place.DIRECTORY), 20)


def test_stopped_with_memory_swapped_out(area):
    """What is swapped out is read back, and then device, key, loop device and seal are gone."""
    before = keys()
    swap_out()
    secret = key()
    assert len(secret) == 128
    run("systemctl", "stop", ONE)
    assert_nothing_is_left(secret)
    assert run("systemctl", "is-active", "eater") == "active\n" and keys() <= before
    run("systemctl", "start", ONE)
    assert key() != secret and swapped() == 0


def test_under_memory_pressure(area):
    """A process fills more memory than its limit, and reads back all that it wrote."""
    words = [sys.executable, "-B", pressure.__file__, "--mib", "64", "--limited"]
    print(run("systemd-run", "--quiet", "--wait", "--pipe", "--property=MemoryMax=32M", *words))
    secret = key()
    run("systemctl", "stop", ONE)
    assert_nothing_is_left(secret)
