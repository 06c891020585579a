# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation of modules as ansible-doc has it, with fragments, and what the modules accept."""

from __future__ import annotations

import functools
import importlib
import json
import os
import pathlib
import subprocess
import sys

import yaml
from ansible.module_utils import basic

TOP = pathlib.Path(__file__).resolve().parents[3]
PREFIX = "racefree.block."
MODULES = sorted(path.stem for path in (TOP / "plugins" / "modules").glob("*.py"))
PLURALS = {
    "loop_devices": ("loop_device", "devices"),
    "dm_devices": ("dm_device", "devices"),
    "xen_vbds": ("xen_vbd", "vbds"),
    "libvirt_disks": ("libvirt_disk", "disks"),
    "xl_disks": ("xl_disk", "disks"),
}


@functools.cache
def all_pages():
    """{name of a module: {doc, examples, return}}"""
    words = [sys.executable, "-m", "ansible", "doc", "--json", "--metadata-dump", "racefree.block"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(TOP.parents[2])}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, timeout=300, check=True)
    pages = json.loads(done.stdout)["all"]["module"]
    return {name.removeprefix(PREFIX): page for name, page in pages.items()}


def options_of(module):
    return all_pages()[module]["doc"]["options"]


def returned_by(module):
    return all_pages()[module]["return"]


def examples_of(module):
    return yaml.safe_load(all_pages()[module]["examples"])


def walk(described, below, path=""):
    """(path, description) of options (below: suboptions) or return values (contains), at each level."""
    for name, one in described.items():
        yield path + name, one
        yield from walk(one.get(below) or {}, below, f"{path}{name}.")


class _Called(Exception):
    pass


def argument_spec(module, monkeypatch):
    """The argument spec with which a module makes its AnsibleModule."""
    given = {}

    def made(self, argument_spec, **others):
        given.update(argument_spec)
        raise _Called

    monkeypatch.setattr(basic.AnsibleModule, "__init__", made)
    try:
        importlib.import_module(f"ansible_collections.racefree.block.plugins.modules.{module}").main()
    except _Called:
        return given
    raise AssertionError(module)
