# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The BPF program that refuses opens of sealed devices, assembled here, so that no compiler is needed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. The kernel runs programs of type CGROUP_DEVICE at every open of a device, including its own opens
(devcgroup_inode_permission, called from inode_permission, and bdev_open), and at mknod(2). Returning 0
refuses with EPERM. The context is ``struct bpf_cgroup_dev_ctx``: access_type (access << 16 | type), major,
minor.
"""

from __future__ import annotations

import struct

from . import entry

# Raise VERSION with every change of the instructions. The kernel shows NAME, at most 15 characters, so that a
# host's program can be identified.
VERSION = 2
PREFIX = "racefree_seal_"
NAME = f"{PREFIX}{VERSION}"

_INSTRUCTION = struct.Struct("=BBhi")
_BLOCK, _MKNOD = 1, 1
# include/uapi/linux/bpf.h: helper functions, and the source register that marks a map address.
_LOOKUP, _KTIME, _PID_TGID, _COMM = 1, 5, 14, 16
_PSEUDO_MAP_FD = 1
R0, R1, R2, R6, R7, R8, FRAME = 0, 1, 2, 6, 7, 8, 10
# Stack offsets from FRAME: the key of a pass (process and thread, then the device number, which alone is the
# key of a seal), and a thread's name.
_PASS_KEY, _NUMBER, _NAME = -16, -8, -32
_ALLOW, _REFUSE = "allow", "refuse"


class _Code:
    """A sequence of instructions. Jumps go forward, to labels."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int | str, int]] = []
        self._labels: dict[str, int] = {}

    def add(
        self, opcode: int, destination: int = 0, source: int = 0, offset: int | str = 0, value: int = 0
    ) -> None:
        self._rows.append((opcode, destination, source, offset, value))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._rows)

    def encoded(self) -> bytes:
        """Encode each instruction as struct bpf_insn: opcode, registers, offset, value."""
        parts = []
        for place, (opcode, destination, source, offset, value) in enumerate(self._rows):
            jump = self._labels[offset] - place - 1 if isinstance(offset, str) else offset
            parts.append(_INSTRUCTION.pack(opcode, destination | source << 4, jump, value))
        return b"".join(parts)

    # The instructions in use (Documentation/bpf/standardization/instruction-set.rst).
    def set(self, register: int, value: int) -> None:
        self.add(0xB7, register, value=value)

    def copy(self, register: int, source: int) -> None:
        self.add(0xBF, register, source)

    def read_word(self, register: int, base: int, offset: int) -> None:
        self.add(0x61, register, base, offset)

    def read_double(self, register: int, base: int, offset: int) -> None:
        self.add(0x79, register, base, offset)

    def write_word(self, base: int, offset: int, source: int) -> None:
        self.add(0x63, base, source, offset)

    def write_double(self, base: int, offset: int, source: int) -> None:
        self.add(0x7B, base, source, offset)

    def address(self, register: int, offset: int) -> None:
        """Set the register to the address of a stack slot."""
        self.copy(register, FRAME)
        self.add(0x07, register, value=offset)

    def call(self, helper: int) -> None:
        self.add(0x85, value=helper)

    def look_up(self, map_fd: int, key: int) -> None:
        """Set R0 to the address of the map value of the key on the stack, or to 0."""
        self.add(0x18, R1, _PSEUDO_MAP_FD, 0, map_fd)
        self.add(0)  # the second half of the address
        self.address(R2, key)
        self.call(_LOOKUP)

    def answer(self, value: int) -> None:
        self.set(R0, value)
        self.add(0x95)


def build(seals_fd: int, passes_fd: int) -> bytes:
    """Assemble the program for the maps with these descriptors; 8 bytes per instruction."""
    code = _Code()
    _look_for_seal(code, seals_fd)
    _look_for_pass(code, passes_fd)
    code.label(_REFUSE)
    code.set(R1, 1)
    code.add(0xDB, R7, R1, entry.REFUSED_AT)  # atomic 64-bit addition
    code.answer(0)
    code.label(_ALLOW)
    code.answer(1)
    return code.encoded()


def _look_for_seal(code: _Code, seals_fd: int) -> None:
    """
    Allow if the device is not sealed. Otherwise continue with the seal's address in R7, the context in R6,
    and the device number on the stack.
    """
    code.copy(R6, R1)
    code.read_word(R1, R6, 0)
    code.copy(R2, R1)
    code.add(0x57, R2, value=0xFFFF)
    code.add(0x55, R2, offset=_ALLOW, value=_BLOCK)
    # Always allow mknod: the next device with this number needs its node.
    code.add(0x77, R1, value=16)
    code.add(0x45, R1, offset=_ALLOW, value=_MKNOD)
    for place, offset in ((_NUMBER, 4), (_NUMBER + 4, 8)):
        code.read_word(R1, R6, offset)
        code.write_word(FRAME, place, R1)
    code.look_up(seals_fd, _NUMBER)
    code.add(0x15, R0, offset=_ALLOW, value=0)
    code.copy(R7, R0)


def _look_for_pass(code: _Code, passes_fd: int) -> None:
    """Allow if this thread has a valid pass for the device. Otherwise continue."""
    code.call(_PID_TGID)
    code.write_double(FRAME, _PASS_KEY, R0)
    code.look_up(passes_fd, _PASS_KEY)
    code.add(0x15, R0, offset=_REFUSE, value=0)
    code.copy(R8, R0)
    # bpf_get_current_comm may leave what follows the end of a short name as it was (seen on 6.1, x86-64).
    code.set(R1, 0)
    for part in (0, 8):
        code.write_double(FRAME, _NAME + part, R1)
    code.address(R1, _NAME)
    code.set(R2, entry.NAME_SIZE)
    code.call(_COMM)
    for part in (0, 8):
        code.read_double(R1, R8, entry.PASS_NAME_AT + part)
        code.read_double(R2, FRAME, _NAME + part)
        code.add(0x5D, R1, R2, _REFUSE)
    code.call(_KTIME)
    code.read_double(R1, R8, entry.PASS_END_AT)
    code.add(0x3D, R1, R0, _ALLOW)
