# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""xl_disk and a running guest that has another disk: a real xenstored and real loop devices, without Xen."""

from __future__ import annotations

from ansible_collections.racefree.block.plugins.module_utils._hotplug import state
from ansible_collections.racefree.block.plugins.module_utils._source import recipe_file
from ansible_collections.racefree.block.plugins.module_utils._xl import config_file
from ansible_collections.racefree.block.plugins.modules import xl_disk
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.played_host import XVDB
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.runs import run


def test_another_disk_than_the_source_is_not_detached(host, tmp_path, monkeypatch):
    """Its mode is another one, too."""
    for module, name in ((config_file, ""), (recipe_file, "recipes"), (state, "hotplug")):
        monkeypatch.setattr(module, "DIRECTORY", str(tmp_path / "etc" / name))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "web.cfg").write_bytes(b"name = 'web'\ndisk = [\n]\n")
    options = {"domain": "web", "vdev": "xvdb", "source": {"file": host.image("mine")}, "timeout": 5}
    assert run(xl_disk.main, options)["changed"]
    other = host.image("other.iso")
    assert host.vbd(other, mode="r")["changed"]
    for check in (True, False):
        failed = run(xl_disk.main, dict(options, state="absent", live=True), check=check)
        assert failed.get("failed") and "leave source out" in failed["msg"], failed
    assert host.backend.has(XVDB)
    host.vbd(other, mode="r", state="detached")
