# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import re

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError, DefinitionError
from ansible_collections.racefree.block.plugins.module_utils._libvirt import domain_xml, hook_plan, xml_edit
from ansible_collections.racefree.block.plugins.module_utils._source import spec

CORPUS = os.path.join(os.path.dirname(__file__), "corpus")
UUID = "11111111-2222-3333-4444-55555555555b"
PROGRAM = os.path.join(os.path.dirname(__file__), *[".."] * 5, "roles", "xen_host", "files", "libvirt-hook")


def load(name):
    with open(os.path.join(CORPUS, name), encoding="utf-8") as file:
        return file.read()


@pytest.fixture
def text():
    return load("ours-already.xml")


def test_the_disks(text):
    job = hook_plan.job_of("prepare", text)
    assert (job.action, job.domain, job.uuid, job.domid) == ("make", "ours", UUID, None)
    (disk,) = job.disks
    assert (disk.target, disk.source, disk.read_only, disk.shareable) == (
        "xvda",
        spec.FileSource("/srv/ours.raw"),
        False,
        False,
    )
    assert disk.path == domain_xml.path_of(UUID, "xvda") and str(disk) == "xvda of ours"
    started = hook_plan.job_of("started", text.replace("type='xen'", "type='xen' id='12'"))
    assert (started.action, started.domid, started.disks) == ("hand_over", 12, [disk])
    second = domain_xml.Disk("xvdb", domain_xml.path_of(UUID, "xvdb"), read_only=True, shareable=True)
    both = hook_plan.job_of("prepare", domain_xml.put(text, second, '{"file": "/b"}')).disks
    assert [(one.target, one.read_only, one.shareable) for one in both] == [
        ("xvda", False, False),
        ("xvdb", True, True),
    ]


@pytest.mark.parametrize("name", sorted(set(os.listdir(CORPUS)) - {"ours-already.xml"}))
def test_other_domains_are_ignored(name):
    for operation in hook_plan.OF_QEMU:
        assert not hook_plan.concerns(operation, load(name))
        assert hook_plan.job_of(operation, load(name)).disks == []


@pytest.mark.parametrize("operation", ["start", "attach", "", "PREPARE", "prepare\n"])
def test_other_operations_are_ignored(operation, text):
    assert not hook_plan.concerns(operation, text)


@pytest.fixture
def of_qemu(text):
    return text.replace("<domain type='xen'", "<domain type='kvm'").replace("xvda", "vda")


def test_the_disks_of_a_domain_of_qemu(of_qemu):
    """Its disks need no name that Xen knows."""
    for operation, action in (("prepare", "make"), ("restore", "check"), ("migrate", "refuse")):
        job = hook_plan.job_of(operation, of_qemu)
        assert (job.action, job.is_xen, [disk.target for disk in job.disks]) == (action, False, ["vda"])


@pytest.mark.parametrize("operation", ["migrate", "restore"])
def test_operations_of_qemu_only(operation, text):
    assert hook_plan.job_of(operation, text)[:2] == ("ignore", 0)


def test_a_sealed_disk_of_qemu(of_qemu):
    sealed = of_qemu.replace('{"file"', '{"sealed": true, "file"')
    assert sealed != of_qemu
    with pytest.raises(DefinitionError, match="only for Xen"):
        hook_plan.job_of("prepare", sealed)
    assert hook_plan.job_of("prepare", sealed.replace("'kvm'", "'xen'").replace("vda", "xvda")).disks


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda text: text.replace('d:disk target="xvda"', 'd:disk target="xvdb"'), "no recipe"),
        (
            lambda text: text.replace("/dev/mapper/racefree-11111111", "/dev/mapper/racefree-21111111"),
            "instead of",
        ),
        (
            lambda text: text.replace("source dev='/dev/mapper/racefree-", "source dev='/dev/vg/"),
            "instead of",
        ),
        (lambda text: text.replace("<uuid>1", "<uuid>2"), "instead of"),
        (
            lambda text: text.replace("disk type='block'", "disk type='file'").replace(
                "source dev", "source file"
            ),
            "instead of",
        ),
        (lambda text: text.replace("/srv/ours.raw", "relative"), "absolute path"),
        (lambda text: text.replace('{"file": "/srv/ours.raw"}', "{}"), "exactly one"),
        (lambda text: text.replace('{"file": "/srv/ours.raw"}', '{"diskseq": 5}'), "every boot"),
        (
            lambda text: text.replace("</d:disks>", '<d:disk target="xvda">{}</d:disk></d:disks>'),
            "two recipes",
        ),
        (lambda text: text.replace("<uuid>11111111-2222-3333-4444-55555555555b</uuid>", ""), "uuid"),
    ],
)
def test_contradictions(text, change, words):
    changed = change(text)
    assert changed != text
    with pytest.raises(BlockError, match=words):
        hook_plan.job_of("prepare", changed)


HOSTILE = ["../../etc/passwd", "xvda'/><x/>", "xv\nda", "xvda ", "", "xvda\0"[:4] + "\u00e4", "a" * 300]


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_targets(text, target):
    quoted = xml_edit.quoted(target)
    changed = text.replace('d:disk target="xvda"', f"d:disk target={quoted}").replace(
        "target dev='xvda'", f"target dev={quoted}"
    )
    assert changed.count(quoted) >= 2
    with pytest.raises(BlockError, match="a disk's name"):
        hook_plan.job_of("prepare", changed)
    (problem,) = hook_plan.job_of("reconnect", changed).problems
    assert "a disk's name" in problem


@pytest.mark.parametrize("name", ["it's", 'a "b"', "a\nb", "../../x", "<&>", "%s{0}$(id)"])
def test_hostile_domain_names(text, name):
    """Names are only used in messages. Devices are named by UUID and target."""
    job = hook_plan.job_of("prepare", text.replace("<name>ours<", f"<name>{xml_edit.text_of(name)}<"))
    assert (
        job.domain == name
        and job.disks[0].path == domain_xml.path_of(UUID, "xvda")
        and str(job.disks[0]) == f"xvda of {name}"
    )


@pytest.mark.parametrize("source", ["/srv/../etc/shadow", "/srv/it's \"<&>", "/srv/%s{0}$(id)"])
def test_hostile_files(text, source):
    """File names are taken literally: nothing in them is interpreted."""
    recipe = xml_edit.text_of(json.dumps({"file": source}))
    assert hook_plan.job_of("prepare", text.replace('{"file": "/srv/ours.raw"}', recipe)).disks[
        0
    ].source == spec.FileSource(source)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<domain",
        "<domain>&file;</domain>",
        "<!DOCTYPE d [<!ENTITY f SYSTEM 'file:///etc/passwd'>]><domain>&f;</domain>",
        "<other/>",
        "<a>" * 300 + "</a>" * 300,
        "<domain><uuid>&#0;</uuid></domain>",
        "<domain xmlns='urn:other'/>",
        "<domain/><domain/>",
    ],
)
@pytest.mark.parametrize("operation", sorted(hook_plan.OF_QEMU))
def test_invalid_documents(operation, document):
    with pytest.raises(BlockError):
        hook_plan.job_of(operation, document)


def test_one_disk_does_not_hide_the_others(text):
    for letter, recipe in (("b", '{"file": "/b"}'), ("c", "{}"), ("d", '{"file": "/d"}')):
        text = domain_xml.put(
            text, domain_xml.Disk(f"xvd{letter}", domain_xml.path_of(UUID, f"xvd{letter}")), recipe
        )
    text = text.replace(domain_xml.path_of(UUID, "xvdb"), "/dev/vg/b")
    job = hook_plan.job_of("reconnect", text)
    assert [wanted.target for wanted in job.disks] == ["xvda", "xvdd"]
    assert (
        len(job.problems) == 2
        and "xvdb of ours: there is a recipe" in job.problems[0]
        and "xvdc" in job.problems[1]
    )
    twice = text.replace("</d:disks>", '<d:disk target="xvdd">{}</d:disk></d:disks>')
    assert [wanted.target for wanted in hook_plan.job_of("reconnect", twice).disks] == ["xvda"]


def test_recipes_are_not_read_when_a_guest_ends(text):
    """The devices must be removed, however broken the recipes are."""
    broken = text.replace('{"file": "/srv/ours.raw"}', "{}")
    for operation in ("stopped", "release"):
        assert hook_plan.job_of(operation, broken)[:4] == ("release", 20, "ours", UUID)


def test_an_invalid_document():
    with pytest.raises(DefinitionError):
        hook_plan.job_of("release", "<!DOCTYPE domain><domain/>")


@pytest.mark.skipif(not os.path.exists(PROGRAM), reason="only with the whole tree at hand")
def test_the_program_searches_for_the_same_marks():
    with open(PROGRAM, encoding="utf-8") as file:
        program = file.read()
    assert "MARKS = (" + ", ".join(f'b"{mark}"' for mark in hook_plan.MARKS) + ")" in program
    refusable = ", ".join(f'"{operation}"' for operation in hook_plan.REFUSABLE)
    assert f"REFUSABLE = ({refusable})" in program


@pytest.mark.skipif(not os.path.exists(PROGRAM), reason="only with the whole tree at hand")
def test_the_role_recognises_the_program():
    with open(os.path.join(os.path.dirname(PROGRAM), "..", "vars", "main.yml"), encoding="utf-8") as file:
        mark = re.search('^xen_host__hook_mark: "(.+)"$', file.read(), re.MULTILINE).group(1)
    with open(PROGRAM, encoding="utf-8") as file:
        assert mark in file.read()
