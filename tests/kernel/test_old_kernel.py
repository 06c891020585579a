# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A kernel without disk sequence numbers (before Linux 5.15): on the real kernel, a seccomp filter makes
BLKGETDISKSEQ fail as it does there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import traceback

import pytest
from ansible_collections.racefree.block.plugins.module_utils._kernel import uapi
from conftest import Failed, run_module

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2  # linux/prctl.h, linux/seccomp.h
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
NR, REQUEST = 0, 24  # offsets of nr and of the lower half of args[1] in struct seccomp_data
NR_IOCTL = {"x86_64": 16, "aarch64": 29}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def forget_diskseq():
    """From now on, BLKGETDISKSEQ fails with ENOTTY in this process and its children."""
    steps = (
        (LOAD, 0, 0, NR),
        (JUMP_IF_EQUAL, 0, 3, NR_IOCTL[os.uname().machine]),
        (LOAD, 0, 0, REQUEST),
        (JUMP_IF_EQUAL, 0, 1, uapi.lib.BLKGETDISKSEQ),
        (RETURN, 0, 0, ERRNO | errno.ENOTTY),
        (RETURN, 0, 0, ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "prctl")


@pytest.mark.parametrize(
    "module, arguments",
    [
        ("loop_device", {"backing_file": "FILE"}),
        ("dm_device", {"name": "NAME", "table": ["0 8 zero"]}),
        (
            "dm_device",
            {
                "name": "NAME",
                "table": [
                    {"start": 0, "length": 8, "target": "linear", "device": {"file": "FILE"}, "offset": 0}
                ],
            },
        ),
        ("dm_device", {"name": "NAME", "table": ["0 8 linear file:FILE 0"]}),
        pytest.param(
            "xen_vbd",
            {"domain": "oldkernel", "vdev": "xvdc", "source": {"file": "FILE"}},
            marks=[pytest.mark.xen, pytest.mark.gate("bookworm")],
        ),
    ],
    ids=("loop", "zero", "linear", "text", "vbd"),
)
def test_every_module_that_makes_devices_reports_it(module, arguments, image, name, request):
    if module == "xen_vbd":
        request.getfixturevalue("oldkernel_guest")
    arguments = _filled(arguments, {"FILE": image(), "NAME": name})
    child = os.fork()
    if not child:
        code = 1
        try:
            forget_diskseq()
            with pytest.raises(Failed, match=r"5\.15"):
                run_module(module, **arguments)
            code = 0
        except BaseException:  # pylint: disable=broad-exception-caught
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture(scope="module")
def oldkernel_guest():
    subprocess.run(["xenguest", "start", "oldkernel"], check=True)
    yield "oldkernel"
    subprocess.run(["xenguest", "stop", "oldkernel"], check=True)


def _filled(value, words):
    if isinstance(value, dict):
        return {key: _filled(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, words) for item in value]
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(word, text)
    return value
