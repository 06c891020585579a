# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of loop devices."""

from __future__ import annotations

from ansible_collections.racefree.block.plugins.doc_fragments.device import ModuleDocFragment as Device
from ansible_collections.racefree.block.plugins.doc_fragments.source import ModuleDocFragment as Source
from ansible_collections.racefree.block.plugins.plugin_utils._fragments import in_list


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  backing_file:
    description:
      - Absolute path of the regular file.
      - The task fails if a loop device still uses a file that was at this path before, and that was deleted
        or replaced by a rename. The error names the device. Remove it by its disk sequence number.
      - Required if O(state=present), unless O(backing) is given.
    type: path
  backing:
    description:
      - Source of the block device below the loop device, instead of O(backing_file). For example to give a
        disk another sector size, to make a read-only view of it, or to cut a part out of it.
      - As text or as a dictionary, with one of O(backing.diskseq), O(backing.path) and O(backing.file). For a
        file, a loop device is used or made, which is removed together with the new one. See
        C(docs/devices.md).
      - Other loop devices on the same device are found by its number, whichever path was given. The new
        device has it open, so its number cannot be given to another device.
      - A device that is mounted, swapped to or part of another device can only be read, unless
        O(overlap=true).
  path:
    description:
      - The loop device to remove, like V(/dev/loop7). Only with O(state=absent), instead of O(backing_file).
      - The kernel can give this name to another device, so specify O(diskseq) too.
    type: path
  offset:
    description:
      - Where in the file the device begins, in bytes or such as V(1MiB). A multiple of 512.
    type: str
    default: "0"
  size:
    description:
      - Size of the device, in bytes or such as V(20G) (K, M, G or T of 1024). A multiple of the sector size.
      - With V(0), the device extends from O(offset) to the end of the file.
    type: str
    default: "0"
  sector_size:
    description:
      - Logical sector size, in bytes or such as V(4K). A power of 2 from 512 to the page size. The kernel's
        default is 512.
      - It cannot be changed while the device is bound.
    type: str
  read_only:
    description:
      - Whether the device is read-only. It cannot be changed while the device is bound.
      - With O(state=absent) and V(true), writable devices over the same part of the file are not removed.
    type: bool
    default: false
  direct_io:
    description:
      - Whether the file is read and written without the page cache. If not given, an existing device keeps
        its setting.
      - If the file system does not support this, the kernel silently ignores the request, but this module
        fails.
    type: bool
  partitions:
    description:
      - Whether the kernel scans the device for partitions. If not given, an existing device keeps its
        setting. It cannot be switched off while the device is bound.
      - With V(true), the partitions are returned, and a table that has changed since the kernel read it
        is read again. Partitions that did not change stay, even in use. If a partition that has changed is in
        use, the task names its users and fails, and nothing is changed. See C(docs/partitions.md).
    type: bool
  format:
    description:
      - Confirms that the file is a raw disk image although it begins with the signature of an image format
        (qcow2, VMDK, VHD, VHDX, VDI, QED, Parallels, DMG, Bochs, cloop). Without this option, no device is
        created for such a file. Convert it with
        M(racefree.block.golden_image), or with C(qemu-img convert -O raw).
      - A guest can write such a signature to its own disk, so set this option for the disks of guests.
      - A file is always used byte for byte, never decoded as another format.
      - Not together with O(backing), which has its own.
    type: str
    choices: [raw]
  overlap:
    description:
      - Whether a new device may write to a part of the file that another loop device also writes to.
        Otherwise the task fails, as C(losetup --nooverlap) does, and the error names the other device. If the
        other device is to be removed when its last user closes it, the task waits up to 5 seconds for that.
    type: bool
    default: false
  trusted_path:
    description:
      - Whether the task fails if a user other than root could make the path lead to another file, because
        others can write to a directory on the path or own a symbolic link on it. With V(false), there is a
        warning that names the place.
      - Not together with O(backing), which has its own.
    type: bool
    default: false
  allow_shrink:
    description:
      - Whether the device may become smaller if its file was truncated while it was bound. Otherwise the
        task fails, because users of the device may need the data beyond the new end.
    type: bool
    default: false
  state:
    description:
      - Whether the device should exist.
      - With V(absent) and O(backing_file) or O(backing), the device that has this O(offset) and O(size) is
        removed. A device that covers only a part of the same bytes is left unchanged, for example a device of
        fixed size whose file has grown since. A warning names it.
    type: str
    choices: [present, absent]
    default: present
"""

    # As entries of a list.
    MANY: str = in_list("devices", DOCUMENTATION, Device.DOCUMENTATION, Source.BACKING)
