# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The file system of names by disk sequence number, used wrongly or on a broken host: each case ends with a
clear errno or message, and nothing is stuck afterwards. More of this is in test_by_diskseq.py.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from names_service import diskseq_of, service, wait_for
from test_by_diskseq import PROGRAM, errno_of, loop, mapped, names, run_service, silent, state_of

pytest.importorskip("pyfuse3")

# Fixtures of another file.
__all__ = ["loop", "mapped", "names", "silent"]
# The number of lookups of what is not there.
MISSING = int(os.environ.get("RACEFREE_MISSING", "1000"))


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The service has ended with one line that contains the words."""
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize("what", ["by-diskseq", "identity"])
def test_without_fuse_it_says_so(what, tmp_path):
    options = (what, "--mount", str(tmp_path / "mount"), "--state", str(tmp_path / "state"))
    os.rename("/dev/fuse", "/dev/fuse-hidden")
    try:
        refused(run_service(*options), "FUSE is not available", "modprobe fuse")
    finally:
        os.rename("/dev/fuse-hidden", "/dev/fuse")
    assert not os.path.exists(tmp_path / "mount")


def test_without_its_library_it_says_so(tmp_path):
    program = f"import sys; sys.modules['pyfuse3'] = None\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, "by-diskseq", "--mount", str(tmp_path / "mount")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    refused(done, "pyfuse3 cannot be imported", "python3-pyfuse3")


def test_a_mount_point_in_use_is_left_alone(tmp_path):
    place = tmp_path / "mount"
    place.mkdir()
    (place / "file").touch()
    refused(
        run_service("by-diskseq", "--mount", str(place), "--state", str(tmp_path / "state")),
        "is not empty",
        str(place / "file"),
    )
    assert (place / "file").exists()
    refused(run_service("by-diskseq", "--mount", "relative"), "absolute path")


def test_a_suspended_device_has_its_name(names, mapped):
    """Opening a suspended mapped device does not wait, so neither does a lookup."""
    node = f"/dev/mapper/{mapped}"
    number = diskseq_of(node)
    subprocess.run(["dmsetup", "suspend", mapped], check=True)
    try:
        assert errno_of(names.path(number)) == "" and str(number) in os.listdir(names.mount)
    finally:
        subprocess.run(["dmsetup", "resume", mapped], check=True)
    assert names.no_pins()


def test_killed_during_a_lookup_that_waits(silent, loop):
    """The caller gets an error at once, and the next service serves the other disks."""
    with open(f"/sys/block/{os.path.basename(silent)}/diskseq", encoding="ascii") as file:
        number = int(file.read())
    with service() as names:
        waiting = subprocess.Popen(["stat", names.path(number)], stderr=subprocess.PIPE, text=True)
        wait_for(lambda: waiting.poll() is not None or is_sleeping(waiting.pid))
        assert waiting.poll() is None
        names.kill()
        dummy, said = waiting.communicate(timeout=60)
        assert any(os.strerror(code) in said for code in (errno.ENOTCONN, errno.ECONNABORTED)), said
        names.start()
        assert errno_of(names.path(diskseq_of(loop))) == "" and names.no_pins()


def is_sleeping(pid: int) -> bool:
    return state_of(pid) in "SD"


def test_many_lookups_of_what_is_not_there(names, loop):
    """Numbers that no disk has yet, numbers of old disks, and partitions."""
    number = diskseq_of(loop)
    missing = [2**63, number + 1000, f"{number}p4", f"{number}-part99"]
    size = memory_of(names.pid)
    for count in range(MISSING):
        name = missing[count % len(missing)]
        assert errno_of(names.path(name + count if isinstance(name, int) else name)) == "ENOENT"
    assert errno_of(names.path(number)) == ""
    assert names.no_pins() and memory_of(names.pid) < size + 4096


def memory_of(pid: int) -> int:
    """KiB of memory of the process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(next(line.split()[1] for line in file if line.startswith("VmRSS")))


def test_exhausted_it_serves_again_when_names_are_closed(loop):
    """The names that are held stay usable, and lookups that were refused hold nothing."""
    number = diskseq_of(loop)
    with service("--limit", "1", "--grace-ms", "0") as few:
        handle = os.open(few.path(number), os.O_PATH)
        for dummy in range(200):
            assert errno_of(few.path(f"{number}p1")) == "ENFILE"
        assert errno_of(few.path(number)) == "" and few.pins() == [loop]
        assert str(number) in os.listdir(few.mount)
        os.close(handle)
        assert few.no_pins() and errno_of(few.path(f"{number}p1")) == ""
