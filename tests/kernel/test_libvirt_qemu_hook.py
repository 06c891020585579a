# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hook in libvirtd with QEMU: which devices guests get, what is refused, and what is left after them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import uuid

import pytest
import qemu_adversary
import qemuhost
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._libvirt import disk_device, domain_xml
from ansible_collections.racefree.block.plugins.module_utils._module import libvirt_disk
from conftest import Failed, run_module
from qemuhost import HOOK, URI, defined, definition, nothing_left, ours, run, virsh, wait_for
from test_libvirt_qemu_live import running

pytestmark = pytest.mark.qemu


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def installed():
    with qemuhost.hook():
        yield


@pytest.fixture(autouse=True)
def nothing_left_of_ours():
    yield
    assert nothing_left(), "devices, holders or records are left"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return qemuhost.boot_sector(tmp_path_factory.mktemp("program"))


@pytest.fixture
def disk(image, program):
    """``disk(name)``: ``(path, word)`` of a bootable image; the guest prints the word, and writes it."""

    def make(name="boot.raw"):
        word = uuid.uuid4().hex.encode()
        return image(name, content=program + word.ljust(512, b"\0")), word

    return make


def put(domain, vdev, source, **options):
    return run_module("libvirt_disk", domain=domain, vdev=vdev, source=source, uri=URI, **options)


def refusal(domain):
    """virsh's message when the guest must not start."""
    done = subprocess.run(
        ["virsh", "-q", "-c", URI, "start", domain], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode and virsh("domstate", domain) == "shut off", done.stdout + done.stderr
    return done.stderr


def said(serial, words, times=1):
    """Whether the guest says all this in the end, so often."""
    return wait_for(lambda: serial.exists() and serial.read_bytes().count(words) == times)


def written(path):
    # QEMU has written it to the cache of the mapped device.
    os.sync()
    with open(path, "rb") as file:
        file.seek(1024)
        return file.read(512).rstrip(b"\0")


def numbers_of(domain):
    """{(major, minor)} of the mapped devices made for a domain's disks."""
    found = [os.stat(f"/dev/mapper/{name}").st_rdev for name in ours() if domain in name]
    return {(os.major(number), os.minor(number)) for number in found}


def test_a_whole_life(tmp_path, image, disk, system_log):
    """Start, restart of the daemon, save and restore, destroy: the right devices each time."""
    serial = tmp_path / "serial"
    (path, word), data = disk(), image("data.raw")
    with defined(definition("qh1", serial=serial)) as domain:
        put(domain, "vda", {"file": path})
        put(domain, "vdb", {"file": data, "offset": 4096}, mode="r")
        assert ours() == []
        virsh("start", "qh1")
        assert said(serial, word + b" written") and written(path) == word
        assert qemuhost.opened("qh1") == numbers_of(domain) and len(ours()) == 2
        # Only QEMU keeps the devices now.
        assert not [name for name in os.listdir(qemuhost.STATE) if name != "lock"]

        qemuhost.restart_daemon()
        assert virsh("domstate", "qh1") == "running" and len(ours()) == 2
        for vdev in ("vda", "vdb"):
            # The daemon answers before it has called the hook for each guest.
            assert wait_for(lambda vdev=vdev: f"reconnect: {vdev} is in use as" in system_log())

        saved = str(tmp_path / "saved")
        virsh("save", "qh1", saved)
        assert nothing_left()
        virsh("restore", saved)
        assert qemuhost.opened("qh1") == numbers_of(domain) and len(ours()) == 2
        virsh("destroy", "qh1")


@pytest.mark.slow
def test_saved_by_libvirt_and_killed(tmp_path, disk):
    """A start restores the guest that was saved. A QEMU that is killed leaves nothing, and starts again."""
    serial = tmp_path / "serial"
    path, word = disk()
    with defined(definition("qh1", serial=serial)) as domain:
        put(domain, "vda", {"file": path})
        virsh("start", "qh1")
        assert said(serial, word + b" written")
        virsh("managedsave", "qh1")
        assert nothing_left()
        virsh("start", "qh1")
        assert qemuhost.opened("qh1") == numbers_of(domain)
        # It continued, and did not boot again.
        assert serial.read_bytes().count(word) <= 1
        os.kill(qemuhost.pid_of("qh1"), signal.SIGKILL)
        assert wait_for(lambda: virsh("domstate", "qh1") == "shut off") and nothing_left()
        serial.unlink(missing_ok=True)
        virsh("start", "qh1")
        assert said(serial, word + b" written")
        virsh("destroy", "qh1")


@pytest.mark.slow
def test_eight_guests_at_once(tmp_path, disk):
    """Each gets its own disk."""
    guests = [(f"qh8-{number}", tmp_path / f"serial{number}", disk(f"{number}.raw")) for number in range(8)]
    with contextlib.ExitStack() as stack:
        for name, serial, (path, dummy) in guests:
            put(stack.enter_context(defined(definition(name, serial=serial))), "vda", {"file": path})
        starts = [
            subprocess.Popen(["virsh", "-q", "-c", URI, "start", name], stdout=subprocess.DEVNULL)
            for name, dummy, dummy2 in guests
        ]
        assert [start.wait(300) for start in starts] == [0] * 8
        for dummy, serial, (path, word) in guests:
            assert said(serial, word + b" written") and written(path) == word


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, words",
    [
        (os.unlink, "does not exist"),
        (lambda path: os.truncate(path, 0), "empty"),
        (lambda path: (os.unlink(path), os.mkdir(path)), "directory"),
    ],
)
def test_what_the_recipe_names_is_not_there(image, change, words):
    path = image()
    with defined(definition("qh2")) as domain:
        put(domain, "vda", {"file": image("first.raw")})
        put(domain, "vdb", {"file": path})
        change(path)
        reason = refusal("qh2")
        assert "racefree.block" in reason and words in reason
        # The device of the first disk goes, too.
        assert nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["recipe", "file", "block"])
def test_what_another_guest_writes_is_refused(image, cleanup, way):
    """Whether it has a recipe for it, or its definition names the file, or a loop device over it."""
    path = image()
    source = {"file": f"<source file='{path}'/>"}
    if way == "block":
        cleanup(loop=path)
        device = run_module("loop_device", backing_file=path)["device"]
        source["block"] = f"<source dev='{device['path']}'/>"
    plain = (
        f"<disk type='{way}'><driver name='qemu' type='raw'/>{source.get(way)}"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    with (
        defined(definition("qh3", devices="" if way == "recipe" else plain)) as one,
        defined(definition("qh4")) as two,
    ):
        put(two, "vda", {"file": path, "overlap": way == "block"})
        if way == "recipe":
            put(one, "vda", {"file": path})
        virsh("start", "qh3", "--paused")
        reason = refusal("qh4")
        assert "in use as the disk vda of the domain" in reason or "QEMU" in reason and "qh3" in reason
        virsh("destroy", "qh3")
        virsh("start", "qh4", "--paused")
        virsh("destroy", "qh4")
        assert wait_for(lambda: not ours())


def turned_back():
    """Links that an adversary has made stay, as udev does not know them."""
    for link in os.listdir("/dev/mapper"):
        if link.startswith("racefree-"):
            os.unlink(f"/dev/mapper/{link}")


@pytest.mark.parametrize("own", [slow(False), True])
def test_the_path_leads_to_another_device_when_qemu_opens_it(image, cleanup, own):
    """To a device of somebody else, or to that of another disk of the same guest. The domain is ended."""
    other = image("other.raw")
    cleanup(loop=other)
    loop = run_module("loop_device", backing_file=other)["device"]["path"]
    with defined(definition("qh5")) as domain:
        put(domain, "vda", {"file": image("a.raw")}, mode="r")
        put(domain, "vdb", {"file": image("b.raw")}, mode="r")
        first, second = (f"/dev/mapper/racefree-{domain}-{vdev}" for vdev in ("vda", "vdb"))
        act = f"ln -sf {loop} {first}"
        if own:
            act = f"one=$(readlink {first}); ln -sf $(readlink {second}) {first}; ln -sf $one {second}"
        # The hooks of `start` run after those of `prepare`, and before libvirt looks at the path.
        with qemuhost.other_hook("60-evil", f'[ "$2" != start ] || {{ {act}; }}'):
            reason = refusal("qh5")
        assert re.search(f"QEMU has [0-9]+:[0-9]+ at {first} instead of [0-9]+:[0-9]+", reason)
        turned_back()


@pytest.mark.slow
def test_the_device_is_renamed_before_qemu_opens_it(image):
    """Another device is made under its name."""
    with defined(definition("qh6")) as domain:
        put(domain, "vda", {"file": image()})
        name = f"racefree-{domain}-vda"
        act = f"dmsetup rename {name} elsewhere; dmsetup create {name} --table '0 8 zero'"
        with qemuhost.other_hook("60-evil", f'[ "$2" != start ] || {{ {act}; }}'):
            reason = refusal("qh6")
        run("dmsetup", "remove", "--retry", name)
        assert "vda of qh6: QEMU has" in reason and "instead of" in reason, reason


@pytest.mark.slow
def test_another_script_refuses_the_start(image):
    """Then everything goes that was made before."""
    with defined(definition("qh7")) as domain, qemuhost.other_hook("70-no", '[ "$2" != start ]'):
        put(domain, "vda", {"file": image()})
        refusal("qh7")
        assert nothing_left()


@pytest.mark.slow
def test_a_copied_definition(image, tmp_path):
    with defined(definition("qh9")) as domain:
        put(domain, "vda", {"file": image()})
        text = virsh("dumpxml", "qh9", "--inactive")
        copy = text.replace(f"<uuid>{domain}", f"<uuid>{uuid.uuid4()}").replace("<name>qh9", "<name>qh9c")
        with defined(copy):
            assert "define the disk again" in refusal("qh9c")


def test_an_adversary_at_the_path():
    """One start in each mode; see qemu_adversary.py for larger runs."""
    counts = qemu_adversary.swapped(["plain", "recipe"], len(qemu_adversary.MODES))
    assert counts["plain"]["nobody"]["right"] == counts["recipe"]["nobody"]["right"] == 1, counts
    assert not any(row["wrong"] for row in counts["recipe"].values()), counts


@contextlib.contextmanager
def module_run(stops_in, **arguments):
    """
    Run libvirt_disks in a process of its own, which stops in ``stops_in``, a pair of an object and the name
    of a function of it, until the hook of another guest works. Yields a function that waits for its result.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            kind, name = stops_in
            original = getattr(kind, name)

            def stopped(*words, **more):
                os.write(writing, b"!")
                time.sleep(4)
                return original(*words, **more)

            setattr(kind, name, stopped)
            try:
                result = run_module("libvirt_disks", **arguments)
            except Failed as failed:
                result = failed.result
            os.write(writing, json.dumps(result).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        with open(reading, "rb", buffering=0) as file:
            assert file.read(1) == b"!"
            yield lambda: json.loads(file.read().replace(b"!", b""))
    finally:
        os.waitpid(pid, 0)


@pytest.mark.rotated
@pytest.mark.parametrize("moment", ["attaches", slow("plans")])
def test_a_guest_starts_while_a_task_gives_its_image_to_another_one(tmp_path, image, moment):
    """
    Both only read it. Neither waits for a lock or a domain of the other until a limit expires. A task that
    asks libvirt for the domain that is starting gives up, so that the guest starts.
    """
    path, disk = image("golden.raw"), {"uri": URI, "mode": "r", "source": {"file": image("golden.raw")}}
    with defined(definition("qh10")) as other, running(tmp_path, image) as (domain, name):
        put(other, "vda", {"file": path}, mode="r")
        disks = [{"domain": domain, "vdev": "vdb", "live": True, "config": False, **disk}]
        stops_in = (disk_device, "locked")
        if moment == "plans":
            disks.append({"domain": other, "vdev": "vdc", **disk, "source": {"file": image("c.raw")}})
            stops_in = (libvirt_disk.DiskItem, "plan")
        with module_run(stops_in, disks=disks) as wait:
            began = time.monotonic()
            virsh("start", "qh10", "--paused")
            assert time.monotonic() - began < 40
            result = wait()
        assert numbers_of(other) and len(qemuhost.opened("qh10")) == 1
        assert bool(result.get("failed")) is (moment == "plans"), result
        if moment == "plans":
            assert "it may wait for an image that this task has locked" in str(result)
            assert run_module("libvirt_disks", disks=disks)["changed"]
        virsh("destroy", "qh10")


# The program, called as libvirt calls it


def hook_call(*words, text):
    return subprocess.run(
        [HOOK, *words], input=text, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def text(image):
    """The definition of a guest with a disk, as libvirt passes it. libvirt does not know the guest."""
    identity = str(uuid.uuid4())
    path = domain_xml.path_of(identity, "vda")
    recipe = json.dumps({"file": image()})
    bare = definition("qh0").replace("</name>", f"</name><uuid>{identity}</uuid>")
    return domain_xml.put(bare, domain_xml.Disk("vda", path, "qemu"), recipe)


def test_prepare_and_release(text):
    assert hook_call("qh0", "prepare", "begin", "-", text=text).returncode == 0
    (name,) = ours()
    # While it waits for the guest, nobody can remove it.
    assert "busy" in run("dmsetup", "remove", name, check=False) and ours() == [name]
    assert hook_call("qh0", "prepare", "begin", "-", text=text).returncode == 0 and len(ours()) == 1
    started = hook_call("qh0", "started", "begin", "-", text=text)
    assert started.returncode == 1 and "libvirt has not recorded the PID of its QEMU" in started.stderr
    for dummy in range(2):
        assert hook_call("qh0", "release", "end", "-", text=text).returncode == 0 and ours() == []


def test_a_migration_is_refused(text):
    done = hook_call("qh0", "migrate", "begin", "-", text=text)
    assert done.returncode == 1 and "cannot be migrated" in done.stderr and done.stdout == ""
    other = re.sub("(?s)<metadata>.*?</metadata>|<disk .*?</disk>", "", text)
    assert hook_call("qh0", "migrate", "begin", "-", text=other).returncode == 0


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('"file": "/', '"file": "', "absolute path"),
        ("-vda'", "-vdb'", "instead of"),
        ('{"file"', '{"sealed": true, "file"', "possible only for Xen"),
    ],
)
def test_a_saved_guest_whose_recipes_are_wrong(text, old, new, words):
    """Its definition was edited (virsh save-image-edit). Nothing is made."""
    assert hook_call("qh0", "restore", "begin", "-", text=text).returncode == 0
    wrong = text.replace(old, new)
    assert wrong != text
    for operation in ("restore", "prepare"):
        done = hook_call("qh0", operation, "begin", "-", text=wrong)
        assert done.returncode == 1 and words in done.stderr and done.stdout == "" and ours() == []


def test_nothing_else_is_refused(text):
    """A guest without its devices goes on: at `reconnect` this is only logged."""
    for operation in ("start", "attach", "stopped", "release", "reconnect", "nonsense"):
        done = hook_call("qh0", operation, "begin", "-", text=text)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), operation


@contextlib.contextmanager
def another_start():
    """A process that holds the lock of a start that never ends."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with disk_device.locked(Deadline(20)):
                os.write(writer, b"!")
                time.sleep(600)
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as told:
        assert told.read(1), "the lock could not be taken"
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.rotated
def test_a_lock_that_is_kept(text):
    """The hook waits for another start only within its limit, says who that is, and leaves nothing."""
    with another_start() as pid:
        done = hook_call("qh0", "prepare", "begin", "-", text=text)
    assert done.returncode == 1 and "timed out" in done.stderr and str(pid) in done.stderr
    assert not ours()
