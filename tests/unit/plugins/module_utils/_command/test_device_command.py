# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module device_command with loop devices of this machine."""

from __future__ import annotations

import errno
import glob
import json
import os
import select
import signal
import stat
import subprocess
import sys
import time

import pytest
from ansible.module_utils._internal._json import _profiles
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError, WrongDevice
from ansible_collections.racefree.block.plugins.module_utils._block.device import Device, DeviceId
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq import served
from ansible_collections.racefree.block.plugins.module_utils._command import devices as _devices
from ansible_collections.racefree.block.plugins.module_utils._command import tools
from ansible_collections.racefree.block.plugins.module_utils._module import device_command as _module
from ansible_collections.racefree.block.plugins.modules import device_command
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices, modulerun


@pytest.fixture(autouse=True)
def nothing_left():
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def run(argv, devices, check=False, **more):
    return modulerun.run(device_command.main, check, argv=argv, devices=devices, **more)


def refused(argv, devices, *words, **more):
    """It fails before anything is run, in check mode, too; returns the message."""
    for check in (True, False):
        result = run(argv, devices, check, **more)
        assert result.get("failed"), result
        for word in words:
            assert word in result["msg"], result["msg"]
        assert "rc" not in result and "exception" not in result, result
        assert result["error"]["hint"]
    return result["msg"]


READ = ["head", "-c4", "{disk}"]
DD = ["dd", "if={disk}", "bs=4", "count=1"]


def test_a_tool_reads_and_writes_the_device(disk):
    result = run(DD, {"disk": {"diskseq": disk.diskseq}})
    assert result["changed"] and (result["rc"], result["stdout"]) == (0, "disk")
    assert "1+0 records in" in result["stderr"] and result["exclusive"] is None
    assert result["start"] < result["end"] and result["delta"].startswith("0:00:0")
    there = result["devices"]["disk"]
    assert result["cmd"][1] == f"if={there['given']}" and there["given"].startswith("/proc/self/fd/7")
    assert (there["path"], there["diskseq"]) == (disk.node, disk.diskseq)
    assert (there["major"], there["minor"]) == (7, disk.number) and len(there["boot_id"]) == 36

    result = run(["dd", "of={disk}", "conv=notrunc"], {"disk": f"diskseq:{disk.diskseq}"}, stdin="other")
    assert result["rc"] == 0 and os.pread(disk.fd, 5, 0) == b"other"


def test_two_devices(disk, second):
    devices = {"old": {"path": disk.node, "diskseq": disk.diskseq}, "new": f"path:{second.node}"}
    result = run(["dd", "if={old}", "of={new}", "conv=notrunc"], devices, exclusive=True)
    assert result["rc"] == 0 and result["exclusive"] == "held"
    assert os.pread(second.fd, 4, 0) == b"disk"
    given = [device["given"] for device in result["devices"].values()]
    assert len(set(given)) == 2


def test_a_file_gets_a_device_that_goes_with_the_command(place):
    file = loopdevices.image(place, "new", 2**20, b"file")
    predicted = run(DD, {"disk": {"file": file}}, check=True)
    assert (
        predicted["changed"]
        and predicted["devices"] == {"disk": None}
        and "would have run" in predicted["msg"]
    )
    assert not loopdevices.bound_files(place)
    script = "dd if={disk} bs=4 count=1 2>/dev/null; cat /sys/block/loop*/loop/backing_file"
    result = run(["sh", "-c", script], {"disk": {"file": file}}, path_style="descriptor")
    assert result["stdout"].startswith("file") and file in result["stdout"]
    assert loopdevices.nothing_bound(place)


def test_check_mode_looks_and_does_not_run(disk):
    result = run(DD, {"disk": {"diskseq": disk.diskseq}}, check=True)
    assert result["changed"] and result["devices"]["disk"]["diskseq"] == disk.diskseq
    assert "stdout" not in result


def test_creates_and_removes(disk, place):
    there, devices = disk.file, {"disk": f"diskseq:{disk.diskseq}"}
    for more in ({"creates": there}, {"creates": f"{place}/di*"}, {"removes": f"{place}/no"}):
        for check in (False, True):
            result = run(["no-such-tool", "{disk}"], devices, check, **more)
            assert (
                not result["changed"] and result["rc"] == 0 and result["stdout"].startswith("skipped, since ")
            )
    for more in ({"creates": f"{place}/no"}, {"removes": there}, {"creates": "no", "chdir": place}):
        assert run(DD, devices, **more)["stdout"] == "disk"
    assert not run(DD, devices, creates="disk", chdir=place)["changed"]


PATTERNS = [
    "*",
    ".*",
    "[.]*",
    "**",
    "f*",
    "[!f]*",
    "?ile",
    "no*",
    "no/*",
    "dir/*",
    "d*/in*",
    "d*/.h*",
    "*/inner",
    "*/.",
    "d*/../file",
    "*/no",
    "file/*",
    "f*/*",
    "*/*/*",
    "d*/",
    "f*/",
    "l*/",
    "broken*",
    "broken*/",
    "broken/*",
    "loop*/*",
    "li*/in*",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_as_in_python(tmp_path, monkeypatch, pattern):
    (tmp_path / "dir").mkdir()
    for name in ("file", ".hidden", "dir/inner", "dir/.hidden"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("dir")
    (tmp_path / "broken").symlink_to("no")
    monkeypatch.chdir(tmp_path)
    for each in (pattern, f"{tmp_path}/{pattern}", f"//{tmp_path}/{pattern}"):
        assert sorted(_module._matches(each)) == sorted(glob.glob(each))


@pytest.mark.parametrize("option", ["creates", "removes"])
def test_a_directory_that_cannot_be_listed_is_not_empty(disk, place, monkeypatch, option):
    """Otherwise, the command would run again."""
    mark, closed, real = f"{place}/was-run", f"{place}/closed", os.listdir
    os.mkdir(closed)

    def listdir(path="."):
        if path == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(KernelError, match="EACCES"):
        _module._matches(f"{closed}/*")
    argv, devices = ["sh", "-c", f"touch {mark}; : " + "{disk}"], {"disk": f"diskseq:{disk.diskseq}"}
    for pattern in (f"{closed}/*", f"{place}/cl*/d*"):
        refused(argv, devices, closed, "EACCES", path_style="descriptor", **{option: pattern})
    assert not os.path.exists(mark)


def test_the_environment_the_directory_and_the_input(disk, place):
    devices = {"disk": f"diskseq:{disk.diskseq}"}
    script = "pwd; echo $RACEFREE; cat; : {disk}"
    result = run(
        ["sh", "-c", script],
        devices,
        path_style="descriptor",
        chdir=place,
        environment={"RACEFREE": 5},
        stdin="no newline",
        hide_stdin=False,
    )
    assert result["stdout"] == f"{place}\n5\nno newline"


def test_a_secret_input_is_nowhere_in_the_result(disk):
    secret = "a long passphrase"
    devices = {"disk": f"diskseq:{disk.diskseq}"}
    for script in ("cat; cat {disk} >/dev/null", "cat >&2; exit 1 {disk}"):
        result = run(["sh", "-c", script], devices, path_style="descriptor", stdin=secret)
        assert secret not in str(result) and len(result["stdout"] + result["stderr"]) > 0


SECRETS = {
    "one line": "a long passphrase",
    "a newline at the end": "a long passphrase\n",
    "newlines around it": "\n\n  a long passphrase \r\n\n",
    "lines": "first secret\nsecond secret\n",
    "lines of Windows": "first secret\r\nsecond secret\r\n",
    "other ends of lines": "first secret\x0bsecond secret\u2028third secret\n",
    "four characters": "7#x9\nq2$w\n",
    "bytes that are not UTF-8": "a long \udcff passphrase\n",
}
# What a command does with its input; each prints something that is not in it, too.
PRINTS = {
    "all": "cat; echo end",
    "to stderr, and fails": "cat >&2; echo end; exit 1",
    "the lines in another order": "tac; echo end",
    "each line apart": 'while read -r line; do echo "[$line]" >&2; done; echo end',
    "without the ends of lines": "tr -d '\\r\\n'; echo end",
    "and takes too long": "cat; echo end; sleep 60",
}


@pytest.fixture
def any_text(monkeypatch):
    """
    Ansible's default is that text from the controller must be UTF-8; MODULE_STRICT_UTF8_RESPONSE=false turns
    that off. Whether that is checked here depends on which other tests have run in this process.
    """
    monkeypatch.setattr(_profiles, "_string_encoding_check_enabled", lambda: False)


@pytest.mark.usefixtures(any_text.__name__)
@pytest.mark.parametrize("prints", PRINTS)
@pytest.mark.parametrize("secret", SECRETS)
def test_no_part_of_a_secret_input_is_in_the_result(disk, secret, prints):
    text, shown = (
        SECRETS[secret],
        SECRETS[secret].encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
    )
    lines = {part.strip() for part in (*text.splitlines(), *shown.splitlines())} - {""}
    script = PRINTS[prints] + " # {disk}"
    # The same text elsewhere in the options, and so in the result.
    more = {"environment": {"OTHER": sorted(lines)[0]}} if secret != "bytes that are not UTF-8" else {}
    if "too long" in prints:
        more["timeout"] = 1
    devices = {"disk": f"diskseq:{disk.diskseq}"}
    for check in (False, True):
        result = run(
            ["sh", "-c", script, *lines], devices, check, path_style="descriptor", stdin=text, **more
        )
        told = json.dumps(result, ensure_ascii=False)
        for line in lines:
            assert line not in told, told
        assert result["cmd"][0] == "sh" and (check or "end" in result["stdout"])


def test_short_lines_of_a_secret_input_stay(disk):
    """Otherwise the y of an answer would be masked in all paths, and its 1 in all numbers."""
    devices = {"disk": f"diskseq:{disk.diskseq}"}
    result = run(
        ["sh", "-c", "cat; echo 1 # {disk}"], devices, path_style="descriptor", stdin="y\n1\nsecret\n"
    )
    assert result["stdout"] == "********1"
    assert (
        result["devices"]["disk"]["diskseq"] == disk.diskseq
        and result["devices"]["disk"]["path"] == disk.node
    )


@pytest.mark.usefixtures(any_text.__name__)
def test_an_input_that_is_not_text(disk):
    message = refused(
        ["cat", "{disk}"],
        {"disk": f"diskseq:{disk.diskseq}"},
        "stdin (not shown)",
        "UTF-8",
        stdin="secret\ud800",
    )
    assert "secret" not in message


def test_a_command_that_fails(disk):
    devices = {"disk": f"diskseq:{disk.diskseq}"}
    script = "echo out; echo why >&2; exit 3 # {disk}"
    result = run(["sh", "-c", script], devices, path_style="descriptor")
    assert result["failed"] and result["changed"]
    assert (result["rc"], result["stdout"], result["stderr"]) == (3, "out", "why")
    assert "sh: it ended with exit code 3 (non-zero return code)" in result["msg"]
    assert result["error"]["kind"] == "CommandFailed" and result["devices"]["disk"]["diskseq"] == disk.diskseq
    result = run(["sh", "-c", "kill -9 $$ # {disk}"], devices, path_style="descriptor")
    assert result["rc"] == -9 and "signal 9" in result["msg"]


def test_a_command_that_takes_too_long(disk):
    devices = {"disk": f"diskseq:{disk.diskseq}"}
    result = run(["sh", "-c", "echo begun; sleep 60 <{disk}"], devices, path_style="descriptor", timeout=1)
    assert result["failed"] and result["rc"] is None and result["stdout"] == "begun"
    assert "timed out after 1 s waiting for sh to end" in result["msg"]


def test_what_is_refused_before_anything_is_run(disk, place):
    devices = {"disk": f"diskseq:{disk.diskseq}"}
    mark = f"{place}/was-run"
    touch = ["sh", "-c", f"touch {mark}; : " + "{disk}"]
    refused([], devices, "argv (none)")
    refused(["sh", "{dsik}", "{disk}"], devices, "argv[1] {dsik}", "disk")
    refused(["sh", "x"], devices, "devices.disk", "is not used")
    refused(["sh", "a\0", "{disk}"], devices, "argv[1]", "NUL")
    refused(touch, {}, "devices (none)", "ansible.builtin.command")
    refused(touch, {"a b": "diskseq:1"}, "devices.a b", "letters")
    refused(touch, {"disk": "loop0"}, "devices.disk loop0", "diskseq:N")
    refused(touch, {"disk": {"file": f"{place}/no"}}, f"{place}/no", path_style="descriptor")
    refused(
        touch, {"disk": {"diskseq": 2**63}}, "no disk has the disk sequence number", path_style="descriptor"
    )
    wrong = {"path": disk.node, "diskseq": disk.diskseq + 1}
    refused(touch, {"disk": wrong}, f"is {disk.diskseq}, not {disk.diskseq + 1}", path_style="descriptor")
    same = dict(devices, other={"path": disk.node})
    refused(["dd", "if={disk}", "of={other}"], same, "devices.other", "is the device of disk, too")
    refused(["no-such-tool", "{disk}"], devices, "no-such-tool", "is not installed")
    refused(touch, devices, "chdir", "is not a directory", path_style="descriptor", chdir=f"{place}/no")
    for option in ("creates", "removes", "chdir"):
        wrong = f"{option} (empty): must be a path: leave it out if there is none"
        refused(touch, devices, wrong, path_style="descriptor", **{option: ""})
    refused(touch, devices, "timeout", timeout=0)
    refused(touch, devices, "timeout", timeout=86401)
    refused(touch, devices, "environment.A=B", environment={"A=B": "c"})
    refused(touch, devices, "environment.A (not shown)", environment={"A": "c\0"})
    refused(touch, devices, "environment.A (not shown): must be text", environment={"A": ["c"]})
    assert not os.path.exists(mark)


@pytest.mark.skipif(os.path.ismount(served.BY_DISKSEQ), reason="the service of names runs here")
def test_without_the_service_of_names(disk):
    devices = {"disk": f"diskseq:{disk.diskseq}"}
    message = refused(["cat", "{disk}"], devices, "cat is not known, so it needs a name there", "block_names")
    assert "or choose the style descriptor" in message
    message = refused(["mount", "{disk}", "/mnt"], devices, "mount resolves links first")
    assert "choose the style" not in message
    message = refused(["dd", "of={disk}"], devices, "are not mounted here", path_style="by_diskseq")
    assert "dd" not in message


def test_exclusive(disk, place):
    devices = {"disk": f"diskseq:{disk.diskseq}"}
    program = f"import os; os.open({disk.node!r}, os.O_RDONLY | os.O_EXCL) # {{disk}}"
    argv, more = ["python3", "-c", program], {"path_style": "descriptor"}
    assert run(argv, devices, **more)["rc"] == 0
    result = run(argv, devices, exclusive=True, **more)
    assert (
        result["rc"] == 1 and "Device or resource busy" in result["stderr"] and result["exclusive"] == "held"
    )
    other = os.open(disk.node, os.O_RDONLY | os.O_EXCL)
    try:
        refused(DD, devices, "somebody has it open exclusively", "EBUSY", exclusive=True)
        assert run(DD, devices)["rc"] == 0
    finally:
        os.close(other)


def test_a_claim_is_handed_over_to_a_tool_that_claims_the_device_itself(disk, place):
    # A program with the name of such a tool.
    tool = f"{place}/mkfs.ext4"
    with open(tool, "w", encoding="ascii") as file:
        file.write("#!/usr/bin/python3\nimport os, sys\nos.open(sys.argv[1], os.O_RDWR | os.O_EXCL)\n")
    os.chmod(tool, 0o755)
    devices = {"disk": f"diskseq:{disk.diskseq}"}
    result = run([tool, "{disk}"], devices, exclusive=True)
    assert result["rc"] == 0 and result["exclusive"] == "handed_over"
    other = os.open(disk.node, os.O_RDONLY | os.O_EXCL)
    try:
        refused([tool, "{disk}"], devices, "somebody has it open exclusively", exclusive=True)
    finally:
        os.close(other)


def test_the_number_of_a_descriptor(disk):
    devices = {"disk": f"diskseq:{disk.diskseq}"}
    result = run(
        ["bash", "-c", "head -c4 <&{disk}; echo new >&{disk}"], devices, path_style="number", exclusive=True
    )
    assert result["stdout"] == "disk" and os.pread(disk.fd, 8, 0) == b"disknew\n"
    assert result["devices"]["disk"]["given"].isdigit() and result["exclusive"] == "held"


def test_a_device_that_gets_another_file_while_the_command_runs(place):
    first, second = (loopdevices.image(place, name, 2**20, name.encode()) for name in ("one", "two"))
    fd, number = loopdevices.bind_free(first, loopdevices.AUTOCLEAR | loopdevices.READ_ONLY)
    try:
        program = (
            "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDONLY); "
            f"fcntl.ioctl(fd, {loopdevices.LOOP_CHANGE_FD}, os.open({second!r}, os.O_RDONLY))"
        )
        argv = ["python3", "-c", program, "{disk}"]
        result = run(argv, {"disk": f"path:/dev/loop{number}"}, path_style="descriptor")
        assert result["rc"] == 0 and result["failed"]
        assert "while the command ran, the medium of disk was replaced" in result["msg"]
    finally:
        os.close(fd)


def test_the_device_is_held_until_the_command_has_ended(place):
    """A device that goes with its last user lives as long as a command that has closed its descriptor."""
    file = loopdevices.image(place, "held", 2**20)
    script = f"exec 700>&-; sleep 0.3; grep -l {file} /sys/block/loop*/loop/backing_file # {{disk}}"
    result = run(["bash", "-c", script], {"disk": {"file": file}}, path_style="descriptor")
    assert result["rc"] == 0, result


def test_the_path_that_each_style_gives_is_a_block_device(disk):
    for style in (tools.DESCRIPTOR, tools.NUMBER):
        devices = {"disk": f"diskseq:{disk.diskseq}"}
        result = run(
            ["stat", "-L", "-c", "%f %t %T", "/proc/self/fd/700", "{disk}"], devices, path_style=style
        )
        mode, major, minor = (int(word, 16) for word in result["stdout"].splitlines()[0].split())
        assert stat.S_ISBLK(mode) and (major, minor) == (7, disk.number)


def test_a_program_that_opens_a_device_by_its_node(disk, place):
    """swapon resolves /proc/self/fd/N: the node at the end must be the device's."""
    tool = f"{place}/swapon"
    with open(tool, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\nrealpath $1\n")
    os.chmod(tool, 0o755)
    assert run([tool, "{disk}"], {"disk": f"path:{disk.node}"})["stdout"] == disk.node
    own = f"{os.path.dirname(disk.node)}/racefree-test-{os.getpid()}"
    os.mknod(own, stat.S_IFBLK | 0o600, os.makedev(7, disk.number))
    try:
        assert run([tool, "{disk}"], {"disk": f"path:{own}"})["stdout"] == own
        opened = os.open(own, os.O_RDONLY)
        os.unlink(own)
        device = Device(opened, DeviceId(7, disk.number, disk.diskseq), f"loop{disk.number}")
        with device, pytest.raises(WrongDevice, match="its node is missing or belongs to another device"):
            _devices._need_node(opened, device)
    finally:
        if os.path.exists(own):
            os.unlink(own)


CALL = (
    "import json, sys; "
    "from ansible_collections.racefree.block.plugins.modules import device_command; "
    "from ansible_collections.racefree.block.tests.unit.plugins.module_utils import modulerun; "
    "print(modulerun.run(device_command.main, **json.loads(sys.argv[1])))"
)


def test_a_killed_task_leaves_the_command_with_its_device(place):
    file, mark = loopdevices.image(place, "killed", 2**20), f"{place}/pid"
    arguments = {
        "argv": ["sh", "-c", f"echo $$ > {mark}.new; mv {mark}.new {mark}; exec sleep 60 # {{disk}}"],
        "devices": {"disk": {"file": file}},
        "path_style": "descriptor",
    }
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        [sys.executable, "-c", CALL, json.dumps(arguments)], env=dict(os.environ, PYTHONPATH=path)
    ) as task:
        end = time.monotonic() + 60
        while not os.path.exists(mark):
            assert task.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        task.kill()
    with open(mark, encoding="ascii") as text:
        command = os.pidfd_open(int(text.read()))
    try:
        # Time for everything that ends with the task.
        assert not select.select([command], [], [], 0.5)[0]
        assert list(loopdevices.bound_files(place).values()) == [file]
    finally:
        signal.pidfd_send_signal(command, signal.SIGKILL)
        select.select([command], [], [], 10)
        os.close(command)
    assert loopdevices.nothing_bound(place)
