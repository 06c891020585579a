# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Prints how large each module is as Ansible sends it to a host, for each task: with all files that it can
import.

Ansible itself builds the payloads. ``payload.py --help`` lists the options.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import figures
from modules import unpack

# Prints {module: [bytes sent, bytes of the collection's files, the same compressed]} of sys.argv[1], a
# directory with ansible_collections. A process of its own: a collection is imported from one place only.
BUILD = """
import json, os, sys
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
_AnsibleCollectionFinder(paths=[sys.argv[1]])._install()
from ansible.executor.module_common import modify_module
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
sys.path.insert(0, sys.argv[2])
from payload import sizes
place = os.path.join(sys.argv[1], "ansible_collections/racefree/block/plugins/modules")
found = {}
for name in sorted(file[:-3] for file in os.listdir(place) if file.endswith(".py") and file[0] != "_"):
    built = modify_module(
        module_name="racefree.block." + name, module_path=os.path.join(place, name + ".py"), module_args={},
        templar=Templar(loader=DataLoader()), task_vars={"ansible_python_interpreter": "/usr/bin/python3"},
        module_compression="ZIP_DEFLATED",
    )
    found[name] = sizes(built[0] if isinstance(built, tuple) else built.b_module_data)
print(json.dumps(found))
"""


def sizes(payload: bytes) -> list[int]:
    """Bytes of the payload, and of the collection's files in it, as they are and compressed."""
    archive = max(re.findall(rb"[A-Za-z0-9+/=]{1000,}", payload), key=len)
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(archive))) as opened:
        files = [each for each in opened.infolist() if "/racefree/" in each.filename]
    return [
        len(payload),
        sum(each.file_size for each in files),
        sum(each.compress_size for each in files),
    ]


def measure(checkout: str, revision: str | None) -> dict[str, list[int]]:
    with tempfile.TemporaryDirectory() as site:
        unpack(checkout, revision, site)
        done = subprocess.run(
            [sys.executable, "-c", BUILD, site, os.path.dirname(os.path.abspath(__file__))],
            stdout=subprocess.PIPE,
            check=True,
            timeout=600,
        )
    found: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", default=".", help="the git clone")
    parser.add_argument("--base", help="the git revision to compare with")
    parser.add_argument("--report", type=Path, help="a file for the figures")
    options = parser.parse_args()
    now = measure(options.checkout, None)
    base = measure(options.checkout, options.base) if options.base else {}
    print("kB: sent by Ansible, the collection's files in it, the same compressed")
    for name, found in now.items():
        text = "".join(f"{size / 1000:8.0f}" for size in found)
        if name in base:
            text += "   base" + "".join(
                f"{old / 1000:8.0f} ({100 * new / old - 100:+.0f} %)" for new, old in zip(found, base[name])
            )
        print(f"{name:20}{text}")
    if options.report:
        rows = [{"module": name, "sent": found[0], "files": found[1]} for name, found in now.items()]
        figures.keep(options.report, {"machine": figures.machine(), "rows": rows})


if __name__ == "__main__":
    main()
