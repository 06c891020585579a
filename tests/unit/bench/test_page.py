# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/speed.md and its plots are what the stored figures give."""

from __future__ import annotations

import re
import xml.etree.ElementTree

import pytest

SVG = "{http://www.w3.org/2000/svg}"
MACHINE = {"kernel": "6.12", "python": "3.13", "processors": 2, "load": 0.1}


def device_rows(way, *counts, power=1.0):
    """Rows of one way, each device of which takes the same time if ``power`` is 1."""
    steps = ("create", "unchanged", "info", "absent")
    return [
        {
            "devices": count,
            "way": way,
            "turns": 3,
            **{step: [0.01 * count**power, 0.005 * count] for step in steps},
        }
        for count in counts
    ]


@pytest.fixture
def found():
    """Figures of all subjects."""
    tasks = [
        {"task": "loop_device", "turns": 3, "spent": [0.5, 0.4], "ping": [0.4, 0.3], "ratio": [1.25, 1.2]},
        {
            "task": "dm_device",
            "turns": 3,
            "spent": [0.8, 0.6],
            "ping": [0.4, 0.3],
            "ratio": [2.0, 1.9],
            "as a process": True,
        },
    ]
    vbds = [
        {"disks": 32, "way": "xen_vbds", "turns": 3, "attach": 10.0, "detach": 5.0},
        {"disks": 32, "way": "xl", "turns": 3, "attach": 200.0, "detach": 60.0},
    ]
    hotplug = [
        {"disks": 1, "kind": "file", "way": way, "turns": 5, "add": add, "remove": 0.1}
        for way, add in (("with service", 0.26), ("alone", 0.5), ("Xen's own", 0.8), ("C program", 0.2))
    ]
    loops = device_rows("loop_devices", 1, 8, 64, 4000) + device_rows("losetup", 1, 8, 64)
    dm = device_rows("dm_devices", 8, 64, power=1.2) + device_rows("dmsetup", 8, 64)
    return {
        "loops": {"machine": MACHINE, "rows": loops},
        "dm": {"machine": dict(MACHINE, **{"as a process": True, "load": 3.0}), "rows": dm},
        "tasks": {"machine": MACHINE, "rows": tasks, "not run": ["xen_vbd"]},
        "vbds": {"machine": MACHINE, "rows": vbds},
        "hotplug": {"machine": MACHINE, "rows": hotplug},
        "payload": {"machine": MACHINE, "rows": [{"module": "dm_device", "sent": 600000, "files": 900000}]},
    }


def test_the_page_is_made_from_the_stored_figures(bench):
    page = bench("page")
    found = page.stored(page.ROOT / "docs/speed")
    assert found
    text = (page.ROOT / "docs/speed.md").read_text(encoding="utf-8")
    assert text == page.page(found), "run make bench BENCH=page"
    for name, picture in page.pictures(found).items():
        assert (page.ROOT / "docs/images" / name).read_text(encoding="utf-8") == picture, name


def test_each_goal_is_compared(bench, found):
    lines = bench("page").goals(found).splitlines()[2:]
    assert [line.rpartition("| ")[2] for line in lines] == [
        "yes |",
        "**no** |",
        "**no** |",
        "yes |",
        "**no** |",
        "yes |",
    ]
    assert "dm_device 2.00" in lines[2] and "loop_device" not in lines[2]
    assert "20" in lines[3] and "12.0" in lines[4] and "at most 1.30" in lines[5]


def test_growth_with_fewer_devices_than_the_goal_names_is_not_called_met(bench, found):
    found["loops"]["rows"] = device_rows("loop_devices", 8, 64)
    line = bench("page").goals({"loops": found["loops"]}).splitlines()[2]
    assert line.endswith("| not measured up to 4,000 |")


def test_a_way_that_was_too_slow_has_empty_cells(bench, found):
    page = bench("page")
    text = page.by_devices("loops", found["loops"])
    assert "| 8 | create | 0.08 (0.04) | 0.08 (0.04) | 1.00 |" in text
    assert "| 4,000 | remove | 40.0 (20.0) |  |  |" in text


def test_what_was_not_measured_is_said(bench, found):
    page = bench("page")
    text = page.page({"tasks": found["tasks"]})
    assert text.count("Not measured yet") == len(page.SUBJECTS) - 1
    assert "Not run, because they need Xen or libvirt, or were left out: xen_vbd." in text


def test_a_busy_machine_is_said(bench, found):
    page = bench("page")
    assert "busy" in page.on(found["dm"]["machine"])
    assert "kernel that runs as a process" in page.on(found["dm"]["machine"])
    assert "busy" not in page.on(MACHINE)


def test_plots_are_whole_and_readable_in_the_dark(bench, found):
    page = bench("page")
    pictures = page.pictures(found)
    assert set(pictures) == {"speed-loops.svg", "speed-dm.svg", "speed-tasks.svg"}
    for picture in pictures.values():
        root = xml.etree.ElementTree.fromstring(picture)
        assert root.find(f"{SVG}title") is not None and root.find(f"{SVG}desc") is not None
        assert "prefers-color-scheme: dark" in picture
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        for circle in root.iter(f"{SVG}circle"):
            assert 0 < float(circle.attrib["cx"]) < width and 0 < float(circle.attrib["cy"]) < height


def test_a_line_has_a_dot_for_each_number_of_devices(bench, found):
    picture = bench("page").pictures(found)["speed-loops.svg"]
    # Four panels with the numbers of both ways.
    assert picture.count("<circle") == 4 * (4 + 3)


def test_twice_as_many_devices_are_as_far_as_the_next_twice(bench):
    plot = bench("plot")
    panel = plot._Panel(0, 0, (1, 1024), (0.001, 10))
    assert panel.across(32) == panel.width / 2 and panel.up(0.1) == plot.PANEL / 2


def test_bars_that_miss_the_goal_have_another_colour(bench):
    picture = bench("plot").bars("t", "d", {"slow": 2.0, "fast": 1.0}, 1.3)
    assert re.findall('<rect class="(f[0-9])"', picture) == ["f1", "f0"]
