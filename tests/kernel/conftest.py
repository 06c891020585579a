# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Fixtures for tests that do not run on this machine's kernel, but on a kernel as a process (tests/kernel/run)
or on an emulated Xen host (tests/host/run). Both copy this file, with the tests of both directories, into one
directory there.

Modules run completely, with their own main(), but in this process: starting Python for each of them would
take most of the time on an emulated host.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid

import pytest

sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args
from ansible_collections.racefree.block.plugins.module_utils._block import bound
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from turns import of_turn

MODULES = "ansible_collections.racefree.block.plugins.modules."
XEN = os.path.isdir("/sys/bus/xen-backend")
# mark -> whether this host has what it needs, and the reason if it does not.
NEEDS = {
    "xen": (XEN, "this is not domain 0 of a Xen host"),
    "systemd": (os.path.isdir("/run/systemd/system"), "systemd is not the init system here"),
    "qemu": (os.path.exists("/usr/bin/qemu-system-x86_64"), "there is no QEMU here"),
    "processors": (
        (os.cpu_count() or 1) > 1,
        "there is only one processor, so nothing runs in parallel",
    ),
}
END = b"the end of the test"
# Tests that need one of these cannot run on the kernel tier.
HOST_ONLY = ("xen", "systemd", "processors")
# Tests with one of these run on emulated hosts in make test.
ON_HOSTS = (*HOST_ONLY, "sample")
MARKS = (
    "xen: needs domain 0 of a Xen host",
    "systemd: needs systemd as the init system, which the kernel tier has only with --systemd",
    "processors: needs a second processor, which the kernel tier does not have",
    "qemu: needs libvirt with QEMU, which emulated hosts do not have",
    "sample: make test repeats a third of these on emulated hosts, for their kernels, in a minute",
    "long: takes many minutes on an emulated host; not part of make test (tests/host/run RELEASE -m long)",
    "slow: takes long on the kernel tier, too; left out unless -m names this mark (tests/kernel/run -m slow)",
    "gate(release): make test runs it only on the host of this release, to save time",
    "rotated: takes long; make test runs a third of these, which depends on the commit (tests/setup/turn)",
)


def pytest_configure(config):
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    # The other thread is pytest's watchdog.
    config.addinivalue_line("filterwarnings", "ignore:This process .* is multi-threaded:DeprecationWarning")


def pytest_ignore_collect(collection_path):
    """
    With RACEFREE_GATE, files without tests for hosts are not loaded: an emulated host needs 20 s for all
    files, and 11 s for those with such tests.
    """
    if os.environ.get("RACEFREE_GATE") and collection_path.match("test_*.py"):
        text = collection_path.read_text(encoding="utf-8")
        if not any(f"mark.{mark}" in text for mark in ON_HOSTS):
            return True
    return None


def pytest_collection_modifyitems(config, items):
    """
    Tests that cannot run here are skipped, or deselected if they need Xen. RACEFREE_GATE, a release,
    deselects tests that ``make test`` runs elsewhere: those that can run on the kernel tier, and those marked
    for the host of the other release. RACEFREE_TURN, a number, leaves a third of those that take long. Slow
    tests run only if ``-m`` names their mark.
    """
    gate = os.environ.get("RACEFREE_GATE")
    is_slow_wanted = "slow" in config.option.markexpr
    chosen, left_out = [], []
    for item in items:
        wanted = (
            not gate
            or runs_on_host(item)
            and all(gate in marker.args for marker in item.iter_markers("gate"))
        )
        wanted = wanted and (XEN or not item.get_closest_marker("xen"))
        wanted = wanted and (is_slow_wanted or not item.get_closest_marker("slow"))
        (chosen if wanted else left_out).append(item)
        for mark, (met, reason) in NEEDS.items():
            if not met and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
    turn = os.environ.get("RACEFREE_TURN")
    if turn:
        rotated = [item for item in chosen if is_rotated(item, gate)]
        waiting = set(rotated).difference(of_turn(rotated, turn))
        chosen = [item for item in chosen if item not in waiting]
        left_out += waiting
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = chosen


def runs_on_host(item):
    """
    Whether ``make test`` runs it on emulated hosts: it needs one, or is part of the sample for their kernels.
    """
    return any(item.get_closest_marker(mark) for mark in ON_HOSTS)


def is_rotated(item, gate):
    """
    Whether ``make test`` runs it in one turn of three: it takes long, or an emulated host repeats it, which
    runs whole on the kernel tier.
    """
    repeated = gate and not any(item.get_closest_marker(mark) for mark in HOST_ONLY)
    return bool(repeated or item.get_closest_marker("rotated"))


class Failed(Exception):
    """A module called fail_json with ``result``."""

    def __init__(self, result):
        super().__init__(result.get("msg"))
        self.result = result


def run_module(module_name, check=False, invocation=False, **arguments):
    """
    The module's result, as Ansible gets it, with ``invocation`` as -vvv shows it; Failed if it failed.
    """
    module = importlib.import_module(MODULES + module_name)
    output = io.StringIO()
    arguments = dict(arguments, _ansible_check_mode=check, _ansible_diff=True, _ansible_remote_tmp="/tmp")
    with patch_module_args(arguments), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        module.main()
    result = json.loads(output.getvalue().strip().splitlines()[-1])
    if not invocation:
        result.pop("invocation", None)
    if result.get("failed"):
        raise Failed(result)
    return result


def result_or_none(module_name, **arguments):
    """
    The module's result; None if it failed, as it may while something that a killed run has started is at
    work.
    """
    try:
        return run_module(module_name, **arguments)
    except Failed as failure:
        print(failure)
        return None


def predict_and_run(module_name, **arguments):
    """
    Run in check mode, then for real: the prediction must come true, and a second run must change nothing.
    """
    before = snapshot()
    predicted = run_module(module_name, check=True, **arguments)
    assert_as(before, "check mode changed something")
    done = run_module(module_name, **arguments)
    assert (predicted["changed"], predicted.get("diff")) == (done["changed"], done.get("diff"))
    again = run_module(module_name, **arguments)
    assert not again["changed"]
    again_checked = run_module(module_name, check=True, **arguments)
    assert not again_checked["changed"]
    return done


def refused(module_name, *words, **arguments):
    """
    The module fails with all ``words`` in its message, in check mode too, and changes nothing.
    """
    before = snapshot()
    for check in (True, False):
        with pytest.raises(Failed) as caught:
            run_module(module_name, check=check, **arguments)
        for word in words:
            assert word in str(caught.value), str(caught.value)
        assert "Traceback" not in str(caught.value.result)
    assert_as(before, "a refused call changed something")
    return caught.value.result


def assert_as(before, complaint="something has changed"):
    """
    Wait until nothing has changed since ``before``, except that udev's probers, which have a device open for
    a moment, may have closed it since.
    """
    if snapshot() != before:
        udev_settle()
        after = snapshot()
        assert fewer_opens(before, after) == after, complaint


def fewer_opens(before, after):
    """The snapshot ``before`` with the open counts of mapped devices that are lower in ``after``."""
    now = {row.split(":")[0]: int(row.split(":")[2]) for row in after[2] if row.count(":") == 3}
    rows = []
    for row in before[2]:
        name, *rest = row.split(":")
        if len(rest) == 3 and now.get(name, int(rest[1])) < int(rest[1]):
            rest[1] = str(now[name])
        rows.append(":".join([name, *rest]))
    return (*before[:2], rows, *before[3:])


def snapshot():
    """Everything that can be left behind: bound loop devices, mapped devices, semaphores, vbds."""
    loops = []
    for device, status in bound.open_bound():
        with device:
            loops.append((device.name, device.id.diskseq, status))
    # From the system's tools, not from the library. Each program takes a noticeable time on an emulated host.
    info = _lines("dmsetup", "info", "-c", "--noheadings", "-o", "name,uuid,open,attr")
    mapped = [] if info == ["No devices found"] else _lines("dmsetup", "table")
    with open("/proc/sysvipc/sem", encoding="ascii") as table:
        semaphores = [line.split()[:2] for line in table]
    vbds, served = [], []
    if XEN:
        vbds = _lines("xenstore-list", "/local/domain/0/backend/vbd", check=False)
        served = [name for name in os.listdir("/sys/bus/xen-backend/devices") if name.startswith("vbd")]
    return loops, mapped, info, semaphores, vbds, sorted(served)


def _lines(*command, check=True):
    return sorted(subprocess.run(command, capture_output=True, text=True, check=check).stdout.splitlines())


def pytest_runtest_logstart(nodeid, location):
    """Records the running test, so that the message after a crash or a timeout of the kernel names it."""
    del location
    if os.environ.get("RACEFREE_NOW"):
        with open(os.environ["RACEFREE_NOW"], "w", encoding="utf-8") as file:
            file.write(nodeid)


@pytest.fixture(autouse=True)
def warnings_of_this_test():
    """Modules run in this process, where Ansible keeps the warnings of earlier ones."""
    warnings._global_warnings.clear()


@pytest.fixture(autouse=True)
def nothing_left():
    """Every test must leave the host unchanged."""
    before = snapshot()
    yield
    udev_settle()
    # A device that goes with its last user may go a moment after udev's probers have closed it.
    end = time.monotonic() + 5
    while (after := snapshot()) != before and time.monotonic() < end:
        time.sleep(0.1)
    if after != before:
        # Clean up for the next test.
        subprocess.run(["dmsetup", "remove_all", "--force"], check=False)
        subprocess.run(["losetup", "-D"], check=False)
    assert after == before, "the test left something behind"


def udev_settle():
    subprocess.run(["udevadm", "settle", "--timeout=30"], check=False)


@pytest.fixture
def image(tmp_path):
    """A function that makes a sparse file: ``image("a.raw", size in bytes)``."""

    def make(name="disk.raw", size=16 * 2**20, content=b""):
        path = tmp_path / name
        with open(path, "wb") as file:
            file.write(content)
            file.truncate(size)
        return str(path)

    return make


@pytest.fixture
def name():
    """A name that no device has yet."""
    return "t-" + uuid.uuid4().hex[:12]


@pytest.fixture
def cleanup():
    """
    ``cleanup(loop=path)`` or ``cleanup(dm=name)``: remove it at the end of the test, if it still exists.
    """
    todo = []
    yield lambda **what: todo.append(what)
    udev_settle()
    for what in reversed(todo):
        try:
            _remove(what)
        except Failed:
            # udev may have it open for a moment.
            udev_settle()
            with contextlib.suppress(Failed):
                _remove(what)


def _remove(what):
    if "dm" in what:
        run_module("dm_device", name=what["dm"], state="absent")
    else:
        run_module("loop_device", backing_file=what["loop"], state="absent")


@pytest.fixture
def system_log():
    """A function that returns what the kernel and programs have logged since the test began."""
    since = int(time.time())
    if NEEDS["systemd"][0]:
        yield (
            lambda: (
                subprocess.run(
                    ["journalctl", f"--since=@{since}", "--output=cat", "--quiet"],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
        )
        return
    received = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind("/dev/log")
        # Programs that log would block if nobody read.
        reader = threading.Thread(
            target=lambda: [received.append(piece) for piece in iter(lambda: log.recv(1 << 16), END)]
        )
        reader.start()
        try:
            yield (
                lambda: (
                    b"".join(received).decode()
                    + subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
                )
            )
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(END, "/dev/log")
            reader.join()
            os.unlink("/dev/log")


@pytest.fixture
def control():
    with _control.Control() as opened:
        yield opened


def read_device(path, offset=0, size=512):
    with open(path, "rb") as device:
        device.seek(offset)
        return device.read(size)


def wait_until(condition, seconds=120):
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out after {seconds} s"
        time.sleep(0.05)


def state_of(pid):
    """The letter of the process's state, see proc_pid_stat(5)."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0]


def open_device(path):
    return _device.open_path(path)
