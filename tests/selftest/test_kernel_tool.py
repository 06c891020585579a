# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The tool of the kernel tier: what a run returns, and what it reports and leaves when a run fails.

Needs root, and builds the newest kernel's system if necessary: tests/setup/units tests/selftest
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

KERNEL = Path(__file__).resolve().parents[1] / "kernel"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="runs kernels, which needs root"),
    pytest.mark.skipif(
        sys.version_info < (3, 11), reason="the tool runs with the Python of Debian 12 and 13"
    ),
]

# A program that replaces the kernel. It asks the test what to do, through an abstract socket.
STAND_IN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file))
        exit(9);
}

int main(void)
{
    struct sockaddr_un address = {AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    char answer = 0;

    strcpy(address.sun_path + 1, NAME);
    if (connect(fd, (void *)&address, sizeof(address.sun_family) + 1 + strlen(NAME))
        || read(fd, &answer, 1) != 1)
        return 8;
    if (answer == 'p') {
        fprintf(stderr, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n");
        abort();
    }
    if (answer == 'f') {
        fprintf(stderr, "userspace - ptrace set fp regs failed, errno = 14\n");
        return 1;
    }
    put("/racefree/out/ready", "");
    put("/racefree/out/stdout", "well\n");
    put("/racefree/out/code", "0\n");
    return 0;
}
"""


@pytest.fixture(scope="session")
def system():
    """The directory of the newest kernel's system."""
    done = subprocess.run([str(KERNEL / "kernel"), "build"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


@pytest.fixture
def cache(system, tmp_path):
    """A cache for the test alone, with that system in it."""
    directory = tmp_path / "cache"
    directory.mkdir()
    (directory / system.name).symlink_to(system)
    return directory


@contextlib.contextmanager
def started(cache, *words, program=("run",), prefix=()):
    environment = dict(os.environ, KERNEL_CACHE=str(cache))
    with subprocess.Popen(
        [*prefix, str(KERNEL / "kernel"), *program, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # It may be ignored, as in what a shell starts in the background.
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def call(cache, *words, **more):
    """(exit code, output, errors)"""
    with started(cache, *words, **more) as process:
        output, errors = process.communicate(timeout=300)
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors


def nothing_left(cache):
    assert list((cache / "runs").iterdir()) == []
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert str(cache) not in file.read()


def test_a_run_returns_output_exit_code_and_files(cache, tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "file").write_text("given")
    code, output, errors = call(
        cache,
        "--push",
        f"{tmp_path}/given:/srv/it's/given",
        "--pull",
        f"/srv/out:{tmp_path}/back",
        "--env",
        "WORD=a b;c",
        "--",
        "sh",
        "-c",
        'cat "/srv/it\'s/given/file"; echo " $WORD $*"; echo oh >&2; mkdir /srv/out; echo made > '
        "/srv/out/x; exit 7",
        "x",
        "it's",
        "$HOME",
    )
    assert (code, output, errors) == (7, "given a b;c it's $HOME\n", "oh\n")
    assert (tmp_path / "back" / "x").read_text() == "made\n"
    nothing_left(cache)


def test_files_written_by_a_run_are_lost(cache, system):
    code, _output, errors = call(
        cache, "sh", "-c", "echo x > /etc/written && echo x > /usr/bin/written && rm /etc/hostname"
    )
    assert code == 0, errors
    assert not (system / "root/etc/written").exists() and not (system / "root/usr/bin/written").exists()
    assert (system / "root/etc/hostname").exists()
    assert call(cache, "ls", "/etc/written")[0] != 0


def test_two_at_once(cache):
    """Each run has its own devices, memory and files."""
    script = (
        "echo up; test ! -e /tmp/mine && touch /tmp/mine && truncate -s 1M /tmp/a && losetup --show -f "
        "/tmp/a && "
        "dmsetup create one --table '0 8 zero' && {}"
    )
    with started(cache, "sh", "-c", script.format("sleep 1000")) as first:
        assert first.stdout.readline() == "up\n" and first.stdout.readline() == "/dev/loop0\n"
        code, output, errors = call(cache, "sh", "-c", script.format("dmsetup ls"))
        assert (code, output.splitlines()[:2]) == (0, ["up", "/dev/loop0"]) and output.splitlines()[
            2
        ].startswith("one"), errors
        assert first.poll() is None
        first.terminate()
        assert first.wait(30) == 143
    nothing_left(cache)


def test_a_panic(cache):
    code, output, errors = call(
        cache,
        "sh",
        "-c",
        'echo "the table 0 8 zero" > $RACEFREE_NOW; echo before; echo c > /proc/sysrq-trigger; sleep 100',
    )
    assert (code, output) == (125, "before\n")
    assert (
        "ended before the command: Kernel panic - not syncing: sysrq triggered crash; it was working on "
        "the table 0 8 zero" in errors
    )
    assert "Call Trace:" in errors
    nothing_left(cache)


def test_a_power_off_before_the_end(cache):
    code, _output, errors = call(cache, "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 100")
    assert code == 125 and "ended before the command: " in errors and "Power down" in errors
    nothing_left(cache)


def test_a_time_limit(cache):
    code, output, errors = call(
        cache,
        "--timeout",
        "12",
        "sh",
        "-c",
        "echo this test > $RACEFREE_NOW; echo before; while :; do :; done",
    )
    assert (code, output) == (
        124,
        "before\n",
    ) and "did not finish within 12 s and was killed; it was working on this test" in errors
    nothing_left(cache)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_that_is_killed(cache, number, code):
    """Nothing keeps running, and nothing is left except, after SIGKILL, files that the next run removes."""
    with started(cache, "sh", "-c", "echo up; sleep 1000") as process:
        assert process.stdout.readline() == "up\n"
        (work,) = (cache / "runs").iterdir()
        space = namespace_of(work)
        assert len(members(space)) > 1
        process.send_signal(number)
        assert process.wait(30) == code
    until = time.monotonic() + 10
    while members(space):
        assert time.monotonic() < until, members(space)
        time.sleep(0.05)
    if number == signal.SIGKILL:
        assert list((cache / "runs").iterdir()) == [work]
        assert call(cache, "true")[0] == 0
    nothing_left(cache)


def processes():
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def namespace_of(work):
    """The process namespace of the run in this directory."""
    for path in processes():
        with contextlib.suppress(OSError):
            if f"{work}/share/guest/enter".encode() in (path / "cmdline").read_bytes().split(b"\0")[1:2]:
                return os.readlink(path / "ns/pid")
    raise AssertionError("the run has no process")


def members(space):
    found = []
    for path in processes():
        with contextlib.suppress(OSError):
            if os.readlink(path / "ns/pid") == space:
                found.append(path.name)
    return found


def test_no_space(tmp_path):
    (tmp_path / "small").mkdir()
    script = f'mount -t tmpfs -o size=20M small {tmp_path}/small && exec "$@"'
    code, _output, errors = call(
        tmp_path / "small", "true", prefix=["unshare", "--mount", "sh", "-c", script, "sh"]
    )
    assert code == 2 and "MiB are free: make room or set KERNEL_CACHE to another directory" in errors


def test_no_memory(cache):
    code, _output, errors = call(cache, "--memory", "65536", "true")
    assert code == 2 and "the kernel needs 65536 MiB of memory" in errors
    nothing_left(cache)


def recipe_names():
    """The names of what the stand-ins replace."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from common import program\nfrom uml.recipe import System\n"
        "print(System('forky').name, System('trixie').name, System('trixie').source.name)\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-B", "-c", script, str(KERNEL), str(KERNEL.parent)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.fixture
def stand_ins(tmp_path):
    """
    A cache with systems whose kernels do what one character says: p (panics), f (does not fit the processor),
    r (runs).
    """
    name = f"racefree-selftest-{os.getpid()}"
    (tmp_path / "linux.c").write_text(STAND_IN)
    program = tmp_path / "linux"
    subprocess.run(
        ["gcc", "-static", f'-DNAME="{name}"', "-o", str(program), str(tmp_path / "linux.c")], check=True
    )
    cache = tmp_path / "cache"
    forky, trixie, source = recipe_names()
    for directory in (f"{forky}.1", f"{trixie}.1"):
        for place in ("proc", "dev/shm", "racefree", "root/site", "usr/bin"):
            (cache / directory / "root" / place).mkdir(parents=True)
        (cache / directory / "meta.json").write_text(json.dumps({"built": 0}))
    os.link(program, cache / f"{forky}.1" / "root/usr/bin/linux.uml")
    (cache / f"{source}.1").mkdir()
    os.link(program, cache / f"{source}.1" / "linux")
    (cache / f"{source}.1" / "meta.json").write_text(json.dumps({"built": 0}))

    def run(answers, *words):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("\0" + name)
            server.listen()
            server.settimeout(60)

            def answer():
                for character in answers:
                    with server.accept()[0] as connection:
                        connection.sendall(character.encode())

            thread = threading.Thread(target=answer)
            thread.start()
            try:
                return call(cache, *words, "true")
            finally:
                thread.join()
                nothing_left(cache)

    return run


def test_a_start_that_ends_in_a_panic_is_tried_again(stand_ins):
    code, output, errors = stand_ins("pr")
    assert (code, output) == (0, "well\n")
    assert (
        "did not start and is tried once more: Kernel panic - not syncing: Attempted to kill init!" in errors
    )


def test_a_kernel_that_does_not_start_here(stand_ins):
    code, _output, errors = stand_ins("ff")
    assert (
        code == 1
        and "the kernel of forky does not start on this machine: userspace - ptrace set fp regs failed, "
        "errno = 14"
        in errors
    )


def test_fallback_to_another_kernel(stand_ins):
    code, output, errors = stand_ins("ppr", "--fallback", "trixie")
    assert (code, output) == (0, "well\n") and "taking Linux 6.12 as a program instead" in errors


def test_neither_starts(stand_ins):
    code, _output, errors = stand_ins("ppff", "--fallback", "trixie")
    assert (
        code == 1
        and "the kernel of forky does not start" in errors
        and "the kernel of trixie does not start" in errors
    )


def test_a_suite_that_cannot_be_installed(stand_ins, tmp_path):
    """As if it were broken today: the build ends, reports it, and leaves only its log."""
    cache = tmp_path / "cache"
    for directory in cache.glob("forky-*"):
        (directory / "meta.json").unlink()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "debootstrap").write_text(
        "#!/bin/sh\necho 'E: Failed getting release file' >&2\nexit 1\n"
    )
    (tmp_path / "bin" / "debootstrap").chmod(0o755)
    os.environ["PATH"], before = f"{tmp_path}/bin:{os.environ['PATH']}", os.environ["PATH"]
    try:
        code, output, errors = stand_ins("r", "--fallback", "trixie")
    finally:
        os.environ["PATH"] = before
    assert (code, output) == (0, "well\n"), errors
    assert (
        "Failed getting release file" in errors
        and "the system of forky could not be built" in errors
        and "instead" in errors
    )
    assert [path.name for path in cache.iterdir() if path.name.startswith((".", "failed"))] == [
        f"failed-{recipe_names()[0]}.log"
    ]
