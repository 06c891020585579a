# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Plots as SVG, readable on a light and on a dark page: lines on logarithmic axes, bars beside a goal, and
stacked bars of shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[float, float]]
HEAD = """\
<!--
Copyright (c) 2026, The racefree.block contributors
GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
SPDX-License-Identifier: GPL-3.0-or-later
-->
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
  aria-labelledby="title description">
  <title id="title">{title}</title>
  <desc id="description">{description}</desc>
  <style>
    text {{ font: 13px system-ui, sans-serif; fill: #1f2328; }}
    .head {{ font-weight: 600; font-size: 15px; }}
    .small {{ fill: #59636e; font-size: 12px; }}
    .axis {{ stroke: #59636e; fill: none; }}
    .grid {{ stroke: #d1d9e0; fill: none; }}
    .goal {{ stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 6 4; }}
    .line {{ fill: none; stroke-width: 2; }}
    .c0 {{ stroke: #0969da; }} .f0 {{ fill: #0969da; }}
    .c1 {{ stroke: #bc4c00; }} .f1 {{ fill: #bc4c00; }}
    .c2 {{ stroke: #1a7f37; }} .f2 {{ fill: #1a7f37; }}
    .c3 {{ stroke: #8250df; }} .f3 {{ fill: #8250df; }}
    .back {{ fill: #ffffff; }}
    @media (prefers-color-scheme: dark) {{
      text {{ fill: #f0f6fc; }}
      .small {{ fill: #9198a1; }}
      .axis {{ stroke: #9198a1; }}
      .grid {{ stroke: #2f353d; }}
      .goal {{ stroke: #f85149; }}
      .c0 {{ stroke: #4493f8; }} .f0 {{ fill: #4493f8; }}
      .c1 {{ stroke: #db6d28; }} .f1 {{ fill: #db6d28; }}
      .c2 {{ stroke: #3fb950; }} .f2 {{ fill: #3fb950; }}
      .c3 {{ stroke: #ab7df8; }} .f3 {{ fill: #ab7df8; }}
      .back {{ fill: #0d1117; }}
    }}
  </style>
  <rect class="back" width="{width}" height="{height}" rx="6"/>
"""
WIDTH, PANEL, LEFT, GAP = 880, 210, 70, 50


def lines(title: str, description: str, panels: Mapping[str, Mapping[str, Points]]) -> str:
    """
    Panels, two in a row, each with lines of (devices, seconds). A line has the same colour in all of them.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    across = [x for panel in panels.values() for points in panel.values() for x, _y in points]
    up = [y for panel in panels.values() for points in panel.values() for _x, y in points]
    x_range = (min(across), max(*across, 2 * min(across)))
    y_range = (10 ** math.floor(math.log10(min(up))), 10 ** math.ceil(math.log10(max(up))))
    height = 70 + -(-len(panels) // 2) * (PANEL + 2 * GAP)
    text = [HEAD.format(width=WIDTH, height=height, title=title, description=description)]
    for number, name in enumerate(names):
        text.append(_legend(40 + 180 * number, number, name))
    for number, (name, found) in enumerate(panels.items()):
        panel = _Panel(LEFT + number % 2 * 430, 90 + number // 2 * (PANEL + 2 * GAP), x_range, y_range)
        text.append(panel.frame(name, sorted(set(across))))
        text += [panel.line(names.index(each), points) for each, points in found.items() if points]
    return "".join(text) + "</svg>\n"


def _legend(x: float, number: int, name: str) -> str:
    return (
        f'  <path class="line c{number}" d="M {x} 30 H {x + 26}"/>\n'
        f'  <text x="{x + 34}" y="35">{name}</text>\n'
    )


class _Panel:
    """One pair of logarithmic axes, whose upper left corner is at x, y."""

    width = 350

    def __init__(
        self, x: float, y: float, x_range: tuple[float, float], y_range: tuple[float, float]
    ) -> None:
        self.x, self.y, self.x_range, self.y_range = x, y, x_range, y_range

    def across(self, value: float) -> float:
        return round(self.x + self.width * _share(value, *self.x_range), 1)

    def up(self, value: float) -> float:
        return round(self.y + PANEL * (1 - _share(value, *self.y_range)), 1)

    def frame(self, name: str, numbers: Sequence[float]) -> str:
        bottom, right = self.y + PANEL, self.x + self.width
        text = [f'  <text class="head" x="{self.x}" y="{self.y - 14}">{name}, seconds</text>\n']
        decade = self.y_range[0]
        while decade <= self.y_range[1] * 1.001:
            at = self.up(decade)
            text.append(f'  <path class="grid" d="M {self.x} {at} H {right}"/>\n')
            text.append(_text(self.x - 8, at + 4, f"{decade:g}", "end"))
            decade *= 10
        text += [_text(self.across(each), bottom + 18, f"{each:g}", "middle") for each in numbers]
        text.append(_text(right, bottom + 36, "devices", "end"))
        text.append(f'  <path class="axis" d="M {self.x} {self.y} V {bottom} H {right}"/>\n')
        return "".join(text)

    def line(self, number: int, points: Points) -> str:
        places = [(self.across(x), self.up(y)) for x, y in sorted(points)]
        path = " L ".join(f"{x} {y}" for x, y in places)
        dots = "".join(f'  <circle class="f{number}" cx="{x}" cy="{y}" r="3"/>\n' for x, y in places)
        return f'  <path class="line c{number}" d="M {path}"/>\n{dots}'


def _share(value: float, least: float, most: float) -> float:
    return (math.log(value) - math.log(least)) / (math.log(most) - math.log(least))


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'  <text class="small" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>\n'


def bars(title: str, description: str, values: Mapping[str, float], goal: float) -> str:
    """Horizontal bars, and a line at the goal, which they should not pass."""
    left, right, step = 250, 60, 28
    height = 60 + step * len(values)
    scale = (WIDTH - left - right) / max(goal, *values.values())
    text = [HEAD.format(width=WIDTH, height=height, title=title, description=description)]
    for number, (name, value) in enumerate(values.items()):
        y, width = 44 + step * number, round(scale * value, 1)
        text.append(f'  <text x="{left - 10}" y="{y + 14}" text-anchor="end">{name}</text>\n')
        text.append(
            f'  <rect class="f{int(value > goal)}" x="{left}" y="{y}" width="{width}" height="18" rx="2"/>\n'
        )
        text.append(f'  <text x="{left + width + 6}" y="{y + 14}">{value:.2f}</text>\n')
    at = round(left + scale * goal, 1)
    text.append(f'  <path class="goal" d="M {at} 34 V {height - 14}"/>\n')
    text.append(_text(at, 24, f"goal: {goal:g}", "middle"))
    return "".join(text) + "</svg>\n"


def shares(title: str, description: str, kinds: Mapping[str, int], rows: Mapping[str, Sequence[int]]) -> str:
    """
    A horizontal bar for each row, divided like its counts: one for each of ``kinds``, whose values are the
    numbers of their colours. The total stands behind it. A count above 0 is always visible.
    """
    left, right, step = 330, 80, 26
    height = 74 + step * len(rows)
    text = [HEAD.format(width=WIDTH, height=height, title=title, description=description)]
    for number, (kind, colour) in enumerate(kinds.items()):
        x = 40 + 150 * number
        text.append(f'  <rect class="f{colour}" x="{x}" y="20" width="14" height="14" rx="2"/>\n')
        text.append(f'  <text x="{x + 22}" y="32">{kind}</text>\n')
    for number, (name, counts) in enumerate(rows.items()):
        y, x = 54 + step * number, float(left)
        text.append(f'  <text x="{left - 10}" y="{y + 13}" text-anchor="end">{name}</text>\n')
        for (kind, colour), count, width in zip(kinds.items(), counts, _widths(counts, WIDTH - left - right)):
            if count:
                text.append(
                    f'  <rect class="f{colour}" x="{x:g}" y="{y}" width="{width:g}" height="16">'
                    f"<title>{kind}: {count:,}</title></rect>\n"
                )
            x = round(x + width, 1)
        text.append(_text(WIDTH - right + 8, y + 13, f"{sum(counts):,}", "start"))
    return "".join(text) + "</svg>\n"


def _widths(counts: Sequence[int], whole: int, least: float = 3) -> list[float]:
    """Widths in proportion, but at least ``least`` for a count above 0; the largest one gives way."""
    widths = [max(least, whole * count / sum(counts)) if count else 0.0 for count in counts]
    widths[widths.index(max(widths))] -= sum(widths) - whole
    return [round(width, 1) for width in widths]
