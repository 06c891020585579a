# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
libvirt_disk with libvirt's Xen driver. test_libvirt_definitions.py tests definitions, which are the same for
all drivers.
"""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._libvirt import (
    connection,
    domain_xml,
    live_recipe,
    write_disks,
)
from conftest import Failed, predict_and_run, refused, run_module
from libvirthost import defined, in_guest, ours, run, virsh

pytestmark = [
    pytest.mark.xen,
    pytest.mark.gate("trixie"),
]


@pytest.mark.rotated
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"live": True},
        {"live": True, "config": False},
        {"state": "absent"},
        {"state": "absent", "live": True},
    ],
)
def test_a_daemon_that_is_down(image, more):
    run(
        "systemctl",
        "stop",
        "libvirtd.socket",
        "libvirtd-ro.socket",
        "libvirtd-admin.socket",
        "libvirtd",
        check=False,
    )
    try:
        refused(
            "libvirt_disk",
            "cannot connect",
            "Check that the daemon",
            **{"domain": "x", "vdev": "xvda", "source": "file:" + image(), **more},
        )
    finally:
        run(
            "systemctl",
            "start",
            "libvirtd.socket",
            "libvirtd-ro.socket",
            "libvirtd-admin.socket",
            "libvirtd",
            check=False,
        )


def test_a_daemon_that_hangs(image):
    pid = int(run("pidof", "libvirtd").split()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        refused(
            "libvirt_disk",
            "timed out after 2 s waiting for libvirt",
            domain="x",
            vdev="xvda",
            source="file:" + image(),
            timeout=2,
        )
    finally:
        os.kill(pid, signal.SIGCONT)


def test_xen_definitions(tmp_path, image):
    """With libvirt's Xen driver, and a password that must stay."""
    path = image()
    with defined(tmp_path, "ld1", devices="<graphics type='vnc' port='-1' passwd='s3cr3t'/>") as name:
        before = virsh("dumpxml", name, "--inactive", "--security-info")
        done = predict_and_run("libvirt_disk", domain=name, vdev="51712", source={"file": path})
        after = virsh("dumpxml", name, "--inactive", "--security-info")
        assert (
            "s3cr3t" in after
            and "s3cr3t" not in json.dumps(done)
            and done["disk"]["path"] in virsh("domblklist", name, "--inactive")
        )
        refused("libvirt_disk", "vda", domain=name, vdev="vda", source={"file": path})
        assert predict_and_run("libvirt_disk", domain=name, vdev="xvda", state="absent")["changed"]
        assert virsh("dumpxml", name, "--inactive", "--security-info") == before


@pytest.mark.rotated
def test_what_somebody_else_writes_meanwhile_stays(tmp_path, image, monkeypatch):
    """
    Before each call that changes a disk: another disk, and a description. A mode is changed with the whole
    definition, which is refused after somebody else's change.
    """
    theirs, steps, write = image("theirs.raw"), write_disks._steps, write_disks.write

    def meddle(number):
        virsh("attach-disk", "ld2", theirs, f"xvd{'xyz'[number]}", "--config", "--driver", "phy")
        virsh("desc", "ld2", "--config", f"words {number}")

    def with_meddling(*arguments):
        def meddled(number, do):
            return lambda: (meddle(number), do())

        found = steps(*arguments)
        return [step._replace(do=meddled(number, step.do)) for number, step in enumerate(found, 1)]

    def after_meddling(*arguments):
        meddle(0)
        return write(*arguments)

    with defined(tmp_path, "ld2") as name:
        disk = {"domain": name, "vdev": "xvdb", "source": {"file": image("a.raw")}}
        monkeypatch.setattr(write_disks, "_steps", with_meddling)
        changes = [
            (disk, 2, ["xvdb", "xvdy", "xvdz"]),
            ({**disk, "source": {"file": image("b.raw")}}, 1, ["xvdb", "xvdy"]),
            ({"domain": name, "vdev": "xvdb", "state": "absent"}, 2, ["xvdy", "xvdz"]),
        ]
        for options, count, targets in changes:
            assert run_module("libvirt_disk", **options)["changed"]
            text = virsh("dumpxml", name, "--inactive")
            found = domain_xml.Domain(text)
            assert sorted(disk.target for disk in found.disks()) == targets and f"words {count}" in text
            assert sorted(found.recipes()) == [target for target in targets if target == "xvdb"]
            for target in targets:
                if target != "xvdb":
                    virsh("detach-disk", name, target, "--config")
        monkeypatch.setattr(write_disks, "_steps", steps)
        run_module("libvirt_disk", **disk)
        assert predict_and_run("libvirt_disk", **disk, mode="r")["changed"]
        monkeypatch.setattr(write_disks, "write", after_meddling)
        with pytest.raises(Failed, match="its definition was changed by someone else meanwhile"):
            run_module("libvirt_disk", **disk)
        found = domain_xml.Domain(virsh("dumpxml", name, "--inactive"))
        assert found.disk("xvdb").read_only and found.disk("xvdx").source == theirs


@pytest.mark.rotated
def test_a_running_guest(tmp_path, image):
    """The running guest and the definition at once: the guest gets it now, and virsh and xl show the same."""
    path = image("live.raw", content=os.urandom(4096))
    with defined(tmp_path, "ld2") as name:
        refused(
            "libvirt_disk",
            "does not run",
            domain=name,
            vdev="xvdb",
            source={"file": path},
            config=False,
            live=True,
        )
        virsh("start", name)
        in_guest(name, "true")
        arguments = {"domain": name, "vdev": "xvdb", "source": {"file": path}, "live": True, "timeout": 120}
        done = predict_and_run("libvirt_disk", **arguments)
        assert done["changed"] and done["device"]["size"] == os.path.getsize(path)
        assert done["disk"]["path"] in virsh("domblklist", name) and done["disk"]["path"] in virsh(
            "domblklist", name, "--inactive"
        )
        assert re.search(r"^51728 ", run("xl", "block-list", name), re.MULTILINE)
        assert in_guest(name, "sha256sum < /dev/xvdb").split()[0] == run("sha256sum", path).split()[0]
        assert json.loads(domain_xml.Domain(virsh("dumpxml", name)).recipes()["xvdb"]) == {
            "file": path,
            "format": "raw",
        }
        # As if a version that stored no recipe had attached it.
        running = connection.read("xen:///system", name, Deadline(60))
        live_recipe.put("xen:///system", running, "xvdb", None, Deadline(60))
        assert predict_and_run("libvirt_disk", **arguments)["changed"]
        assert "xvdb" in domain_xml.Domain(virsh("dumpxml", name)).recipes()
        refused("libvirt_disk", "another disk", **{**arguments, "source": {"file": image("other.raw")}})
        # The file, the loop device, the mapped device that libvirt has, and the guest.
        larger = predict_and_run("libvirt_disk", **arguments, size="32M")
        assert larger["device"]["size"] == os.path.getsize(path) == 32 * 2**20
        assert in_guest(name, "cat /sys/block/xvdb/size") == str(32 * 2048)
        in_guest(name, "echo grown | dd of=/dev/xvdb bs=1M seek=31 conv=notrunc; sync")
        with open(path, "rb") as file:
            file.seek(31 * 2**20)
            assert file.read(5) == b"grown"
        assert predict_and_run("libvirt_disk", **dict(arguments, state="absent"))["changed"]
        assert (
            ours() == []
            and "xvdb" not in virsh("domblklist", name)
            and "racefree" not in virsh("dumpxml", name)
        )
        # A source that is not valid after the next boot is not stored.
        loop = run_module("loop_device", backing_file=path)["device"]
        try:
            arguments.update(source=f"diskseq:{loop['diskseq']}", config=False)
            done = run_module("libvirt_disk", **arguments)
            assert (
                done["changed"]
                and done["disk"]["recipe"] is None
                and "cannot be restored" in str(done["warnings"][0])
            )
            assert not run_module("libvirt_disk", **arguments)["changed"] and "<racefree" not in virsh(
                "dumpxml", name
            )
            assert predict_and_run("libvirt_disk", **dict(arguments, state="absent"))["changed"]
        finally:
            run_module("loop_device", backing_file=path, state="absent")


@pytest.mark.rotated
def test_a_running_guest_with_a_snapshot(tmp_path, image):
    """
    A table without name and UUID, as the role guest_disks writes it: the second run finds what the first one
    made.
    """
    golden, cow = image("golden.raw", content=os.urandom(4096)), image("a.cow")
    sectors = os.path.getsize(golden) // 512
    table = [
        {
            "start": 0,
            "length": sectors,
            "target": "snapshot",
            "origin": {"file": golden, "read_only": True},
            "cow": {"file": cow},
            "persistence": "P",
            "chunk_size": 8,
        }
    ]
    with defined(tmp_path, "ld3") as name:
        virsh("start", name)
        in_guest(name, "true")
        arguments = {"domain": name, "vdev": "xvdb", "source": {"table": table}, "live": True, "timeout": 120}
        assert run_module("libvirt_disk", **arguments)["changed"]
        assert not predict_and_run("libvirt_disk", **arguments)["changed"]
        assert predict_and_run("libvirt_disk", **dict(arguments, state="absent"))["changed"]
        # A disk that is longer than its image gets still longer, with its recipes.
        for length in (2 * sectors, 4 * sectors):
            table[0].update(length=length, origin=longer(golden, sectors, length))
            done = run_module("libvirt_disk", **arguments)
            assert done["changed"] and done["device"]["size"] == length * 512
            assert not run_module("libvirt_disk", **arguments)["changed"]
        assert in_guest(name, "cat /sys/block/xvdb/size") == str(4 * sectors)
        for text in (virsh("dumpxml", name), virsh("dumpxml", name, "--inactive")):
            assert json.loads(domain_xml.Domain(text).recipes()["xvdb"])["table"][0]["length"] == 4 * sectors
        shorter = [dict(table[0], length=2 * sectors, origin=longer(golden, sectors, 2 * sectors))]
        refused("libvirt_disk", "sectors or more", **{**arguments, "source": {"table": shorter}})
        other = [dict(table[0], cow={"file": image("b.cow")})]
        refused("libvirt_disk", "another disk", **{**arguments, "source": {"table": other}})
        refused(
            "libvirt_disk",
            "another disk",
            "leave source out",
            **{**arguments, "source": {"table": other}, "state": "absent", "config": False},
        )
        assert predict_and_run("libvirt_disk", **dict(arguments, state="absent"))["changed"]
        assert ours() == [] and "xvdb" not in virsh("domblklist", name)


def longer(golden, sectors, length):
    """The image as the origin of a longer snapshot."""
    image = {"file": golden, "read_only": True}
    return {
        "read_only": True,
        "table": [
            {"start": 0, "length": sectors, "target": "linear", "device": image, "offset": 0},
            {"start": sectors, "length": length - sectors, "target": "zero"},
        ],
    }
