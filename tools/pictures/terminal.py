# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text with ANSI colours as an SVG that needs no font and no style from elsewhere."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

WIDTH = 100
# Rich's own format loads a font from a server, draws a window around the text, and has a comment in it.
FORMAT = """\
<!--
Copyright (c) 2026, The racefree.block contributors
GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
SPDX-License-Identifier: GPL-3.0-or-later
-->
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<style>
.{unique_id}-matrix {{ font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace;
font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def svg(text: str, name: str) -> str:
    """The text as an SVG of WIDTH columns. ``name`` makes its identifiers unique in a page."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    for line in compact(text).splitlines():
        console.print(Text.from_ansi(line), soft_wrap=False)
    return console.export_svg(title="", theme=MONOKAI, code_format=FORMAT, unique_id=f"terminal-{name}")


def compact(text: str) -> str:
    """Without the lines that every play prints: the recap, and more than one empty line."""
    text = text.split("\nPLAY RECAP", 1)[0]
    return re.sub(r"\n{3,}", "\n\n", text).rstrip()
