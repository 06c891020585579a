# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of tools, and the document that shows it and the playbook."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.racefree.block.plugins.module_utils._command import tools

ROOT = Path(__file__).resolve().parents[5]
DOCUMENT = (ROOT / "docs/device-command.md").read_text(encoding="utf-8")


def rows():
    yield "| Program | What it does with the path | Style | Claims |"
    yield "|---|---|---|---|"
    for tool in tools.TOOLS:
        names = ", ".join(f"`{name}`" for name in tool.names)
        yield f"| {names} | {tool.does} | `{tool.style}` | {'yes' if tool.claims else ''} |"
    yield f"| any other | {tools.UNKNOWN.does} | `{tools.UNKNOWN.style}` | |"


def test_the_document_has_the_table():
    after = DOCUMENT.split("<!-- table: from plugins/module_utils/_command/tools.py -->\n")[1]
    assert after.split("<!-- end of the table -->")[0].strip() == "\n".join(rows())


def test_the_document_has_the_playbook():
    text = (ROOT / "playbooks/luks_guest.yml").read_text(encoding="utf-8")
    assert text.partition("\n\n")[2] in DOCUMENT


def test_each_program_is_in_one_row():
    names = [name for tool in tools.TOOLS for name in tool.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("program", "style", "claims"),
    [
        ("/usr/sbin/mkfs.ext4", tools.DESCRIPTOR, True),
        ("mount", tools.BY_DISKSEQ, True),
        ("dd", tools.DESCRIPTOR, False),
        ("/opt/bin/unknown", tools.BY_DISKSEQ, False),
        ("mkfs", tools.BY_DISKSEQ, False),
    ],
)
def test_what_a_program_gets(program, style, claims):
    found = tools.find(program)
    assert (found.style, found.claims) == (style, claims)
