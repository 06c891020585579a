# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
bpf(2): maps, a program, links, and pinning in a file system of type bpf.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Each command takes ``union bpf_attr`` (include/uapi/linux/bpf.h). The struct formats below cover the members
in use. Functions raise OSError, and callers interpret it. File descriptors are ints that the caller closes.
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterator
from typing import Any

from ..._base.errors import NotSupported
from ..._kernel import uapi, uapi_cffi

# arch/*/entry/syscalls/*.tbl, include/uapi/asm-generic/unistd.h.
_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
# enum bpf_cmd
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT = 0, 1, 2, 3, 4
_PROG_LOAD, _OBJ_PIN, _OBJ_GET, _PROG_BY_ID, _OBJ_INFO = 5, 6, 7, 13, 15
_LINK_CREATE, _LINK_UPDATE, _LINK_DETACH = 28, 29, 34
_MAP_TYPE_HASH = 1
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_MAP_ATTR = struct.Struct("=IIIIIII16s")
_ELEMENT_ATTR = struct.Struct("=I4xQQQ")
_PROG_ATTR = struct.Struct("=IIQQIIQII16s")
_NAME_ATTR = struct.Struct("=QII")
_INFO_ATTR = struct.Struct("=IIQ")
_LINK_ATTR = struct.Struct("=IIII")
# struct bpf_link_info up to cgroup.cgroup_id, and struct bpf_prog_info up to name.
_LINK_INFO = struct.Struct("=4x4xI4xQ")
_PROG_INFO = struct.Struct("=64x16s")


class Map:
    """
    A BPF hash map, held by the file descriptor ``fd``. Keys and values are bytes of ``key_size`` and
    ``value_size``.
    """

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self.fd = fd
        self.key_size = key_size
        self.value_size = value_size

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def get(self, key: bytes) -> bytes | None:
        """The value of the key, or None if the key is missing."""
        value = bytearray(self.value_size)
        return bytes(value) if self._call(_MAP_LOOKUP, key, value) else None

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of the key. OSError with E2BIG if the map is full."""
        _call(_MAP_UPDATE, _ELEMENT_ATTR, self.fd, _at(key), _at(value), 0)

    def remove(self, key: bytes) -> bool:
        """Remove the key; return whether it was there."""
        return self._call(_MAP_DELETE, key, None)

    def keys(self) -> list[bytes]:
        """All keys. Keys that are added or removed during the call may be missing."""
        return list(self._walk())

    def _walk(self) -> Iterator[bytes]:
        key, following = None, bytearray(self.key_size)
        seen = set()
        while self._call(_MAP_NEXT, key, following):
            key = bytes(following)
            # If the last key was removed meanwhile, the kernel starts again at the first key.
            if key not in seen:
                seen.add(key)
                yield key

    def _call(self, command: int, key: bytes | None, other: bytearray | None) -> bool:
        """Call bpf(2) with a key; return whether the key was found."""
        try:
            _call(command, _ELEMENT_ATTR, self.fd, _at(key) if key else 0, _at(other) if other else 0, 0)
        except FileNotFoundError:
            return False
        return True


def create_map(name: str, key_size: int, value_size: int, entries: int) -> Map:
    """Create a hash map. All ``entries`` are preallocated, so that no insert fails for lack of memory."""
    fields = (_MAP_TYPE_HASH, key_size, value_size, entries, 0, 0, 0, name.encode("ascii"))
    return Map(_call(_MAP_CREATE, _MAP_ATTR, *fields), key_size, value_size)


def load_program(name: str, code: bytes) -> int:
    """
    Load a program of type CGROUP_DEVICE and return its descriptor. ``code`` is an array of struct bpf_insn, 8
    bytes each. Loading fails if the kernel's verifier rejects it.
    """
    fields = (
        _PROG_TYPE_CGROUP_DEVICE,
        len(code) // 8,
        _at(code),
        _at(b"GPL\0"),
        0,
        0,
        0,
        0,
        0,
        name.encode("ascii"),
    )
    return _call(_PROG_LOAD, _PROG_ATTR, *fields)


def create_link(program: int, cgroup: int) -> int:
    """
    Attach the program to the cgroup, for all processes in it; return the link's descriptor. The program is
    detached when the link is freed.
    """
    return _call(_LINK_CREATE, _LINK_ATTR, program, cgroup, _ATTACH_CGROUP_DEVICE, 0)


def update_link(link: int, program: int) -> None:
    """Replace the link's program atomically: at every moment one of the two is attached."""
    _call(_LINK_UPDATE, _LINK_ATTR, link, program, 0, 0)


def detach_link(link: int) -> None:
    """Detach the link's program, even if others still hold the link open."""
    _call(_LINK_DETACH, _LINK_ATTR, link, 0, 0, 0)


def pin(fd: int, path: str) -> None:
    """Pin a map or link at the path, so that it outlives its descriptors."""
    _call(_OBJ_PIN, _NAME_ATTR, _at(os.fsencode(path) + b"\0"), fd, 0)


def get_pinned(path: str) -> int:
    """Open the object pinned at the path and return its descriptor. FileNotFoundError if there is none."""
    return _call(_OBJ_GET, _NAME_ATTR, _at(os.fsencode(path) + b"\0"), 0, 0)


def link_info(link: int) -> tuple[int, int]:
    """``(id of the program, id of the cgroup)``; the cgroup is 0 when the link is detached."""
    info = bytearray(64)
    _call(_OBJ_INFO, _INFO_ATTR, link, len(info), _at(info))
    program, cgroup = _LINK_INFO.unpack_from(info)
    return program, cgroup


def program_name(identity: int) -> str:
    """The name of the program with this id. FileNotFoundError if there is no such program any more."""
    program = _call(_PROG_BY_ID, _LINK_ATTR, identity, 0, 0, 0)
    try:
        info = bytearray(_PROG_INFO.size)
        _call(_OBJ_INFO, _INFO_ATTR, program, len(info), _at(info))
    finally:
        os.close(program)
    name: bytes = _PROG_INFO.unpack(info)[0]
    return name.partition(b"\0")[0].decode("ascii", "replace")


def _call(command: int, form: struct.Struct, *fields: Any) -> int:
    """
    Call bpf(2) and return its result, 0 or more. ``fields`` are the members of the attributes: numbers, the
    object's name as bytes, and pointers made by :func:`_at`. OSError.
    """
    number = _number()
    ffi, library = c_library()
    words = [int(ffi.cast("uintptr_t", field)) if isinstance(field, ffi.CData) else field for field in fields]
    attributes = form.pack(*words)
    size = ffi.cast("long", len(attributes))
    result: int = library.syscall(number, ffi.cast("long", command), ffi.from_buffer(attributes), size)
    if result < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    return result


def _at(buffer: bytes | bytearray) -> Any:
    """A pointer to the buffer, valid as long as the pointer object is referenced."""
    return c_library()[0].from_buffer(buffer)


def c_library() -> tuple[Any, Any]:
    """cffi's ``ffi`` and the C library bound by it. NotSupported if cffi is missing."""
    uapi.require()
    return uapi_cffi.ffi, uapi.lib


def _number() -> int:
    machine = platform.machine()
    if machine not in _NUMBERS or struct.calcsize("P") != 8:
        raise NotSupported(
            f"devices cannot be sealed on {machine}",
            hint=f"Supported are {', '.join(sorted(_NUMBERS))}, with 64 bits",
        )
    return _NUMBERS[machine]
