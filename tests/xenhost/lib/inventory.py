# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The running hosts as an Ansible inventory. JSON is YAML, and needs no library."""

from __future__ import annotations

import json
import shlex


def host_variables(remote):
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": remote.port,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(remote.key_file),
        # These options of ssh replace Ansible's own: compression costs time under emulation, and xenhost has
        # the connection.
        "ansible_ssh_args": " ".join(map(shlex.quote, remote.options())),
        "ansible_ssh_pipelining": True,
        "ansible_python_interpreter": "/usr/bin/python3",
    }


def inventory(hosts):
    """``hosts``: (name, release, remote) of each; the inventory as plain data."""
    groups = {"xen_hosts": {"hosts": {}}}
    for name, release, remote in hosts:
        groups["xen_hosts"]["hosts"][name] = dict(
            host_variables(remote), xenhost_release=release, xenhost_blkback=remote.recipe.blkback
        )
        groups.setdefault(release, {"hosts": {}})["hosts"][name] = {}
    return {"all": {"children": groups}}


def text(hosts):
    return json.dumps(inventory(hosts), indent=2) + "\n"
