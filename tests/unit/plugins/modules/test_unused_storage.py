# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
unused_storage: whoever uses a file, or is to have it, keeps it. Loop devices, processes and configurations
are real; only libvirt's answers are given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ansible_collections.racefree.block.plugins.module_utils._boot_devices import config as boot_config
from ansible_collections.racefree.block.plugins.module_utils._libvirt import connection
from ansible_collections.racefree.block.plugins.module_utils._source import recipe_file
from ansible_collections.racefree.block.plugins.module_utils._swap import config as swap_config
from ansible_collections.racefree.block.plugins.module_utils._xl import config_file
from ansible_collections.racefree.block.plugins.modules import unused_storage
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices, modulerun

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="locks and recipes belong to root")

UUID = "0c2c8a52-6b3b-4d63-9d0f-6cbd2b0f2c11"
POOL = {"path": "/dev/mapper/guests", "uuid": "RACEFREE-POOL-guests"}


@pytest.fixture(autouse=True)
def host(tmp_path, monkeypatch):
    """Directories of xl, of recipes and of encrypted swap, and the list of the devices of each boot."""
    for module, name in ((config_file, "xen"), (recipe_file, "recipes"), (swap_config, "swap")):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(module, "DIRECTORY", str(tmp_path / name))
    monkeypatch.setattr(boot_config, "PATH", str(tmp_path / "boot-devices.json"))


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.fixture
def domain(monkeypatch):
    """A function that makes a domain of libvirt with this disk, running or not."""

    def define(element, recipe=None, live=False):
        metadata = "" if recipe is None else recipe_text(recipe)
        text = (
            f"<domain type='kvm'><name>web1</name><uuid>{UUID}</uuid>{metadata}"
            f"<devices>{element}</devices></domain>"
        )
        found = connection.Definition("web1", UUID, None if live else text, text if live else None)
        monkeypatch.setattr(connection, "read_all", lambda uri, limit: [found])

    return define


def recipe_text(recipe):
    return (
        "<metadata><racefree:disks xmlns:racefree='urn:ansible:racefree.block:disks:1'><racefree:disk "
        f"target='vda'>{json.dumps(recipe)}</racefree:disk></racefree:disks></metadata>"
    )


def remove(*paths, check=False, **options):
    return modulerun.run(unused_storage.main, check=check, files=[str(path) for path in paths], **options)


def refused(result, *words):
    """Whether it was refused with these words in the message."""
    return result.get("failed", False) and all(str(word) in result["msg"] for word in words)


def test_files_that_nobody_uses(disk, tmp_path):
    missing, link = tmp_path / "missing", tmp_path / "link"
    link.symlink_to(disk)
    predicted = remove(link, disk, missing, check=True)
    assert predicted["changed"] and disk.exists()
    done = remove(link, disk, missing)
    assert done["files"] == predicted["files"] == [str(link), str(disk)] and done["diff"] == predicted["diff"]
    assert not disk.exists() and not link.is_symlink() and not remove(link, disk, missing)["changed"]


def test_a_directory_stays(disk, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    assert refused(remove(disk, place), place, "directory, not a file") and disk.exists() and place.is_dir()


@pytest.mark.skipif(loopdevices.why_not() is not None, reason="loop devices cannot be made here")
def test_a_file_with_a_loop_device_stays(disk, tmp_path):
    """By whatever name. Other files of the same task stay, too."""
    hard, other = tmp_path / "hard.raw", tmp_path / "other.raw"
    os.link(disk, hard)
    other.write_bytes(b"x")
    loop = subprocess.run(
        ["losetup", "--find", "--show", str(disk)], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        for check in (True, False):
            assert refused(remove(other, hard, check=check), hard, loop, "Nothing was removed")
        assert hard.exists() and other.exists()
        # It is still to be detached from its guest.
        going = {"going": [{"domain": "web1", "vdev": "vda"}], "live": True}
        assert remove(hard, check=True, **going)["changed"] and refused(remove(hard, **going), loop)
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)
    assert remove(hard, other)["changed"] and not hard.exists()


@pytest.mark.parametrize("name", ["qemu-mine", "xen-qemu-system-i386"])
def test_a_file_that_qemu_has_open_stays(disk, name):
    """Also that of Xen on Debian."""
    code = f"open('/proc/self/comm', 'w').write('{name}'); print(flush=True); import time; time.sleep(600)"
    with open(disk, "rb") as file:
        process = subprocess.Popen([sys.executable, "-c", code], stdin=file, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        assert refused(remove(disk), disk, f"process {process.pid}") and disk.exists()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("place", ["xen/web2.cfg", "xen/auto/web2"])
@pytest.mark.parametrize(
    "target", ["phy:{0},xvda,w", "file:{0},xvda,w", "vdev=xvda,script=block-racefree,target=file:{0}"]
)
def test_a_file_in_a_configuration_of_xl_stays(disk, tmp_path, place, target):
    (tmp_path / "xen/auto").mkdir()
    link = tmp_path / "way.raw"
    link.symlink_to(disk)
    config = tmp_path / place
    config.write_text(f"name = 'web2'\ndisk = ['{target.format(link)}']\n")
    assert refused(remove(disk), disk, "xvda of web2", config, link)
    going = {"going": [{"domain": "web2", "vdev": "xvda"}]}
    # Outside check mode, the disk must be gone from there.
    assert remove(disk, check=True, **going)["changed"] and refused(remove(disk, **going))
    config.write_text("name = 'web2'\ndisk = ['phy:/dev/vg/other,xvda,w']\n")
    assert remove(disk)["changed"] and not disk.exists()


def test_a_configuration_that_cannot_be_read_may_name_it(disk, tmp_path):
    (tmp_path / "xen/web2.cfg").write_text("disk = [")
    assert refused(remove(disk), "web2.cfg") and disk.exists()


def test_what_cannot_be_a_configuration_or_a_file_is_not_in_the_way(disk, tmp_path):
    """Directories, and targets for other scripts, which are no paths and may contain passwords."""
    (tmp_path / "xen/auto/off").mkdir(parents=True)
    (tmp_path / "xen/old.cfg").mkdir()
    loop = tmp_path / "loop.raw"
    loop.symlink_to(loop)
    target = f"iqn=iqn.2026-01.org.example:a,password={'x' * 255}"
    (tmp_path / "xen/web2.cfg").write_text(
        f"disk = ['phy:{loop},xvdb,w', 'vdev=xvda,script=block-iscsi,target={target}']\n"
    )
    assert remove(disk)["changed"] and not disk.exists()


def test_a_file_in_a_recipe_stays(disk, tmp_path):
    source = {
        "table": [{"start": 0, "length": 8, "target": "linear", "device": {"file": str(disk)}, "offset": 0}]
    }
    recipe = tmp_path / "recipes/web2-xvda.json"
    recipe.write_text(json.dumps({"source": source, "disk": "xvda of web2"}))
    assert refused(remove(disk), disk, recipe)
    for vdev in ("xvda", "d0", "51712"):
        assert remove(disk, check=True, going=[{"domain": "web2", "vdev": vdev}])["changed"] and disk.exists()


def test_storage_that_the_host_makes_devices_of_at_boot_stays(disk, tmp_path):
    """Also while it is stopped."""
    boot = tmp_path / "boot-devices.json"
    table = [{"start": 0, "length": 8, "target": "thin", "pool": POOL, "id": 7}]
    devices = [
        {"name": "golden", "source": {"file": str(disk)}},
        {"name": "home", "source": {"table": table}},
    ]
    boot.write_text(json.dumps({"devices": devices}))
    assert refused(remove(disk), disk, "golden", boot)
    assert refused(modulerun.run(unused_storage.main, pool=POOL, volumes=[7]), "volume 7", "home", boot)
    boot.write_text(json.dumps({"devices": [{"name": "golden", "source": {"fle": str(disk)}}]}))
    assert refused(remove(disk), "golden")
    boot.unlink()
    swap = {
        "source": {"file": str(disk)},
        "size": None,
        "priority": None,
        "discard": False,
        "cipher": "aes-xts-plain64",
        "key_size": 512,
        "overwrite": False,
    }
    (tmp_path / "swap/main.json").write_text(json.dumps(swap))
    assert refused(remove(disk), disk, "swap main") and disk.exists()


def test_a_recipe_that_is_removed_meanwhile_names_nothing(disk, tmp_path, monkeypatch):
    """By another run, between finding it and reading it."""
    there = os.listdir
    recipes = str(tmp_path / "recipes")
    monkeypatch.setattr(os, "listdir", lambda path: [*there(path), *["a.json"] * (path == recipes)])
    assert remove(disk)["changed"] and not disk.exists()


FILE = "<disk type='file' device='disk'><source file='{0}'/><target dev='vda'/></disk>"
BELOW = (
    "<disk type='file'><source file='/top.qcow2'/><backingStore type='file'><format type='raw'/>"
    "<source file='{0}'/></backingStore><target dev='vda'/></disk>"
)
OURS = "<disk type='block'><source dev='/dev/mapper/racefree-x'/><target dev='vda'/></disk>"


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("element, has_recipe", [(FILE, False), (BELOW, False), (OURS, True)])
def test_a_file_of_a_domain_of_libvirt_stays(disk, domain, element, has_recipe, live):
    domain(element.format(disk), {"file": str(disk)} if has_recipe else None, live)
    asked = {"uri": "qemu:///system"}
    assert refused(remove(disk, **asked), disk, "vda of web1") and disk.exists()
    for name in ("web1", UUID, UUID.upper().replace("-", "")):
        going = dict(asked, going=[{"domain": name, "vdev": "vda"}])
        # A running guest keeps its disk, unless that is detached from it.
        assert refused(remove(disk, check=True, **going)) == live
        assert remove(disk, check=True, live=True, **going)["changed"]
    assert remove(disk)["changed"], "libvirt is only asked with a uri"


def test_a_volume_that_somebody_names(domain):
    """By whatever identifies its pool."""

    def volumes(*numbers, **options):
        return modulerun.run(
            unused_storage.main, pool=POOL, volumes=list(numbers), uri="xen:///system", **options
        )

    for pool in (POOL, {"path": "/dev/mapper/other", "uuid": POOL["uuid"]}):
        table = [{"start": 0, "length": 8, "target": "thin", "pool": pool, "id": 7}]
        domain(OURS, {"table": table})
        assert refused(volumes(3, 7), "volume 7", "vda of web1")
        assert not volumes(3)["changed"] and not volumes(
            7, check=True, going=[{"domain": "web1", "vdev": "vda"}]
        ).get("failed")
