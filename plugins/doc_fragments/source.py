# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of a source as structured data, wherever an option takes one."""

from __future__ import annotations

from ansible_collections.racefree.block.plugins.plugin_utils._fragments import keys_as

_SOURCE = r"""
options:
  source:
    type: raw
    suboptions:
      diskseq:
        description:
          - The disk that has this disk sequence number. As text, V(diskseq:42).
          - Beside O(source.path), this is a check. The device at the path must have this number.
        type: int
      boot_id:
        description:
          - ID of the boot in which O(source.diskseq) is valid, as it was returned together with the number. A
            number of another boot is refused. As text, V(diskseq:42@BOOT).
        type: str
      path:
        description:
          - Absolute path of a block device. As text, the path itself or V(path:/dev/vg/a).
        type: str
      file:
        description:
          - Absolute path of a regular file. The device is a loop device for it, which is created if it does
            not exist. As text, V(file:/srv/a.raw).
          - A file that begins with the signature of an image format (qcow2, VMDK, VHD, VHDX, VDI, QED,
            Parallels, DMG, Bochs, cloop) is refused, unless O(source.format=raw).
        type: str
      table:
        description:
          - Table of a mapped device, as in O(racefree.block.dm_device#module:table). The device is found by
            O(source.uuid) or O(source.name), and created if it does not exist.
        type: raw
      partition:
        description:
          - Beside O(source.diskseq), the number of a partition of that disk. As text, V(diskseq:42-part1).
          - Beside O(source.file), the number of a partition in the file, instead of O(source.offset) and
            O(source.size). Where it begins and ends is read from the partition table each time that the file
            is opened.
        type: int
      offset:
        description:
          - Where in the file the part begins, in bytes or such as V(1MiB). A multiple of 512.
        type: str
        default: "0"
      size:
        description:
          - Size of the part of the file, in bytes or such as V(20G). With V(0), the device extends to the end
            of the file.
        type: str
        default: "0"
      sector_size:
        description:
          - Logical sector size of the loop device, in bytes or such as V(4K). A power of 2 from 512 to the
            page size. The kernel's default is 512.
        type: str
      read_only:
        description:
          - Whether the loop or mapped device is read-only.
        type: bool
        default: false
      direct_io:
        description:
          - Whether the file is read and written without the page cache.
        type: bool
        default: false
      mtime_ns:
        description:
          - Modification time that the file must have, in nanoseconds since the epoch. If the file was changed
            since, it is refused. Requires O(source.read_only=true).
        type: int
      format:
        description:
          - Confirms that the file is a raw disk image, although it begins with the signature of an image
            format. As text, V(file:raw:/srv/a.raw).
        type: str
        choices: [raw]
      overlap:
        description:
          - Whether another loop device may write to the same part of the file.
        type: bool
        default: false
      trusted_path:
        description:
          - Whether it is an error, instead of a warning, if a user other than root could make the path of the
            file lead to another file.
        type: bool
        default: false
      name:
        description:
          - Name of the mapped device of O(source.table). If not given, a new device gets an unused name,
            where the module does not require one.
        type: str
      uuid:
        description:
          - Beside O(source.path), this is a check. The device at the path must be a mapped device with this
            UUID. The logical volumes of LVM are such devices. As text, V(dm:NAME,UUID), for the device
            C(/dev/mapper/NAME).
          - Beside O(source.table), the UUID of the mapped device.
        type: str
"""
_KEYS = ("diskseq", "boot_id", "partition", "path", "uuid", "file", "offset", "size", "sector_size")
_FLAGS = ("read_only", "direct_io", "mtime_ns", "format", "overlap", "trusted_path")


class ModuleDocFragment:
    DOCUMENTATION: str = _SOURCE

    # The device below a loop device.
    BACKING: str = keys_as("backing", _SOURCE, (*_KEYS, *_FLAGS))

    # A thin pool.
    POOL: str = keys_as("pool", _SOURCE, ("path", "table", "name", "uuid"))
