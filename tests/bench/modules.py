# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Runs the collection's modules as processes, as Ansible does on a host, from any revision of the collection.

Ansible sends a module's files as they are, so that Python compiles them for each task. So it does here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

# Runs one module with the JSON arguments on standard input, as Ansible's wrapper does; sys.path is the
# site's. ansible.module_utils.testing would do the same, but imports half of the standard library for it.
RUN = """
import importlib, json, sys
from ansible.module_utils import basic
name, arguments = json.load(sys.stdin)
basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
basic._ANSIBLE_PROFILE = "legacy"
importlib.import_module("ansible_collections.racefree.block.plugins.modules." + name).main()
"""


def unpack(checkout: str, revision: str | None, site: str) -> None:
    """
    Put the collection of a git revision (None: the files as they are) where Python finds it below ``site``.
    """
    place = os.path.join(site, "ansible_collections", "racefree", "block")
    os.makedirs(place)
    if revision is None:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(os.path.join(checkout, "plugins"), os.path.join(place, "plugins"), ignore=ignore)
        return
    command = ["git", "-c", f"safe.directory={checkout}", "-C", checkout]
    command += ["archive", "--format=tar", revision, "plugins"]
    packed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", place], input=packed, check=True)


def call(site: str, name: str, /, **arguments: object) -> dict[str, Any]:
    """The module's result; it must not fail."""
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([name, arguments]),
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
        env=dict(os.environ, PYTHONPATH=site, PYTHONDONTWRITEBYTECODE="1"),
    )
    try:
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise SystemExit(f"{name} did not answer: {done.stderr}") from None
    if result.get("failed"):
        raise SystemExit(f"{name} failed: {result['msg']}")
    return result


def answer(site: str, name: str, changed: bool, /, **arguments: object) -> dict[str, Any]:
    """The module's result, in which ``changed`` must be this."""
    result = call(site, name, **arguments)
    if result["changed"] != changed:
        raise SystemExit(f"{name}: changed is {result['changed']}")
    return result
