# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The QEMU process of a domain, by libvirt's record, and what QEMU has open. Shells stand in for QEMU.

Tests with QEMU: tests/kernel/test_libvirt_qemu_hook.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeviceBusy, GuestError
from ansible_collections.racefree.block.plugins.module_utils._libvirt import qemu_process
from ansible_collections.racefree.block.plugins.module_utils._process import identity, open_files
from ansible_collections.racefree.block.plugins.module_utils._xen import sharing, stack
from ansible_collections.racefree.block.plugins.module_utils._xen.domain0 import is_here
from ansible_collections.racefree.block.plugins.module_utils._xen.footprint import Extent

UUID = "11111111-2222-3333-4444-55555555555b"


@pytest.fixture
def qemu(tmp_path, monkeypatch):
    """``qemu(words, descriptors)``: start a process that is named like QEMU, with a record of its PID."""
    monkeypatch.setattr(qemu_process, "RECORDS", str(tmp_path))
    program = shutil.copy("/bin/sh", tmp_path / "qemu-system-x")
    with contextlib.ExitStack() as stack:

        def start(*words, descriptors=()):
            process = stack.enter_context(
                subprocess.Popen(
                    [program, "-c", "echo; read -r word", *words],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=descriptors,
                )
            )
            stack.callback(process.kill)
            # It has been executed once it says something.
            process.stdout.readline()
            (tmp_path / "web1.pid").write_text(f"{process.pid}\n")
            return process

        yield start


def test_the_process_of_a_domain(qemu):
    process = qemu("-name", "guest=web1", "-uuid", UUID.upper())
    found = qemu_process.find("web1", UUID)
    assert found == (process.pid, identity.start_time(process.pid))
    assert qemu_process.number_at(found, "/dev/null") is None is qemu_process.number_at(found, "/no/such")
    assert qemu_process.opened(found) == set()


@pytest.mark.parametrize("words", [[], ["-uuid"], ["-uuid", UUID.replace("1", "2")], [UUID]])
def test_the_process_is_another_one(qemu, words):
    """The PID was given to another process since."""
    process = qemu(*words)
    with pytest.raises(GuestError, match=f"the process {process.pid} of .*web1.pid is not its QEMU"):
        qemu_process.find("web1", UUID)


@pytest.mark.parametrize("record", [None, "", "x", "-1", "1 2"])
def test_no_record(qemu, tmp_path, record):
    if record is not None:
        (tmp_path / "web1.pid").write_text(record)
    for name in ("web1", "../web1", f"..{tmp_path}/web1"):
        with pytest.raises(GuestError, match="has not recorded the PID"):
            qemu_process.find(name, UUID)


def test_a_process_that_has_ended(qemu, tmp_path):
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    (tmp_path / "web1.pid").write_text(f"{ended.pid}\n")
    with pytest.raises(GuestError, match="is not its QEMU"):
        qemu_process.find("web1", UUID)


@pytest.fixture
def ask():
    """What the sharing check says of an Extent of a file, or None."""

    def say(path, writes=True, own=None):
        there = os.stat(path)
        extent = Extent(("file", there.st_dev, there.st_ino), 0, None, writes)
        with sharing.Sharing(stack.questions(None)) as check:
            try:
                check.check_qemus([extent], "new", own)
            except DeviceBusy as error:
                return str(error)
        return None

    return say


def test_what_qemu_writes_is_refused(qemu, ask, tmp_path):
    for name in ("a.raw", "b.raw"):
        (tmp_path / name).touch()
    with open(tmp_path / "a.raw", "r+b") as written, open(tmp_path / "b.raw", "rb") as read:
        process = qemu("-name", "guest=a,,b,debug-threads=on", descriptors=(written.fileno(), read.fileno()))
        # Its file may have another name by now.
        os.rename(tmp_path / "a.raw", tmp_path / "c.raw")
        said = ask(tmp_path / "c.raw")
        assert f"is open in QEMU for a,b (process {process.pid})" in said and said.startswith("new: ")
        assert ask(tmp_path / "c.raw", writes=False) == said
        assert ask(tmp_path / "b.raw") is not None and ask(tmp_path / "b.raw", writes=False) is None
    process.kill()
    process.wait()
    assert ask(tmp_path / "c.raw") is None


def test_what_a_disk_has_that_is_replaced_is_left_out(qemu, ask, tmp_path):
    """Not what else its QEMU has open, nor what another one has."""
    for name in ("a.raw", "b.raw"):
        (tmp_path / name).touch()
    with open(tmp_path / "a.raw", "r+b") as old, open(tmp_path / "b.raw", "r+b") as another:
        qemu("-uuid", UUID, descriptors=(old.fileno(), another.fileno()))
        found = qemu_process.find("web1", UUID)
        what = qemu_process.at(found, str(tmp_path / "a.raw"))
        assert what == open_files.what(os.fstat(old.fileno())) and qemu_process.count(found, what) == 1
        own = sharing.QemuUse(found.pid, what)
        assert ask(tmp_path / "a.raw", own=own) is None and ask(tmp_path / "b.raw", own=own) is not None
        qemu("-uuid", UUID, descriptors=(old.fileno(),))
        assert ask(tmp_path / "a.raw", own=own) is not None


def test_the_device_model_of_a_guest_of_xen_is_left_to_xenstore(qemu, ask, tmp_path):
    (tmp_path / "a.raw").touch()
    with open(tmp_path / "a.raw", "r+b") as written:
        process = qemu("-xen-domid", "5", "-name", "web1", descriptors=(written.fileno(),))
        (found,) = [one for one in open_files.find_qemus() if one.pid == str(process.pid)]
        assert (found.domid, found.name) == ("5", "web1") and ask(tmp_path / "a.raw") is None


def test_this_machine_is_no_host_of_xen():
    assert os.path.exists("/sys/hypervisor/type") or not is_here()
