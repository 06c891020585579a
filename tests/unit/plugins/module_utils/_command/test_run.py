# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands as real processes."""

from __future__ import annotations

import os
import subprocess
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError
from ansible_collections.racefree.block.plugins.module_utils._command import run as _run

SH = "/bin/sh"


def run(script, seconds=30, program=SH, on_started=lambda pid: (), **more):
    job = _run.Job(program, ["sh", "-c", script], dict(os.environ), **more)
    return _run.run(job, seconds, on_started)


@pytest.fixture(autouse=True)
def nothing_left():
    """No test leaves a descriptor or a child."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before
    assert _run._children() == set()


def is_running(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_output_exit_code_and_times():
    ended = run("echo out; echo err >&2; exit 3")
    assert (ended.rc, ended.stdout, ended.stderr, ended.error) == (3, b"out\n", b"err\n", None)
    assert time.time() - 30 < ended.start <= ended.end <= time.time()
    assert run("kill -9 $$").rc == -9


def test_input_output_and_environment(tmp_path):
    big = os.urandom(3 * 2**20)
    ended = run("cat; cat /dev/null >&2", stdin=big)
    assert ended.stdout == big
    assert run("cat").stdout == b""
    # A command that does not read its input.
    assert run("true", stdin=big).rc == 0
    assert run("pwd", directory=str(tmp_path)).stdout.decode() == f"{tmp_path}\n"
    job = _run.Job(SH, ["sh", "-c", "echo $RACEFREE"], {"RACEFREE": "yes"})
    assert _run.run(job, 30).stdout == b"yes\n"


def test_only_the_given_descriptors_are_inherited():
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        script = f"for fd in {reader} {writer}; do [ -e /proc/$$/fd/$fd ] && echo $fd; done"
        assert run(script, inherited=[reader]).stdout == b"%d\n" % reader
    finally:
        os.close(reader)
        os.close(writer)


def test_it_is_the_leader_of_a_session_of_its_own():
    words = run("cat /proc/$$/stat").stdout.split()
    assert words[0] == words[4] == words[5]


@pytest.mark.parametrize(
    "script",
    [
        "sleep 60",
        "sleep 60 & sleep 60",
        # A process that has left the session and the process group, and one whose parent has ended.
        "setsid sleep 60 & sleep 60",
        "(setsid setsid sh -c 'sleep 60 & sleep 60' &) ; sleep 60",
        # A process that ignores SIGTERM, and one that has closed its output.
        "trap '' TERM; sleep 60; sleep 60",
        "exec >&- 2>&-; sleep 60",
        "yes",
    ],
)
def test_after_the_time_nothing_is_left(script, tmp_path):
    listing = tmp_path / "pids"
    ended = run(f"echo $$ > {listing}; echo begun; {script}", seconds=0.7)
    assert ended.rc is None and "timed out after 0.7 s waiting for sh to end" in str(ended.error)
    assert ended.stdout.startswith(b"begun\n") or "exec >&-" in script
    assert not is_running(listing.read_text().strip())
    # Whatever it had started would be a child of this process by now: nothing_left looks for these.


def test_a_process_of_the_caller_is_not_ended_with_the_command():
    """Such as the one that holds the devices, for a process of the command that still waits in the kernel."""
    started = []

    def start(pid):
        started.append(subprocess.Popen(["sleep", "60"]))
        return [started[0].pid]

    ended = run("exec sleep 60", 0.3, on_started=start)
    try:
        assert ended.error is not None and started[0].poll() is None
    finally:
        started[0].kill()
        started[0].wait()


def test_a_command_that_cleans_up_when_it_is_told_to_end():
    ended = run("trap 'echo cleaned; exit 0' TERM; sleep 60 & wait", seconds=0.5)
    assert ended.error is not None and ended.stdout == b"cleaned\n"


def test_a_process_in_the_background_goes_on_and_is_not_waited_for():
    begun = time.monotonic()
    ended = run("sleep 60 & echo $!")
    pid = ended.stdout.decode().strip()
    assert ended.rc == 0 and time.monotonic() - begun < 30 and is_running(pid)
    os.kill(int(pid), 9)
    os.waitpid(int(pid), 0)


def test_an_error_after_the_start_ends_the_command():
    started = []

    def fail(pid):
        started.append(pid)
        raise KernelError("no")

    with pytest.raises(KernelError, match="no"):
        run("sleep 60", on_started=fail)
    assert not is_running(str(started[0]))


def test_what_cannot_be_started(tmp_path):
    text = tmp_path / "text"
    text.write_text("#!/no/such/interpreter\n")
    text.chmod(0o755)
    with pytest.raises(KernelError, match=f"cannot start {text}"):
        run("", program=str(text))
