# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run each play of tools/pictures/scenes on this machine, with its loop devices, and write what it prints as
docs/images/NAME.svg.

Usage: make pictures   (as root; the arguments are the names of scenes, by default all)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from . import terminal

SCENES = Path(__file__).parent / "scenes"
# What the pictures show instead of the temporary directory, and of the directory of the plays.
SHOWN = "/srv/guests"
PLAYS = "/srv/plays"
SIZE = 64 * 2**20


def run(scene: Path, place: str) -> str:
    """What the play prints, with its colours. Removes the loop devices of the play."""
    asked = re.search("^# ansible-playbook arguments: (.*)", scene.read_text("utf-8"), re.MULTILINE)
    arguments = asked.group(1).split() if asked else []
    environment = dict(
        os.environ,
        ANSIBLE_FORCE_COLOR="1",
        ANSIBLE_CALLBACK_RESULT_FORMAT="yaml",
        ANSIBLE_DEPRECATION_WARNINGS="0",
        ANSIBLE_LOCALHOST_WARNING="0",
        COLUMNS="100",
    )
    environment.pop("NO_COLOR", None)
    inventory = ["--inventory", "xen1,", "--connection", "local"]
    extra = ["--extra-vars", f"place={place}", "--extra-vars", f"ansible_python_interpreter={sys.executable}"]
    command = ["ansible-playbook", *inventory, *extra, *arguments, str(scene)]
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    finally:
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            if path.read_text("utf-8").startswith(place):
                subprocess.run(["losetup", "--detach", f"/dev/{path.parts[3]}"], check=True)
    prompt = " ".join(["$ ansible-playbook", *arguments, scene.name])
    return f"{prompt}\n{done.stdout.replace(place, SHOWN).replace(str(SCENES), PLAYS)}"


def main(names: list[str], target: Path) -> int:
    scenes = [SCENES / f"{name}.yml" for name in names] or sorted(SCENES.glob("*.yml"))
    for scene in scenes:
        with tempfile.TemporaryDirectory(prefix="racefree-pictures-") as place:
            with open(f"{place}/web1.raw", "wb") as image:
                image.truncate(SIZE)
            picture = terminal.svg(run(scene, place), scene.stem)
        path = target / f"{scene.stem}.svg"
        path.write_text(picture, encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], Path(sys.argv[1])))
