# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The role guest_disks with real files. The modules that use libvirt are replaced by stubs that record their
options.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import stat
import subprocess
import sys
import time

import pytest
import yaml
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

ROLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "roles", "guest_disks")


@pytest.fixture
def role(tmp_path):
    """
    Run the tasks for a guest's disks. ``refuse``: the name of a task in which libvirt_disks fails.
    ``before``: the name of a task, and a command to run before it.
    """
    with open(os.path.join(ROLE, "tasks", "main.yml"), encoding="utf-8") as file:
        tasks = yaml.safe_load(file)
    for task in tasks:
        for module, option, word in (
            ("libvirt_disks", "disks", "ASKED"),
            ("xl_disks", "disks", "ASKED"),
            ("thin_volumes", "volumes", "VOLUMES"),
        ):
            if f"racefree.block.{module}" in task:
                asked = task.pop(f"racefree.block.{module}")
                task["ansible.builtin.debug"] = {"msg": word + " {{ asked | to_json | b64encode }}"}
                task["vars"] = dict(task.get("vars", {}), asked=asked[option])
        # This module is the real one, but there is no libvirt to ask.
        task.get("racefree.block.unused_storage", {}).pop("uri", None)
    with (
        open(os.path.join(ROLE, "vars", "main.yml"), encoding="utf-8") as file,
        open(os.path.join(ROLE, "defaults", "main.yml"), encoding="utf-8") as other,
    ):
        variables = dict(yaml.safe_load(other) or {}, **(yaml.safe_load(file) or {}))

    def run(disks, *options, fails=False, refuse=None, before=(None, None)):
        guests = [{"domain": "g", "disks": disks}]
        steps = []
        for task in tasks:
            if task["name"] == before[0]:
                steps.append({"name": "Meanwhile", "ansible.builtin.command": {"cmd": before[1]}})
            steps.append(task)
            if refuse is not None and task["name"] == refuse:
                task["failed_when"] = True
        play = [
            {
                "hosts": "localhost",
                "gather_facts": False,
                "vars": dict(variables, guest_disks_guests=guests),
                "tasks": steps,
            }
        ]
        book = tmp_path / "play.yml"
        book.write_text(json.dumps(play))
        command = [
            sys.executable,
            "-m",
            "ansible",
            "playbook",
            "-i",
            "localhost,",
            "-c",
            "local",
            "-e",
            f"ansible_python_interpreter={sys.executable}",
        ]
        done = subprocess.run(
            [*command, *options, str(book)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return Done(done.stdout)

    return run


class Done:
    """
    ``disks``: the disks that libvirt_disks was called with, by task. ``asked``: the same as pairs of vdev and
    state. ``volumes``: the volumes that thin_volumes was called with, as pairs of id and state.
    """

    def __init__(self, text):
        self.text = text
        self.disks = self._lists("ASKED")
        self.asked = [[(disk["vdev"], disk["state"]) for disk in disks] for disks in self.disks]
        self.volumes = [
            [(volume["id"], volume["state"]) for volume in volumes] for volumes in self._lists("VOLUMES")
        ]
        self.changed = int(re.search(r"changed=(\d+)", text).group(1))

    def _lists(self, word):
        return [
            json.loads(base64.b64decode(found))
            for found in re.findall(word + r" ([A-Za-z0-9+/=]+)", self.text)
        ]


def test_guests_of_xl(role, tmp_path):
    """The same entries, without what only libvirt has."""
    file = tmp_path / "a.raw"
    disks = [
        {"vdev": "xvda", "file": str(file), "size": "1M"},
        {"vdev": "xvdb", "state": "absent"},
    ]
    by_libvirt = role(disks)
    file.unlink()
    done = role(disks, "-e", "guest_disks_manager=xl")
    assert done.asked == by_libvirt.asked and "in configurations of xl" in done.text
    assert [set(disk) for disk in done.disks[-1]] == [{"domain", "vdev", "state", "source"}]
    assert {"uri", "live", "timeout"} <= set(by_libvirt.disks[-1][0])


def test_disks_of_running_guests_of_xl_grow(role, tmp_path):
    """New disks are not attached, and a running guest keeps the disks that are removed."""
    live = {"guest_disks_manager": "xl", "guest_disks_live": True}
    disks = [
        {"vdev": "xvda", "file": str(tmp_path / "a.raw"), "size": "1M"},
        {"vdev": "xvdb", "state": "absent"},
    ]
    done = role(disks, "-e", json.dumps(live))
    (present,), (absent,) = done.disks[-1], done.disks[-2]
    assert (present["vdev"], present["live"], present["timeout"]) == ("xvda", True, 60)
    assert absent == {"domain": "g", "vdev": "xvdb", "state": "absent"}


def test_links_are_followed_and_files_grow(role, tmp_path):
    """The size is that of the file, not that of the link."""
    real, link = tmp_path / "real.raw", tmp_path / "link.raw"
    real.write_bytes(b"x" * 2**20)
    link.symlink_to(real)
    assert "lose data" in role([{"vdev": "xvda", "file": str(link), "size": 4096}], fails=True).text
    assert role([{"vdev": "xvda", "file": str(link), "size": "2M"}]).changed == 1
    assert link.is_symlink() and real.stat().st_size == 2**21 and real.read_bytes()[: 2**20] == b"x" * 2**20


def test_a_file_that_grew_during_the_run_is_not_truncated(role, tmp_path):
    """The requested size is a minimum, even if the file was smaller when it was examined."""
    path = tmp_path / "a.raw"
    path.write_bytes(b"x" * 512)
    role(
        [{"vdev": "xvda", "file": str(path), "size": 4096}],
        before=("Make and grow files", f"truncate --size=8192 {path}"),
    )
    assert path.stat().st_size == 8192


def test_concurrent_roles_do_not_truncate_each_others_files(tmp_path):
    """
    truncate reads the size and then sets it. A run must wait while another run is between these two steps.
    """
    with open(os.path.join(ROLE, "vars", "main.yml"), encoding="utf-8") as file:
        script = yaml.safe_load(file)["guest_disks__grow"]
    path, other = tmp_path / "a b.raw", tmp_path / "other.raw"
    path.write_bytes(b"x" * 512)
    with open(path, "rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = subprocess.Popen(["sh", "-c", script, "sh", "4096", str(path), str(other)])
        try:
            inode, end = f":{path.stat().st_ino} ", time.monotonic() + 60
            while not any("->" in line and inode in line for line in open("/proc/locks", encoding="ascii")):
                assert waiting.poll() is None and time.monotonic() < end, "it does not wait"
                time.sleep(0.01)
            file.truncate(8192)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
            waiting.wait(60)
    assert waiting.returncode == 0 and path.stat().st_size == 8192 and other.stat().st_size == 4096
    refused = subprocess.run(
        ["sh", "-c", script, "sh", "4096", str(tmp_path / "none" / "x"), str(other)],
        capture_output=True,
        check=False,
    )
    assert refused.returncode != 0


def test_only_root_may_read_a_new_file(tmp_path):
    """Whatever the umask is. A file that is there keeps its mode."""
    with open(os.path.join(ROLE, "vars", "main.yml"), encoding="utf-8") as file:
        script = yaml.safe_load(file)["guest_disks__grow"]
    new, old = tmp_path / "new.raw", tmp_path / "old.raw"
    old.touch()
    old.chmod(0o644)
    subprocess.run(["sh", "-c", script, "sh", "4096", str(new), str(old)], check=True, umask=0o022)
    assert {path.stat().st_size for path in (new, old)} == {4096}
    assert (stat.S_IMODE(new.stat().st_mode), stat.S_IMODE(old.stat().st_mode)) == (0o600, 0o644)


@pytest.fixture
def fleet(tmp_path):
    """Four disks: one to keep, one to grow, one to create, one to remove together with its file."""
    for name, size in (("keep", 2**20), ("grow", 2**20), ("old", 512)):
        (tmp_path / name).write_bytes(b"x" * size)
    return [
        {"vdev": "xvda", "file": str(tmp_path / "keep"), "size": "1M"},
        {"vdev": "xvdb", "file": str(tmp_path / "grow"), "size": "2M"},
        {"vdev": "xvdc", "file": str(tmp_path / "make"), "size": "1M"},
        {"vdev": "xvdd", "file": str(tmp_path / "old"), "state": "absent", "remove_file": True},
    ]


def sizes(where):
    return {
        path.name: path.stat().st_size
        for path in where.iterdir()
        if path.name in ("keep", "grow", "make", "old")
    }


BEFORE = {"keep": 2**20, "grow": 2**20, "old": 512}
AFTER = {"keep": 2**20, "grow": 2**21, "make": 2**20}


def test_the_order(role, fleet, tmp_path):
    """
    Everything possible is checked before anything is changed. Then disks are removed, then added, and files
    are deleted last.
    """
    predicted = role(fleet, "--check")
    # Two tasks: files that are created or grown, and files that are removed.
    assert predicted.changed == 2 and sizes(tmp_path) == BEFORE
    done = role(fleet)
    present = [(vdev, "present") for vdev in ("xvda", "xvdb", "xvdc")]
    gone = [("xvdd", "absent")]
    assert predicted.asked == [gone + present[:2], gone, present[:2]] and done.asked == [
        gone + present[:2],
        gone,
        present,
    ]
    assert sizes(tmp_path) == AFTER and done.changed == 2
    assert role(fleet, "--check").changed == 0


def test_nothing_is_changed_when_a_disk_is_refused(role, fleet, tmp_path):
    done = role(fleet, refuse="Check that the disks can be defined and removed", fails=True)
    assert [("xvdd", "absent")] not in done.asked and sizes(tmp_path) == BEFORE


@pytest.mark.skipif(loopdevices.why_not() is not None, reason="loop devices cannot be made here")
def test_nothing_is_changed_when_somebody_else_uses_a_file(role, fleet, tmp_path):
    """A guest that is not in the list, and has the file that is to be removed as a loop device."""
    command = ["losetup", "--find", "--show", str(tmp_path / "old")]
    loop = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        done = role(fleet, fails=True)
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)
    assert loop in done.text and [("xvdd", "absent")] not in done.asked and sizes(tmp_path) == BEFORE


def test_no_file_is_removed_if_a_disk_is_unavailable(role, fleet, tmp_path):
    role(fleet, refuse="Define the disks", fails=True)
    assert sizes(tmp_path) == dict(AFTER, old=512)


@pytest.mark.parametrize(
    "first, second",
    [
        ("a", "link"),
        ("a", "hard"),
        ("a", "way/a"),
        ("none", "dangling"),
        ("none", "way/none"),
        ("link", "hard"),
    ],
)
def test_one_file_by_two_names(role, tmp_path, first, second):
    """
    One file for two disks, for an image that is written, or for a file to remove: refused before anything is
    created, whichever file exists.
    """
    (tmp_path / "a").write_bytes(b"x" * 2**20)
    (tmp_path / "link").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "hard")
    (tmp_path / "way").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to("none")
    names = sorted(os.listdir(tmp_path))
    one, other = str(tmp_path / first), str(tmp_path / second)
    for disks, words in (
        (
            [{"vdev": "xvda", "file": one, "size": "2M"}, {"vdev": "xvdb", "file": other, "size": "2M"}],
            "a file that nothing else uses",
        ),
        (
            [
                {"vdev": "xvda", "file": one, "size": "2M"},
                {"vdev": "xvdb", "image": other, "file": f"{tmp_path}/new.cow", "size": 4096},
            ],
            "nobody writes",
        ),
        (
            [
                {"vdev": "xvda", "file": one, "size": "2M"},
                {"vdev": "xvdb", "file": other, "state": "absent", "remove_file": True},
            ],
            "remove_file",
        ),
    ):
        refused = role(disks, fails=True)
        assert (
            words in refused.text
            and other in refused.text
            and "disks[1]" in refused.text
            and refused.disks == []
        ), refused.text
        assert (
            sorted(set(os.listdir(tmp_path)) - {"play.yml"}) == names
            and (tmp_path / "a").stat().st_size == 2**20
        )
    shared = [
        {"vdev": vdev, "file": path, "size": "2M", "mode": "r"}
        for vdev, path in (("xvda", one), ("xvdb", other))
    ]
    assert not role(shared, "--check").volumes, "what nobody writes two disks can have"


def test_a_snapshot_uses_its_own_image(role, tmp_path):
    """A store gets a record of its image. Once the image is modified, the role only reports an error."""
    image, store = tmp_path / "golden", tmp_path / "a.cow"
    image.write_bytes(b"golden" + bytes(4090))
    disk = {"vdev": "xvda", "image": str(image), "file": str(store), "size": 4096, "disk_size": 8192}
    predicted = role([disk], "--check")
    assert not os.path.exists(f"{store}.image") and predicted.changed == 2
    done = role([disk])
    (line,) = done.disks[-1][0]["source"]["table"]
    assert (
        line["length"] == 16 and line["origin"]["table"][0]["device"]["mtime_ns"] == image.stat().st_mtime_ns
    )
    assert json.loads((tmp_path / "a.cow.image").read_text())["image"] == str(image) and done.changed == 2
    again = role([disk])
    assert again.changed == 0 and again.disks == [again.disks[-1], done.disks[-1]]
    # Recorded without a change, so that the image is not read on each run.
    image.chmod(0o640)
    assert role([disk]).changed == 0
    assert json.loads((tmp_path / "a.cow.image").read_text())["ctime_ns"] == image.stat().st_ctime_ns
    store.write_bytes(b"SnAp" + bytes(4092))
    image.write_bytes(b"GOLDEN" + bytes(4090))
    refused = role([disk], fails=True)
    assert (
        refused.disks == []
        and "another image" in refused.text
        and str(store) in refused.text
        and str(image) in refused.text
    )
    done = role([dict(disk, state="absent", remove_file=True)])
    assert sorted(os.listdir(tmp_path)) == ["golden", "play.yml"] and "mtime_ns" not in str(done.disks)


def test_volumes_are_created_first_and_removed_last(role, tmp_path):
    pool = {
        "name": "p",
        "metadata": f"file:{tmp_path}/p.meta",
        "data": f"file:{tmp_path}/p.data",
        "size": "1M",
    }
    disks = [
        {"vdev": "xvda", "thin": {"pool": pool, "id": 1}, "size": "1M"},
        {
            "vdev": "xvdb",
            "thin": {"pool": pool, "id": 2},
            "size": "1M",
            "state": "absent",
            "remove_volume": True,
        },
    ]
    predicted = role(disks, "--check")
    assert predicted.volumes == [
        [(1, "present"), (2, "absent")],
        [(1, "present")],
        [(2, "absent")],
    ] and predicted.asked == 2 * [[("xvdb", "absent")]]
    done = role(disks)
    assert done.volumes == predicted.volumes and done.asked == [*predicted.asked, [("xvda", "present")]]
    words = [
        done.text.index(word)
        for word in (
            "Remove disks",
            "Make and grow",
            "Make the thin",
            "Define the disks",
            "Delete thin",
            "Remove files",
        )
    ]
    assert words == sorted(words)
    assert (tmp_path / "p.data").stat().st_size == 2**20 and (tmp_path / "p.meta").stat().st_size == 2**22
    live = role([dict(disk, thin=dict(disk["thin"])) for disk in disks], "-e", '{"guest_disks_live": true}')
    # A disk that is going to be detached is in use until then.
    assert live.volumes == [[(1, "present")], [(1, "present")], [(2, "absent")]]
    # With xl a running guest keeps the disk, so its volume stays in use.
    options = json.dumps({"guest_disks_live": True, "guest_disks_manager": "xl"})
    kept = role([dict(disk, thin=dict(disk["thin"])) for disk in disks], "-e", options)
    assert kept.volumes == done.volumes


def test_an_image_of_another_format(role, tmp_path):
    """It is converted once, and refused once its contents have changed, before anything else is changed."""
    raw, image = tmp_path / "disk.raw", tmp_path / "debian.qcow2"
    raw.write_bytes(b"golden" + bytes(2**20 - 6))

    def write_image():
        words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image)]
        subprocess.run(words, check=True, timeout=60)

    write_image()
    golden = tmp_path / "golden.raw"
    converted = {"path": str(image), "format": "qcow2", "golden": str(golden)}
    disks = [
        {"vdev": vdev, "image": converted, "file": str(tmp_path / f"{vdev}.cow"), "size": 4096}
        for vdev in ("xvda", "xvdb")
    ]
    before = sorted(os.listdir(tmp_path))
    predicted = role(disks, "--check")
    assert sorted(set(os.listdir(tmp_path)) - {"play.yml"}) == before
    done = role(disks)
    # The image is converted, files and records are made.
    assert done.changed == 3 and golden.read_bytes() == raw.read_bytes()
    assert predicted.changed == 2 and predicted.asked == []
    (line,) = done.disks[-1][0]["source"]["table"]
    assert line["length"] == 2048 and line["origin"] == {
        "file": str(golden),
        "read_only": True,
        "format": "raw",
        "mtime_ns": golden.stat().st_mtime_ns,
    }
    again = role(disks)
    assert again.changed == 0 and again.disks == [done.disks[-1], done.disks[-1]]
    raw.write_bytes(b"GOLDEN" + bytes(2**20 - 6))
    write_image()
    disks.append({"vdev": "xvdc", "file": str(tmp_path / "new.raw"), "size": "1M"})
    refused = role(disks, fails=True)
    assert "it was made from another image" in refused.text and not (tmp_path / "new.raw").exists()


def test_an_image_of_another_format_as_a_raw_one(role, tmp_path):
    """It is refused before anything is made, and the message names the way out."""
    (tmp_path / "a.qcow2").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(504))
    disk = {"vdev": "xvda", "image": str(tmp_path / "a.qcow2"), "file": str(tmp_path / "a.cow"), "size": 4096}
    for options in ((), ("--check",)):
        done = role([disk], *options, fails=True)
        assert "is an image of the format qcow2" in done.text
        assert "in the role guest_disks: an image with its format" in done.text
    assert not (tmp_path / "a.cow").exists()


@pytest.mark.parametrize("changed", [False, True])
def test_unchanged_disks_are_looked_at_once(role, tmp_path, changed):
    """They are defined only if the check found something to change."""
    (tmp_path / "a.raw").write_bytes(bytes(4096))
    disk = {"vdev": "xvda", "file": str(tmp_path / "a.raw"), "size": 4096}
    done = role([disk], "-e", json.dumps({"guest_disks_seen": {"disks": [{"changed": changed}]}}))
    assert done.asked == [[("xvda", "present")]] * (2 if changed else 1)
