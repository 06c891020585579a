# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""xl_disk and xl_disks: configurations and recipes on the file system of this machine, without Xen."""

from __future__ import annotations

import errno
import json
import os
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    GuestError,
    KernelError,
    NotSupported,
)
from ansible_collections.racefree.block.plugins.module_utils._block.seal import seals
from ansible_collections.racefree.block.plugins.module_utils._hotplug import state
from ansible_collections.racefree.block.plugins.module_utils._module import xl_disk as _xl_disk
from ansible_collections.racefree.block.plugins.module_utils._source import recipe_file
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key
from ansible_collections.racefree.block.plugins.module_utils._xl import config_file
from ansible_collections.racefree.block.plugins.modules import xl_disk, xl_disks
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import modulerun

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="locks and recipes belong to root")

CONFIG = b"""# the web server
name = 'web1'
disk = [
  'phy:/dev/vg0/web1-swap,xvdc,w',  # swap
]
on_crash = 'restart'
"""
TEXT = "vdev=xvda,access=w,script=block-racefree,target=recipe:web1-xvda"


@pytest.fixture(autouse=True)
def etc(tmp_path, monkeypatch):
    """/etc/xen and the directories of recipes and of the script's state."""
    monkeypatch.setattr(config_file, "DIRECTORY", str(tmp_path))
    monkeypatch.setattr(recipe_file, "DIRECTORY", str(tmp_path / "recipes"))
    monkeypatch.setattr(state, "DIRECTORY", str(tmp_path / "hotplug"))
    monkeypatch.setattr(Key, "sysfs", property(lambda key: f"{tmp_path}/vbd-{key.domid}-{key.devid}"))
    (tmp_path / "web1.cfg").write_bytes(CONFIG)
    return tmp_path


@pytest.fixture
def image(etc):
    path = etc / "web1.raw"
    path.write_bytes(bytes(1 << 20))
    return str(path)


def run(check=False, **options):
    return modulerun.run(xl_disk.main, check, **options)


def predicted(**options):
    """Run in check mode, then for real, then twice more: nothing changes any more."""
    promised, done = run(True, **options), run(**options)
    assert not done.get("failed"), done["msg"]
    assert (promised["changed"], promised["diff"]) == (done["changed"], done["diff"])
    again = run(**options)
    assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
    assert not run(True, **options)["changed"]
    return done


def refused(*words, **options):
    before = contents()
    for check in (True, False):
        result = run(check, **options)
        assert result.get("failed") and all(word in result["msg"] for word in words), result["msg"]
    assert contents() == before
    return result


def contents():
    """Every file, but for the lists of the temporary ones, which must be none."""
    found = {}
    for place, _directories, names in os.walk(config_file.DIRECTORY):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                found[os.path.join(place, name)] = file.read()
    return found


def config(etc, name="web1.cfg"):
    return (etc / name).read_bytes()


def recipe(etc, name="web1-xvda"):
    return json.loads((etc / "recipes" / f"{name}.json").read_text())


def test_added_changed_and_removed(etc, image):
    done = predicted(domain="web1", vdev="xvda", source=f"file:{image}")
    assert done["disk"] == {
        "domain": "web1",
        "config_file": str(etc / "web1.cfg"),
        "vdev": "xvda",
        "mode": "w",
        "device_type": "disk",
        "recipe": "web1-xvda",
        "recipe_file": str(etc / "recipes/web1-xvda.json"),
        "source": {"file": image, "format": "raw"},
        "sealed": False,
        "text": TEXT,
    }
    assert config(etc) == CONFIG.replace(b"# swap\n", b"# swap\n  '%s',\n" % TEXT.encode())
    assert recipe(etc) == {"source": {"file": image, "format": "raw"}, "disk": "xvda of web1"}
    assert done["diff"]["before"] == {"configuration": None, "recipe": None}
    assert done["diff"]["after"] == {"configuration": f"'{TEXT}'", "recipe": recipe(etc)}
    # Another source is another recipe; the configuration stays.
    before = config(etc)
    predicted(domain="web1", vdev="51712", source={"file": image, "offset": 4096}, shared=True)
    assert config(etc) == before
    assert recipe(etc)["shared"] is True and recipe(etc)["source"]["offset"] == 4096
    # Another mode is another line; a file that the guest only reads is opened read-only.
    predicted(domain="web1", vdev="xvda", source={"file": image}, mode="r")
    assert config(etc) == before.replace(b"access=w", b"access=r")
    assert recipe(etc)["source"]["read_only"] is True and "shared" not in recipe(etc)
    gone = predicted(domain="web1", vdev="xvda", source={"file": image}, state="absent")
    assert gone["disk"] is None and config(etc) == CONFIG and os.listdir(etc / "recipes") == []


def test_a_sealed_disk(etc, image, monkeypatch):
    monkeypatch.setattr(seals, "probe", lambda: None)
    disk = {"domain": "web1", "vdev": "xvda", "source": f"file:{image}"}
    done = predicted(**disk, sealed=True, sealed_below=True)
    assert done["disk"]["sealed"] and done["disk"]["source"] == {"file": image, "format": "raw"}
    assert recipe(etc)["source"] == {
        "file": image,
        "format": "raw",
        "sealed": True,
        "sealed_below": True,
    }
    # Without the options it stays as it is.
    assert not run(**disk)["changed"]
    assert not predicted(**disk, sealed=False)["disk"]["sealed"]
    assert recipe(etc)["source"] == {"file": image, "format": "raw"}


def test_a_disk_is_not_sealed_on_a_host_that_cannot(etc, image, monkeypatch):
    def refuse():
        raise NotSupported("no seals here")

    monkeypatch.setattr(seals, "probe", refuse)
    refused("no seals here", domain="web1", vdev="xvda", source=f"file:{image}", sealed=True)
    refused("sealed_below", domain="web1", vdev="xvda", source=f"file:{image}", sealed_below=True)


def test_a_disk_in_place_of_another(etc, image):
    predicted(config_file=str(etc / "web1.cfg"), vdev="xvdc", source=f"file:{image}", recipe="web1-swap")
    text = TEXT.replace("xvda", "xvdc").replace("web1-xvdc", "web1-swap").encode()
    assert config(etc) == CONFIG.replace(b"phy:/dev/vg0/web1-swap,xvdc,w", text)
    # The recipe that is there is used without naming it again.
    predicted(domain="web1", vdev="xvdc", source={"file": image, "size": 4096})
    assert os.listdir(etc / "recipes") == ["web1-swap.json"]
    predicted(domain="web1", vdev="xvdc", state="absent")
    assert b"xvdc" not in config(etc) and b"# swap" in config(etc) and os.listdir(etc / "recipes") == []


def test_disks_written_by_hand(etc, image):
    by_hand = b"name='web1'\ndisk=[ 'format=raw, vdev=xvda, script=block-racefree, target=recipe:own' ]\n"
    (etc / "web1.cfg").write_bytes(by_hand)
    (etc / "recipes").mkdir(0o700)
    (etc / "recipes/own.json").write_text(json.dumps({"source": {"file": image, "format": "raw"}}))
    os.chmod(etc / "recipes/own.json", 0o600)
    gone = run(domain="web1", vdev="xvda", state="absent")
    # A recipe without an owner is not removed.
    assert gone["changed"] and b"recipe" not in config(etc) and os.listdir(etc / "recipes") == ["own.json"]
    (etc / "web1.cfg").write_bytes(by_hand)
    predicted(domain="web1", vdev="xvda", source=f"file:{image}")
    assert config(etc) == by_hand and recipe(etc, "own")["disk"] == "xvda of web1"


def test_a_killed_run_is_finished(etc, image):
    """The recipe is written first and removed last."""
    run(domain="web1", vdev="xvda", source=f"file:{image}")
    (etc / "web1.cfg").write_bytes(CONFIG)
    assert run(domain="web1", vdev="xvda", source=f"file:{image}")["changed"]
    (etc / "web1.cfg").write_bytes(CONFIG)
    predicted(domain="web1", vdev="xvda", state="absent")
    assert os.listdir(etc / "recipes") == []


def test_a_running_guest_keeps_its_recipe(etc, image):
    run(domain="web1", vdev="xvda", source=f"file:{image}")
    (etc / "vbd-5-51712").mkdir()
    state.write(Key(5, 51712), {"target": "recipe:web1-xvda"})
    gone = run(domain="web1", vdev="xvda", state="absent")
    assert gone["changed"] and config(etc) == CONFIG and "recipe web1-xvda stays" in str(gone["warnings"])
    assert not run(domain="web1", vdev="xvda", state="absent")["changed"] and recipe(etc)
    (etc / "vbd-5-51712").rmdir()
    predicted(domain="web1", vdev="xvda", state="absent")
    assert os.listdir(etc / "recipes") == []


def test_a_recipe_that_others_could_change_is_written_again(etc, image):
    run(domain="web1", vdev="xvda", source=f"file:{image}")
    os.chmod(etc / "recipes/web1-xvda.json", 0o666)
    done = run(domain="web1", vdev="xvda", source=f"file:{image}")
    assert done["changed"] and "others can change it" in str(done["warnings"])
    assert os.stat(etc / "recipes/web1-xvda.json").st_mode & 0o777 == 0o600


def test_many_disks_and_guests(etc, image):
    (etc / "web2.cfg").write_bytes(CONFIG.replace(b"web1", b"web2"))
    disks = [
        {"domain": name, "vdev": vdev, "source": {"file": image}, "mode": "r"}
        for name in ("web1", "web2")
        for vdev in ("xvda", "xvdb")
    ]
    done = modulerun.run(xl_disks.main, disks=disks)
    assert done["changed"] and len(os.listdir(etc / "recipes")) == 4
    assert config(etc, "web2.cfg").count(b"recipe:web2-") == 2 == config(etc).count(b"recipe:web1-")
    assert not modulerun.run(xl_disks.main, disks=disks)["changed"]
    gone = modulerun.run(xl_disks.main, disks=[{**disk, "state": "absent"} for disk in reversed(disks)])
    assert gone["changed"] and config(etc) == CONFIG and os.listdir(etc / "recipes") == []


def test_all_is_rolled_back(etc, image, monkeypatch):
    (etc / "web2.cfg").write_bytes(CONFIG.replace(b"web1", b"web2"))
    run(domain="web2", vdev="xvda", source={"file": image, "offset": 512})
    before = contents()
    real = config_file.write

    def write(old, text, option):
        if old.path.endswith("web2.cfg"):
            raise KernelError("no space is left", device=old.path)
        return real(old, text, option)

    monkeypatch.setattr(config_file, "write", write)
    disks = [
        {"domain": "web1", "vdev": "xvda", "source": {"file": image}},
        {"domain": "web2", "vdev": "xvda", "source": {"file": image}},
        {"domain": "web2", "vdev": "xvdb", "source": {"file": image}},
    ]
    failed = modulerun.run(xl_disks.main, disks=disks)
    assert failed["failed"] and "no space is left" in failed["msg"] and not failed["changed"]
    assert contents() == before


def test_a_concurrent_change_is_not_overwritten(etc, image, monkeypatch):
    real = recipe_file.write

    def write(kept):
        real(kept)
        (etc / "web1.cfg").write_bytes(b"name = 'mine'\n")

    monkeypatch.setattr(recipe_file, "write", write)
    failed = run(domain="web1", vdev="xvda", source={"file": image})
    assert failed["failed"] and "somebody changed the configuration meanwhile" in failed["msg"]
    assert config(etc) == b"name = 'mine'\n" and os.listdir(etc / "recipes") == []


class FailingLive:
    """A disk of a running guest that cannot be changed."""

    old, again = None, False

    def check(self):
        pass

    def change(self):
        raise GuestError("xl block-attach failed")

    def undo(self):
        pass

    def remains(self):
        return []


@pytest.fixture(name="fails")
def fixture_fails(monkeypatch):
    """Changes of running disks fail."""
    item = _xl_disk.XlDiskItem
    monkeypatch.setattr(item, "_live_locks", lambda self, name: [])
    monkeypatch.setattr(
        item, "_running_guest", lambda self: types.SimpleNamespace(domid=5) if self.params["live"] else None
    )
    monkeypatch.setattr(item, "_plan_running", lambda self, *dummy: setattr(self, "live", FailingLive()))


@pytest.mark.parametrize("first", [True, False])
def test_the_undo_of_one_disk_leaves_the_others(etc, image, fails, first):
    """With on_error=keep, what is reported as done is done."""
    run(domain="web1", vdev="xvdd", source={"file": image}, mode="r")
    failing = {"domain": "web1", "vdev": "xvda", "source": {"file": image}, "mode": "r", "live": True}
    kept = [
        {"domain": "web1", "vdev": "xvdb", "source": {"file": image}, "mode": "r"},
        {"domain": "web1", "vdev": "xvdd", "state": "absent"},
    ]
    disks = [failing, *kept] if first else [*kept, failing]
    done = modulerun.run(xl_disks.main, on_error="keep", disks=disks)
    assert [row.get("failed", False) for row in done["disks"]] == [disk is failing for disk in disks]
    assert [row["changed"] for row in done["disks"]] == [disk is not failing for disk in disks]
    text = config(etc)
    assert (b"xvda" in text, b"xvdb" in text, b"xvdd" in text) == (False, True, False)
    assert os.listdir(etc / "recipes") == ["web1-xvdb.json"]


def test_a_file_that_was_made_larger_is_reported_after_an_error(etc, image, fails):
    """It is not rolled back."""
    failed = run(domain="web1", vdev="xvda", source={"file": image}, size="2M", live=True)
    assert failed["failed"] and "xl block-attach failed" in failed["msg"]
    assert os.path.getsize(image) == 2**21 and f"{image} has {2**21} bytes" in str(failed["warnings"])


def test_all_are_undone(etc, image, fails):
    run(domain="web1", vdev="xvdd", source={"file": image}, mode="r")
    before = contents()
    disks = [
        {"domain": "web1", "vdev": "xvdb", "source": {"file": image}, "mode": "r"},
        {"domain": "web1", "vdev": "xvdd", "state": "absent"},
        {"domain": "web1", "vdev": "xvda", "source": {"file": image}, "mode": "r", "live": True},
    ]
    done = modulerun.run(xl_disks.main, disks=disks)
    assert done["failed"] and not done["changed"] and contents() == before


def test_a_recipe_that_the_configuration_still_names_stays(etc, image, fails, monkeypatch):
    """Somebody else changed the configuration, so that it could not be restored."""

    def change(live):
        (etc / "web1.cfg").write_bytes(config(etc) + b"# mine\n")
        raise GuestError("xl block-attach failed")

    monkeypatch.setattr(FailingLive, "change", change)
    done = run(domain="web1", vdev="xvda", source={"file": image}, mode="r", live=True)
    assert done["failed"] and b"recipe:web1-xvda" in config(etc)
    assert os.listdir(etc / "recipes") == ["web1-xvda.json"]


def test_a_configuration_that_could_not_be_synchronized_is_restored(etc, image, monkeypatch):
    """It has its new text by then."""
    before, real = contents(), config_file._sync
    failures = [OSError(errno.EIO, "no")]

    def sync(directory):
        if failures:
            raise failures.pop()
        real(directory)

    monkeypatch.setattr(config_file, "_sync", sync)
    done = run(domain="web1", vdev="xvda", source={"file": image})
    assert done["failed"] and "EIO" in done["msg"] and contents() == before


SOURCE = {"source": "file:IMAGE"}
WRONG = [
    ({"vdev": "xvda", **SOURCE}, "one of the following is required: domain, config_file"),
    ({"domain": "web1", "vdev": "xvda"}, "state is present but all of the following are missing: source"),
    ({"domain": "web1", "vdev": "disk1", **SOURCE}, "vdev disk1: must be a disk of a guest"),
    ({"domain": "../web1", "vdev": "xvda", **SOURCE}, "domain ../web1: must be the name of a guest"),
    ({"domain": "", "vdev": "xvda", **SOURCE}, "must be the name of a guest"),
    ({"domain": "web9", "vdev": "xvda", **SOURCE}, "web9.cfg", "cannot read the configuration", "ENOENT"),
    ({"domain": "web1", "config_file": "web1.cfg", "vdev": "xvda", **SOURCE}, "must be an absolute path"),
    ({"domain": "web2", "config_file": "ETC/web1.cfg", "vdev": "xvda", **SOURCE}, "must be web1"),
    ({"config_file": "ETC/noname.cfg", "vdev": "xvda", **SOURCE}, "domain (none): must be given"),
    ({"config_file": "ETC", "vdev": "xvda", **SOURCE}, "is a directory, and must be a regular file"),
    ({"config_file": "ETC/twice.cfg", "vdev": "xvda", **SOURCE}, "twice.cfg: line 3: disk is assigned"),
    ({"config_file": "ETC/dos.cfg", "vdev": "xvda", **SOURCE}, "dos.cfg: line 1: there is a carriage return"),
    ({"config_file": "ETC/space.cfg", "vdev": "xvda", **SOURCE}, "recipe (none): must be given: my guest"),
    (
        {"domain": "web1", "vdev": "xvda", "recipe": "../x", **SOURCE},
        "recipe ../x: must be the name of a rec",
    ),
    (
        {"domain": "web1", "vdev": "xvda", "recipe": "other", **SOURCE},
        "belongs to another disk, xvdb of web7",
    ),
    ({"domain": "web1", "vdev": "xvda", "source": "diskseq:42"}, "numbers start again with every boot"),
    ({"domain": "web1", "vdev": "xvda", "source": "/dev/loop0"}, "whichever device comes first"),
    ({"domain": "web1", "vdev": "xvda", "source": "file:/none.raw"}, "/none.raw", "ENOENT"),
    (
        {"domain": "web1", "vdev": "xvda", "source": "file:ETC/q.img"},
        "q.img",
        "is an image of the format qcow2",
    ),
    (
        {"domain": "web1", "vdev": "xvdc", "source": "file:ETC/old.img"},
        "qcow2 according to the configuration",
    ),
    ({"domain": "web1", "vdev": "xvda", "device_type": "cdrom", **SOURCE}, "must be r: a cdrom is read-only"),
    (
        {"domain": "web1", "vdev": "xvda", "source": {"file": "IMAGE", "read_only": True}},
        "mode w: must be r: the source is read_only",
    ),
    (
        {"domain": "web1", "vdev": "xvdd", "state": "absent", **SOURCE},
        "has another disk there: 'format=qcow2",
    ),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_uses(etc, image, number):
    (etc / "web1.cfg").write_bytes(
        CONFIG.replace(
            b"# swap\n", b"# swap\n 'format=qcow2,vdev=xvdd,target=%s',\n" % str(etc / "old.img").encode()
        )
    )
    (etc / "noname.cfg").write_bytes(b"memory = 1\n")
    (etc / "twice.cfg").write_bytes(b"name = 'a'\ndisk = []\ndisk = []\n")
    (etc / "dos.cfg").write_bytes(CONFIG.replace(b"# the web server\n", b"").replace(b"\n", b"\r\n"))
    (etc / "space.cfg").write_bytes(b"name = 'my guest'\n")
    (etc / "q.img").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(65536))
    (etc / "old.img").write_bytes(bytes(65536))
    (etc / "recipes").mkdir(0o700)
    (etc / "recipes/other.json").write_text(json.dumps({"source": {"file": image}, "disk": "xvdb of web7"}))
    os.chmod(etc / "recipes/other.json", 0o600)
    options, *words = WRONG[number]
    text = json.dumps(options).replace("IMAGE", image).replace("ETC", str(etc))
    refused(*words, **json.loads(text))


def test_two_entries_for_one_disk(etc, image):
    one = {"domain": "web1", "vdev": "xvda", "source": {"file": image}}
    for other in (
        {**one, "vdev": "51712"},
        {"config_file": str(etc / "web1.cfg"), "vdev": "xvda", "state": "absent"},
        {**one, "vdev": "xvdb", "recipe": "web1-xvda"},
    ):
        failed = modulerun.run(xl_disks.main, disks=[one, other])
        assert failed["failed"] and "in the list twice" in failed["msg"] and config(etc) == CONFIG


def test_the_recipe_of_another_source_stays(etc, image):
    """Its line in the configuration is gone, as after a guest has ended that needed the recipe until then."""
    assert run(domain="web1", vdev="xvda", source={"file": image})["changed"]
    (etc / "web1.cfg").write_bytes(CONFIG)
    other = etc / "other.raw"
    other.write_bytes(bytes(1 << 20))
    for check in (True, False):
        failed = run(check, domain="web1", vdev="xvda", source={"file": str(other)}, state="absent")
        assert failed.get("failed") and "is that of another disk" in failed["msg"], failed
    assert (etc / "recipes" / "web1-xvda.json").exists()
    assert run(domain="web1", vdev="xvda", source={"file": image}, state="absent")["changed"]


@pytest.mark.parametrize("line", [b"type = 'hvm'", b"builder = 'hvm'"])
def test_a_sealed_disk_of_an_hvm_guest_is_refused(etc, image, monkeypatch, line):
    monkeypatch.setattr(seals, "probe", lambda: None)
    (etc / "web1.cfg").write_bytes(CONFIG + line + b"\n")
    failed = run(domain="web1", vdev="xvda", source={"file": image}, sealed=True)
    assert failed.get("failed") and "not possible for an HVM guest" in failed["msg"], failed
