# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The generated interface compared with its source and with the installed kernel headers."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import NotSupported
from ansible_collections.racefree.block.plugins.module_utils._kernel import uapi, uapi_plain

ROOT = Path(__file__).resolve().parents[5]
TOOLS = ROOT / "tools" / "uapi"
HEADER = re.sub(r"/\*.*?\*/", "", (TOOLS / "uapi.h").read_text(encoding="ascii"), flags=re.DOTALL)
CONSTANTS = re.findall(r"^#define (\w+) ", HEADER, flags=re.MULTILINE)
STRUCTS = {
    name: re.findall(r"(\w+)(?:\[\w*\])?;", body)
    for name, body in re.findall(r"^struct (\w+) \{(.*?)^\};", HEADER, flags=re.MULTILINE | re.DOTALL)
}
PROTOTYPES = re.findall(r"^\w[^#{};]*\);", HEADER, flags=re.MULTILINE)

# Constants that are newer than the headers of a Debian release: name -> first kernel version.
NEWER = {}

INCLUDES = """
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <sys/types.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/prctl.h>
#include <linux/loop.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
"""


def is_flexible(kind):
    return kind.kind == "array" and kind.length is None


def is_scalar(kind):
    return kind.kind == "primitive"


def program():
    """A C program that prints, as JSON, what the headers define for everything that uapi.h declares."""
    rows = [
        f'printf("\\"{name}\\": %llu,\\n", (unsigned long long)({name}));'
        for name in CONSTANTS
        if name not in NEWER
    ]
    for name, fields in STRUCTS.items():
        rows.append(f'printf("\\"{name}\\": %zu,\\n", sizeof(struct {name}));')
        kinds = dict(uapi.ffi.typeof(f"struct {name}").fields)
        for field in fields:
            member = f"((struct {name} *)0)->{field}"
            kind = kinds[field].type
            size = f"sizeof({member}[0])" if is_flexible(kind) else f"sizeof({member})"
            signed = f"((__typeof__({member}))-1 < 0)" if is_scalar(kind) else "0"
            rows.append(
                f'printf("\\"{name}.{field}\\": [%zu, %zu, %d],\\n", offsetof(struct {name}, {field}), '
                f"(size_t){size}, (int){signed});"
            )
    # Our prototypes after those of the headers: if they differ, it does not compile.
    return (
        INCLUDES
        + "\n".join(PROTOTYPES)
        + '\nint main(void)\n{\nprintf("{\\n");\n'
        + "\n".join(rows)
        + '\nprintf("\\"end\\": 0}\\n");\nreturn 0;\n}\n'
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The definitions in the installed headers."""
    if not shutil.which("gcc") or not os.path.exists("/usr/include/linux/dm-ioctl.h"):
        pytest.skip("gcc or the kernel's headers are missing: apt-get install gcc libc6-dev linux-libc-dev")
    directory = tmp_path_factory.mktemp("uapi")
    source = directory / "ask.c"
    source.write_text(program(), encoding="ascii")
    subprocess.run(
        ["gcc", "-Wall", "-Werror", "-Wno-type-limits", "-o", directory / "ask", source], check=True
    )
    return json.loads(subprocess.run([directory / "ask"], stdout=subprocess.PIPE, check=True).stdout)


def test_the_generated_file_is_what_the_generator_makes():
    done = subprocess.run(
        [sys.executable, TOOLS / "generate", "--check"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


def test_the_check_detects_a_change(tmp_path):
    for part in ("tools/uapi", "plugins/module_utils/_kernel"):
        (tmp_path / part).mkdir(parents=True)
    shutil.copy(TOOLS / "generate", tmp_path / "tools/uapi")
    changed = (
        (TOOLS / "uapi.h").read_text(encoding="ascii").replace("LO_FLAGS_AUTOCLEAR 4", "LO_FLAGS_AUTOCLEAR 5")
    )
    (tmp_path / "tools/uapi/uapi.h").write_text(changed, encoding="ascii")
    generator = [sys.executable, tmp_path / "tools/uapi/generate"]
    subprocess.run(generator, check=True)
    subprocess.run([*generator, "--check"], check=True)
    for name in ("uapi_cffi.py", "uapi_plain.py"):
        made = (tmp_path / "plugins/module_utils/_kernel" / name).read_bytes()
        shutil.copy(ROOT / "plugins/module_utils/_kernel" / name, tmp_path / "plugins/module_utils/_kernel")
        done = subprocess.run([*generator, "--check"], stderr=subprocess.PIPE, check=False)
        assert done.returncode == 1 and f"{name} is not what".encode() in done.stderr
        (tmp_path / "plugins/module_utils/_kernel" / name).write_bytes(made)


def test_the_whole_header_is_parsed():
    """The lists that the other tests use, compared with what cffi parsed."""
    assert len(CONSTANTS) == HEADER.count("#define ") and len(set(CONSTANTS)) == len(CONSTANTS)
    functions = [re.search(r"(\w+)\(", text).group(1) for text in PROTOTYPES]
    assert set(dir(uapi.lib)) == set(CONSTANTS) | set(functions)
    dummy, structs, unions = uapi.ffi.list_types()
    assert sorted(structs) == sorted(STRUCTS) and not unions
    for name, fields in STRUCTS.items():
        assert fields == [field for field, dummy in uapi.ffi.typeof(f"struct {name}").fields]
    assert set(NEWER) <= set(CONSTANTS)


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant(name, real):
    if name in NEWER:
        pytest.skip(f"{name} is newer than these headers: {NEWER[name]}")
    assert getattr(uapi.lib, name) == real[name]


@pytest.mark.parametrize("name", STRUCTS)
def test_structure(name, real):
    kind = uapi.ffi.typeof(f"struct {name}")
    assert uapi.ffi.sizeof(kind) == real[name]
    for field, info in kind.fields:
        measured = info.type.item if is_flexible(info.type) else info.type
        signed = int(is_scalar(info.type) and int(uapi.ffi.cast(info.type, -1)) < 0)
        assert [info.offset, uapi.ffi.sizeof(measured), signed] == real[f"{name}.{field}"], field


def test_the_plain_numbers():
    """The constants for use without cffi equal those of cffi."""
    names = [name for name in CONSTANTS if name.startswith(("BLK", "LOOP_", "LO_"))]
    assert len(names) > 20 and {name: getattr(uapi_plain, name) for name in names} == {
        name: getattr(uapi.lib, name) for name in names
    }


@pytest.mark.parametrize("name", ["loop_info64", "loop_config"])
def test_a_plain_structure(name):
    """Each field has the same offset as in cffi: set one byte in it, and read it through cffi."""
    form, fields = (getattr(uapi_plain, name.upper() + suffix) for suffix in ("", "_FIELDS"))
    zeroes = struct.unpack(form, bytes(struct.calcsize(form)))
    assert len(zeroes) == len(fields)
    for index, field in enumerate(fields):
        value = 1 if zeroes[index] == 0 else b"\1"
        there = uapi.ffi.from_buffer(
            f"struct {name} *", struct.pack(form, *zeroes[:index], value, *zeroes[index + 1 :])
        )
        where = there.info if name == "loop_config" and field.startswith("lo_") else there
        found = getattr(where, field)
        assert (found if isinstance(value, int) else uapi.ffi.buffer(found)[0:1]) == value, field


def test_without_cffi_the_error_says_what_to_install(monkeypatch):
    uapi.require()
    monkeypatch.setattr(uapi, "ffi", None)
    with pytest.raises(NotSupported, match="python3-cffi"):
        uapi.require()


def answer_without_cffi(module, one, check, tmp_path):
    """Exit code and result of the whole module on a host without cffi."""
    arguments = dict(
        {"devices": [one]} if module.endswith("s") else one,
        _ansible_check_mode=check,
        _ansible_remote_tmp=str(tmp_path),
    )
    code = (
        "import sys\n"
        "sys.modules['_cffi_backend'] = None\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        f"from ansible_collections.racefree.block.plugins.modules import {module}\n"
        f"with patch_module_args({arguments!r}):\n"
        f"    {module}.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert not done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("module", ["dm_device", "dm_devices"])
@pytest.mark.parametrize("check", [True, False])
def test_modules_without_cffi(module, check, tmp_path):
    """The module fails with one clear sentence, also in check mode, and changes nothing."""
    code, answer = answer_without_cffi(
        module, {"name": "racefree-none", "table": "0 8 zero"}, check, tmp_path
    )
    assert code == 1 and answer["failed"] and not answer.get("changed")
    assert "python3-cffi" in answer["msg"] and "Traceback" not in answer["msg"]
    assert "exception" not in answer
    error = answer["devices"][0]["error"] if module.endswith("s") else answer["error"]
    assert error["kind"] == "NotSupported"


@pytest.mark.parametrize("module", ["loop_device", "loop_devices"])
def test_loop_devices_need_no_cffi(module, tmp_path):
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(4096))
    code, answer = answer_without_cffi(module, {"backing_file": str(image)}, True, tmp_path)
    assert code == 0 and answer["changed"]
