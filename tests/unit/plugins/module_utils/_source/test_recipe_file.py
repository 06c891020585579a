# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recipes in files of their own, on the file system of this machine."""

from __future__ import annotations

import json
import os
import stat

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DefinitionError,
    InvalidValue,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._source import recipe_file, spec
from ansible_collections.racefree.block.plugins.module_utils._source.recipe import Seal
from ansible_collections.racefree.block.plugins.module_utils._source.recipe_file import KeptRecipe

KEPT = KeptRecipe("web1-xvda", spec.FileSource("/srv/web1.raw", format="raw"), True, "xvda of web1")
STACK = {
    "table": [
        {
            "start": 0,
            "length": 2048,
            "target": "crypt",
            "cipher": "aes-xts-plain64",
            "key": ":64:logon:guests:web1",
            "iv_offset": 0,
            "offset": 0,
            "device": {"file": "/srv/web1.raw"},
        }
    ]
}


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    place = tmp_path / "etc" / "recipes"
    monkeypatch.setattr(recipe_file, "DIRECTORY", str(place))
    return place


@pytest.mark.parametrize(
    "kept",
    [
        KEPT,
        KeptRecipe("a", spec.parse("dm:vg-a,LVM-abc"), False, None),
        KeptRecipe("A._+-9", spec.parse(STACK), False, "xvdb of web1"),
        KeptRecipe("sealed", spec.parse("file:/srv/a.raw"), False, None, Seal(True, True)),
    ],
)
def test_a_recipe_is_read_as_it_was_written(kept, directory):
    old = os.umask(0)
    try:
        recipe_file.write(kept)
    finally:
        os.umask(old)
    path = directory / f"{kept.name}.json"
    assert recipe_file.text_of(recipe_file.read(kept.name)) == path.read_text() == recipe_file.text_of(kept)
    assert recipe_file.read(kept.name)._replace(source=None) == kept._replace(source=None)
    assert recipe_file.exists(kept.name) and os.listdir(directory) == [path.name]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    recipe_file.remove(kept.name)
    recipe_file.remove(kept.name)
    assert not recipe_file.exists(kept.name) and os.listdir(directory) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../web1",
        "a/b",
        "/etc/passwd",
        ".hidden",
        "-rf",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "a" * 101,
        None,
    ],
)
def test_names_that_are_not_valid(name, directory):
    for action in (
        recipe_file.read,
        recipe_file.remove,
        lambda name: recipe_file.write(KEPT._replace(name=name)),
    ):
        with pytest.raises(InvalidValue, match="must be the name of a recipe"):
            action(name)
    assert not directory.exists()


def test_a_missing_recipe(directory):
    with pytest.raises(DefinitionError, match="there is no such recipe") as caught:
        recipe_file.read("web1-xvda")
    assert caught.value.errno_name == "ENOENT" and str(directory) in str(caught.value)


@pytest.mark.parametrize(
    "plain, reason",
    [
        ("{", "cannot be read"),
        ([], "must be a dictionary with source"),
        ({"source": "file:/a"}, "must be a dictionary with source"),
        ({"source": {}}, "must have exactly one of"),
        ({"source": {"file": "/a"}, "keep": 1}, "it has an unknown key: keep"),
        ({"source": {"file": "/a"}, "shared": "yes"}, "shared must be true or false"),
        ({"source": {"file": "/a"}, "disk": 5}, "disk must be text"),
        ({"source": {"file": "a"}}, "must be an absolute path"),
        ({"source": {"file": "/a", "sealed": 1}}, "sealed is neither true nor false"),
        ({"source": {"diskseq": 42}}, "numbers start again with every boot"),
        ({"source": {"path": "/dev/loop7"}}, "the kernel gives this name to whichever device comes first"),
    ],
)
def test_recipes_that_cannot_be_used(directory, plain, reason):
    directory.mkdir(parents=True)
    (directory / "a.json").write_text(plain if isinstance(plain, str) else json.dumps(plain))
    with pytest.raises((DefinitionError, InvalidValue), match=reason) as caught:
        recipe_file.read("a")
    assert str(directory / "a.json") in str(caught.value)


def test_a_key_is_never_kept(directory):
    table = [dict(STACK["table"][0], key="00" * 64)]
    with pytest.raises(InvalidValue, match="must hold no key") as caught:
        recipe_file.write(KEPT._replace(source=spec.parse({"table": table})))
    assert "0000" not in str(caught.value) and not directory.exists()


def _let_others_write(path):
    os.chmod(path, 0o666)


def _give_away(path):
    os.chown(path, 12345, 0)


def _link(path):
    os.rename(path, f"{path}.real")
    os.symlink(f"{path}.real", path)


def _fifo(path):
    os.unlink(path)
    os.mkfifo(path)


def _open_directory(path):
    os.chmod(os.path.dirname(path), 0o777)


def _give_directory_away(path):
    os.chown(os.path.dirname(path), 12345, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="files of other users need root")
@pytest.mark.parametrize(
    "change, reason",
    [
        (_let_others_write, "others can change it: its mode is 0666, and must be 0600"),
        (_give_away, "it belongs to the user 12345, who can change it"),
        (_link, "it is a symbolic link, and must be a regular file"),
        (_fifo, "it is a FIFO"),
        (_open_directory, "somebody other than root can replace it, through the directory"),
        (_give_directory_away, "which belongs to the user 12345"),
    ],
)
def test_a_file_that_others_can_change_is_refused(directory, change, reason):
    recipe_file.write(KEPT)
    change(str(directory / "web1-xvda.json"))
    with pytest.raises(DefinitionError, match=reason) as caught:
        recipe_file.read("web1-xvda")
    assert caught.value.errno_name == "EPERM"


@pytest.mark.skipif(os.geteuid() != 0, reason="directories of other users need root")
def test_a_directory_of_another_user_is_not_used(directory):
    directory.mkdir(parents=True)
    os.chown(directory, 12345, 0)
    with pytest.raises(WrongDevice, match="belongs to the user 12345"):
        recipe_file.write(KEPT)
    assert os.listdir(directory) == []
