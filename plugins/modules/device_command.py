#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: device_command
short_description: Run a command with devices that cannot be the wrong ones
version_added: 1.0.0
description:
  - Opens devices, verifies on the open descriptors that they are the right ones, and runs a command that gets
    paths to them. The devices are held open until the command has ended, so their numbers and names cannot be
    given to other devices meanwhile.
  - Each device has a name in O(devices). In O(argv), the name in braces stands for a path of that device.
  - Devices that do not exist yet, such as a loop device for a file, are created. They are removed when their
    last user closes them. This is the command, unless it has given the device to the kernel, for example by
    C(cryptsetup open) or C(mount).
author:
  - The racefree.block contributors (@racefree)
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    details:
      - Everything is checked except what the command itself would do. No device is created.
  diff_mode:
    support: none
    description: >-
      Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff
      mode.
  idempotent:
    support: partial
    description: >-
      When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
      change.
    details:
      - The command runs every time, unless O(creates) or O(removes) says that it is not needed.
  platform:
    support: full
    description: Target OS/families that can be operated against.
    platforms: linux
notes:
  - Only a name in braces that is the whole content of the braces is a placeholder, like C({disk}). Other
    braces are unchanged, and so is C(${disk}), which is a variable of a shell. For the text C({disk}), write
    C({{disk}}). Ansible evaluates double braces, so tag such a text with C(!unsafe).
  - Do not put secrets into O(argv). Every user of the host can see the arguments of a process. Use O(stdin).
  - The command runs in a session of its own, without a terminal. No shell is involved.
  - If the task is killed, the command goes on, with the devices held.
  - A process that the command leaves in the background may keep the devices open.
  - If the command ends with success, but a device got another medium while it ran, the task fails, because
    the command may have used either.
  - See C(docs/device-command.md) of the collection for the table of commands and an example with LUKS.
requirements:
  - Linux 5.15 or newer, for disk sequence numbers
  - Python 3.9 or newer on the host
  - cffi (Debian's package is python3-cffi), for mapped devices and seals
  - the role P(racefree.block.block_names#role), for commands that get a name in C(/dev/disk/by-diskseq)
seealso:
  - module: racefree.block.loop_device
  - module: racefree.block.dm_device
  - module: ansible.builtin.command
options:
  argv:
    description:
      - The command as a list of words, the program first. The program is looked for in the directories of
        C(PATH), and in C(/usr/local/sbin), C(/usr/sbin) and C(/sbin).
      - C({NAME}) stands for the device with this name in O(devices). It can be a part of a word, as in
        C(if={disk}).
    type: list
    elements: str
    required: true
  devices:
    description:
      - The devices by name. A name has letters, digits and C(_), and each name must occur in O(argv).
      - >-
        Each value is a source, as in O(racefree.block.xen_vbd#module:source). For example,
        C({diskseq: 42}), C({path: /dev/vg/a, uuid: LVM-...}) or C({file: /srv/a.raw}), or a text such as
        V(diskseq:42), V(file:/srv/a.raw) or V(dm:NAME,UUID).
      - Two names for the same device are refused.
    type: dict
    required: true
  path_style:
    description:
      - What C({NAME}) stands for.
      - With V(auto), it is V(descriptor) or V(by_diskseq), whichever is right for the program according to
        the table in C(docs/device-command.md). An unknown program gets V(by_diskseq), because this name does
        not lead to another device in any process.
      - With V(descriptor), it is C(/proc/self/fd/N) of a descriptor that the command inherits. It is for
        programs that open the path themselves, or in a process that has inherited the descriptor. In another
        process, such as a daemon that the program sends the path to, the path can be another device.
      - With V(by_diskseq), it is C(/dev/disk/by-diskseq/N), which the role
        P(racefree.block.block_names#role) serves. The task fails if its service is not running.
      - With V(number), it is the number of an inherited descriptor, open for reading and, if the device can
        be written, for writing. It is for programs that use an open descriptor, and the only style for sealed
        devices.
    type: str
    choices: [auto, descriptor, by_diskseq, number]
    default: auto
  exclusive:
    description:
      - Whether the devices are claimed (C(O_EXCL)). The task then fails if a device is mounted, mapped, used
        for swap or otherwise opened exclusively, and nobody else can do any of this until the command has
        ended. Devices that are open in other ways are not noticed, such as the disk of a running guest.
      - Many programs claim their device themselves, such as C(mkfs.ext4), C(cryptsetup) and C(mount). They
        would fail if it was claimed already. For those in the table, the claim ends when the program is
        started (RV(exclusive) is V(handed_over)). If somebody else claims the device before the program does,
        the program fails.
      - An unknown program that claims the device itself fails with O(exclusive=true).
    type: bool
    default: false
  creates:
    description:
      - A path or a pattern. If it exists, the command is not run, and the devices are not looked at.
    type: path
  removes:
    description:
      - A path or a pattern. If it does not exist, the command is not run, and the devices are not looked at.
    type: path
  chdir:
    description:
      - The directory in which the command runs.
    type: path
  environment:
    description:
      - Environment variables to add or replace.
      - Do not put secrets here. Ansible writes these values to the host's log, and shows them with C(-vvv).
        Use O(stdin).
    type: dict
    default: {}
  stdin:
    description:
      - What the command reads from its standard input, exactly as given. No newline is added. If not given,
        the standard input is empty.
    type: str
  hide_stdin:
    description:
      - With V(true), the text of O(stdin) is masked wherever it occurs in the result, too, and so is each of
        its lines, with and without the spaces around it. So it does not matter whether the text ends with a
        newline, or whether the command prints only a part of the lines.
      - Lines of fewer than four characters are not masked, because that would hide parts of other words and
        numbers. Only if O(stdin) as a whole is so short, and has no newline, Ansible masks it.
      - What the command makes of its input, such as its hexadecimal form, is not recognized.
      - Set this to V(false) for a text that is not secret, such as V(y) or a partition table.
    type: bool
    default: true
  timeout:
    description:
      - How many seconds the command may run, up to 86400 (a day). Then all its processes get C(SIGTERM) and,
        two seconds later, C(SIGKILL), including those that have left its session, and the task fails.
    type: int
    default: 3600
"""

EXAMPLES = r"""
- name: See whether a loop device is blank
  racefree.block.device_command:
    argv: [wipefs, --noheadings, --output, TYPE, "{disk}"]
    devices:
      disk: {diskseq: "{{ disk.device.diskseq }}"}
  register: found
  changed_when: false
  check_mode: false

- name: Make a file system on it, if it is
  racefree.block.device_command:
    argv: [mkfs.ext4, -q, "{disk}"]
    devices:
      disk: {diskseq: "{{ disk.device.diskseq }}"}
  when: found.stdout | trim | length == 0

- name: Encrypt a new file, with a passphrase that nobody sees; a second run would destroy what is in it
  racefree.block.device_command:
    argv: [cryptsetup, luksFormat, --batch-mode, --key-file=-, "{disk}"]
    devices:
      disk: {file: /srv/guests/web1.luks}
    stdin: "{{ vault_web1_passphrase }}"
  when: web1_is_new

- name: Open it as a mapped device, unless it is open already
  racefree.block.device_command:
    argv: [cryptsetup, open, --key-file=-, "{disk}", web1-data]
    devices:
      disk: file:/srv/guests/web1.luks
    stdin: "{{ vault_web1_passphrase }}"
    creates: /dev/mapper/web1-data

- name: Copy one disk to another, which nobody may use meanwhile
  racefree.block.device_command:
    argv: [dd, "if={old}", "of={new}", bs=4M, conv=fsync]
    devices:
      old: {diskseq: 42}
      new: {path: /dev/mapper/web2-root, uuid: racefree-web2-root}
    exclusive: true
    timeout: 7200

- name: Replace the partition table of a disk, unless a marker file exists
  racefree.block.device_command:
    argv: [sfdisk, --quiet, "{disk}"]
    devices:
      disk: {file: /srv/guests/web1.raw}
    path_style: descriptor
    stdin: ",,L\n"
    hide_stdin: false
    chdir: /srv/guests
    environment: {LC_ALL: C.UTF-8}
    removes: /srv/guests/web1.raw
    creates: /srv/guests/web1.partitioned
"""

RETURN = r"""
cmd:
  description: The command that was run, with the paths of the devices. Otherwise, the words as given.
  returned: success, and failure of the command
  type: list
  elements: str
  sample: [mkfs.ext4, -q, /proc/self/fd/700]
rc:
  description: >-
    Exit code of the command; the negative number of the signal that killed it; V(null) if the time was over.
    V(0) if it was not run.
  returned: success, and failure of the command
  type: int
  sample: 0
stdout:
  description: Standard output of the command. If it was not needed, why.
  returned: when the command was run or was not needed
  type: str
  sample: /dev/loop7
stderr:
  description: Standard error of the command.
  returned: when the command was run or was not needed
  type: str
  sample: ""
start:
  description: When the command was started.
  returned: when it was run
  type: str
  sample: "2026-11-28 16:31:01.512932"
end:
  description: When it ended.
  returned: when it was run
  type: str
  sample: "2026-11-28 16:31:02.701310"
delta:
  description: How long it ran.
  returned: when it was run
  type: str
  sample: "0:00:01.188378"
msg:
  description: Why the command was not run, or what failed.
  returned: failure, check mode, and when the command was not needed
  type: str
  sample: >-
    /dev/vg/a: its disk sequence number is 57, not 42. The name now belongs to a device other than the
    requested one; nothing was done
exclusive:
  description: >-
    V(held) if the devices were claimed until the command had ended; V(handed_over) if the claim was released
    when it was started, because the program claims them itself; V(null) without O(exclusive).
  returned: when it was run
  type: str
  sample: held
devices:
  description: >-
    The devices by name, as they were when the command was started. In check mode, V(null) for a device that
    does not exist yet.
  returned: success, and failure of the command
  type: dict
  sample:
    disk:
      path: /dev/loop7
      name: loop7
      major: 7
      minor: 7
      diskseq: 42
      boot_id: 8b2f4c3e-6d1a-4f0e-9c57-1d2e3f405162
      partition: null
      by_diskseq: /dev/disk/by-diskseq/42
      size: 1073741824
      sector_size: 512
      read_only: false
      given: /proc/self/fd/700
error:
  description: The error as structured data.
  returned: failure
  type: dict
  contains:
    kind:
      description: Kind of the error.
      returned: failure
      type: str
      sample: CommandFailed
    device:
      description: The device, file, guest, key or program that the error is about. V(null) if there is none.
      returned: failure
      type: str
      sample: mkfs.ext4
    errno:
      description: >-
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      returned: failure
      type: str
      sample: EIO
    hint:
      description: What to do about it.
      returned: failure
      type: str
      sample: "See stderr and stdout"
"""

from ansible_collections.racefree.block.plugins.module_utils._module import device_command


def main():
    device_command.main()


if __name__ == "__main__":
    main()
