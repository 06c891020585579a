# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Add, change and remove disks in configurations as people write them (corpus/), and in generated ones. xl reads
all files of the corpus (tests/host/test_xl_disk.py).
"""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DefinitionError
from ansible_collections.racefree.block.plugins.module_utils._xl import edit
from ansible_collections.racefree.block.plugins.module_utils._xl.config import Config
from ansible_collections.racefree.block.plugins.module_utils._xl.disk_text import SCRIPT, DiskText
from hypothesis import given
from hypothesis import strategies as st

CORPUS = os.path.join(os.path.dirname(__file__), "corpus")
# In another encoding, and with the line ends of Windows in comments. Made here, because tools for text files
# would change them.
VARIANTS = ["13-utf-8.cfg as latin-1", "14-comments-in-the-list.cfg as CRLF"]
FILES = sorted(os.listdir(CORPUS)) + VARIANTS
PATH = "/etc/xen/web1.cfg"


def load(name):
    name, dummy, variant = name.partition(" as ")
    with open(os.path.join(CORPUS, name), "rb") as file:
        text = file.read()
    if variant == "latin-1":
        return text.decode().encode("latin-1")
    lines = text.splitlines(True)
    return b"".join(line.replace(b"\n", b"\r\n") if variant and b"#" in line else line for line in lines)


def ours(vdev, access="w", device_type="disk", name="web1"):
    return DiskText(vdev, f"recipe:{name}-{vdev}", access, device_type, script=SCRIPT)


def read(text):
    return Config(text, PATH)


def put(text, *disks):
    for disk in disks:
        text = edit.put(read(text), disk)
    return text


def drop(text, *vdevs):
    for vdev in vdevs:
        text = edit.drop(read(text), vdev)
    return text


def test_there_are_enough_examples():
    assert load(VARIANTS[1]).count(b"\r\n") == 3 and b"\xe9" in load(VARIANTS[0])
    assert len(FILES) >= 15
    assert {len(read(load(name)).disks) for name in FILES} >= {0, 1, 2, 3, 4}


@pytest.mark.parametrize("name", FILES)
def test_adding_and_removing_leaves_the_file_unchanged(name):
    before = load(name)
    one = put(before, ours("xvdq"))
    assert [disk.says for disk in read(one).disks] == [
        *(disk.says for disk in read(before).disks),
        ours("xvdq"),
    ]
    assert put(one, ours("xvdq")) == one
    assert drop(one, "xvdq") == before
    two = put(one, ours("xvdr", "r", "cdrom"))
    assert drop(two, "xvdq", "xvdr") == before
    assert drop(two, "xvdr", "xvdq") == before
    # The name may be written in another way.
    assert drop(one, "d16") == before


@pytest.mark.parametrize("name", FILES)
def test_a_changed_disk_changes_nothing_else(name):
    before = load(name)
    for disk in read(before).disks:
        after = put(before, ours(disk.says.vdev))
        start, end = disk.element.start, disk.element.end
        assert after.startswith(before[: start + 1]) and after.endswith(before[end - 1 :])
        assert f"recipe:web1-{disk.says.vdev}".encode() in after
        assert put(after, ours(disk.says.vdev)) == after


@pytest.mark.parametrize("name", FILES)
def test_each_disk_can_be_removed(name):
    before = load(name)
    for disk in read(before).disks:
        after = drop(before, disk.says.vdev)
        assert [each.says for each in read(after).disks] == [
            each.says for each in read(before).disks if each.says != disk.says
        ]
        # Comments are never lost, not even that of the disk.
        assert after.count(b"#") == before.count(b"#")


@pytest.mark.parametrize(
    "before, after",
    [
        (b"disk = [ ]\n", b"disk = [ '%s' ]\n"),
        (b"disk = []\n", b"disk = ['%s']\n"),
        (b"disk=['a,,sda']\n", b"disk=['a,,sda', '%s']\n"),
        (b'disk = [ "a,,sda", ]\n', b'disk = [ "a,,sda", "%s", ]\n'),
        (b"disk = [\n\t'a,,sda'\n]\n", b"disk = [\n\t'a,,sda',\n\t'%s'\n]\n"),
        (b"disk = [\n  'a,,sda',   # b\n]\n", b"disk = [\n  'a,,sda',   # b\n  '%s',\n]\n"),
        (b"disk = [\n  'a,,sda'    # b\n]\n", b"disk = [\n  'a,,sda',    # b\n  '%s'\n]\n"),
        (b"disk = [ 'a,,sda',\n  'b,,sdb' ]\n", b"disk = [ 'a,,sda',\n  'b,,sdb',\n  '%s' ]\n"),
        (b"disk = [ # none\n]\n", b"disk = ['%s' # none\n]\n".replace(b"['", b"[ '")),
        (b"disk = [\n]\n", b"disk = [\n  '%s',\n]\n"),
        (b"disk = [\n  # none\n]\n", b"disk = [\n  '%s',\n  # none\n]\n"),
        (b"", edit.MARK + b"disk = [\n  '%s',\n]\n"),
        (b"a = 1", b"a = 1\n" + edit.MARK + b"disk = [\n  '%s',\n]"),
    ],
)
def test_the_style_is_that_of_the_list(before, after):
    text = b"vdev=xvdq,access=w,script=block-racefree,target=recipe:web1-xvdq"
    assert put(before, ours("xvdq")) == after % text
    assert drop(after % text, "xvdq") == before


@pytest.mark.parametrize(
    "before, after",
    [
        (b"disk = [ 'a,,sda', 'b,,sdb' ]\n", b"disk = [ 'b,,sdb' ]\n"),
        (b"disk = [ 'a,,sda' , 'b,,sdb' ]\n", b"disk = [ 'b,,sdb' ]\n"),
        (b"disk = [ 'a,,sda' ]\n", b"disk = [ ]\n"),
        (b"disk = [\n  'a,,sda'\n]\n", b"disk = [\n]\n"),
        (b"disk = [\n  'a,,sda',\n  'b,,sdb',\n]\n", b"disk = [\n  'b,,sdb',\n]\n"),
        (b"disk = [ 'b,,sdb', # b\n 'a,,sda' ]\n", b"disk = [ 'b,,sdb' # b\n  ]\n"),
        (b"disk = [ 'a,,sda' # a\n , 'b,,sdb' ]\n", b"disk = [  # a\n  'b,,sdb' ]\n"),
        (b"disk = [ 'b,,sdb'\n , 'a,,sda'\n ]\n", b"disk = [ 'b,,sdb'\n \n ]\n"),
        # A list that a person wrote stays, even if it is empty and looks like one of the collection.
        (b"# x\ndisk = [ 'a,,sda' ]\n", b"# x\ndisk = [ ]\n"),
        (edit.MARK + b"disk = [ 'a,,sda' # b\n ]\n", edit.MARK + b"disk = [ # b\n ]\n"),
    ],
)
def test_removing_takes_the_right_comma(before, after):
    assert drop(before, "sda") == after


def test_removing_a_missing_disk_does_nothing():
    assert drop(load("02-one-line.cfg"), "xvdz") == load("02-one-line.cfg")


BAD = {
    b"disk = [ 'a,,sda' ]\ndisk = [ 'b,,sdb' ]\n": "line 2: disk is assigned a second time, after line 1",
    b"disk = [ 'a,,sda' ]\ndisk += [ 'b,,sda1', 'c,,sda' ]\n": "line 2: sda is a disk already, in line 1",
    b"x = 1\ndisk = ''\n": "line 2: disk is not a list",
    b"disk = [ 'a,,sda',\n [ 'b,,sdb' ] ]\n": "line 2: an element of disk is not a string",
    b"disk = [ 5 ]\n": "line 1: an element of disk is not a string",
    b"disk = [ 'a' ]\n": "line 1: a disk cannot be read: it has no vdev",
    b"disk = [ 'vdev=sda' ]\n": "line 1: a disk cannot be read: it has no target",
    b"disk = [ 'a,,sda,w,x' ]\n": "line 1: a disk cannot be read: x is one parameter without a key too many",
    b"disk = [ 'a,,sda,x' ]\n": "x is not an access that xl knows",
    b"disk = [ 'a,iso,sda' ]\n": "iso is not a format that xl knows",
    b"disk = [ 'format=raw,a,qcow2,sda' ]\n": "xl knows",
    b"disk = [ 'format=raw,format=qed,vdev=sda,target=a' ]\n": "it has two formats, raw and qed",
    b"disk = [ 'vdev=sda,vdev=sdb,target=a' ]\n": "it has vdev twice",
    b"disk = [ 'vdev=sda,devtype=tape,target=a' ]\n": "tape is not a type of device that xl knows",
    b"disk = [ 'vdev=sda,colour=red,target=a' ]\n": "colour=red is not a parameter that xl knows",
    b"disk = [ 'vdev=sda,backendtype=file,target=a' ]\n": "=file has a value that xl does not know",
    b"disk = [ 'http://a,sda,w' ]\n": "http: is not a prefix that xl knows",
    b"disk = [ 'vdev=sda,target=a\\nb' ]\n": "it has a line break",
    b"disk = [ 'vdev=sda,target=a\\x41' ]\n": "\\x in a string is not an escape that xl reads reliably",
    b"disk = []\nextra = 'a\\d'\n": "line 2: \\d in a string is not an escape that xl reads reliably",
    b"disk = [ 'a,,sda' 'b,,sdb' ]\n": "line 1: a string is there instead of , or ]",
    b"disk = [ 'a,,sda'\n": "line 2: the end of the file is there instead of , or ]",
    b"disk = [ 'a,,sda' ] x = 1\n": "line 1: a name is there instead of the end of the line or ;",
    b"disk = [ , 'a,,sda' ]\n": "line 1: , is there instead of",
    b"disk =\n [ 'a,,sda' ]\n": "line 1: the end of the line is there instead of a string or a number or [",
    b"disk = [ 'a,,sda\n' ]\n": "line 1: a string is not closed on the line where it begins",
    b"disk = [ 'a,,s\0da' ]\n": "a string is not closed on the line where it begins, or has a NUL byte",
    b"a = 1\n\xef\xbb\xbf": "line 2: the byte b'\\xef' is there, outside of a string",
    b"import os\n": "line 1: a name is there instead of = or +=",
    b"a = -1\n": "line 1: - is there: xl does not run Python",
    b"a = True\n": "line 1: T is there, outside of a string: names of options are in lower case",
    b"disk = [ u'file:/a,xvda,w' ]\n": "line 1: a name is there instead of",
    b"disk = [ 'file:/a,xvda,w' ] + more\n": "line 1: + is there",
    b"disk = [ 'file:/a,%s,w' % 'xvda' ]\n": "line 1: the byte b'%' is there",
    b"a = 1\r\n": "line 1: there is a carriage return at its end (as Windows writes it), which xl refuses",
    b"a = 1\n# no newline": "line 2: the file ends in a comment without a newline",
    b"a = " + b"[" * 30 + b"]" * 30 + b"\n": "line 1: lists are nested deeper than 20 levels",
    b"a = 1\n" * 200000: "line 1: the file has 1200000 bytes, more than 1048576",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:40]))
def test_what_xl_refuses_or_can_be_misread_is_refused(text):
    with pytest.raises(DefinitionError) as caught:
        read(text)
    assert BAD[text] in str(caught.value) and str(caught.value).startswith(f"{PATH}: line ")
    assert caught.value.hint


@pytest.mark.parametrize(
    "text, name",
    [
        (b"name = 'a'\n", "a"),
        (b'name="a";name="b"\n', "b"),
        (b"memory = 1\n", None),
        (b"name = 'a\\'b'\n", "a'b"),
    ],
)
def test_the_name_of_the_guest(text, name):
    assert read(text).name == name


def test_a_name_that_is_not_a_string():
    with pytest.raises(DefinitionError, match="line 2: name must be a string"):
        str(read(b"x = 1\nname = [ 'a' ]\n").name)


BLANKS = st.text(" \t", max_size=2).map(str.encode)
COMMENTS = st.binary(max_size=6).map(lambda raw: b"#" + raw.replace(b"\n", b"'").replace(b"\0", b"[") + b"\n")
GAPS = st.lists(st.one_of(BLANKS, COMMENTS, st.just(b"\n")), max_size=3).map(b"".join)
VALUES = st.sampled_from([b"'x'", b'"it\'s"', b"5", b"0x1f", b"[ 'a', [ 'b' ] ]", b"'\\'#'", b"'\xff\xe9'"])
NAMES = st.sampled_from([b"name", b"vif", b"a.b_c", b"diskette", b"on_crash"])


@st.composite
def lists(draw, vdevs):
    """A list of disks in any style, with the gaps that xl allows."""
    parts = [b"[", draw(GAPS)]
    for number, vdev in enumerate(vdevs):
        quote = draw(st.sampled_from([b"'", b'"']))
        parts += [
            quote + draw(st.sampled_from([b"phy:a,%s,w", b"vdev=%s,target=a,b", b"a,,%s"])) % vdev + quote
        ]
        parts.append(draw(GAPS))
        if number < len(vdevs) - 1 or draw(st.booleans()):
            parts += [b",", draw(GAPS)]
    return b"".join([*parts, b"]"])


@st.composite
def configs(draw):
    vdevs = draw(st.lists(st.sampled_from([b"xvda", b"xvdb", b"sda", b"hdc"]), unique=True, max_size=4))
    cut = draw(st.integers(0, len(vdevs)))
    disks = []
    if draw(st.booleans()):
        disks.append(b"disk" + draw(BLANKS) + b"=" + draw(BLANKS) + draw(lists(vdevs[:cut])))
        if draw(st.booleans()):
            disks.append(b"disk" + draw(BLANKS) + b"+=" + draw(BLANKS) + draw(lists(vdevs[cut:])))
    others = draw(
        st.lists(st.builds(lambda name, blank, value: name + blank + b"=" + value, NAMES, BLANKS, VALUES))
    )
    at = draw(st.integers(0, len(others)))
    found = [draw(GAPS)]
    for each in [*others[:at], *disks, *others[at:]]:
        found += [
            draw(BLANKS),
            each,
            draw(BLANKS),
            draw(st.sampled_from([b"\n", b";", b"# c\n"])),
            draw(GAPS),
        ]
    text = b"".join(found)
    # A comment needs its newline.
    last = text[text.rfind(b"\n", 0, -1) + 1 :]
    return text[:-1] if draw(st.booleans()) and last.endswith((b"'\n", b"]\n")) and b"#" not in last else text


@given(configs(), st.permutations(["xvdq", "xvdr", "xvds"]), st.permutations(["xvdq", "xvdr", "xvds"]))
def test_adding_and_removing_gives_the_same_bytes(text, added, removed):
    before = read(text)
    after = put(text, *(ours(vdev) for vdev in added))
    assert [disk.says for disk in read(after).disks] == [
        *(disk.says for disk in before.disks),
        *(ours(vdev) for vdev in added),
    ]
    assert drop(after, *removed) == text


@given(configs(), st.data())
def test_removing_any_disk_keeps_the_others_and_all_comments(text, data):
    before = read(text)
    vdevs = [disk.says.vdev for disk in before.disks]
    chosen = data.draw(st.lists(st.sampled_from(vdevs), unique=True)) if vdevs else []
    after = drop(text, *chosen)
    assert [disk.says for disk in read(after).disks] == [
        disk.says for disk in before.disks if disk.says.vdev not in chosen
    ]
    assert after.count(b"#") == text.count(b"#")


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_any_bytes_are_read_or_refused(start, end):
    text = start + b"disk = ['a,,sda']" + end
    try:
        after = put(text, ours("xvdq"))
    except DefinitionError:
        return
    assert drop(after, "xvdq") == text
