# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import struct

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue, KernelError
from ansible_collections.racefree.block.plugins.module_utils._block import trusted_path
from ansible_collections.racefree.block.plugins.module_utils._source import (
    lookup,
    opener,
    recipe,
    resources,
    spec,
)
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to somebody else")

NOBODY = 65534


@pytest.fixture
def place():
    """A directory that only root can write to, in a sticky directory. It contains guests/a.raw."""
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        os.mkdir(path + "/guests", 0o755)
        loopdevices.image(path + "/guests", "a.raw")
        yield path
        assert loopdevices.nothing_bound(path)


def weak(path):
    """Checks that the result is the same for a single file, and for the first and second file of a run."""
    found, walked = trusted_path.weak_place(path), {}
    for dummy in range(2):
        assert trusted_path.weak_place(path, walked) == found
    return found


def test_only_root_can_redirect_the_path(place):
    assert weak(place + "/guests/a.raw") is None
    assert weak(place + "/guests/../guests/./a.raw") is None
    assert weak(place + "/guests/none/at/all") is None


@pytest.mark.parametrize(
    "mode, words", [(0o777, "everybody"), (0o757, "everybody"), (0o1777, None), (0o755, None), (0o700, None)]
)
def test_modes(place, mode, words):
    os.chmod(place + "/guests", mode)
    found = weak(place + "/guests/a.raw")
    assert found is None if words is None else f"the directory {place}/guests," in found and words in found


def test_a_group(place):
    os.chmod(place + "/guests", 0o775)
    assert weak(place + "/guests/a.raw") is None, "root's own"
    os.chown(place + "/guests", 0, 5)
    assert "the group 5" in weak(place + "/guests/a.raw")


def test_an_access_control_list(place):
    """An ACL that lets one user write appears as the permission of the group, which is root's."""
    entries = ((1, 7, 2**32 - 1), (2, 7, NOBODY), (4, 5, 2**32 - 1), (16, 7, 2**32 - 1), (32, 5, 2**32 - 1))
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(place + "/guests", "system.posix_acl_access", value)
    except OSError as error:
        assert error.errno == errno.ENOTSUP
        pytest.skip("the file system of the temporary directory has no access control lists")
    assert "an ACL lets others write" in weak(place + "/guests/a.raw")


@pytest.mark.parametrize("which", ["", "/guests"])
def test_a_directory_of_another_user(place, which):
    os.chown(place + which, NOBODY, NOBODY)
    assert str(NOBODY) in weak(place + "/guests/a.raw") and place + which in weak(place + "/guests/a.raw")


def test_a_file_of_another_user_in_a_sticky_directory(place):
    os.chmod(place + "/guests", 0o1777)
    os.chown(place + "/guests/a.raw", NOBODY, NOBODY)
    assert f"{place}/guests/a.raw, which belongs to the user {NOBODY}, in a directory" in weak(
        place + "/guests/a.raw"
    )


def test_a_symbolic_link(place):
    """A link of root, where only root can write, leads where root wants. Its target is checked, too."""
    os.symlink("guests", place + "/link")
    os.symlink(place + "/open/a.raw", place + "/guests/other")
    assert weak(place + "/link/a.raw") is None
    os.mkdir(place + "/open")
    os.chmod(place + "/open", 0o777)
    loopdevices.image(place + "/open", "a.raw")
    assert f"the directory {place}/open," in weak(place + "/link/other")
    os.symlink(place + "/guests/a.raw", place + "/open/back")
    assert f"the directory {place}/open," in weak(place + "/open/back")


def test_a_symbolic_link_of_another_user(place):
    os.mkdir(place + "/tmp")
    os.chmod(place + "/tmp", 0o1777)
    os.symlink(place + "/guests/a.raw", place + "/tmp/a.raw")
    assert weak(place + "/tmp/a.raw") is None
    os.lchown(place + "/tmp/a.raw", NOBODY, NOBODY)
    assert f"{place}/tmp/a.raw, which belongs to the user {NOBODY}" in weak(place + "/tmp/a.raw")


def test_links_in_a_circle(place):
    os.symlink("one", place + "/two")
    os.symlink("two", place + "/one")
    with pytest.raises(KernelError, match="ELOOP"):
        weak(place + "/one/a.raw")


def test_the_message(place):
    os.chmod(place + "/guests", 0o777)
    source = spec.parse({"file": place + "/guests/a.raw"})
    with resources.Resources() as host:
        opener.Opener(host).open(source)
        assert len(host.warnings) == 1 and f"{place}/guests," in host.warnings[0]
        with pytest.raises(
            InvalidValue, match="redirect it to another file, through the directory .*trusted_path=false"
        ):
            lookup.find(source._replace(trusted_path=True), host)


def test_the_option_is_kept_in_a_recipe():
    source = spec.parse({"file": "/a", "trusted_path": "yes"})
    assert recipe.parse(recipe.text_of(source)) == source and source.trusted_path
    assert recipe.without_guards(source) == spec.FileSource("/a")
