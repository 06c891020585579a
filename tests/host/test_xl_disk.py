# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests of xl whose disks are recipes: a whole life, on a real Xen host."""

from __future__ import annotations

import hashlib
import itertools
import os
import pathlib
import subprocess

import hotplug
import ptrace
import pytest
import xlutil
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError
from ansible_collections.racefree.block.plugins.module_utils._dm import udev
from ansible_collections.racefree.block.plugins.module_utils._hotplug import recipe_target
from ansible_collections.racefree.block.plugins.module_utils._source import (
    for_guest,
    recipe_file,
    resources,
)
from ansible_collections.racefree.block.plugins.module_utils._xl import xl_command
from conftest import Failed, predict_and_run, result_or_none, run_module
from test_hotplug import answers, guest_sum, in_guest, run

pytestmark = [pytest.mark.xen, pytest.mark.gate("trixie")]

NAME = "recipes"
CONFIG = pathlib.Path(f"/etc/xen/{NAME}.cfg")
CORPUS = pathlib.Path(__file__).parent / "xl_corpus"
# Imported here, so that a process that is killed at a system call need not import it.
PRELOADED = recipe_target
START = f"""# written by a person
name = "{NAME}"
type = "pv"
kernel = "/usr/lib/xenguest/vmlinux"
ramdisk = "/usr/lib/xenguest/initrd"
cmdline = "console=hvc0 quiet loglevel=1 mitigations=off random.trust_cpu=on panic=5"
memory = 128; vcpus = 1
vif = []
disk = [
  # none yet
]
on_crash = "destroy"
"""


@pytest.fixture(scope="module", autouse=True)
def installed():
    with hotplug.installed(), hotplug.Service() as service:
        yield service


@pytest.fixture(autouse=True)
def config():
    """The guest's configuration, as a person wrote it."""
    CONFIG.write_text(START)
    yield CONFIG
    if run("xl", "domid", NAME, check=False).isdigit():
        run("xl", "destroy", NAME)
    wait_nothing_left()
    for vdev in ("xvda", "xvdb"):
        recipe_file.remove(f"{NAME}-{vdev}")
    CONFIG.unlink()
    run("xenguest", "stop", NAME, check=False)


def mapped():
    listed = subprocess.run(["dmsetup", "ls"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "racefree" in line]


def wait_nothing_left():
    hotplug.wait_until(lambda: not mapped() and not hotplug.loops(), 30, "the guest's devices to be gone")


@pytest.fixture
def disks(tmp_path):
    """
    A snapshot of a golden image, and a file; ``(entries for xl_disks, their checksums)``.
    """
    golden = os.urandom(1 << 20)
    (tmp_path / "golden.raw").write_bytes(golden)
    data = os.urandom(1 << 20)
    (tmp_path / "data.raw").write_bytes(data)
    with open(tmp_path / "store.cow", "wb") as store:
        store.truncate(2 << 20)
    snapshot = {
        "start": 0,
        "length": 2048,
        "target": "snapshot",
        "origin": {"file": str(tmp_path / "golden.raw"), "read_only": True},
        "cow": {"file": str(tmp_path / "store.cow")},
        "persistence": "P",
        "chunk_size": 8,
    }
    entries = [
        {"domain": NAME, "vdev": "xvda", "source": {"table": [snapshot]}},
        {"domain": NAME, "vdev": "xvdb", "source": {"file": str(tmp_path / "data.raw")}},
    ]
    return entries, [hashlib.sha256(content).hexdigest() for content in (golden, data)]


def test_xl_reads_what_the_collection_reads():
    """
    The corpus of the unit tests, and generated configurations, in each of which a disk is added and removed.
    xlutil.py compares more.
    """
    corpus = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    xl = xlutil.Xlutil()
    assert [xlutil.difference(xl, text) for text in corpus] == [("the same", None)] * len(corpus)
    happened, wrong = xlutil.compare(corpus, int(os.environ.get("RACEFREE_SEED") or 1), 400)
    assert wrong == [] and happened["the same"] > 40 < happened["refused"]


@pytest.mark.rotated
def test_the_life_of_a_guest(disks, tmp_path):
    """Declared, created, rebooted, saved, restored, destroyed: always the right bytes, and nothing left."""
    entries, sums = disks
    predict_and_run("xl_disks", disks=entries)
    run("xl", "create", "-q", str(CONFIG), seconds=300)
    hotplug.wait_until(lambda: answers(NAME), 240, "the guest to answer")
    assert [guest_sum("xvda", NAME), guest_sum("xvdb", NAME)] == sums
    assert len(mapped()) == 1
    assert not run_module("xl_disks", disks=entries)["changed"]
    # The file grows in the running guest, and is as large after each start below.
    grown = [entries[0], {**entries[1], "size": "2M", "live": True}]
    assert predict_and_run("xl_disks", disks=grown)["changed"]
    assert in_guest("cat /sys/block/xvdb/size", NAME) == "4096"
    with open(tmp_path / "data.raw", "rb") as file:
        sums[1] = hashlib.sha256(file.read()).hexdigest()
    assert guest_sum("xvdb", NAME) == sums[1]
    in_guest("echo written | dd of=/dev/xvda conv=notrunc 2>/dev/null; sync", NAME)
    written = guest_sum("xvda", NAME)
    before = run("xl", "domid", NAME)
    run("xl", "reboot", NAME)
    hotplug.wait_until(
        lambda: run("xl", "domid", NAME, check=False) not in ("", before) and answers(NAME),
        240,
        "the guest to reboot",
    )
    assert [guest_sum("xvda", NAME), guest_sum("xvdb", NAME)] == [written, sums[1]] != sums
    # Another disk in the same place, which the guest keeps from now on.
    (tmp_path / "other.raw").write_bytes(os.urandom(1 << 20))
    entries[1]["source"] = {"file": str(tmp_path / "other.raw")}
    assert run_module("xl_disk", **entries[1], live=True, replace=True)["replaced"]["params"].endswith("xvdb")
    sums[1] = hashlib.sha256((tmp_path / "other.raw").read_bytes()).hexdigest()
    assert guest_sum("xvdb", NAME) == sums[1] and not run_module("xl_disks", disks=entries)["changed"]
    run("xl", "save", NAME, str(tmp_path / "saved"), seconds=300)
    wait_nothing_left()
    run("xl", "restore", str(tmp_path / "saved"), seconds=300)
    hotplug.wait_until(lambda: answers(NAME), 120, "the restored guest to answer")
    assert [guest_sum("xvda", NAME), guest_sum("xvdb", NAME)] == [written, sums[1]]
    # A running guest keeps its recipes, which it needs for a reboot.
    gone = run_module("xl_disk", domain=NAME, vdev="xvdb", state="absent")
    assert gone["changed"] and recipe_file.exists(f"{NAME}-xvdb")
    run("xl", "destroy", NAME)
    wait_nothing_left()
    run_module("xl_disks", disks=[{**entry, "state": "absent"} for entry in entries])
    assert not recipe_file.exists(f"{NAME}-xvdb") and not recipe_file.exists(f"{NAME}-xvda")
    assert CONFIG.read_text() == START


@pytest.mark.long
def test_disks_of_a_running_guest(disks, tmp_path, monkeypatch):
    """
    Attached, replaced by a table of the same name, detached; and a new disk that fails: the guest, the recipe
    and the configuration have the old one again.
    """
    (snapshot, data), sums = disks
    run("xl", "create", "-q", str(CONFIG), seconds=300)
    hotplug.wait_until(lambda: answers(NAME), 240, "the guest to answer")
    live = {"live": True, "timeout": 60}
    predict_and_run("xl_disk", **{**snapshot, **live})
    assert guest_sum("xvda", NAME) == sums[0]
    with open(tmp_path / "second.cow", "wb") as store:
        store.truncate(2 << 20)
    table = [dict(snapshot["source"]["table"][0], cow={"file": str(tmp_path / "second.cow")})]
    in_guest("echo written | dd of=/dev/xvda conv=notrunc 2>/dev/null; sync", NAME)
    second = {**snapshot, **live, "source": {"table": table}}
    with pytest.raises(Failed, match="another disk there.*replace=true"):
        run_module("xl_disk", **second)
    before = CONFIG.read_text(), recipe_file.read(f"{NAME}-xvda"), guest_sum("xvda", NAME)
    with monkeypatch.context() as patch:
        fails = [GuestError("as if xl failed")]
        attach = xl_command.attach
        patch.setattr(xl_command, "attach", lambda *words: attach(*words) if not fails else raise_(fails))
        with pytest.raises(Failed, match="as if xl failed.*The guest has its old disk .* again"):
            run_module("xl_disk", **second, replace=True)
    assert (CONFIG.read_text(), recipe_file.read(f"{NAME}-xvda"), guest_sum("xvda", NAME)) == before
    assert len(mapped()) == 1
    run("xl", "pause", NAME)
    with pytest.raises(Failed, match="It still has the disk, and nothing was changed"):
        run_module("xl_disk", **{**second, "timeout": 3}, replace=True)
    run("xl", "unpause", NAME)
    assert (CONFIG.read_text(), recipe_file.read(f"{NAME}-xvda"), guest_sum("xvda", NAME)) == before
    predict_and_run("xl_disk", **second, replace=True)
    assert guest_sum("xvda", NAME) == sums[0] and len(mapped()) == 1
    predict_and_run("xl_disk", **{**second, "state": "absent"})
    assert not mapped() and not recipe_file.exists(f"{NAME}-xvda") and CONFIG.read_text() == START


@pytest.mark.long
def test_killed_while_it_replaces(tmp_path):
    """
    xl_disk or its worker process is killed while it replaces the disk of a running guest. The next run
    finishes: guest, recipe and configuration have the new disk, and nothing else is left.
    """
    wanted, sums = [], []
    for name in ("one", "two"):
        (tmp_path / f"{name}.raw").write_bytes(os.urandom(1 << 20))
        source = {"table": f"0 2048 linear file:{tmp_path / name}.raw 0"}
        wanted.append({"domain": NAME, "vdev": "xvda", "source": source, "live": True, "replace": True})
        sums.append(hashlib.sha256((tmp_path / f"{name}.raw").read_bytes()).hexdigest())
    run("xl", "create", "-q", str(CONFIG), seconds=300)
    hotplug.wait_until(lambda: answers(NAME), 240, "the guest to answer")
    run_module("xl_disk", **wanted[0])
    before, kills, turn = CONFIG.read_text(), 0, 0
    # The process that prepares and reports, and its worker.
    for which in (0, 1):
        for count in itertools.count(2, int(os.environ.get("RACEFREE_STRIDE") or 40)):
            turn += 1
            now = wanted[turn % 2]

            def replace(now=now):
                run_module("xl_disk", **now)
                return 0

            was_killed, code = ptrace.run_killed(replace, which, count)
            print(f"process {which}, call {count}: {'killed' if was_killed else 'not killed'}, code {code}")
            kills += was_killed
            # An xl that a killed run has started may still be at work.
            hotplug.wait_until(lambda now=now: result_or_none("xl_disk", **now), 90, "a run to succeed")
            assert guest_sum("xvda", NAME) == sums[turn % 2] and CONFIG.read_text() == before
            assert not run_module("xl_disk", **now)["changed"]
            hotplug.wait_until(lambda: len(mapped()) == 1, 30, "the other device to be gone")
            if not was_killed:
                assert code == 0
                break
    assert kills >= 8
    run_module("xl_disk", domain=NAME, vdev="xvda", state="absent", live=True)
    assert CONFIG.read_text() == START


def raise_(errors):
    raise errors.pop()


@pytest.mark.parametrize("way", ["gone", "others can write"])
def test_a_guest_that_cannot_start(disks, way):
    entries, dummy = disks
    run_module("xl_disks", disks=entries)
    if way == "gone":
        recipe_file.remove(f"{NAME}-xvdb")
        words = "there is no such recipe"
    else:
        os.chmod(recipe_file.path_of(f"{NAME}-xvdb"), 0o666)
        words = "others can change it"
    said = run("xl", "create", str(CONFIG), check=False, seconds=300)
    assert words in said, said
    assert not run("xl", "domid", NAME, check=False).isdigit()
    wait_nothing_left()


@pytest.mark.rotated
def test_killed_while_it_makes_the_devices(disks, monkeypatch):
    """Each of the script's two processes is killed at some of its system calls. Nothing is left."""
    entries, dummy = disks
    run_module("xl_disks", disks=entries)
    monkeypatch.setattr(udev, "_SECONDS_TO_SIGN", -1)
    kills = 0
    with hotplug.alone(), hotplug.mute_guest("mute") as guest, hotplug.connect() as store:
        for which, counts in ((1, (5, 15, 25, 35, 45, 60)), (0, (2, 4))):
            for count in counts:
                with hotplug.Disk(store, guest, count % 8, f"recipe:{NAME}-xvda", bare=True) as disk:
                    kills += ptrace.run_killed(lambda disk=disk: disk.main("add"), which, count)[0]
                disk.call("remove")
                # libxl removes it when it destroys a guest.
                store.remove(f"/local/domain/0/backend/vbd/{disk.key.domid}")
                with resources.Resources() as host:
                    for_guest.reap(host)
                wait_nothing_left()
    assert kills >= 5
