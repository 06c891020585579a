# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run qemu-img with limits on time, memory and what it may write.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

It parses an image that somebody else has made, so it gets no more than it needs: descriptors instead of
paths, an environment of its own, an address space of limited size (RLIMIT_AS), a limit on each file
(RLIMIT_FSIZE), and no core file. It is killed with this process (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import resource
import selectors
import shutil
import signal
import subprocess

from .._base.deadline import pauses
from .._base.errors import BlockError, KernelError, NotSupported
from .._base.record import Record
from .._process.end import end

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._base.deadline import Deadline
    from .chain import Chain


_NAME = "qemu-img"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# One arena: with one for each thread, most of the address space would be reserved and not used.
_ENVIRONMENT = {"PATH": _PATH, "LC_ALL": "C", "MALLOC_ARENA_MAX": "1", "TMPDIR": "/nonexistent"}
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
# Seconds between two looks. The module's parent process takes a child that does nothing for minutes for one
# that hangs.
_TICK = 0.25
_MOST_OUTPUT = 1 << 20
_PERCENT = re.compile(rb"\(([0-9]+(?:\.[0-9]+)?)/100%\)")
_NO_MEMORY = ("Cannot allocate memory", "failed to allocate", "Resource temporarily unavailable")


class Limits(Record):
    """``memory``: the most bytes of address space; ``deadline``: by when it must have ended."""

    memory: int
    deadline: Deadline


def program() -> str:
    """The path of qemu-img. NotSupported if it is missing."""
    found = shutil.which(_NAME, path=_PATH)
    if found is None:
        raise NotSupported(
            f"{_NAME}, which converts images, is not installed",
            device=_NAME,
            errno=errno.ENOENT,
            hint="Install it (Debian's package is qemu-utils)",
        )
    return found


def virtual_size(chain: Chain, limits: Limits) -> int:
    """The size of the image's disk in bytes, as qemu-img says it. Raises KernelError or DeadlineExceeded."""
    # It does not open backing files, and refuses options for them.
    node = {key: None if key == "backing" else value for key, value in chain.node.items()}
    out = _run(["info", "--output=json", _json(node)], chain, (), 0, limits)
    try:
        return int(json.loads(out)["virtual-size"])
    except (ValueError, KeyError, TypeError) as error:
        raise BlockError(f"the output of {_NAME} info cannot be understood ({error})") from error


def convert(
    chain: Chain, target: int, limits: Limits, on_progress: Callable[[float], object] = lambda percent: None
) -> None:
    """
    Write the image's disk into the open empty file ``target``, which gets the size of the disk.
    ``on_progress``: called with the percentage that is done. Raises KernelError or DeadlineExceeded.
    """
    try:
        os.ftruncate(target, chain.size)
    except OSError as error:
        raise KernelError.from_oserror(error, f"make a file of {chain.size} bytes") from error
    # -n and --target-is-zero: the file is there, and all holes.
    words = ["convert", "-p", "-n", "--target-is-zero", "-t", "writeback", "-O", "raw", _json(chain.node)]
    _run([*words, f"/proc/self/fd/{target}"], chain, (target,), chain.size, limits, on_progress)


def _json(node: dict[str, Any]) -> str:
    return f"json:{json.dumps(node)}"


def _run(
    words: list[str],
    chain: Chain,
    more: tuple[int, ...],
    largest: int,
    limits: Limits,
    on_progress: Callable[[float], object] = lambda percent: None,
) -> bytes:
    """What it prints. ``largest``: the most bytes that a file that it writes may have."""
    done = 0.0

    def on_percent(percent: float) -> None:
        nonlocal done
        done = percent
        on_progress(percent)

    process = _started(words, [*chain.descriptors, *more], largest, limits)
    try:
        out, error = _talk(process, limits.deadline, on_percent)
        if process.returncode is None:
            raise limits.deadline.exceeded(
                f"{_NAME} {words[0]}, of which {done:g} % was done",
                device=chain.files[0][0].path,
                hint="Set a longer timeout. What it had written is removed",
            )
    finally:
        end(process)
    if process.returncode:
        raise _failed(words[0], process.returncode, chain, error)
    return out


def _started(
    words: list[str], descriptors: list[int], largest: int, limits: Limits
) -> subprocess.Popen[bytes]:
    path, parent, libc = program(), os.getpid(), ctypes.CDLL(None)

    def limit() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have ended before that.
        if os.getppid() != parent:
            os._exit(1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    try:
        # This process has one thread; AnsibleModule.run_command sets no limits.
        return subprocess.Popen(  # pylint: disable=subprocess-popen-preexec-fn,ansible-bad-function
            [_NAME, *words],
            executable=path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_ENVIRONMENT,
            pass_fds=descriptors,
            preexec_fn=limit,
            start_new_session=True,
        )
    except OSError as error:
        raise KernelError.from_oserror(error, f"start {path}", device=path) from error
    except subprocess.SubprocessError as error:
        raise KernelError(f"cannot set the limits of {_NAME}: {error}", device=path) from error


def _talk(
    process: subprocess.Popen[bytes], limit: Deadline, on_percent: Callable[[float], object]
) -> tuple[bytes, bytes]:
    """
    What it prints to its standard output and error, until it closes both. Its ``returncode`` stays None if
    the time is over.
    """
    parts: dict[Any, bytes] = {process.stdout: b"", process.stderr: b""}
    with selectors.DefaultSelector() as selector:
        for stream in parts:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            if limit.expired:
                return b"", b""
            for key, dummy in selector.select(min(_TICK, limit.left())):
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                # What does not fit is not kept: only messages and percentages are that long.
                parts[key.fileobj] = (parts[key.fileobj] + piece)[-_MOST_OUTPUT:]
                percents = _PERCENT.findall(piece) if key.fileobj is process.stdout else ()
                if percents:
                    on_percent(float(percents[-1]))
    _wait(process, limit)
    return parts[process.stdout], parts[process.stderr]


def _wait(process: subprocess.Popen[bytes], limit: Deadline) -> None:
    for pause in pauses():
        if process.poll() is not None or limit.expired:
            return
        limit.sleep(pause)


def _failed(word: str, status: int, chain: Chain, output: bytes) -> KernelError:
    text = chain.paths_shown(output.decode(errors="replace")).strip().replace(f"{_NAME}: ", "")
    text = "; ".join(line.strip() for line in text.splitlines() if line.strip())[-1000:]
    number, hint = None, "Look at the image (qemu-img check). No image was made from it"
    if "No space left on device" in text:
        number, hint = errno.ENOSPC, "Make room there, and try again. What it had written is removed"
    elif any(word in text for word in _NO_MEMORY):
        number, hint = errno.ENOMEM, "Raise the option memory. What it had written is removed"
    elif status < 0:
        text = f"it was killed by {signal.Signals(-status).name}" + (f": {text}" if text else "")
    return KernelError(
        f"{_NAME} {word} failed: {text or f'status {status}'}",
        device=chain.files[0][0].path,
        errno=number,
        hint=hint,
    )
