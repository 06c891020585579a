# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What is on a device or in a file before swap overwrites it, as blkid(8) finds it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import subprocess

from .._base.deadline import Deadline
from .._base.errors import DeviceBusy, KernelError, NotSupported
from .._block import image_format
from .._block.in_time import each_in_time
from .._process.end import end

_NAME = "blkid"
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_SECONDS = 30.0
# Exit codes of blkid(8). It is also _NOTHING if nothing could be read.
_FOUND, _NOTHING, _SEVERAL = 0, 2, 8
# Another swap area may be overwritten. That it is not in use is checked elsewhere.
_OWN = "swap"


def refuse(fd: int, path: str) -> None:
    """
    Raise DeviceBusy if the open device or file contains a known format other than swap. ``path`` is for
    messages. Raises KernelError, DeadlineExceeded, NotSupported.
    """
    what = found(fd, path)
    if what is not None:
        raise DeviceBusy(
            f"it contains something that swap would overwrite: {what}",
            device=path,
            hint="If nobody needs it (encrypted data can look like this by accident): wipefs --all "
            f"{path}, or set overwrite: true of the area. Otherwise give the area another device or file",
        )


def found(fd: int, path: str) -> str | None:
    """Describe what is in the open device or file; None for swap, and if no format is known."""
    image = _image(fd, path)
    if image is not None:
        return f"a disk image of the format {image}"
    code, text, complaint = _probe(fd, path)
    if code == _NOTHING and not complaint:
        return None
    if code == _SEVERAL:
        return "several formats at once"
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    if code != _FOUND:
        raise KernelError(
            f"{_NAME} cannot tell what it contains ({complaint or f'status {code}'})",
            device=path,
            hint="Look for the device's error in the kernel's log (dmesg)",
        )
    names = [values["TYPE"]] if values.get("TYPE") not in (None, _OWN) else []
    if "PTTYPE" in values:
        names.append(f"a partition table ({values['PTTYPE']})")
    return " and ".join(names) or None


def _image(fd: int, path: str) -> str | None:
    """
    The format of a disk image. Unlike blkid, this tells if nothing can be read. DeadlineExceeded if the
    storage does not answer.
    """
    limit = Deadline(_SECONDS)
    # The process that reads inherits no file descriptor. This one keeps the device, so its number is pinned.
    place = f"/proc/{os.getpid()}/fd/{fd}"
    [(dummy, answered, image)] = each_in_time(lambda found: _read_image(found, path), [place], limit.left())
    if not answered:
        raise limit.exceeded(
            "the storage to answer, to look at what it contains",
            device=path,
            hint="Look at the devices below it (dmsetup info, multipath -ll), and for errors in dmesg",
        )
    found: str | None = image
    return found


def _read_image(place: str, path: str) -> str | None:
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # What an area has written went past the device's cache, in which older contents may still be.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            size = os.lseek(fd, 0, os.SEEK_END)
            start = image_format.tail_of(size)
            head = os.pread(fd, image_format.HEAD, 0)
            return image_format.format_of(head, os.pread(fd, image_format.TAIL, start), start)
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError.from_oserror(error, "look at what it contains", device=path) from error


def _probe(fd: int, path: str) -> tuple[int, str, str]:
    """The exit code, the output and the complaints of blkid about the open device or file."""
    limit = Deadline(_SECONDS)
    words = [_NAME, "--probe", "--output", "export", f"/proc/self/fd/{fd}"]
    try:
        # There is no AnsibleModule here: this runs at boot.
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_ENVIRONMENT,
            pass_fds=[fd],
        )
    except FileNotFoundError as error:
        raise NotSupported(
            f"{_NAME} is not installed, so it is not known what would be overwritten",
            device=path,
            hint="Install util-linux",
        ) from error
    except OSError as error:
        raise KernelError.from_oserror(error, f"start {_NAME}", device=path) from error
    try:
        output, complaint = process.communicate(timeout=limit.left())
    except subprocess.TimeoutExpired as error:
        raise limit.exceeded(f"{_NAME} to look at what it contains", device=path) from error
    finally:
        end(process)
    return process.returncode, output.decode(errors="replace"), complaint.decode(errors="replace").strip()
