# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Extracts the kernel from a bzImage, so that Xen and xl need not decompress it under emulation at each boot.
"""

from __future__ import annotations

import lzma
import struct
import subprocess
import zlib

from common import needs
from common.errors import Failed


def vmlinux(image):
    """
    The ELF file inside the bzImage ``image`` (both bytes).

    The header is described in the kernel's Documentation/arch/x86/boot.rst: setup_sects at 0x1f1,
    payload_offset and payload_length at 0x248, counted from the start of the protected-mode code.
    """
    if image[0x202:0x206] != b"HdrS":
        raise Failed("the kernel of the image is not a bzImage")
    start = ((image[0x1F1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[start + offset : start + offset + length]
    if payload.startswith(b"\xfd7zXZ"):
        data = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    elif payload.startswith(b"\x1f\x8b"):
        data = zlib.decompressobj(31).decompress(payload)
    elif payload.startswith(b"\x28\xb5\x2f\xfd"):
        # The last four bytes are the size; zstd fails with them.
        done = subprocess.run(
            ["zstd", "-dcq"],
            input=payload[:-4],
            stdout=subprocess.PIPE,
            check=False,
            env={"PATH": needs.SEARCH},
        )
        data = done.stdout
    else:
        raise Failed(
            f"the kernel of the image has an unknown compression format: it starts with {payload[:6].hex()}"
        )
    if not data.startswith(b"\x7fELF"):
        raise Failed("the kernel of the image did not decompress to an ELF file")
    return data
