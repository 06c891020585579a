# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The text of docs/speed.md around its tables, and the names of what was measured.
"""

from __future__ import annotations

# A machine with a lower load did nothing else.
QUIET = 0.5
BUSY = (
    "**The machine was busy with other work**: its load was {load} when this began. The wall clock has the "
    "time that the programs waited for a processor."
)
# The ways of the measurements on a Xen host: attaching vbds, and the hotplug script.
VBDS = ("xen_vbds", "xl")
SCRIPT, BARE = "with service", "C program"

HEAD = """\
<!--
Copyright (c) 2026, The racefree.block contributors
GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
SPDX-License-Identifier: GPL-3.0-or-later
-->

# Speed

`make bench` measures the collection beside what people use today, and beside C programs that only
make the system calls that nobody can do without. It keeps the figures in `docs/speed/`, and makes
this page from them. [How the collection is tested](testing.md#measurements) says how to run it.

What is compared runs alternately, in one run on the same machine. All figures are medians. Seconds
are wall clock; in brackets are the seconds of processor time that the programs took, which other
work on the machine changes less. A module runs as under Ansible, as a process that compiles its
files; what Ansible itself needs for a task is only in the sections about plays and tasks.
"""

GOALS = """## Goals
"""

GROWTH = """## Growth with the number of devices

The exponent of the time over the number of devices, from 8 devices on: at 1, each device costs the
same, however many there are. It is fitted to the logarithms; in brackets is the exponent between
the two largest numbers alone. The start of a module counts in every run, so that few devices cost
more each.
"""

SECTIONS = {
    "loops": (
        "Loop devices",
        """`loop_devices` and `device_info`, beside `losetup` in a shell loop and a C program with the bare
calls. The shell loop removes devices by the names that it has kept, which is the fastest way and
detaches whatever has the name by then. `losetup --associated` looks through all devices for each
file. What has an empty cell was not measured.
""",
        """Nearly all of a module's time with few devices is the start of Python and of the module: with
`python -X importtime`, two fifths of it are Ansible's own `basic.py`. A device is made with the
autoclear flag, so that a killed run leaves none, and the flag is cleared when everything was
checked. The kernel waits 16 to 20 ms in each of these calls (`LOOP_SET_STATUS64`, `strace -T`), so
from eight devices on, many threads make them at once.
""",
    ),
    "commands": (
        "Loop devices in a play",
        """One task of `loop_devices`, beside a task of `ansible.builtin.command` with `losetup` that loops
over the files. The times are those of whole tasks, from their start to their result.
""",
        """The task of commands costs a start of Python for each device. This takes so long that it is
measured with few devices only.
""",
    ),
    "dm": (
        "Mapped devices",
        """`dm_devices` and `device_info`, beside `dmsetup` in a shell loop and a C program with the bare
calls. All make linear devices over one loop device.
""",
        "",
    ),
    "tasks": (
        "Tasks that change nothing",
        """A task of each module that finds everything as it should be, and a task of `ansible.builtin.ping`
beside it. Each pair is measured next to each other, and the ratio is the median of the ratios of
all pairs.
""",
        """Most of the difference is in the modules' own files. Python compiles the source of all files that a
task imports: 313 kB for `loop_device`, which takes 42 ms on such a machine, and 641 kB for `xl_disk`,
which takes 95 ms. The rest is the time to send and unpack them.
""",
    ),
    "vbds": (
        "Disks of a running Xen guest",
        """All disks in one task of `xen_vbds`, beside `xl block-attach` and `xl block-detach` for each disk,
one after the other, with Xen's own script. In seconds.
""",
        "",
    ),
    "hotplug": (
        "The hotplug script",
        """The script of the role xen_host, with its service and alone, beside Xen's own script, and beside
a C program that only opens the device, writes the three nodes, and waits for nothing. In seconds, from
the first start to the last end.
""",
        "",
    ),
    "payload": (
        "What Ansible sends",
        """Each task sends the module with all files that it can import.
""",
        "",
    ),
}

MISSING = {
    "loops": "Not measured yet: `make bench BENCH=loops`.\n",
    "commands": "Not measured yet: `make bench BENCH=commands`.\n",
    "dm": "Not measured yet: `make bench BENCH=dm`.\n",
    "tasks": "Not measured yet: `make bench BENCH=tasks`.\n",
    "payload": "Not measured yet: `make bench BENCH=payload`.\n",
    "vbds": "Not measured yet: this needs a Xen host, and `tests/host/vbd_bench.py`.\n",
    "hotplug": "Not measured yet: this needs a Xen host, and `tests/host/hotplug_bench.py`.\n",
}

NOT_RUN = "Not run, because they need Xen or libvirt, or were left out: {names}."

PLOTS = {
    "loops": "Seconds to create, find, list and remove loop devices, over their number, on logarithmic axes",
    "dm": "Seconds to create, find, list and remove mapped devices, over their number, on logarithmic axes",
    "tasks": "How many times as long as a task of ping each task takes, and the goal",
}
