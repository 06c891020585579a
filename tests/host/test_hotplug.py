# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hotplug script as xl calls it, for real guests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import threading

import hotplug
import hotplug_kill
import pytest
import rebind

pytestmark = pytest.mark.xen

GUEST = "hot"


@pytest.fixture(scope="module", autouse=True)
def installed():
    """The script with its service; the Service."""
    with hotplug.installed(), hotplug.Service() as service:
        yield service


@pytest.fixture(params=["with service", "alone"])
def way(request, installed):
    with hotplug.alone() if request.param == "alone" else contextlib.nullcontext():
        yield request.param


@pytest.fixture(autouse=True)
def no_state_left():
    yield
    hotplug.wait_no_loops()
    assert not os.path.isdir(hotplug.STATE) or os.listdir(hotplug.STATE) == []


def run(*argv, check=True, seconds=300):
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0 or not check, f"{argv}: {text}"
    return text.strip()


def in_guest(command, name=GUEST):
    return run("xenguest", "run", name, "--timeout", "120", "--", command)


def spec(vdev, target, access="w"):
    return f"vdev={vdev},access={access},script=block-racefree,target={target}"


def start(*disks, name=GUEST, options=()):
    run(
        "xenguest",
        "start",
        name,
        "--memory",
        "128",
        *options,
        *(word for disk in disks for word in ("--disk", disk)),
        seconds=600,
    )


def vbds_of(name=GUEST):
    """Key of each of the guest's vbds, by its name there."""
    with hotplug.connect() as store:
        from ansible_collections.racefree.block.plugins.module_utils._xen import guest as _guest
        from ansible_collections.racefree.block.plugins.module_utils._xen import vbd_read

        return {vbd.dev: vbd for vbd in vbd_read.list_vbds(store, _guest.find(store, name))}


@pytest.fixture(scope="module")
def guest(installed):
    start()
    yield GUEST
    run("xenguest", "stop", GUEST)


@pytest.fixture
def detached(guest):
    """Detaches everything that the guest has at the end of the test."""
    yield
    for dev in vbds_of():
        run("xl", "block-detach", GUEST, dev)


@pytest.fixture
def raw(tmp_path):
    """A function that makes a file with random content: ``(path, sha256)``."""

    def make(name="disk.raw", mebibytes=2):
        path, content = tmp_path / name, os.urandom(mebibytes << 20)
        path.write_bytes(content)
        return str(path), hashlib.sha256(content).hexdigest()

    return make


@pytest.fixture
def loop(raw):
    """A loop device that stays: ``(path, diskseq, sha256)``."""
    path, digest = raw("loop.raw")
    device = run("losetup", "--show", "-f", path)
    with open(f"/sys/block/{device[5:]}/diskseq", encoding="ascii") as attribute:
        diskseq = int(attribute.read())
    yield device, diskseq, digest
    run("losetup", "-d", device)


def guest_sum(dev, name=GUEST):
    return in_guest(f"sha256sum < /dev/{dev}", name).split()[0]


def test_attach_and_detach(guest, raw, detached, way):
    path, digest = raw()
    run("xl", "block-attach", guest, spec("xvdb", path))
    vbd = vbds_of()["xvdb"]
    assert guest_sum("xvdb") == digest
    assert vbd.diskseq and vbd.script == hotplug.SCRIPT and vbd.params == path
    assert os.listdir(hotplug.STATE) == [f"{vbd.key.domid}-{vbd.key.devid}"]
    in_guest("echo written by the guest | dd of=/dev/xvdb conv=notrunc; sync")
    run("xl", "block-detach", guest, "xvdb")
    with open(path, "rb") as file:
        assert file.read(21) == b"written by the guest\n"
    hotplug.wait_no_loops()


def boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


@pytest.mark.rotated
@pytest.mark.gate("bookworm")
@pytest.mark.parametrize("form", ["diskseq:{diskseq}@{boot}", "path:{path}", "{path}", "phy:{path}"])
def test_a_device_in_every_form(guest, loop, detached, form):
    path, diskseq, digest = loop
    run("xl", "block-attach", guest, spec("xvdb", form.format(path=path, diskseq=diskseq, boot=boot_id())))
    assert guest_sum("xvdb") == digest
    assert vbds_of()["xvdb"].diskseq == diskseq
    run("xl", "block-detach", guest, "xvdb")
    assert any(line.startswith(path) for line in hotplug.loops()), (
        "what the script did not make it leaves alone"
    )


@pytest.mark.rotated
@pytest.mark.gate("bookworm")
def test_a_mapped_device_by_name_and_uuid(guest, loop, name, detached):
    path, dummy, digest = loop
    run("dmsetup", "create", name, "--uuid", "TEST-" + name, "--table", f"0 4096 linear {path} 0")
    try:
        refused = run("xl", "block-attach", guest, spec("xvdb", f"dm:{name},TEST-other"), check=False)
        assert f"its uuid is TEST-{name}, not TEST-other" in refused
        run("xl", "block-detach", guest, "xvdb", check=False)
        run("xl", "block-attach", guest, spec("xvdb", f"dm:{name},TEST-{name}"))
        assert guest_sum("xvdb") == digest
        run("xl", "block-detach", guest, "xvdb")
    finally:
        hotplug.wait_until(
            lambda: subprocess.run(["dmsetup", "remove", name], check=False).returncode == 0,
            10,
            "the mapped device to be unused",
        )


@pytest.mark.gate("bookworm")
def test_read_only(guest, raw, detached):
    path, digest = raw()
    run("xl", "block-attach", guest, spec("xvdb", path, access="r"))
    assert in_guest("cat /sys/block/xvdb/ro") == "1" and guest_sum("xvdb") == digest
    with open(f"/sys/block/{vbds_of()['xvdb'].physical_device_path[5:]}/ro", encoding="ascii") as attribute:
        assert attribute.read().strip() == "1"


@pytest.mark.rotated
@pytest.mark.gate("bookworm")
@pytest.mark.parametrize(
    "target, words",
    [
        ("/no/such/file", "there is no such device or file"),
        ("diskseq:42", "valid until the next boot"),
        ("/etc", "is a directory, and must be a block device or a regular file"),
        ("dm:name", "dm:NAME,UUID"),
    ],
)
def test_a_wrong_target_says_why(guest, target, words):
    said = run("xl", "block-attach", guest, spec("xvdb", target), check=False)
    assert words in said, said
    # xl leaves the nodes of a failed disk, with the stock script, too.
    run("xl", "block-detach", guest, "xvdb", check=False)
    assert vbds_of() == {}


@pytest.mark.rotated
@pytest.mark.gate("bookworm")
def test_another_mapped_device_that_is_mounted_here(guest, loop, tmp_path, detached):
    """Over the same device, which the kernel lets both have."""
    point = tmp_path / "mnt"
    point.mkdir()
    try:
        for name in ("hosts", "guests"):
            run("dmsetup", "create", name, "--table", f"0 4096 linear {loop[0]} 0")
        run("udevadm", "settle")
        run("mkfs.ext4", "-q", "/dev/mapper/hosts")
        run("mount", "/dev/mapper/hosts", str(point))
        said = run("xl", "block-attach", guest, spec("xvdb", "/dev/mapper/guests"), check=False)
        assert "this host itself uses the storage" in said and "hosts" in said, said
        run("xl", "block-detach", guest, "xvdb", check=False)
        run("umount", str(point))
        run("xl", "block-attach", guest, spec("xvdb", "/dev/mapper/guests"))
        run("xl", "block-detach", guest, "xvdb")
    finally:
        run("umount", str(point), check=False)
        for name in ("guests", "hosts"):
            run("dmsetup", "remove", "--retry", name, check=False)


@pytest.mark.rotated
@pytest.mark.gate("bookworm")
def test_a_file_that_another_guest_writes(guest, raw, detached):
    path, digest = raw()
    run("xl", "block-attach", guest, spec("xvdb", path))
    said = run("xenguest", "start", "other", "--memory", "128", "--disk", spec("xvda", path), check=False)
    assert "is in use as disk xvdb of domain" in said, said
    assert "other" not in run("xl", "list")
    assert guest_sum("xvdb") == digest


def test_the_frontend_goes_and_another_may_come(guest, raw):
    """
    As when a boot loader starts a kernel: blkback keeps the device open, and waits for the next frontend.

    Linux's own frontend connects only once to a disk that stays, so the test only checks that blkback waits
    for the next one.
    """
    path, digest = raw()
    run("xl", "block-attach", guest, spec("xvdb", path))
    assert guest_sum("xvdb") == digest
    vbd = vbds_of()["xvdb"]
    with hotplug.connect() as store:
        from ansible_collections.racefree.block.plugins.module_utils._xen import blkback, vbd_read

        def has_it():
            return (
                vbd_read.opened_number(vbd.key) == vbd.number
                and store.read(f"{vbd.key.backend}/diskseq") == f"{vbd.diskseq:x}"
            )

        def waits_in(state):
            hotplug.wait_until(lambda: store.read(f"{vbd.key.backend}/state") == state, 20, f"state {state}")
            assert has_it() and path in run("losetup", "-a")

        in_guest("echo vbd-51728 > /sys/bus/xen/drivers/vbd/unbind")
        waits_in("6")
        store.transaction(lambda tx: tx.write(f"{vbd.key.frontend}/state", "1"))
        waits_in("2")
        (outcome,) = blkback.detach(store, [blkback.Detachment(vbd)], 10, force=True)
        assert outcome.error is None


@pytest.mark.rotated
def test_the_life_of_a_guest(raw, loop, tmp_path):
    """
    Created, rebooted, saved and restored with its disks, then destroyed.

    Not migrated: Xen under emulation does not log dirty pages of such guests, and ``xl migrate`` does not
    begin without that.
    """
    path, digest = raw()
    device, diskseq, other = loop
    name = "life"
    start(spec("xvda", path), spec("xvdb", f"diskseq:{diskseq}@{boot_id()}"), name=name)

    def check(what):
        assert (guest_sum("xvda", name), guest_sum("xvdb", name)) == (digest, other), what
        assert sorted(os.listdir(hotplug.STATE)) == sorted(
            f"{vbd.key.domid}-{vbd.key.devid}" for vbd in vbds_of(name).values()
        ), what

    try:
        check("created")
        before = run("xl", "domid", name)
        run("xl", "reboot", name)
        hotplug.wait_until(
            lambda: run("xl", "domid", name, check=False) not in ("", before) and answers(name),
            240,
            "the guest to reboot",
        )
        check("rebooted")
        run("xl", "save", name, str(tmp_path / "saved"))
        hotplug.wait_until(lambda: len(hotplug.loops()) == 1, 15, "the saved guest's disk to be gone")
        run("xl", "restore", str(tmp_path / "saved"))
        hotplug.wait_until(lambda: answers(name), 120, "the restored guest to answer")
        check("restored")
        run("xl", "destroy", name)
    finally:
        run("xenguest", "stop", name)
    hotplug.wait_until(lambda: len(hotplug.loops()) == 1, 15, "the destroyed guest's disk to be gone")


def answers(name):
    return (
        run("xenguest", "run", name, "--timeout", "20", "--grace", "20", "--", "echo here", check=False)
        == "here"
    )


@pytest.mark.rotated
@pytest.mark.parametrize(
    "way", ["with service", pytest.param("alone", marks=pytest.mark.long)], indirect=True
)
def test_eight_at_once(raw, way):
    """libxl starts the scripts of all disks of a guest together."""
    disks = [raw(f"{number}.raw", 1) for number in range(8)]
    name = "eight"
    start(*(spec(f"xvd{'abcdefgh'[number]}", path) for number, (path, dummy) in enumerate(disks)), name=name)
    try:
        sums = in_guest("; ".join(f"sha256sum < /dev/xvd{letter}" for letter in "abcdefgh"), name).split()[
            ::2
        ]
        assert sums == [digest for dummy, digest in disks]
        assert len(os.listdir(hotplug.STATE)) == 8
    finally:
        run("xenguest", "stop", name)


@pytest.mark.rotated
@pytest.mark.gate("bookworm")
def test_a_guest_that_writes_junk_into_its_nodes(guest, raw, detached):
    path, digest = raw()
    run("xl", "block-attach", guest, spec("xvdb", path))
    vbd = vbds_of()["xvdb"]
    own = f"device/vbd/{vbd.key.devid}"
    assert (
        in_guest(
            f"xenstore-write {vbd.key.backend}/physical-device 7:0 2>/dev/null && echo wrote || echo refused"
        )
        == "refused"
    )
    assert (
        in_guest(f"xenstore-write {vbd.key.backend}/junk 1 2>/dev/null && echo wrote || echo refused")
        == "refused"
    )
    in_guest(
        f"xenstore-write {own}/ring-ref 99999999999999999999 {own}/state 77 {own}/backend "
        f"/local/domain/0/backend/vbd/0/1 {own}/virtual-device x; "
        f"i=0; while [ $i -lt 50 ]; do xenstore-write {own}/junk$i $i; i=$((i + 1)); done"
    )
    second, other = raw("second.raw")
    run("xl", "block-attach", guest, spec("xvdc", second))
    assert guest_sum("xvdc") == other
    run("xl", "block-detach", guest, "xvdc")
    # It no longer answers for this disk, so the disk is removed by force, as when xl destroys the guest.
    run("xl", "-f", "block-detach", guest, "xvdb", check=False)
    if vbds_of():
        with hotplug.connect() as store:
            from ansible_collections.racefree.block.plugins.module_utils._xen import blkback

            (outcome,) = blkback.detach(store, [blkback.Detachment(vbds_of()["xvdb"])], 10, force=True)
            assert outcome.error is None


@pytest.mark.rotated
@pytest.mark.gate("bookworm")
def test_a_guest_that_floods_its_nodes(guest, raw, detached):
    flooding = threading.Thread(
        target=lambda: in_guest(
            "end=$(($(date +%s) + 20)); while [ $(date +%s) -lt $end ]; do xenstore-write data/x 1; done"
        )
    )
    flooding.start()
    try:
        path, dummy = raw()
        run("xl", "block-attach", guest, spec("xvdb", path))
        assert vbds_of()["xvdb"].diskseq
    finally:
        flooding.join()


FILL = (
    "i=0; for size in 40 1; do while [ $i -lt 3000 ]; do a=; n=0; "
    'while [ $n -lt $size ]; do a="$a data/$size-$i-$n 1"; n=$((n + 1)); done; xenstore-write $a '
    "2>/dev/null || break; i=$((i + 1)); done; done; "
    "echo $i; xenstore-write data/more 1 2>&1"
)


@pytest.mark.long
def test_a_guest_that_has_used_up_its_quota(raw):
    """
    Other guests still get their disks. The guest itself gets its disk completely, if xenstored does not count
    what domain 0 writes, or not at all.
    """
    path, digest = raw()
    second, other = raw("second.raw")
    for name in ("greedy", "modest"):
        start(name=name)
    try:
        said = run("xenguest", "run", "greedy", "--timeout", "240", "--", FILL, check=False)
        batches, refusal = said.splitlines()
        assert int(batches) > 20 and "could not write" in refusal, said
        refused = run("xl", "block-attach", "greedy", spec("xvdb", path), check=False)
        if refused:
            # Because its own kernel could not write, it closes the disk. It can report that only when it has
            # quota again.
            assert "the guest has closed it" in refused and vbds_of("greedy")["xvdb"].number is None, refused
            hotplug.wait_no_loops()
        else:
            assert guest_sum("xvdb", "greedy") == digest
        run("xl", "block-attach", "modest", spec("xvdc", second))
        assert guest_sum("xvdc", "modest") == other
        in_guest("xenstore-rm data; echo", "greedy")
        if refused:
            run("xl", "block-detach", "greedy", "xvdb", check=False)
        run("xl", "block-attach", "greedy", spec("xvdd", raw("third.raw")[0]))
        assert vbds_of("greedy")["xvdd"].diskseq
    finally:
        for name in ("greedy", "modest"):
            run("xenguest", "stop", name)


@pytest.mark.long
def test_a_guest_without_a_driver(raw):
    """The guest need not answer: blkback has the device open anyway, and it is removed with the guest."""
    path, dummy = raw()
    start(spec("xvda", path), name="mute", options=("--no-frontend",))
    assert vbds_of("mute")["xvda"].state == 2
    run("xenguest", "stop", "mute")


# Single calls


@pytest.fixture(scope="module")
def mute(installed):
    with hotplug.mute_guest(hotplug_kill.GUEST) as name:
        yield name


@pytest.mark.long
def test_remove_when_the_nodes_are_gone(mute, raw):
    path, dummy = raw()
    with hotplug.connect() as store, hotplug.Disk(store, mute, 0, path) as disk:
        assert disk.call("add")[:2] == (0, "")
        disk.ask_back()
        disk.remove_nodes()
        assert os.listdir(hotplug.STATE) != []
        assert disk.call("remove")[:2] == (0, "")
        assert disk.call("remove")[:2] == (0, "")


@pytest.mark.long
def test_a_state_that_nobody_removes_goes_with_the_next_call(mute, raw):
    path, dummy = raw()
    with hotplug.connect() as store:
        with hotplug.Disk(store, mute, 0, path) as disk:
            assert disk.call("add")[0] == 0
        assert len(os.listdir(hotplug.STATE)) == 1
        with hotplug.Disk(store, mute, 1, path) as disk:
            assert disk.call("add")[0] == 0
            assert os.listdir(hotplug.STATE) == [f"{disk.key.domid}-{disk.key.devid}"]
            assert disk.call("remove")[0] == 0


@pytest.mark.long
def test_the_same_disk_is_not_exchanged(mute, raw):
    path, dummy = raw()
    with hotplug.connect() as store, hotplug.Disk(store, mute, 0, path) as disk:
        assert disk.call("add")[0] == 0
        number = disk.node("physical-device")
        assert disk.call("add")[:2] == (0, "")
        store.write(f"{disk.key.backend}/params", "/etc/passwd")
        code, said, dummy = disk.call("add")
        assert code == 1 and "cannot be changed" in said
        assert disk.node("physical-device") == number
        disk.call("remove")


@pytest.mark.long
@pytest.mark.parametrize("seconds", [3, None])
def test_xenstored_stops_and_goes_on(mute, raw, seconds, way):
    """
    After a short stop the disk is attached anyway. If it stops for longer than the script may take, the
    script ends in time and leaves nothing.
    """
    path, dummy = raw()
    daemon = int(run("pidof", "xenstored", "oxenstored", check=False).split()[0])
    with hotplug.connect() as store, hotplug.Disk(store, mute, 0, path) as disk:
        os.kill(daemon, signal.SIGSTOP)
        try:
            process = disk.start("add", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            try:
                said = process.communicate(timeout=seconds or 38)[0].decode()
            except subprocess.TimeoutExpired:
                assert seconds, "it did not end in time"
        finally:
            os.kill(daemon, signal.SIGCONT)
        if seconds:
            said = process.communicate(timeout=38)[0].decode()
            assert (process.returncode, said) == (0, "") and disk.node("hotplug-status") == "connected"
            assert disk.call("remove")[0] == 0
        else:
            assert process.returncode == 1 and "xenstored" in said
            assert disk.node("physical-device") is None and not any(path in line for line in hotplug.loops())


@pytest.fixture
def hanging(raw, tmp_path):
    """
    A file system on a suspended mapped device, where looking for a file waits forever, and the name of that
    device.
    """
    image, dummy = raw("fs.raw", 16)
    loop = run("losetup", "--show", "-f", image)
    name, mounted = "hanging", tmp_path / "mnt"
    mounted.mkdir()
    run("dmsetup", "create", name, "--table", f"0 32768 linear {loop} 0")
    try:
        run("mkfs.ext4", "-q", f"/dev/mapper/{name}")
        run("mount", f"/dev/mapper/{name}", str(mounted))
        (mounted / "sub").mkdir()
        with open(mounted / "sub/disk.raw", "wb") as file:
            file.truncate(1 << 20)
        # What is cached of the file would be found without the device.
        run("umount", str(mounted))
        run("mount", f"/dev/mapper/{name}", str(mounted))
        run("dmsetup", "suspend", "--nolockfs", "--noflush", name)
        yield str(mounted / "sub/disk.raw"), name
    finally:
        run("dmsetup", "resume", name)
        hotplug.wait_until(
            lambda: run("umount", str(mounted), check=False) == "", 20, "the file system to be unused"
        )
        run("dmsetup", "remove", "--retry", name)
        run("losetup", "-d", loop)


@pytest.mark.long
def test_storage_that_does_not_answer(mute, hanging, installed, way):
    """
    Nothing can end the process that waits for it. The script still ends in time and reports why, and late
    results do no harm.
    """
    path, name = hanging
    with hotplug.connect() as store, hotplug.Disk(store, mute, 0, path) as disk:
        code, said, seconds = disk.call("add")
        assert code == 1 and seconds < 38
        assert (
            "storage to answer" in said
            and "storage to answer" in disk.node("hotplug-error")
            and disk.node("hotplug-status") == "error"
        )
        run("dmsetup", "resume", name)
        hotplug.wait_until(
            lambda: not run("pgrep", "-f", hotplug.SCRIPT, check=False), 20, "what hung to end"
        )
        hotplug.wait_until(
            lambda: len(os.listdir(f"/proc/{installed.process.pid}/task")) == 1,
            20,
            "the service's thread to end",
        )
        assert disk.node("physical-device") is None and not any(path in line for line in hotplug.loops())
        assert not os.path.isdir(hotplug.STATE) or os.listdir(hotplug.STATE) == []


@pytest.mark.long
@pytest.mark.parametrize("part, step", [("work", 10), ("service", 12)])
def test_killed_at_system_calls(mute, part, step, installed):
    """The program hotplug_kill.py does all of them."""
    installed.stop()
    try:
        kills, bad = hotplug_kill.kill(step=step, part=part)
    finally:
        installed.start()
    assert bad == [] and all(kills.values()), kills


@pytest.mark.rotated
def test_the_service_is_killed_and_the_next_one_goes_on(guest, raw, detached, installed):
    """Attached disks stay, and meanwhile the script works without the service."""
    path, digest = raw()
    run("xl", "block-attach", guest, spec("xvdb", path))
    installed.stop(kill=True)
    assert guest_sum("xvdb") == digest
    run("xl", "block-detach", guest, "xvdb")
    # Without the service, and then with the next one.
    for begin in (installed.start, lambda: None):
        said = run("xl", "block-attach", guest, spec("xvdb", "/no/such/file"), check=False)
        assert "there is no such device or file" in said
        run("xl", "block-detach", guest, "xvdb", check=False)
        run("xl", "block-attach", guest, spec("xvdb", path))
        assert guest_sum("xvdb") == digest
        run("xl", "block-detach", guest, "xvdb")
        begin()
    assert hotplug.is_served()


@pytest.mark.long
def test_an_adversary_that_rebinds_the_device(mute):
    """The program rebind.py makes many more tries."""
    rows = rebind.rebind(mute, work=20, served=20)
    assert all(row["wrong"] == 0 for ways in rows.values() for row in ways.values()), rows
    assert all(row["right"] > 0 for ways in rows.values() for row in ways.values()), rows
