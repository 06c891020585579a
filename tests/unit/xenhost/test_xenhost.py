# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of xenhost is plain data: recipe, mirrors, inventory, the guest's answers."""

from __future__ import annotations

import binascii
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

XENHOST = Path(__file__).resolve().parents[2] / "xenhost"

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="xenhost runs with the Python of Debian 12 and 13"
)


@pytest.fixture(autouse=True)
def modules(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(XENHOST / "image" / "xenguest"))
    monkeypatch.syspath_prepend(str(XENHOST.parent))
    monkeypatch.syspath_prepend(str(XENHOST))
    monkeypatch.setenv("XENHOST_CACHE", str(tmp_path / "cache"))


def call(*words, **environment):
    return subprocess.run(
        [sys.executable, "-B", str(XENHOST / "_main.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ, **environment),
    )


def test_key_changes_with_release_backend_files_and_modes(monkeypatch, tmp_path):
    from lib import paths
    from lib.recipe import Recipe

    copy = tmp_path / "image"
    shutil.copytree(XENHOST / "image", copy, ignore=shutil.ignore_patterns("__pycache__"))
    first = Recipe("bookworm").key
    monkeypatch.setattr(paths, "IMAGE_FILES", copy)
    assert Recipe("bookworm").key == first
    keys = {first, Recipe("trixie").key, Recipe("bookworm", "other").key}
    with open(copy / "guest" / "init", "a", encoding="utf-8") as file:
        file.write("# more\n")
    keys.add(Recipe("bookworm").key)
    (copy / "guest" / "init").chmod(0o600)
    keys.add(Recipe("bookworm").key)
    assert len(keys) == 5


def test_another_blkback_has_its_own_key(monkeypatch, tmp_path):
    from lib import paths
    from lib.recipe import BLKBACKS, Recipe

    stock, extended = (Recipe("bookworm", blkback) for blkback in BLKBACKS)
    assert (stock.base, extended.base) == (None, stock)
    assert (
        extended.directory.name == f"bookworm-extended-{extended.key}"
        and stock.directory.name == f"bookworm-{stock.key}"
    )
    copy = tmp_path / "blkback"
    shutil.copytree(XENHOST / "blkback", copy)
    monkeypatch.setattr(paths, "BLKBACK_FILES", copy)
    assert Recipe("bookworm", "extended").key == extended.key
    with open(copy / "extended.patch", "a", encoding="utf-8") as file:
        file.write("more\n")
    assert Recipe("bookworm", "extended").key != extended.key and Recipe("bookworm").key == stock.key
    monkeypatch.setattr(paths, "IMAGE_FILES", tmp_path)
    changed = Recipe("bookworm", "extended").key
    monkeypatch.setattr(paths, "BLKBACK_FILES", XENHOST / "blkback")
    assert len({changed, Recipe("bookworm", "extended").key, extended.key}) == 3, (
        "both the stock image's files and its own count"
    )


def test_a_patch_for_every_blkback_that_is_not_stock():
    from lib.recipe import BLKBACKS

    assert {path.stem for path in (XENHOST / "blkback").glob("*.patch")} == set(BLKBACKS) - {"stock"}


def test_the_key_is_computed_once(monkeypatch, tmp_path):
    from lib import paths
    from lib.recipe import Recipe

    recipe = Recipe("bookworm")
    before = recipe.directory
    monkeypatch.setattr(paths, "IMAGE_FILES", tmp_path)
    assert recipe.directory == before != Recipe("bookworm").directory


TARGETS = """\
http://mirror.example/debian/|bookworm|bookworm|Debian
http://mirror.example/debian/|stable-updates|bookworm-updates|Debian
http://safe.example/debian-security/|bookworm-security|bookworm-security|Debian
http://other.example/apt/|bookworm|bookworm|Somebody
"""


def test_the_mirror_of_this_release_serves_another_release():
    from common import mirror

    found = mirror.parse_targets(TARGETS)
    assert mirror.sources_for("trixie", found, "bookworm") == (
        "http://mirror.example/debian",
        (
            "deb http://mirror.example/debian trixie main\n"
            "deb http://mirror.example/debian trixie-updates main\n"
            "deb http://safe.example/debian-security trixie-security main\n"
        ),
    )


def test_a_mirror_of_another_origin_is_not_used():
    from common import mirror
    from common.errors import Problem

    found = mirror.parse_targets(TARGETS.splitlines()[3])
    with pytest.raises(Problem, match="apt-get update"):
        mirror.sources_for("bookworm", found, "bookworm")


def test_inventory_groups_and_connection():
    from lib import inventory
    from lib.recipe import Recipe
    from lib.remote import Remote

    hosts = [
        (name, release, Remote(Recipe(release, blkback), port, Path("/run/x y")))
        for name, release, blkback, port in (
            ("a", "bookworm", "stock", 2201),
            ("b", "trixie", "stock", 2202),
            ("c", "bookworm", "extended", 2203),
        )
    ]
    groups = json.loads(inventory.text(hosts))["all"]["children"]
    assert {name: sorted(group["hosts"]) for name, group in groups.items()} == {
        "xen_hosts": ["a", "b", "c"],
        "bookworm": ["a", "c"],
        "trixie": ["b"],
    }
    variables = groups["xen_hosts"]["hosts"]["b"]
    assert variables["ansible_port"] == 2202
    assert {name: row["xenhost_blkback"] for name, row in groups["xen_hosts"]["hosts"].items()} == {
        "a": "stock",
        "b": "stock",
        "c": "extended",
    }
    assert variables["ansible_ssh_private_key_file"].endswith("/id_ed25519")
    assert "'ControlPath=/run/x y/ssh'" in variables["ansible_ssh_args"]


def test_wrong_arguments_are_reported():
    for words, said in (
        (("up", "--name", "../x"), "not allowed"),
        (("ssh", "true"), "is not up"),
        (("inventory",), "no host is up"),
        (("down", "--all", "--name", "a"), "either"),
        (("up", "--port", "99999"), "1 to 65535"),
        (("build", "--release", "sid"), "invalid choice"),
        (("up", "--blkback", "none"), "invalid choice"),
    ):
        done = call(*words)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, (words, done)


def test_missing_programs_are_named_with_their_packages():
    from common import needs

    assert needs.missing({"sh": "dash", "no-such-program": "its-package"}) == ["its-package"]
    with pytest.raises(needs.Problem, match="apt-get install its-package"):
        needs.require({"no-such-program": "its-package"})


def test_port_in_use_is_refused():
    from common.errors import Problem
    from lib import machine

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Problem, match=str(taken.getsockname()[1])):
            machine.check_port(taken.getsockname()[1])


def test_a_reused_pid_is_another_process():
    from common import process

    with subprocess.Popen(["sleep", "60"]) as child:
        identity = process.identity(child.pid)
        assert process.alive(identity)
        assert not process.alive(dict(identity, ticks=identity["ticks"] - 1))
        assert process.kill(dict(identity, ticks=identity["ticks"] - 1)) and process.alive(identity)
        assert process.kill(identity) and not process.alive(identity)


def lines_of(job, out=b"", err=b"", end=b"0 0"):
    lines = []
    for kind, data in ((b"@O ", out), (b"@S ", err)):
        if data:
            text = binascii.b2a_base64(data, newline=False)
            crc = f"{binascii.crc32(data):08x}".encode()
            end += b" " + kind[1:2]
            lines += [
                kind + job,
                *(text[start : start + 76] for start in range(0, len(text), 76)),
                crc + b" /run/jobs/x",
            ]
    return [*lines, b"@E " + job + b" " + end]


def test_answers_of_several_commands_are_distinguished():
    from guest_channel import Answer

    answer = Answer("ab")
    mixed = (
        lines_of(b"cd", b"not this")
        + [b"", b"a kernel message"]
        + lines_of(b"ab", bytes(range(256)) * 9, b"oh", b"3 0")
    )
    assert [answer.take(line) for line in mixed].count(True) == 1
    assert answer.result() == (3, bytes(range(256)) * 9, b"oh", False)


def test_a_damaged_answer_is_rejected():
    from guest_channel import Answer

    whole = lines_of(b"ab", b"x" * 300)
    for damaged in (
        whole[1:],
        whole[:1] + whole[2:],
        whole[:2] + [b"[ 1.0] xenbus: hello"] + whole[2:],
        [whole[0], b"A" + whole[1][1:]] + whole[2:],
    ):
        answer = Answer("ab")
        for line in damaged:
            answer.take(line)
        with pytest.raises(ValueError):
            answer.result()


def test_disks_for_libvirt():
    from guest_errors import GuestProblem
    from guest_launch import libvirt_xml, parse_disk

    assert parse_disk("/dev/loop0,raw,xvda,r") == {
        "target": "/dev/loop0",
        "format": "raw",
        "vdev": "xvda",
        "access": "r",
    }
    xml = libvirt_xml(
        "g", 200, 1, ["target=/srv/a&b.raw,vdev=xvdb,access=r", "/dev/loop0,raw,xvda,w"], "quiet"
    )
    assert "<source file='/srv/a&amp;b.raw'/><target dev='xvdb' bus='xen'/><readonly/>" in xml
    assert "<source dev='/dev/loop0'/><target dev='xvda' bus='xen'/></disk>" in xml
    for wrong in ("/dev/loop0", "/dev/loop0,raw,xvda,w,more", "/dev/loop0,vdev=xvda,script=block-x"):
        with pytest.raises(GuestProblem):
            parse_disk(wrong)
