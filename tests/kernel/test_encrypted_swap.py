# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The program of the role encrypted_swap on a real kernel, without systemd: started, stopped, killed.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pressure
import pytest
import swap_areas
import swap_kills
from ansible_collections.racefree.block.plugins.module_utils._block.seal import reaping, seals, way_in
from ansible_collections.racefree.block.plugins.module_utils._swap import area, config, program
from conftest import run_module, wait_until
from sealing import is_refused, nothing_sealed, stopped_keeper
from swap_areas import loops, swaps, table

pytestmark = pytest.mark.usefixtures(nothing_sealed.__name__)
MIB = 2**20


@pytest.fixture
def swap(tmp_path, monkeypatch):
    yield from swap_areas.configured(tmp_path, monkeypatch)


def test_the_life_of_an_area(swap, capsys):
    path = swap(discard=True)
    assert program.main(["start", "one"]) == 0
    [(node, priority)] = swaps().items()
    assert priority == 5 and is_refused(node) and os.stat(path).st_mode & 0o777 == 0o600
    shown = table("racefree-swap-one").split()
    assert shown[2:4] == ["crypt", "aes-xts-plain64"] and len(shown[4]) == 128
    status = subprocess.run(
        ["dmsetup", "info", "racefree-swap-one"], capture_output=True, text=True, check=True
    )
    assert "DEFERRED REMOVE" in status.stdout
    # The command swapoff cannot stop it.
    off = subprocess.run(["swapoff", node], capture_output=True, text=True, check=False)
    # util-linux prints EPERM like this.
    assert off.returncode and "superuser" in off.stderr
    assert program.main(["start", "one"]) == 0 and list(swaps()) == [node]
    # After a stop nothing is left, and the next start uses another key.
    assert program.main(["stop", "one"]) == 0 == program.main(["stop", "one"])
    assert not swaps() and not table("racefree-swap-one") and path not in loops()
    assert not seals.found()
    assert program.main(["start", "one"]) == 0
    assert table("racefree-swap-one").split()[4] != shown[4]
    assert capsys.readouterr().err == ""


def test_a_device_that_goes_while_a_stop_begins(swap, monkeypatch):
    """As after a killed stop: the device goes after stale seals were removed, before it is looked up."""
    swap()
    assert program.main(["start", "one"]) == 0
    [node] = swaps()

    with stopped_keeper(), monkeypatch.context() as patch:
        patch.setattr(program.orphans, "reap", lambda resources: end_swap(node))
        assert program.main(["stop", "one"]) == 0
        assert not swaps() and not seals.found()


def test_a_device_that_is_still_in_sysfs_while_a_stop_begins(swap, monkeypatch):
    """The kernel removes the name of a mapped device first, and for a moment its seal does not look stale."""
    swap()
    assert program.main(["start", "one"]) == 0
    [node] = swaps()
    reap_one, looks = reaping.reap_one, []

    def go(resources):
        end_swap(node)
        wait_until(lambda: not os.path.exists(f"/sys/class/block/{os.path.basename(node)}"), 20)
        patch.setattr(reaping, "reap_one", as_if_there)

    def as_if_there(*arguments):
        looks.append(arguments)
        return len(looks) > 2 and reap_one(*arguments)

    with stopped_keeper(), monkeypatch.context() as patch:
        patch.setattr(program.orphans, "reap", go)
        assert program.main(["stop", "one"]) == 0
        assert not swaps() and not seals.found() and len(looks) == 3


def end_swap(node):
    """End the use of the area one, as a killed stop does, and wait until its device has no name any more."""
    with way_in.let_in([number_of(node)]):
        area.swap_off(node)
    # The kernel removes it a moment later.
    wait_until(lambda: not table("racefree-swap-one"), 20)


def number_of(path):
    device = os.stat(path).st_rdev
    return os.major(device), os.minor(device)


def test_several_at_once_and_resized(swap):
    swap("one", priority=1)
    path = swap("two", priority=2, cipher="aes-cbc-essiv:sha256", key_size=256)
    for name in ("one", "two"):
        assert program.main(["start", name]) == 0
    assert sorted(swaps().values()) == [1, 2]
    assert program.main(["stop", "two"]) == 0
    assert list(swaps().values()) == [1]
    for size in (96 * MIB, 32 * MIB):
        swap("two", size=size)
        assert program.main(["start", "two"]) == 0 and os.path.getsize(path) == size
        assert int(table("racefree-swap-two").split()[1]) * 512 == size
        assert program.main(["stop", "two"]) == 0


def test_on_a_device(swap, image, cleanup):
    path = image("disk.raw", 32 * MIB)
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path)["device"]
    swap("disk", source={"path": device["path"], "diskseq": device["diskseq"]}, size=None)
    assert program.main(["start", "disk"]) == 0 and len(swaps()) == 1
    assert program.main(["stop", "disk"]) == 0 and not swaps()


@pytest.mark.rotated
def test_what_is_swapped_out_comes_back(swap, file_in_memory):
    """Real swapping: a process fills more memory than there is."""
    swap(size=96 * MIB, source={"file": file_in_memory, "direct_io": False})
    assert program.main(["start", "one"]) == 0
    done = subprocess.run(
        [sys.executable, "-B", pressure.__file__], capture_output=True, text=True, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert program.main(["stop", "one"]) == 0 and not swaps()


@pytest.fixture
def file_in_memory(tmp_path):
    """
    The path of a file whose pages stay in memory. Those of a tmpfs can themselves be swapped out, and a file
    of the machine would need new pages for each page that is written.
    """
    directory = tmp_path / "ramfs"
    directory.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", directory], check=True)
    yield str(directory / "swap")
    assert program.main(["stop", "one"]) == 0
    subprocess.run(["umount", directory], check=True)


@pytest.mark.rotated
def test_killed_anywhere_it_leaves_nothing_after_the_next_run():
    """A fixed sample of swap_kills.py, in a process of its own: it copies its memory for each try."""
    done = subprocess.run(
        [sys.executable, "-B", swap_kills.__file__, "--stride", "23"],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_area_in_use_that_is_described_otherwise(swap, capsys):
    """As after a stop that failed because what is swapped out does not fit into memory."""
    swap(discard=True)
    assert program.main(["start", "one"]) == 0
    for other, words in (
        ({"size": 32 * MIB}, f"the size is {64 * MIB} instead of {32 * MIB}"),
        ({"priority": 6}, "the priority is 5 instead of 6"),
        ({"priority": None}, "the priority is 5 instead of the kernel's choice"),
        ({"discard": False}, "the discard is on instead of off"),
        ({"cipher": "aes-cbc-essiv:sha256", "key_size": 256}, "the cipher is aes-xts-plain64 instead"),
        ({"key_size": 256}, "the key size is 512 instead of 256"),
    ):
        swap(**{"discard": True, **other})
        assert program.main(["start", "one"]) == 1
        told = capsys.readouterr().err
        assert "not as configured now" in told and words in told and "racefree-encrypted-swap@one" in told
    swap(discard=True)
    assert program.main(["start", "one"]) == 0 and len(swaps()) == 1


@pytest.mark.parametrize("text", ['{"source": {"file": "/x", "overlap": true}}', "no JSON", None])
def test_a_stop_needs_no_valid_configuration(swap, text):
    """As after an update of the role that refuses an option of an area that runs."""
    swap()
    assert program.main(["start", "one"]) == 0
    path = os.path.join(config.DIRECTORY, "one.json")
    os.unlink(path)
    if text is not None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    assert program.main(["stop", "one"]) == 0
    assert not swaps() and not table("racefree-swap-one")


@pytest.mark.parametrize("own", [{"name": "racefree-swap-one"}, {"uuid": "RACEFREE-SWAP-one"}])
def test_a_device_of_somebody_else_is_left_alone(swap, capsys, name, own):
    swap()
    name = own.get("name", name)
    uuid = ["--uuid", own["uuid"]] if "uuid" in own else []
    subprocess.run(["dmsetup", "create", name, *uuid, "--table", "0 8 zero"], check=True)
    try:
        for action in ("start", "stop"):
            assert program.main([action, "one"]) == 1
            assert "not this area's device" in capsys.readouterr().err
        shown = subprocess.run(["dmsetup", "info", name], capture_output=True, text=True, check=True).stdout
        assert "DEFERRED" not in shown
    finally:
        subprocess.run(["dmsetup", "remove", "--retry", name], check=True)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"source": None}, "source"),
        ({"size": 4096}, "size 4096"),
        ({"size": -1}, "size"),
        ({"size": 4 * MIB, "source": {"path": "/dev/loop0"}}, "size"),
        ({"priority": 40000}, "priority 40000"),
        ({"cipher": "no such-cipher"}, "cipher"),
        ({"cipher": "nosuch-xts-plain64"}, "racefree-swap-one"),
        ({"key_size": 100}, "key_size 100"),
        ({"source": {"file": "/nowhere/file"}}, "/nowhere/file"),
        ({"overwrite": "yes"}, "overwrite yes"),
        ({"source": {"file": "/x", "overlap": True}}, "source.overlap true"),
        ({"source": {"file": "/x", "read_only": True}}, "source.read_only true"),
        (
            {"source": {"table": ["0 16384 zero"]}, "size": None},
            "source table:(unnamed): must name a file or",
        ),
    ],
)
def test_what_cannot_be_is_said_and_leaves_nothing(swap, capsys, values, words):
    swap(**values)
    assert program.main(["start", "one"]) == 1
    assert words in capsys.readouterr().err
    assert not swaps() and not table("racefree-swap-one") and ".swap" not in loops()


def test_names_are_checked(swap, capsys):
    swap()
    for arguments in (
        ["start"],
        ["start", "../one"],
        ["start", "One"],
        ["start", ""],
        ["go", "one"],
        ["start", "-x"],
    ):
        assert program.main(arguments) == 1
    assert "must be" in capsys.readouterr().err
