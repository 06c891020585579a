# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Debian mirror, and how to reach it, from the configuration of this machine's apt."""

from __future__ import annotations

import os
import subprocess

from common import needs
from common.errors import Problem

TARGET_FORMAT = "$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(ORIGIN)"


def _output(argv):
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
        env=dict(os.environ, PATH=needs.SEARCH, LC_ALL="C"),
    ).stdout


def parse_targets(text):
    """
    Suite -> address, of Debian's own repositories; suites as apt names them, codenames instead of "stable".
    """
    found = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) == 4 and fields[3] == "Debian":
            for suite in (fields[2], fields[1]):
                found.setdefault(suite, fields[0].rstrip("/"))
    return found


def sources_for(release, configured, own):
    """
    (mirror, sources.list text) for ``release``, where ``configured`` is what this machine, of release
    ``own``, uses.

    Includes the updates and security suites if the machine has them.
    """
    mirror = configured.get(release) or configured.get(own)
    if mirror is None:
        raise Problem(
            f"apt on this machine knows no Debian mirror for {own}: run apt-get update, or correct "
            "/etc/apt/sources.list.d"
        )
    lines = [f"deb {mirror} {release} main"]
    for suffix in ("updates", "security"):
        address = configured.get(f"{release}-{suffix}") or configured.get(f"{own}-{suffix}")
        if address:
            lines.append(f"deb {address} {release}-{suffix} main")
    return mirror, "\n".join(lines) + "\n"


def own_codename():
    with open("/etc/os-release", encoding="utf-8") as file:
        for line in file:
            key, _sign, value = line.strip().partition("=")
            if key == "VERSION_CODENAME":
                return value.strip('"')
    raise Problem("/etc/os-release has no VERSION_CODENAME: images can be built on Debian only")


def configured():
    text = _output(["apt-get", "indextargets", "--format", TARGET_FORMAT, "Identifier: Packages"])
    if "|Debian" not in text:
        needs.require_root("apt-get update, because apt has no package lists yet,")
        needs.apt_install(["debootstrap"])
        text = _output(["apt-get", "indextargets", "--format", TARGET_FORMAT, "Identifier: Packages"])
    return parse_targets(text)


def apt_settings():
    """
    The lines of apt's configuration that say how to reach the mirror: proxies, timeouts, checks of dates.
    """
    kept = []
    for line in _output(["apt-config", "dump"]).splitlines():
        name = line.split(" ", 1)[0].lower()
        if (
            name.startswith(("acquire::http::", "acquire::https::", "acquire::check-", "acquire::retries"))
            and "proxy-auto-detect" not in name
        ):
            kept.append(line)
    return "\n".join(kept) + "\n"


def proxy_environment():
    """http_proxy and https_proxy for debootstrap, from apt's configuration if the environment has none."""
    environment = {}
    for line in _output(["apt-config", "dump"]).splitlines():
        name, _space, value = line.partition(" ")
        scheme = {"acquire::http::proxy": "http_proxy", "acquire::https::proxy": "https_proxy"}.get(
            name.lower()
        )
        value = value.strip().rstrip(";").strip('"')
        if scheme and value and value.upper() != "DIRECT" and scheme not in os.environ:
            environment[scheme] = value
    return environment
