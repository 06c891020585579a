# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Create mapped devices over a loop device whose file is constantly replaced: a small run of swap.py.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time

import pytest
import swap
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceGone,
    KernelError,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import bind, loop
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from ansible_collections.racefree.block.plugins.module_utils._dm import load, names, reload
from ansible_collections.racefree.block.plugins.module_utils._dm import mapped as _mapped
from ansible_collections.racefree.block.plugins.module_utils._kernel import uapi
from ansible_collections.racefree.block.plugins.module_utils._source import opener, resources, slots

TRIES = 300


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return swap.swap(TRIES, 20, directory=str(tmp_path_factory.mktemp("swap")))


@pytest.mark.parametrize("way", ["diskseq", "path and diskseq", "file"])
def test_never_the_wrong_device(rows, way):
    row = rows[way]
    assert row["tries"] == TRIES // 3, swap.summary(rows)
    assert row["wrong"] == 0 and row["gone"] == 0, swap.summary(rows)


@pytest.mark.rotated
@pytest.mark.processors
@pytest.mark.gate("trixie")
def test_the_adversary_is_at_work(rows, capsys):
    """If the file were not replaced, nothing would be refused. But not everything may be refused."""
    with capsys.disabled():
        print(f"\n{swap.summary(rows)}")
    assert rows["diskseq"]["refused"] and rows["path and diskseq"]["refused"], swap.summary(rows)
    assert rows["diskseq"]["right"] + rows["path and diskseq"]["right"], swap.summary(rows)
    assert rows["file"]["right"], swap.summary(rows)
    assert rows["dmsetup"]["tries"] == 20


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("exists", [False, True])
def test_a_device_that_changes_after_it_was_looked_up(image, name, control, other, exists):
    """
    Force what the adversary achieves only sometimes: only the table's own lookup holds the loop device when
    its file is detached.
    """
    row = {"start": 0, "length": 8, "target": "linear", "offset": 0}
    # Without a file, some kernels load the table and others reject it themselves.
    error = (DeviceGone, KernelError)
    with resources.Resources() as host:
        with _backing.Backing(image("old.raw", swap.SIZE)) as backing:
            device = host.enter_context(bind.attach(backing))
        loop_fd = os.open(device.path, os.O_RDWR)
        loop.set_autoclear(device, False)
        table = slots.Slots(host).make(
            [dict(row, device={"path": device.path, "diskseq": device.id.diskseq})],
            False,
            opener.Opener(host),
        )
        assert [held.id for held in table.held] == [device.id]
        mapped = None
        if exists:
            mapped = host.enter_context(
                _mapped.make(
                    control,
                    name,
                    names.new_uuid(),
                    load.Table(((0, 8, b"zero", b""),)),
                    host.cookie.next(),
                    persist=False,
                )
            )
        # With only one open descriptor, LOOP_CLR_FD detaches the file at once and not at the last close.
        os.close(loop_fd)
        device.close()
        _clear(table.held[0])
        if other:
            other = _configure(table.held[0].fd, image("new.raw", swap.SIZE))
            error = WrongDevice if other else (DeviceGone, KernelError)
        try:
            with pytest.raises(error):
                if exists:
                    reload.reload(control, mapped, table, host.cookie)
                else:
                    _mapped.make(control, name, names.new_uuid(), table, host.cookie.next())
            if exists:
                status = control.status(_control.by_device(mapped))
                assert not status.suspended and not status.has_inactive_table
                assert control.table(_control.by_device(mapped))[1][0].type == b"zero"
            else:
                assert name not in [entry.name.decode() for entry in control.list_devices()]
        finally:
            if other:
                _clear(table.held[0])


def _clear(held):
    """Detach the file and wait until that is done; udev can delay it by having the device open."""
    until = time.monotonic() + 30
    with contextlib.suppress(DeviceGone):
        while time.monotonic() < until:
            fcntl.ioctl(held.fd, uapi.lib.LOOP_CLR_FD, 0)
            loop.info(held)
            time.sleep(0.02)
    with pytest.raises(DeviceGone):
        loop.info(held)


def _configure(fd, path):
    """
    Attach a file to the held loop device; return whether the kernel does so. Linux 6.11 and newer wait until
    nobody has it open.
    """
    config = uapi.ffi.new("struct loop_config *")
    with open(path, "r+b") as file:
        config.fd = file.fileno()
        try:
            fcntl.ioctl(fd, uapi.lib.LOOP_CONFIGURE, uapi.ffi.buffer(config))
        except OSError as error:
            assert error.errno == errno.EBUSY
            return False
    return True
