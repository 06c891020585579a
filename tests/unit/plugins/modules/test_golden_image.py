# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""golden_image: conversions by the real qemu-img, on files of any file system."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._image import chain, golden, qemu_img
from ansible_collections.racefree.block.plugins.modules import golden_image
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import modulerun, runs

SIZE = 8 << 20
FORMATS = ("qcow2", "vmdk", "vhdx")
# How qemu-img makes images without other files, and with them.
VARIANTS = {
    "qcow2": ("qcow2", ()),
    "old qcow2": ("qcow2", ("compat=0.10",)),
    "qcow2, small clusters": ("qcow2", ("cluster_size=512",)),
    "qcow2, extended L2": ("qcow2", ("extended_l2=on",)),
    "vmdk": ("vmdk", ()),
    "vmdk, compressed": ("vmdk", ("subformat=streamOptimized",)),
    "vhdx": ("vhdx", ()),
    "vhdx, fixed": ("vhdx", ("subformat=fixed",)),
}
WITH_FILES = {
    "vmdk, flat": ("vmdk", ("subformat=monolithicFlat",)),
    "vmdk, parts": ("vmdk", ("subformat=twoGbMaxExtentSparse",)),
    "vmdk, flat parts": ("vmdk", ("subformat=twoGbMaxExtentFlat",)),
}


def tool(*words):
    subprocess.run(["qemu-img", *words], check=True, stdout=subprocess.DEVNULL, timeout=60)


def run(check=False, **arguments):
    return modulerun.run(golden_image.main, check, **arguments)


@pytest.fixture
def place(tmp_path):
    """A directory with disk.raw, which has data, zeros and a hole."""
    data = bytes(range(256)) * 4096
    with open(tmp_path / "disk.raw", "wb") as file:
        file.write(data)
        file.seek(5 << 20)
        file.write(data)
        file.truncate(SIZE)
    return tmp_path


def converted(place, name, form, options=()):
    """An image of the format with the contents of disk.raw; returns its path."""
    words = [word for option in options for word in ("-o", option)]
    tool("convert", "-f", "raw", "-O", form, *words, str(place / "disk.raw"), str(place / name))
    return str(place / name)


def arguments(place, form="qcow2", image=None, **more):
    image = image or str(place / f"image.{form}")
    return dict({"path": str(place / "golden.raw"), "image": image, "format": form}, **more)


def made(place, form="qcow2", **more):
    """A golden image of an image with the contents of disk.raw; returns the arguments of the run."""
    converted(place, f"image.{form}", form)
    wanted = arguments(place, form, **more)
    assert run(**wanted)["changed"]
    return wanted


def names(place):
    return sorted(os.listdir(place))


def refused(place, *parts, check_too=True, **wanted):
    """The run fails with these parts in its message, also in check mode, and changes nothing."""
    before = {name: (place / name).read_bytes() for name in names(place)}
    for check in (True, False) if check_too else (False,):
        done = run(check, **wanted)
        assert done.get("failed") and all(part in done["msg"] for part in parts), done["msg"]
        assert done["error"]["hint"] and done["error"]["errno"]
    assert {name: (place / name).read_bytes() for name in names(place)} == before
    return done


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_is_converted_once(place, variant):
    form, options = VARIANTS[variant]
    image = converted(place, "image", form, options)
    wanted = arguments(place, form, image)
    before = names(place)
    predicted = run(True, **wanted)
    assert predicted["changed"] and names(place) == before
    assert predicted["golden"]["exists"] is False and predicted["golden"]["size"] == SIZE
    done = run(**wanted)
    assert done["changed"] and done["diff"] == predicted["diff"]
    assert done["diff"]["after"] == {"path": wanted["path"], "size": SIZE, "image": image, "format": form}
    made_now = place / "golden.raw"
    assert made_now.read_bytes() == (place / "disk.raw").read_bytes()
    # Holes stay holes, and only root may read it.
    assert made_now.stat().st_blocks * 512 < SIZE / 2 and stat.S_IMODE(made_now.stat().st_mode) == 0o600
    (source,) = done["golden"]["made_from"]
    assert source["path"] == image and source["format"] == form
    with open(image, "rb") as file:
        assert source["sha256"] == hashlib.sha256(file.read()).hexdigest()
    assert names(place) == [*sorted([*before, "golden.raw", "golden.raw.source"])]
    identity = made_now.stat().st_ino, made_now.stat().st_mtime_ns
    for check in (True, False):
        again = run(check, **wanted)
        assert not again["changed"] and again["golden"] == done["golden"]
    assert (made_now.stat().st_ino, made_now.stat().st_mtime_ns) == identity


def test_an_unchanged_image_is_not_read_again(place, monkeypatch):
    wanted = made(place)
    monkeypatch.setattr(chain, "checksum", lambda *rest: pytest.fail("it was read"))
    monkeypatch.setattr(qemu_img, "_run", lambda *rest: pytest.fail("qemu-img was run"))
    assert not run(**wanted)["changed"]


def test_the_same_contents_at_another_path_or_time(place):
    """The image is read again, and the record says where it is now; it is not converted again."""
    wanted = made(place)
    before = (place / "golden.raw").stat()
    os.utime(wanted["image"], (1, 1))
    for image in (wanted["image"], shutil.copy(wanted["image"], place / "copy.qcow2")):
        wanted["image"] = str(image)
        assert run(True, **wanted)["changed"] and run(**wanted)["changed"] and not run(**wanted)["changed"]
    assert (place / "golden.raw").stat().st_mtime_ns == before.st_mtime_ns
    # An image may be removed after it was converted.
    os.unlink(place / "copy.qcow2")
    assert not run(True, **wanted)["changed"] and not run(**wanted)["changed"]
    refused(place, "does not exist", **(wanted | {"image": str(place / "other.qcow2")}))
    refused(place, "does not exist", **(wanted | {"format": "vmdk"}))


def test_an_image_with_other_contents(place):
    """Guests' changes may belong to the golden image: it stays, and the message says what can be done."""
    wanted = made(place)
    with open(place / "disk.raw", "r+b") as file:
        file.write(b"another")
    converted(place, "image.qcow2", "qcow2")
    refused(
        place,
        "it was made from another image",
        wanted["image"],
        "Give another path for the new one, or remove it and",
        **wanted,
    )
    # The same contents in another format are another image.
    converted(place, "image.vmdk", "vmdk")
    refused(place, "it was made from another image", **arguments(place, "vmdk"))
    os.unlink(place / "golden.raw")
    assert run(**wanted)["changed"]
    assert (place / "golden.raw").read_bytes().startswith(b"another")


def test_a_golden_image_that_was_written_to(place):
    wanted = made(place)
    with open(place / "golden.raw", "r+b") as file:
        file.write(b"x")
    refused(place, "it was written to after it was made", "another path", **wanted)


def replaced(place, data):
    """The golden image becomes another file, with the size and modification time of the old one."""
    there = (place / "golden.raw").stat()
    (place / "new").write_bytes(data)
    os.utime(place / "new", ns=(there.st_atime_ns, there.st_mtime_ns))
    os.rename(place / "new", place / "golden.raw")


def overwritten(place, data):
    """The golden image gets other contents, and then its old modification time."""
    there = (place / "golden.raw").stat()
    (place / "golden.raw").write_bytes(data)
    os.utime(place / "golden.raw", ns=(there.st_atime_ns, there.st_mtime_ns))


def of_older_version(place, *dummy):
    """The record has only what older versions wrote."""
    plain = json.loads((place / "golden.raw.source").read_text())
    for name in ("sha256", "inode", "ctime_ns"):
        del plain[name]
    (place / "golden.raw.source").write_text(json.dumps(plain))


@pytest.mark.parametrize("change", [replaced, overwritten])
def test_other_contents_with_the_same_size_and_time(place, change):
    wanted = made(place)
    change(place, bytes(SIZE))
    refused(place, "it was written to after it was made, or replaced", "another path", **wanted)


@pytest.mark.parametrize(
    "change",
    [
        replaced,
        overwritten,
        of_older_version,
        lambda place, data: (place / "golden.raw").chmod(0o640),
        lambda place, data: os.link(place / "golden.raw", place / "link"),
    ],
)
@pytest.mark.parametrize("has_image", [True, False])
def test_the_same_contents_are_read_once_and_are_no_change(place, change, has_image, monkeypatch):
    wanted = made(place)
    before = json.loads((place / "golden.raw.source").read_text())
    change(place, (place / "disk.raw").read_bytes())
    if not has_image:
        os.unlink(wanted["image"])
    assert not run(True, **wanted)["changed"] and not run(**wanted)["changed"]
    there = (place / "golden.raw").stat()
    after = json.loads((place / "golden.raw.source").read_text())
    assert after == dict(before, inode=there.st_ino, ctime_ns=there.st_ctime_ns)
    monkeypatch.setattr(chain, "checksum", lambda *rest: pytest.fail("it was read"))
    assert not run(**wanted)["changed"]


def test_a_file_that_this_module_did_not_make(place):
    converted(place, "image.qcow2", "qcow2")
    (place / "golden.raw").write_bytes(b"precious")
    refused(place, "what it was made from is not known", "use it as it is", **arguments(place))


@pytest.mark.parametrize(
    "said, has",
    [(said, has) for said in FORMATS for has in (*FORMATS, "vpc", "qed", "raw") if said != has],
)
def test_contents_of_another_format(place, said, has):
    """The format is what the user says, and an image that is another one is refused."""
    converted(place, "image", has)
    parts = "a raw disk" if has == "raw" else f"of the format {has}"
    refused(
        place, f"is not an image of the format {said}", parts, **arguments(place, said, str(place / "image"))
    )


WRONG = {
    "no format": ({"format": None}, "format"),
    "a format that is not converted": ({"format": "raw"}, "value of format must be one of"),
    "a relative image": ({"image": "relative.qcow2"}, "must be an absolute path"),
    "an image that is missing": ({"image": "/no/such.qcow2"}, "does not exist"),
    "a directory": ({"image": "/"}, "is a directory, and must be a regular file"),
    "a device": ({"image": "/dev/null"}, "is a character device, and must be a regular file"),
    "a directory that is missing": ({"path": "/no/such/golden.raw"}, "must be in a directory that exists"),
    "the record's name": ({"path": "/srv/x.source"}, "does not end with .source"),
    "too little memory": ({"memory": "64M"}, "must be from 128M to 64T"),
    "no memory size": ({"memory": "much"}, "must be a number of bytes, or a number with K, M, G or T"),
    "no time": ({"timeout": 0}, "must be seconds from 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use(place, case, monkeypatch):
    change, part = WRONG[case]
    monkeypatch.chdir(place)
    converted(place, "image.qcow2", "qcow2")
    wanted = {key: value for key, value in dict(arguments(place), **change).items() if value is not None}
    before = names(place)
    done = run(**wanted)
    assert done.get("failed") and part in done["msg"], done["msg"]
    assert names(place) == before


def test_the_image_is_its_own_golden_image(place):
    image = converted(place, "image.qcow2", "qcow2")
    refused(place, "must not be the same file as path", **(arguments(place) | {"path": image}))


def test_without_qemu_img(place, monkeypatch):
    converted(place, "image.qcow2", "qcow2")
    monkeypatch.setattr(qemu_img, "_PATH", "/nonexistent")
    refused(place, "which converts images, is not installed", "qemu-utils", **arguments(place))


@pytest.mark.parametrize("form", ["qcow2", "vmdk"])
def test_a_backing_file(place, form):
    """It is read only with backing=true, and then it is part of what the golden image was made from."""
    base = converted(place, f"base.{form}", form)
    tool("create", "-f", form, "-b", f"base.{form}", "-F", form, str(place / "image"))
    tool("bench", "-w", "-c", "1", "-s", "65536", "--pattern=7", "-f", form, str(place / "image"))
    wanted = arguments(place, form, str(place / "image"))
    refused(
        place, f"names another file of this host, base.{form} (its backing file)", "backing=true", **wanted
    )
    wanted["backing"] = True
    predicted, done = run(True, **wanted), run(**wanted)
    assert done["changed"], done
    assert [row["path"] for row in done["golden"]["made_from"]] == [str(place / "image"), base]
    assert [row["path"] for row in predicted["golden"]["made_from"]] == [str(place / "image"), base]
    expected = b"\7" * 65536 + (place / "disk.raw").read_bytes()[65536:]
    assert (place / "golden.raw").read_bytes() == expected
    assert not run(**wanted)["changed"]
    refused(place, "names another file of this host", **dict(wanted, backing=False))
    # A changed backing file makes another image.
    with open(base, "r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(b"changed")
    refused(place, "it was made from another image", **wanted)


def test_a_backing_file_in_raw_format(place):
    tool("create", "-f", "qcow2", "-b", str(place / "disk.raw"), "-F", "raw", str(place / "image.qcow2"))
    done = run(**arguments(place, backing=True))
    assert done["changed"], done
    assert (place / "golden.raw").read_bytes() == (place / "disk.raw").read_bytes()


def test_an_external_data_file(place):
    image = converted(place, "image.qcow2", "qcow2", (f"data_file={place}/data", "data_file_raw=on"))
    wanted = arguments(place, image=image)
    refused(place, f"names another file of this host, {place}/data (its data file)", **wanted)
    assert run(backing=True, **wanted)["changed"]
    assert (place / "golden.raw").read_bytes() == (place / "disk.raw").read_bytes()


@pytest.mark.parametrize("variant", WITH_FILES)
def test_a_vmdk_image_of_several_files(place, variant):
    form, options = WITH_FILES[variant]
    image = converted(place, "image.vmdk", form, options)
    wanted = arguments(place, form, image)
    refused(place, "names another file of this host, image-", "(its file with its data)", **wanted)
    done = run(backing=True, **wanted)
    assert done["changed"], done
    assert (place / "golden.raw").read_bytes() == (place / "disk.raw").read_bytes()
    assert len(done["golden"]["made_from"]) == 2


BAD_BACKING = {
    "no format": ("disk.raw", None, "without a format, which is never guessed"),
    "a format that is not converted": ("disk.raw", "vpc", "of the format vpc"),
    "a network address": ("nbd://127.0.0.1/x", "raw", "which is not a file's path"),
    "a description": ('json:{"driver":"raw"}', "raw", "which is not a file's path"),
    "a device": ("/dev/null", "raw", "is a character device, and must be a regular file"),
    "a missing file": ("no-such.raw", "raw", "does not exist"),
    "itself": ("image.qcow2", "qcow2", "is named twice by one image, or depends on itself"),
    "another format": ("disk.raw", "qcow2", "is not an image of the format qcow2"),
}


@pytest.mark.parametrize("case", BAD_BACKING)
def test_backing_files_that_are_never_read(place, case):
    name, form, part = BAD_BACKING[case]
    tool("create", "-f", "qcow2", str(place / "image.qcow2"), str(SIZE))
    # -u: the file is not looked at.
    tool("rebase", "-u", "-f", "qcow2", "-b", name, "-F", form or "raw", str(place / "image.qcow2"))
    if form is None:
        # qemu-img always writes a format, but older versions did not. This makes it an unknown extension.
        data = (place / "image.qcow2").read_bytes()
        (place / "image.qcow2").write_bytes(data.replace(b"\xe2\x79\x2a\xca", b"\1\2\3\4", 1))
    refused(place, part, **arguments(place, backing=True))


def test_a_chain_that_is_too_long(place):
    above = "disk.raw"
    for number in range(chain._DEEPEST + 2):
        form = "raw" if above == "disk.raw" else "qcow2"
        tool(
            "create", "-f", "qcow2", "-u", "-b", above, "-F", form, str(place / f"{number}.qcow2"), str(SIZE)
        )
        above = f"{number}.qcow2"
    wanted = arguments(place, image=str(place / above), backing=True)
    refused(place, "belongs to a chain of more than 32 backing files", **wanted)


def test_qemu_img_opens_only_what_was_checked(place, tmp_path):
    """An image that is replaced after it was opened, and one that names a file which QEMU would open."""
    converted(place, "image.qcow2", "qcow2")
    with chain.Chain(str(place / "image.qcow2"), "qcow2", False) as held:
        (place / "other.raw").write_bytes(bytes(SIZE))
        tool("create", "-f", "qcow2", "-b", "other.raw", "-F", "raw", str(place / "new.qcow2"))
        os.rename(place / "new.qcow2", place / "image.qcow2")
        limits = qemu_img.Limits(1 << 30, Deadline(60))
        assert qemu_img.virtual_size(held, limits) == SIZE
        with open(place / "out", "w+b") as out:
            qemu_img.convert(held, out.fileno(), limits)
    assert (place / "out").read_bytes() == (place / "disk.raw").read_bytes()


def test_an_image_that_is_written_meanwhile(place, monkeypatch):
    image = converted(place, "image.qcow2", "qcow2")
    convert = qemu_img.convert

    def disturbed(*rest):
        convert(*rest)
        os.utime(image)

    monkeypatch.setattr(qemu_img, "convert", disturbed)
    refused(place, "it was written to while it was read", check_too=False, **arguments(place))


def test_a_damaged_image(place):
    image = converted(place, "image.qcow2", "qcow2")
    with open(image, "r+b") as file:
        file.seek(40)  # where the table of clusters is
        file.write(b"\xff" * 8)
    done = refused(place, "qemu-img", image, "qemu-img check", check_too=False, **arguments(place))
    assert "/proc/self/fd" not in done["msg"]


def test_an_encrypted_image(place):
    words = ["--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s"]
    words += ["-o", "encrypt.iter-time=10"]
    # qemu-img measures how fast it is, and fails if the clock of its CPU time has not advanced meanwhile.
    for tries_left in reversed(range(10)):
        try:
            tool("create", "-f", "qcow2", *words, str(place / "image.qcow2"), "1M")
            break
        except subprocess.CalledProcessError:
            if not tries_left:
                raise
    refused(place, "is encrypted", **arguments(place))


def slow(monkeypatch, place):
    """A program in place of qemu-img that reports 40 percent of a conversion and then hangs."""
    program = place / "slow"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        "if sys.argv[1] == 'info':\n"
        f"    print('{{\"virtual-size\": {SIZE}}}')\n"
        "    sys.exit()\n"
        f"open({str(place / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "print('    (40.00/100%)', end='\\r', flush=True)\n"
        "time.sleep(600)\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(qemu_img, "program", lambda: str(program))


def test_a_time_limit(place, monkeypatch):
    converted(place, "image.qcow2", "qcow2")
    slow(monkeypatch, place)
    done = run(**arguments(place, timeout=2))
    assert "timed out after 2 s" in done["msg"] and "40 % was done" in done["msg"]
    assert not [name for name in names(place) if name.startswith("golden")]
    assert not os.path.exists(f"/proc/{(place / 'pid').read_text()}")


def test_a_memory_limit(place, monkeypatch):
    """An image may claim tables of any size. qemu-img ends, and the message says which option to raise."""
    converted(place, "image.vmdk", "vmdk")
    monkeypatch.setattr(golden_image.GoldenItem, "check", lambda self: None)
    done = run(**arguments(place, "vmdk", memory="64M"))
    assert done.get("failed") and "qemu-img" in done["msg"]
    assert not [name for name in names(place) if name.startswith("golden")]


def test_a_full_disk(place, monkeypatch):
    """The limit on the file's size stands for it: both end qemu-img while it writes."""
    converted(place, "image.qcow2", "qcow2")
    limits = qemu_img.resource.setrlimit
    monkeypatch.setattr(
        qemu_img.resource,
        "setrlimit",
        lambda what, both: limits(what, (1 << 20,) * 2 if what == qemu_img.resource.RLIMIT_FSIZE else both),
    )
    done = run(**arguments(place))
    assert done.get("failed") and "qemu-img convert failed" in done["msg"], done
    assert not [name for name in names(place) if name.startswith("golden")]


def test_progress(place, monkeypatch):
    lines = []
    monkeypatch.setattr("syslog.syslog", lambda level, text: lines.append(text))
    made(place)
    # Ansible's own line, with the options, comes first.
    del lines[0]
    assert lines[0].endswith(f"{place}/image.qcow2 is converted to {place}/golden.raw: begins")
    assert lines[-1].endswith(": done") and len(lines) <= 11


def test_two_runs_at_once_convert_once(place):
    converted(place, "image.qcow2", "qcow2")
    wanted = arguments(place)
    results = runs.at_once(golden_image.main, wanted, wanted, wanted)
    assert sorted(row["changed"] for row in results) == [False, False, True], results
    assert (place / "golden.raw").read_bytes() == (place / "disk.raw").read_bytes()
    assert [name for name in names(place) if name.startswith("golden")] == ["golden.raw", "golden.raw.source"]


def test_killed_at_any_time(place, monkeypatch):
    """
    The golden image is never there in part, qemu-img does not go on, and the next run removes what is left.
    """
    converted(place, "image.qcow2", "qcow2")
    with monkeypatch.context() as patched:
        slow(patched, place)
        running = runs.Run(golden_image.main, arguments(place))
    until = time.monotonic() + 30
    while not (place / "pid").exists() or not (place / "pid").read_text():
        assert time.monotonic() < until, "the program was not started"
        time.sleep(0.01)
    left = [name for name in names(place) if name.endswith(".unfinished")]
    running.kill()
    assert running.wait().status == -signal.SIGKILL and len(left) == 1
    pid = (place / "pid").read_text()
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < until, "the program did not end with the run"
        time.sleep(0.01)
    assert not (place / "golden.raw").exists() and (place / left[0]).exists()
    assert run(**arguments(place))["changed"]
    assert [name for name in names(place) if name.startswith("golden")] == ["golden.raw", "golden.raw.source"]


def killed_before(target, name, wanted):
    """A run that is killed when it calls this function."""

    def kill():
        setattr(target, name, lambda *rest: os.kill(os.getpid(), signal.SIGKILL))

    assert runs.Run(golden_image.main, wanted, before=kill).wait().status == -signal.SIGKILL


@pytest.mark.parametrize("function", ["finish", "name_it", "_link"])
def test_killed_before_each_step(place, function):
    """What a killed run leaves is removed by the next one."""
    converted(place, "image.qcow2", "qcow2")
    wanted = arguments(place)
    killed_before(golden.New, function, wanted)
    assert not (place / "golden.raw").exists() and not (place / "golden.raw.source").exists()
    assert run(**wanted)["changed"] and not run(**wanted)["changed"]
    assert (place / "golden.raw").read_bytes() == (place / "disk.raw").read_bytes()
    assert [name for name in names(place) if name.startswith("golden")] == ["golden.raw", "golden.raw.source"]


def test_killed_before_its_record_is_in_its_place(place, monkeypatch):
    """The next run of this host completes it, and does not read or convert the image again."""
    converted(place, "image.qcow2", "qcow2")
    wanted = arguments(place)
    killed_before(golden, "_put", wanted)
    inode = (place / "golden.raw").stat().st_ino
    assert not (place / "golden.raw.source").exists()
    with as_another_host():
        refused(place, "another host has made it", "run the task on that host first", **wanted)
    monkeypatch.setattr(chain, "checksum", lambda *rest: pytest.fail("it was read"))
    predicted, done = run(True, **wanted), run(**wanted)
    assert done["changed"] and predicted["golden"] == done["golden"] and predicted["diff"] == done["diff"]
    assert (place / "golden.raw").stat().st_ino == inode
    assert [name for name in names(place) if name.startswith("golden")] == ["golden.raw", "golden.raw.source"]
    assert not run(**wanted)["changed"]
    with as_another_host():
        assert not run(**wanted)["changed"]


def test_the_record_cannot_be_put_into_its_place(place, monkeypatch):
    """The image stays, as it is whole, and the next run records it."""
    converted(place, "image.qcow2", "qcow2")
    wanted = arguments(place)
    with monkeypatch.context() as patched:
        patched.setattr(golden.os, "rename", renamed_unless(".source"))
        done = run(**wanted)
    assert done["failed"] and done["changed"] and "Run the task again" in done["error"]["hint"]
    assert "the next run records what it was made from" in str(done["warnings"]), done
    assert run(**wanted)["changed"] and not run(**wanted)["changed"]
    assert [name for name in names(place) if name.startswith("golden")] == ["golden.raw", "golden.raw.source"]


def renamed_unless(suffix, rename=os.rename):
    def renamed(old, new):
        if str(new).endswith(suffix):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(old, new)

    return renamed


@contextlib.contextmanager
def as_another_host():
    """Runs in here have another host name, and not the locks of this host."""
    host = os.uname()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "uname", lambda: os.uname_result((host[0], "elsewhere", *host[2:])))
        patched.setattr(golden_image.GoldenItem, "locks", lambda self: [])
        yield


def test_another_host_makes_it_meanwhile(place, monkeypatch):
    """The one that is later changes nothing, and both go on with the same golden image."""
    converted(place, "image.qcow2", "qcow2")
    wanted, convert = arguments(place), qemu_img.convert

    def raced(*rest):
        convert(*rest)
        monkeypatch.setattr(qemu_img, "convert", convert)
        with as_another_host():
            assert runs.run(golden_image.main, wanted)["changed"]
        for name in ("golden.raw", "golden.raw.source"):
            os.link(place / name, place / f"first-{name}")

    monkeypatch.setattr(qemu_img, "convert", raced)
    done = run(**wanted)
    assert "another process made it meanwhile" in done["msg"] and not done["changed"]
    monkeypatch.setattr(qemu_img, "convert", lambda *rest: pytest.fail("it was converted again"))
    assert [name for name in names(place) if name.startswith("golden")] == ["golden.raw", "golden.raw.source"]
    for name in ("golden.raw", "golden.raw.source"):
        assert (place / name).samefile(place / f"first-{name}")
    assert not run(**wanted)["changed"]
    with as_another_host():
        assert not run(**wanted)["changed"]


def test_another_host_changes_the_record_meanwhile(place, monkeypatch):
    wanted = made(place)
    os.utime(wanted["image"], (1, 1))
    look = chain.Chain.read_whole

    def raced(*rest):
        monkeypatch.setattr(chain.Chain, "read_whole", look)
        with as_another_host():
            assert runs.run(golden_image.main, wanted)["changed"]
        return look(*rest)

    monkeypatch.setattr(chain.Chain, "read_whole", raced)
    done = run(**wanted)
    assert done["failed"] and "another host has changed it, or its record, meanwhile" in done["msg"]
    assert not run(**wanted)["changed"]


def test_a_file_server_repeats_the_request(place, monkeypatch):
    """The link is made, and the answer is that there is such a file."""
    converted(place, "image.qcow2", "qcow2")
    wanted, link = arguments(place), os.link

    def repeated(*names, **directories):
        link(*names, **directories)
        link(*names, **directories)

    monkeypatch.setattr(golden.os, "link", repeated)
    assert run(**wanted)["changed"] and not run(**wanted)["changed"]


def test_what_a_run_left_after_it_had_named_the_image(place):
    """It is another name of the same file, and goes without the image."""
    wanted = made(place)
    os.link(place / "golden.raw", golden._own_name(wanted["path"]))
    assert run(True, **wanted)["changed"] and run(**wanted)["changed"] and not run(**wanted)["changed"]
    assert (place / "golden.raw").read_bytes() == (place / "disk.raw").read_bytes()


def test_somebody_else_makes_the_file_meanwhile(place, monkeypatch):
    converted(place, "image.qcow2", "qcow2")
    convert = qemu_img.convert

    def raced(*rest):
        convert(*rest)
        (place / "golden.raw").write_bytes(b"precious")

    monkeypatch.setattr(qemu_img, "convert", raced)
    done = run(**arguments(place))
    assert "another process made it meanwhile" in done["msg"]
    assert (place / "golden.raw").read_bytes() == b"precious"
    # No record says that it was made from the image.
    assert [name for name in names(place) if name.startswith("golden")] == ["golden.raw"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"size": 1, "mtime_ns": 1, "made_from": []}', "\xff"])
def test_a_record_that_cannot_be_read(place, text):
    wanted = made(place)
    (place / "golden.raw.source").write_text(text, encoding="latin-1")
    refused(place, "has a record that cannot be read", "move it away", **wanted)


def test_what_the_record_contains(place):
    wanted = made(place)
    record = json.loads((place / "golden.raw.source").read_text())
    there = os.stat(wanted["image"])
    image = (place / "golden.raw").stat()
    assert record["size"] == SIZE and record["mtime_ns"] == image.st_mtime_ns
    assert (record["inode"], record["ctime_ns"]) == (image.st_ino, image.st_ctime_ns)
    assert record["sha256"] == hashlib.sha256((place / "golden.raw").read_bytes()).hexdigest()
    (row,) = record["made_from"]
    assert row["ctime_ns"] == there.st_ctime_ns and row["inode"] == there.st_ino
    assert stat.S_IMODE((place / "golden.raw.source").stat().st_mode) == 0o600
