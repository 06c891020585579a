# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What the hotplug script makes of ``target=recipe:NAME``, on a real kernel: stacks of mapped devices that go
with their last user. test_xl_disk.py has the script itself, with xl.
"""

from __future__ import annotations

import contextlib
import os
import subprocess

import ptrace
import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError
from ansible_collections.racefree.block.plugins.module_utils._dm import udev
from ansible_collections.racefree.block.plugins.module_utils._hotplug import recipe_target, target
from ansible_collections.racefree.block.plugins.module_utils._source import (
    for_guest,
    recipe_file,
    resources,
    spec,
)
from ansible_collections.racefree.block.plugins.module_utils._source.recipe_file import KeptRecipe
from conftest import run_module, snapshot, wait_until

NAME = "web1-xvda"
MAPPED = f"/dev/mapper/racefree-recipe-{NAME}"
SECONDS = 20


@pytest.fixture(autouse=True)
def recipes(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_file, "DIRECTORY", str(tmp_path / "recipes"))


def keep(source, shared=False):
    recipe_file.write(KeptRecipe(NAME, spec.parse(source), shared))


def opened(writable=True, seconds=SECONDS):
    """The held Device, as the script opens it; a context."""
    return target.open_device(target.parse(f"recipe:{NAME}", writable), seconds)


def is_gone():
    return not os.path.exists(f"/sys/block/{os.path.basename(os.path.realpath(MAPPED))}") and not listed()


def listed():
    found = subprocess.run(["dmsetup", "ls"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if "racefree" in line]


@pytest.fixture
def snapshot_of(image):
    """A function that makes the table of a snapshot of an image."""
    golden, store = image("golden.raw", 1 << 20, b"golden" * 512), image("web1.cow", 1 << 20)

    def make(length=2048):
        return {
            "table": [
                {
                    "start": 0,
                    "length": length,
                    "target": "snapshot",
                    "origin": {"file": golden, "read_only": True},
                    "cow": {"file": store},
                    "persistence": "P",
                    "chunk_size": 8,
                }
            ]
        }

    return make


def test_a_stack_goes_with_its_last_user(snapshot_of):
    before = snapshot()
    keep(snapshot_of())
    with opened() as device:
        assert os.pread(device.fd, 6, 0) == b"golden"
        with open(device.held_path, "r+b") as disk:
            disk.write(b"silver")
        number = device.id
        # A second one would be another snapshot over the same store.
        with opened() as again:
            assert again.id == number
    wait_until(is_gone)
    wait_until(lambda: snapshot() == before)
    with opened() as device:
        assert device.id.diskseq > number.diskseq and os.pread(device.fd, 6, 0) == b"silver"
    wait_until(lambda: snapshot() == before)


def test_a_key_comes_from_the_keyring(image):
    line = {"start": 0, "length": 2048, "target": "crypt", "cipher": "aes-xts-plain64", "iv_offset": 0}
    line.update(key=":64:logon:guests:web1", offset=0, device={"file": image("secret.raw", 1 << 20)})
    keep({"table": [line]})
    with pytest.raises(BlockError, match="guests:web1"), opened():
        pass
    assert is_gone()
    run_module("kernel_key", description="guests:web1", payload="5a" * 64)
    try:
        with opened() as device:
            with open(device.held_path, "r+b") as disk:
                disk.write(b"A" * 4096)
            assert os.pread(device.fd, 4096, 0) == b"A" * 4096
        wait_until(is_gone)
    finally:
        run_module("kernel_key", description="guests:web1", state="absent")


def test_a_changed_recipe_waits_for_the_end_of_the_old_one(snapshot_of, monkeypatch):
    keep(snapshot_of())
    with opened() as old:
        keep(snapshot_of(1024))
        monkeypatch.setattr(recipe_target, "_GOING", 0.3)
        with pytest.raises(BlockError, match="there is another device under this name"), opened():
            pass
        # It is still that of the guest.
        assert os.pread(old.fd, 6, 0) == b"golden"
    wait_until(is_gone)
    with opened() as new:
        assert new.size == 1024 * 512
    wait_until(is_gone)


def test_what_somebody_made_under_this_name_is_not_used(snapshot_of, cleanup):
    keep(snapshot_of())
    cleanup(dm=os.path.basename(MAPPED))
    run_module("dm_device", name=os.path.basename(MAPPED), table="0 8 zero")
    with pytest.raises(BlockError, match="there is another device under this name"), opened():
        pass


def test_a_recipe_that_cannot_be_made_leaves_nothing(snapshot_of, image):
    before = snapshot()
    broken = snapshot_of()
    broken["table"][0]["cow"] = {"file": image("small.cow", 512)}
    keep(broken)
    with pytest.raises(BlockError), opened():
        pass
    wait_until(lambda: snapshot() == before)


@pytest.mark.rotated
@pytest.mark.parametrize("first", range(2))
def test_killed_after_any_system_call(snapshot_of, first, monkeypatch):
    """
    What it was making goes with it, but for what the next call of the script removes. RACEFREE_STEP=2 kills
    it after each system call that changes anything, and not only after some.
    """
    # A semaphore that nobody signed yet is removed only after a while.
    monkeypatch.setattr(udev, "_SECONDS_TO_SIGN", -1)
    step = int(os.environ.get("RACEFREE_STEP", "12"))
    before = snapshot()
    keep({"table": [{"start": 0, "length": 1024, "target": "linear", "offset": 0, "device": snapshot_of()}]})
    count = first * step // 2
    kills = 0
    while True:
        killed, code = ptrace.run_killed(_open_and_end, 0, count)
        if not killed:
            assert code == 0
            break
        kills += 1
        with resources.Resources() as host:
            for_guest.reap(host)
        wait_until(lambda: snapshot() == before)
        count += step
    assert kills > 5
    with opened() as device:
        assert os.pread(device.fd, 6, 0) == b"golden"
    wait_until(lambda: snapshot() == before)


def _open_and_end():
    with contextlib.suppress(BlockError), opened() as device:
        return int(os.pread(device.fd, 6, 0) != b"golden")
    return 1
