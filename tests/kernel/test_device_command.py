# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
device_command with the names of disks, mapped devices and seals: what needs device-mapper, FUSE or BPF.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import tool_paths
from ansible_collections.racefree.block.plugins.module_utils._block.seal import place
from ansible_collections.racefree.block.plugins.module_utils._command import program
from conftest import Failed, refused, run_module, snapshot, udev_settle, wait_until
from names_service import diskseq_of, losetup
from sealing import nothing_sealed

SECRET = "the passphrase of a test"
PROGRAM = (
    "import sys; sys.path.insert(0, '/root/site'); "
    "from ansible_collections.racefree.block.plugins.module_utils._command.program import main; "
    "sys.exit(main(sys.argv[1:]))"
)


@pytest.fixture(scope="module")
def names():
    """Names of disks are served."""
    pytest.importorskip("pyfuse3")
    with tool_paths.named():
        yield


@pytest.fixture
def loop(image):
    node = losetup(image("disk.raw", 64 * 2**20))
    yield node
    subprocess.run(["losetup", "-d", node], check=True)
    wait_until(lambda: not os.path.exists(f"/sys/block/{os.path.basename(node)}/loop"))


def command(*argv, disk, **more):
    return run_module("device_command", argv=list(argv), devices={"disk": disk}, **more)


def started_open(*arguments):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-B", "-c", PROGRAM, *arguments], text=True, **pipes)


def racefree_open(*arguments):
    with started_open(*arguments) as process:
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def test_each_tool_gets_its_path(names, loop, tmp_path):
    number = diskseq_of(loop)
    name = f"/dev/disk/by-diskseq/{number}"
    made = command("mkfs.ext4", "-q", "{disk}", disk=f"diskseq:{number}")
    assert made["devices"]["disk"]["given"] == "/proc/self/fd/700"
    mounted = command("mount", "-o", "ro", "{disk}", str(tmp_path), disk=f"diskseq:{number}", exclusive=True)
    try:
        assert mounted["exclusive"] == "handed_over" and mounted["devices"]["disk"]["given"] == name
        with open("/proc/self/mounts", encoding="utf-8") as mounts:
            assert f"{name} {tmp_path} ext4 " in mounts.read()
        # It is claimed now.
        refused(
            "device_command",
            "somebody has it open exclusively",
            argv=["dd", "if={disk}"],
            devices={"disk": loop},
            exclusive=True,
        )
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    # A program that is not known.
    assert command("readlink", "-f", "{disk}", disk=loop)["stdout"] == name
    done = racefree_open(loop, "--", "readlink", "-f", "{1}")
    assert done.stdout == f"{name}\n", done.stderr


def test_a_partition_has_the_name_of_a_partition(names, image, tmp_path):
    node = losetup(image("parts.raw", 16 * 2**20), "--partscan")
    try:
        table = {"start": 2048, "length": 2048}
        subprocess.run(
            ["sgdisk", "-n", f"1:{table['start']}:+1M", node], check=True, stdout=subprocess.DEVNULL
        )
        subprocess.run(["partprobe", node], check=True)
        udev_settle()
        number = diskseq_of(node)
        found = command("readlink", "-f", "{disk}", disk=f"diskseq:{number}-part1")
        assert found["stdout"] == f"/dev/disk/by-diskseq/{number}-part1"
        assert found["devices"]["disk"]["partition"] == 1
    finally:
        subprocess.run(["losetup", "-d", node], check=True)
        wait_until(lambda: not os.path.exists(f"/sys/block/{os.path.basename(node)}/loop"))


def test_a_device_goes_with_the_command_although_its_name_was_used(names, image):
    """The service holds a device for a while after its name was used: it is asked to let go."""
    before = snapshot()
    found = command(
        "sh", "-c", "head -c4 {disk}", disk={"file": image(content=b"file")}, path_style="by_diskseq"
    )
    assert found["stdout"] == "file"
    wait_until(lambda: snapshot() == before, 5)


def test_a_tool_that_closes_all_descriptors_finds_the_device(names, image):
    """lvm closes what it does not know; the device, which goes with its last user, is held elsewhere."""
    scan = tool_paths.LVM
    found = command("pvcreate", "--config", scan, "{disk}", disk={"file": image("pv.raw", 32 * 2**20)})
    assert "successfully created" in found["stdout"] and "leaked" not in found["stderr"]
    done = racefree_open(f"file:{image('pv2.raw', 32 * 2**20)}", "--", "pvcreate", "--config", scan, "{1}")
    assert done.returncode == 0 and "leaked" not in done.stderr, done.stderr


@pytest.mark.sample
def test_a_table_makes_a_mapped_device_that_goes_with_the_command(image, name):
    table = [
        {
            "start": 0,
            "length": 2048,
            "target": "linear",
            "device": {"file": image(content=b"file")},
            "offset": 0,
        }
    ]
    source = {"table": table, "name": name, "uuid": f"RACEFREE-{name}"}
    before = snapshot()
    predicted = run_module(
        "device_command", check=True, argv=["dd", "if={disk}", "count=1", "bs=4"], devices={"disk": source}
    )
    assert predicted["changed"] and snapshot() == before
    found = command("dd", "if={disk}", "count=1", "bs=4", disk=source)
    assert found["stdout"] == "file" and found["devices"]["disk"]["name"].startswith("dm-")
    wait_until(lambda: snapshot() == before, 10)
    source["table"][0]["length"] = 2**40
    for check in (True, False):
        with pytest.raises(Failed, match="length"):
            run_module("device_command", check=check, argv=["dd", "if={disk}"], devices={"disk": source})
        # A loop device that was made for the file is released once udev's probers have closed it.
        wait_until(lambda: snapshot() == before, 10)


def test_a_name_without_its_uuid_is_refused(name, image):
    run_module("dm_device", name=name, uuid=f"RACEFREE-{name}", table="0 8 zero")
    try:
        assert command("dd", "if={disk}", "count=1", disk=f"dm:{name},RACEFREE-{name}")["rc"] == 0
        refused(
            "device_command",
            f"its uuid is RACEFREE-{name}, not other",
            argv=["dd", "if={disk}"],
            devices={"disk": f"dm:{name},other"},
        )
    finally:
        run_module("dm_device", name=name, state="absent")


@pytest.mark.usefixtures(nothing_sealed.__name__)
def test_a_sealed_device_is_refused_by_path_and_works_by_number(image):
    path = image(content=b"seal")
    sealed = run_module("loop_device", backing_file=path, sealed=True)["device"]
    try:
        source = {"diskseq": sealed["diskseq"]}
        refused(
            "device_command",
            "it is sealed: a program that opens its path gets EPERM",
            "number",
            argv=["dd", "if={disk}"],
            devices={"disk": source},
        )
        found = command(
            "bash", "-c", "head -c4 <&{disk}; echo over >&{disk}", disk=source, path_style="number"
        )
        assert found["stdout"] == "seal"
    finally:
        run_module("loop_device", backing_file=path, state="absent")
    with open(path, "rb") as file:
        assert file.read(9) == b"sealover\n"


@pytest.mark.sample
def test_the_number_of_a_held_device_is_not_given_away(loop, image):
    """While the command runs, its loop device cannot get another file, and goes on reading its own."""
    other = image("other.raw", content=b"other")
    with open(loop, "r+b") as disk:
        disk.write(b"first")
    words = ["--path=descriptor", loop, "--", "sh", "-c", "echo; read word; head -c5 {1}"]
    bind = ["losetup", loop, other]
    with started_open(*words) as process:
        assert process.stdout.readline() == "\n"
        assert subprocess.run(["losetup", "-d", loop], check=False).returncode == 0
        assert subprocess.run(bind, capture_output=True, check=False).returncode != 0
        out, err = process.communicate("go on\n", timeout=60)
    assert out == "first", err
    # Not by trying to bind: each try opens the device, and makes udev and the file system open it once more.
    wait_until(lambda: not os.path.exists(f"/sys/block/{os.path.basename(loop)}/loop"))
    assert subprocess.run(bind, capture_output=True, check=False).returncode == 0


@pytest.mark.usefixtures(nothing_sealed.__name__)
def test_a_user_names_a_device_that_the_user_may_open(loop):
    # systemd mounts it so that only root can look for seals.
    os.chmod(place.BPF_FS, 0o700)
    with open(loop, "r+b") as disk:
        disk.write(b"hello")
    outcomes = []
    for mode in (0o660, 0o664):
        os.chmod(loop, mode)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(writer, 1)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os._exit(program.main([loop, "--", "dd", "if={1}", "bs=5", "count=1"]))
        os.close(writer)
        with open(reader, "rb") as output:
            outcomes.append((output.read(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    os.chmod(place.BPF_FS, 0o1777)
    assert outcomes == [(b"", 125), (b"hello", 0)]


def luks(image, name):
    """Steps of playbooks/luks_guest.yml."""
    file = {"file": image}
    probe = {"argv": ["cryptsetup", "isLuks", "{disk}"], "devices": {"disk": file}}
    with pytest.raises(Failed) as caught:
        run_module("device_command", **probe)
    assert caught.value.result["rc"] == 1
    quick = ["--type=luks2", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"]
    make = ["cryptsetup", "luksFormat", "--batch-mode", *quick, "--key-file=-", "{disk}"]
    results = [command(*make, disk=file, stdin=SECRET)]
    assert run_module("device_command", **probe)["rc"] == 0
    results.append(command("cryptsetup", "open", "--key-file=-", "{disk}", name, disk=file, stdin=SECRET))
    assert SECRET not in str(results)


def test_luks_on_a_new_file_goes_with_its_user(image, name):
    before = snapshot()
    luks(image("luks.raw", 64 * 2**20), name)
    udev_settle()
    # The guest, or blkback for it, has it open.
    with open(f"/dev/mapper/{name}", "r+b") as guest:
        guest.write(b"of the guest")
        gone = run_module("dm_device", name=name, state="absent", deferred=True)
        assert gone["gone"] is False
        assert subprocess.run(["dmsetup", "info", name], capture_output=True, check=False).returncode == 0
    wait_until(lambda: snapshot() == before, 10)


def test_a_wrong_passphrase_leaves_nothing(image, name):
    path = image("luks.raw", 64 * 2**20)
    before = snapshot()
    luks(path, name)
    run_module("dm_device", name=name, state="absent")
    argv = ["cryptsetup", "open", "--key-file=-", "{disk}", name]
    with pytest.raises(Failed, match="exit code 2") as caught:
        command(*argv, disk={"file": path}, stdin="wrong, and secret")
    assert "wrong, and secret" not in str(caught.value.result)
    wait_until(lambda: snapshot() == before, 10)
