# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program racefree-open, as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._command import program, tools
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

START = (
    "import sys; from ansible_collections.racefree.block.plugins.module_utils._command import program; "
    "sys.exit(program.main(sys.argv[1:]))"
)


def start(*arguments, **more):
    paths = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=paths),
        **more,
    )


def call(*arguments):
    """``(exit code, output, errors)``."""
    with start(*arguments) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["diskseq:1", "--", "dd", "{1}"], (["diskseq:1"], ["dd", "{1}"], None, False)),
        (["--fd", "--exclusive", "a", "b", "--", "c"], (["a", "b"], ["c"], tools.NUMBER, True)),
        (
            ["--path", "by-diskseq", "a", "--", "c", "--", "--fd"],
            (["a"], ["c", "--", "--fd"], "by_diskseq", False),
        ),
        (["--path=descriptor", "a", "--"], (["a"], [], "descriptor", False)),
        (["--fd", "--path=auto", "a", "--", "c"], (["a"], ["c"], None, False)),
    ],
)
def test_the_arguments(arguments, wanted):
    assert program.parse(arguments) == program.Call(*wanted)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "must be SOURCE"),
        (["a", "dd"], "must be SOURCE"),
        (["--", "dd"], "SOURCE"),
        (["--no", "a", "--", "dd"], "there is no such option"),
        (["--path", "x", "a", "--", "dd"], "must be one of auto, descriptor, by-diskseq"),
        (["--path", "--", "dd"], "must be one of"),
        (["--fd=3", "a", "--", "dd"], "there is no such option"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(InvalidValue, match=words):
        program.parse(arguments)


def test_it_becomes_the_command(disk):
    source = f"diskseq:{disk.diskseq}"
    assert call(source, "--", "dd", "if={1}", "bs=4", "count=1", "status=none") == (0, "disk", "")
    code, out, dummy = call(
        "--path=descriptor", source, "--", "sh", "-c", "echo $PPID {{1}} {disk} {1}; exit 7"
    )
    assert code == 7 and out.split() == [str(os.getpid()), "{1}", "{disk}", "/proc/self/fd/700"]
    assert call("--fd", source, "--", "bash", "-c", "head -c4 <&{1}") == (0, "disk", "")
    # Python ignores SIGPIPE; a command does not expect that.
    code, out, dummy = call("--fd", source, "--", "sh", "-c", "grep SigIgn /proc/self/status # {1}")
    assert int(out.split()[1], 16) & (1 << 12) == 0


def test_exit_codes_and_messages(disk, tmp_path):
    source = f"diskseq:{disk.diskseq}"
    text = tmp_path / "text"
    text.write_text("#!/no/such/interpreter\n")
    for arguments, code, words in (
        ((source, "--", "no-such-tool", "{1}"), 127, "no-such-tool: it is not installed"),
        ((source, "--", str(text), "{1}"), 126, "it cannot be executed"),
        (("diskseq:0", "--", "dd", "{1}"), 125, "SOURCE 1 0: must be a disk sequence number"),
        ((f"diskseq:{2**63}", "--", "dd", "{1}"), 125, "no disk has the disk sequence number"),
        ((source, "--", "dd"), 125, "SOURCE.1 (not shown): is not used"),
        ((source, "--", "dd", "{1}{2}"), 125, "COMMAND[1] {2}: names no device; SOURCE has 1"),
        ((source,), 125, "racefree-open --help"),
    ):
        found, out, err = call(*arguments)
        assert (found, out) == (code, "") and words in err and err.startswith("racefree-open: "), err
        assert "Traceback" not in err
    text.chmod(0o755)
    # As env(1) does: the interpreter is not found, and a file that is no program.
    for content, code in (("#!/no/such/interpreter\n", 127), ("\0\0", 126)):
        text.write_text(content)
        found, dummy, err = call("--path=descriptor", source, "--", str(text), "{1}")
        assert found == code and f"{text}: it cannot be executed" in err
    code, out, err = call("--help")
    assert code == 0 and out.startswith("Usage: racefree-open") and not err
    assert max(map(len, out.splitlines())) <= 110


def test_exclusive(disk):
    source = f"diskseq:{disk.diskseq}"
    excl = f"import os; os.open('{disk.node}', os.O_RDONLY | os.O_EXCL) # {{1}}"
    assert call("--path=descriptor", source, "--", "python3", "-c", excl)[0] == 0
    code, dummy, err = call("--path=descriptor", "--exclusive", source, "--", "python3", "-c", excl)
    assert code == 1 and "Device or resource busy" in err
    other = os.open(disk.node, os.O_RDONLY | os.O_EXCL)
    try:
        code, dummy, err = call("--exclusive", source, "--", "dd", "if={1}")
        assert code == 125 and "somebody has it open exclusively" in err
    finally:
        os.close(other)


def test_a_file_gets_a_device_that_goes_with_the_command(place):
    file = loopdevices.image(place, "new", 2**20, b"file")
    with start(
        "--path=descriptor", f"file:{file}", "--", "sh", "-c", "echo; read word # {1}", stdin=-1
    ) as process:
        assert process.stdout.readline() == "\n"
        assert list(loopdevices.bound_files(place).values()) == [file]
        process.kill()
    end = time.monotonic() + 5
    while loopdevices.bound_files(place):
        assert time.monotonic() < end
        time.sleep(0.01)
