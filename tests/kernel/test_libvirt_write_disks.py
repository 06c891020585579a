# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Disks of an inactive definition of qemu:///system, while somebody else changes the definition, and when
libvirt refuses a call or the task is ended between two calls.
"""

from __future__ import annotations

import contextlib
import time
import uuid

import libvirt
import pytest
import qemuhost
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DefinitionError, GuestError
from ansible_collections.racefree.block.plugins.module_utils._libvirt import (
    disk_definition,
    domain_xml,
    hook_plan,
    write_disks,
)
from conftest import Failed, predict_and_run, run_module
from qemuhost import URI, defined, definition, virsh

pytestmark = pytest.mark.qemu

WORDS = "words of somebody else"
# Where a virtual disk vdb would be on that bus.
THEIRS_ON_SATA = "<disk type='file'><source file='/t'/><target dev='sdb' bus='sata'/></disk>"


@pytest.fixture(scope="module", autouse=True)
def libvirtd():
    qemuhost.start_daemon()


@pytest.fixture
def domain():
    """The UUID of a domain without disks."""
    with defined(definition("w-" + uuid.uuid4().hex[:8])) as made:
        yield made


def inactive(domain):
    return virsh("dumpxml", "--inactive", "--security-info", domain)


def parsed(domain):
    return domain_xml.Domain(inactive(domain))


def describe(domain, words=WORDS):
    virsh("desc", domain, "--config", words)


def options(domain, path, vdev="vdb", **more):
    return {"domain": domain, "vdev": vdev, "source": {"file": path}, "uri": URI, **more}


def run(*arguments, **more):
    return run_module("libvirt_disk", **options(*arguments, **more))


@contextlib.contextmanager
def before_each_call(action):
    """Call ``action(number)`` before each of libvirt's calls that change a disk. The numbers begin at 1."""
    steps = write_disks._steps

    def wrapped(number, call):
        def with_action():
            action(number)
            call()

        return with_action

    def with_actions(*arguments):
        return [
            step._replace(do=wrapped(number, step.do)) for number, step in enumerate(steps(*arguments), 1)
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_disks, "_steps", with_actions)
        yield


# What the definition has first, what the task wants, and how many calls that takes: none if the definition is
# replaced as a whole.
CHANGES = {
    "a new disk": (None, {}, 2),
    "another mode": ({}, {"mode": "r"}, 2),
    "shared": ({}, {"shared": True}, 1),
    "another source": ({}, {"file": "other"}, 1),
    "another source and mode": ({}, {"file": "other", "mode": "r"}, 2),
    "an empty drive": (
        {"vdev": "sda", "mode": "r", "device_type": "cdrom"},
        {"vdev": "sda", "state": "empty", "device_type": "cdrom"},
        2,
    ),
    "a medium": (
        {"vdev": "sda", "state": "empty", "device_type": "cdrom"},
        {"vdev": "sda", "mode": "r", "device_type": "cdrom"},
        2,
    ),
    "no disk": ({}, {"state": "absent"}, 2),
}
WHOLE = {
    "another bus": ({}, {"bus": "sata"}),
    "a CD": ({"vdev": "sda", "mode": "r"}, {"vdev": "sda", "mode": "r", "device_type": "cdrom"}),
    "a disk that was not of this collection": ("theirs", {}),
}


def wanted(domain, image, more):
    """The options for a change of CHANGES."""
    more = dict(more)
    path = image(more.pop("file", "a") + ".raw")
    found = options(domain, path, **more)
    if found.get("state") in ("absent", "empty"):
        del found["source"]
    return found


def define_first(domain, image, first):
    if first == "theirs":
        virsh("attach-disk", domain, image("theirs.raw"), "vdb", "--config")
    elif first is not None:
        run_module("libvirt_disk", **wanted(domain, image, first))


@pytest.mark.rotated
@pytest.mark.parametrize("name", CHANGES)
def test_what_somebody_else_writes_before_each_call_stays(domain, image, name):
    """Also a disk of theirs, and metadata of theirs."""
    first, then, count = CHANGES[name]
    define_first(domain, image, first)
    virsh("metadata", domain, "urn:theirs", "--config", "--key", "t", "--set", "<mine/>")
    theirs = image("theirs.raw")

    def change(number):
        describe(domain, f"{WORDS} {number}")
        virsh("attach-disk", domain, f"{theirs}{number}", f"vd{'xyz'[number]}", "--config")

    with before_each_call(change):
        assert run_module("libvirt_disk", **wanted(domain, image, then))["changed"]
    text = inactive(domain)
    assert f"{WORDS} {count}" in text and "urn:theirs" in text
    for number in range(1, count + 1):
        assert f"{theirs}{number}" in text
    assert not predict_and_run("libvirt_disk", **wanted(domain, image, then))["changed"]


@pytest.mark.rotated
@pytest.mark.parametrize("name", WHOLE)
def test_a_change_of_the_whole_definition(domain, image, name):
    """It is refused if somebody else has changed the definition."""
    first, then = WHOLE[name]
    define_first(domain, image, first)
    with (
        before_the_write(lambda: describe(domain)),
        pytest.raises(Failed, match="its definition was changed by someone else meanwhile; nothing was done"),
    ):
        run_module("libvirt_disk", **wanted(domain, image, then))
    with before_each_call(lambda number: describe(domain, "a call for one disk")):
        assert predict_and_run("libvirt_disk", **wanted(domain, image, then))["changed"]
    assert WORDS in inactive(domain) and "a call for one disk" not in inactive(domain)


def test_an_old_recipe_beside_a_disk_of_others(domain, image):
    """
    Its source is another one, and it is shareable. The guest does not start before, and gets the new disk
    afterwards: at no moment the old recipe for the new path.
    """
    run(domain, image("old.raw"))
    virsh("detach-disk", domain, "vdb", "--config")
    virsh("attach-disk", domain, image("theirs.raw"), "vdb", "--config", "--mode", "shareable")
    assert len(parsed(domain).recipes()) == 1 and started_with(domain) is None
    with before_each_call(lambda number: describe(domain)):
        assert run(domain, image("new.raw"))["changed"]
    assert WORDS not in inactive(domain) and "new.raw" in parsed(domain).recipe("vdb")


def test_an_address_that_is_taken(domain, image):
    """libvirt refuses it, and nothing is changed."""
    define(inactive(domain).replace("<emulator>", THEIRS_ON_SATA + "<emulator>"))
    run(domain, image())
    before = inactive(domain)
    with pytest.raises(Failed, match="(?i)duplicate drive address"):
        run(domain, image(), bus="sata")
    assert inactive(domain) == before


def test_a_refused_call_for_one_disk(domain, image):
    """The definition is replaced instead, if nobody has changed it. libvirt then says what it refuses."""

    def refuse(number):
        if number == 2:
            raise libvirt.libvirtError("as if the running guest had no such thread")

    with before_each_call(refuse):
        assert predict_and_run("libvirt_disk", **options(domain, image()))["changed"]

    def describe_and_refuse(number):
        describe(domain)
        refuse(number)

    before = inactive(domain)
    with before_each_call(describe_and_refuse), pytest.raises(Failed, match="libvirt refused"):
        run(domain, image("c.raw"), "vdc")
    assert without_words(inactive(domain)) == before


def without_words(text):
    return text.replace(f"  <description>{WORDS}</description>\n", "")


def test_time_is_up_between_two_calls(domain, image):
    """What holds is not known then, and the task says so. The next run completes it."""

    def wait(number):
        if number == 2:
            time.sleep(4)

    with before_each_call(wait), pytest.raises(Failed, match="timed out after 3 s") as caught:
        run(domain, image(), timeout=3)
    assert "whether the definition has changed is not known" in str(caught.value.result)
    assert run(domain, image())["changed"]


@pytest.mark.rotated
@pytest.mark.parametrize("others", ["never", "before", "after"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_taken_back(domain, image, name, others):
    """Exactly, if nobody else has written; otherwise what they have written stays."""
    first, then, _count = CHANGES[name]
    define_first(domain, image, first)
    before = inactive(domain)

    def write(when):
        if others == when:
            describe(domain)

    def refuse(item):
        write("after")
        raise GuestError("as if a later step failed")

    with pytest.MonkeyPatch.context() as patch, before_the_write(lambda: write("before")):
        patch.setattr(disk_definition.Exchange, "_check_kept", failing_once(refuse))
        with pytest.raises(Failed, match="as if a later step failed"):
            run_module("libvirt_disk", **wanted(domain, image, then))
    assert without_words(inactive(domain)) == before
    assert (others == "never") == (WORDS not in inactive(domain))


def failing_once(action):
    """A check of an Exchange that fails in its first call."""
    calls = []

    def check(item, hint):
        calls.append(hint)
        if len(calls) == 1:
            action(item)

    return check


def test_a_removed_disk_with_a_boot_order_is_taken_back(domain, image):
    """libvirt would not attach it again: it gives a definition without one a boot order of another kind."""
    run(domain, image())
    target = "<target dev='vdb' bus='virtio'/>"
    text = inactive(domain).replace("    <boot dev='hd'/>\n", "")
    define(text.replace(target, target + "<boot order='1'/>"))
    before = inactive(domain)
    assert "<boot order='1'/>" in before

    def refuse(item):
        raise GuestError("as if a later step failed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_definition.Exchange, "_check_kept", failing_once(refuse))
        with pytest.raises(Failed, match="as if a later step failed"):
            run_module("libvirt_disk", domain=domain, vdev="vdb", state="absent", uri=URI)
    assert inactive(domain) == before


def test_what_a_changed_disk_keeps(domain, image):
    """Settings that others have made for the disk: its serial number, cache and address."""
    path, target = image(), "<target dev='vdb' bus='virtio'/>"
    run(domain, path)
    text = inactive(domain).replace(target, target + "<serial>S1</serial>")
    define(text.replace("type='raw'/>", "type='raw' cache='none'/>"))
    before = parsed(domain)
    assert run(domain, path, shared=True)["changed"]
    after = parsed(domain)
    assert after.text.replace("      <shareable/>\n", "") == before.text
    assert all(words in after.text for words in ("S1", "cache='none'", "<address type='pci'", "<shareable/>"))


def define(text):
    connection = libvirt.open(URI)
    connection.defineXML(text)
    connection.close()


def test_somebody_else_changes_the_disk_first(domain, image):
    """Between the look and the first call. A change elsewhere in the definition does not matter."""
    path, theirs = image(), image("theirs.raw")
    run(domain, path)

    def elsewhere():
        virsh("attach-disk", domain, theirs, "vdc", "--config")
        describe(domain)

    with before_the_write(elsewhere):
        assert run(domain, path, mode="r")["changed"]
    words = "its disk vdb was changed by someone else meanwhile; nothing was done"
    with (
        before_the_write(lambda: virsh("detach-disk", domain, "vdb", "--config")),
        pytest.raises(Failed, match=words),
    ):
        run(domain, path)
    found = parsed(domain)
    assert found.disk("vdb") is None and found.disk("vdc").source == theirs and WORDS in found.text


@contextlib.contextmanager
def before_the_write(action):
    write = write_disks.write

    def with_action(*arguments):
        action()
        return write(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_disks, "write", with_action)
        yield


def test_somebody_else_takes_the_place(domain, image):
    """libvirt refuses a second disk there. The recipe that was written first is removed again."""
    path, theirs = image(), image("theirs.raw")

    def take(number):
        if number == 2:
            virsh("attach-disk", domain, theirs, "vdb", "--config")

    with before_each_call(take), pytest.raises(Failed, match="vdb"):
        run(domain, path)
    found = parsed(domain)
    assert found.disk("vdb").source == theirs and not found.recipes()


class Ended(Exception):
    """The task is ended here, as if it were killed."""


@pytest.mark.rotated
@pytest.mark.parametrize("name", [name for name, change in CHANGES.items() if change[2] > 1])
def test_the_task_is_ended_between_two_calls(domain, image, name):
    """
    A guest that starts then gets what it had, or is refused, or gets a disk that it cannot write to. The next
    run corrects it.
    """
    first, then, _count = CHANGES[name]
    define_first(domain, image, first)
    old = started_with(domain)

    def end(number):
        if number == 2:
            raise Ended("ended between two calls")

    arguments, before = wanted(domain, image, then), inactive(domain)
    with before_each_call(end), pytest.raises(Exception, match="ended between two calls"):
        run_module("libvirt_disk", **arguments)
    assert inactive(domain) != before
    between = started_with(domain)
    assert between in (old, None) or all(disk.read_only for disk in between)
    assert predict_and_run("libvirt_disk", **arguments)["changed"]
    assert not run_module("libvirt_disk", **arguments)["changed"]


def started_with(domain):
    """The disks that the hook makes when the guest starts now; None if it refuses the start."""
    try:
        return hook_plan.job_of("prepare", inactive(domain)).disks
    except DefinitionError:
        return None


def test_several_disks_at_once(domain, image):
    """They change together, or none of them, with the whole definition."""
    path = image()
    define(inactive(domain).replace("<emulator>", THEIRS_ON_SATA + "<emulator>"))
    run(domain, path, "vdb")
    run(domain, image("c.raw"), "vdc")
    before = inactive(domain)
    disks = [
        options(domain, path, "vdb", mode="r"),
        {"domain": domain, "vdev": "vdc", "uri": URI, "state": "absent"},
        options(domain, image("d.raw"), "vdd"),
    ]
    with pytest.raises(Failed, match="(?i)duplicate drive address"):
        run_module("libvirt_disks", disks=[*disks[1:], options(domain, path, "vdb", bus="sata")])
    assert inactive(domain) == before
    assert predict_and_run("libvirt_disks", disks=disks)["changed"]
    found = parsed(domain)
    assert (
        sorted(found.recipes())
        == ["vdb", "vdd"]
        == sorted(disk.target for disk in found.disks() if disk.target != "sdb")
    )


def test_taking_back_fails_too(domain, image):
    """The message has both errors and says what to do."""
    steps = write_disks._steps

    def refuse():
        raise libvirt.libvirtError("as if libvirt refused")

    def broken(*arguments):
        first, second = steps(*arguments)
        return [first._replace(undo=refuse), second._replace(do=refuse)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_disks, "_steps", broken)
        with pytest.raises(Failed, match="Taking back what was changed before failed too") as caught:
            run(domain, image())
    assert "virsh dumpxml --inactive" in caught.value.result["error"]["hint"]
    assert "whether the definition has changed is not known" in str(caught.value.result)
    assert run(domain, image())["changed"]


def test_a_list_of_recipes_that_has_something_else(domain, image):
    """The definition is replaced as a whole then, so that nothing in the list is lost."""
    run(domain, image())
    place = "</racefree:disks>"
    define(inactive(domain).replace(place, f"<racefree:x>1</racefree:x>{place}"))
    with before_each_call(lambda number: describe(domain)):
        assert run(domain, image("b.raw"))["changed"]
    assert "<racefree:x>1<" in inactive(domain) and WORDS not in inactive(domain)
