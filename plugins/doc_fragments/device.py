# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the modules for loop and mapped devices."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  diskseq:
    description:
      - On its own, with O(state=absent), this selects the device to remove. If no device has this number any
        more, nothing is changed.
      - Together with other options that name the device, this is a check. The task fails without changing
        anything unless the device has this disk sequence number. With O(state=absent), it also fails if the
        other options find no device, and one with this number exists.
    type: int
  persist:
    description:
      - With V(true), the device is kept until it is removed or the host boots. The role
        P(racefree.block.boot_devices#role) makes devices at each boot.
      - With V(false), the kernel removes the device when its last user closes it. See O(hold).
    type: bool
    default: true
  hold:
    description:
      - With O(persist=false), for how many seconds a device that the task created or changed is held open, so
        that its first user has time to open it. After that it is removed unless somebody has opened it. Until
        then it counts as in use, also for O(state=absent).
    type: int
    default: 60
  deferred:
    description:
      - With O(state=absent), whether a device that is in use is removed once its last user closes it. With
        V(false), such a device is left unchanged and the task fails.
    type: bool
    default: false
  sealed:
    description:
      - With V(true), the device is sealed. Nobody, not even root, can open a sealed device until the seal is
        lifted or the device is removed. Processes that have it open already can go on using it. New opens
        fail with C(EPERM), for example by C(mount), C(blkid), C(dmsetup) and udev's probers. The modules of
        this collection can still open it.
      - With V(false), the seal is lifted. If not given, an existing device keeps its seal, and a new device
        has none.
      - With O(state=absent), this requires O(deferred=true), and no new process can open the device
        before its last user closes it. If the removal is cancelled by O(state=present), the seal is lifted
        too, unless O(sealed=true).
      - Requires a kernel with CONFIG_CGROUP_BPF, control groups of version 2, and a file system of type bpf
        at C(/sys/fs/bpf). The task must run on the host itself, not in a container.
      - See C(docs/sealed-devices.md) of the collection for the limitations.
    type: bool
  timeout:
    description:
      - With O(state=absent), how many seconds to wait for processes that have the device open only briefly,
        such as udev.
      - M(racefree.block.dm_device) also waits this long, at least 1 second, for outstanding I/O to complete
        when it suspends a device, also briefly to change its table or to take a snapshot of a thin volume. If
        the I/O does not complete, the task fails and the device is unchanged.
    type: int
    default: 10
"""
