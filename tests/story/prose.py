# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The text of docs/comparison.md around its tables.
"""

from __future__ import annotations

HEAD = """\
<!--
Copyright (c) 2026, The racefree.block contributors
GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
SPDX-License-Identifier: GPL-3.0-or-later
-->

# The same story, told in four ways

An image, a loop device over it, a mapped device over the first half of the loop device, and a guest of
libvirt with QEMU that has the mapped device as its disk and runs. Then all of it is removed. This page
compares four ways to do that with Ansible: how much there is to write, how long it takes, what a killed
run leaves, and what happens when the name of a device is reused.

`tests/story/run` repeats everything and makes this page. [How the collection is
tested](testing.md#the-same-story-in-four-ways) says what it needs. The playbooks are in
`tests/story/plays`:

- **racefree.block, a recipe**: the guest's definition says what the disk is, and the hook makes the
  devices when the guest starts. No device exists while the guest is off. The host needs the hook, from
  the role kvm_host; its installation is not counted here.
- **racefree.block, each device**: `loop_device` and `dm_device` make the devices, and the guest's
  recipe names the mapped device by path and UUID. This needs the hook, too.
- **community.libvirt and commands**: `community.libvirt.virt` for the guest, and `losetup` and
  `dmsetup` in tasks of `ansible.builtin.command`.
- **commands**: the same, with `virsh` for the guest.

Both ways of racefree.block define and start the guest with `community.libvirt.virt`: racefree.block has
no module for this. The image is copied by `ansible.builtin.copy` in all four.

The command tasks are written as a careful administrator would write them. A task looks first, and the
next one makes only what is missing (`register`, `when`). `losetup` finds the number itself (`--find
--show --nooverlap`), and the mapped device is found and removed by its UUID, not by its name.
ansible-lint accepts all playbooks with its strictest profile.

There is no module for loop or mapped devices to compare with. In November 2026, no module of
community.general (13.3.0), ansible.posix (2.2.0) or community.libvirt (2.3.0) makes one; the documentation of
`community.general.parted` recommends `losetup`. Some projects have small modules of their own that call
`losetup`, such as `loopdev` of StackHPC.
"""

WHERE = (
    "Linux {kernel}, as a process with one processor (User-mode Linux): everything is slower there than on a "
    "host, so compare the ways with each other. {versions}. Seconds are wall clock{turns}."
)
TURNS = ", the medians of {turns} turns; the ways take turns"

SUMMARY = """\
The second run should change nothing, and make no second device. A *killed run* ends by SIGKILL, as
described below. *Somebody else's device* was made between two tasks, under a name that one of
our devices had.
"""

PLAYS = """\
What the numbers do not show:

- The seconds are mostly those that Ansible needs to start a task. A recipe needs the fewest tasks.
- The command tasks do not look at what they find: if the mapped device exists, its table is not compared. The
  modules compare the table, and change it.
- In check mode, command tasks are skipped, also those that only look.
- Putting `losetup` and `dmsetup` into one shell script makes the moment between them shorter. It does
  not close it.
- A definition can name `/dev/disk/by-id/dm-uuid-STORY-1` instead of `/dev/mapper/story`. Then a mapped device
  with another UUID is not at that path. udev makes this link some time after the device, and changes it some
  time after another one has taken its place.
"""

KILLS = """\
## Killed runs

The run is killed (SIGKILL) when a task has ended that changed something, together with all its
processes; each such task in turn, except the last. Then the same playbook runs again, without any
cleaning up. *Finished* means that it did not fail, and that afterwards everything is as if no run had
been killed: nothing is there twice, and after the removal, nothing is left.

No task is interrupted here, neither a module nor a command: [the campaign](campaign.md) kills modules
after each of their system calls.
"""

REUSE = """\
## A name is reused

Between two tasks, somebody else removes our device, and makes another one for another image, with the
same number or name. The play does not know and goes on. Afterwards the same playbook runs again, and then
the playbook that removes everything. A name that somebody else has stays taken: what was refused once is
refused again until that device is gone.

*The guest* says which image QEMU has, read through its own open file. *Somebody else's device* is what was
made meanwhile.
"""
