# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Detect who can redirect a path to another file: anyone who can write to a directory on the path, or to the
directory of a symbolic link on it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

See path_resolution(7), and sticky directories in unlink(2). Root can always redirect a path and is not
reported. Neither is the user who runs this.
"""

from __future__ import annotations

import errno
import os
import stat

from .._base.errors import InvalidValue, KernelError

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable


# The kernel's limit (MAXSYMLINKS in include/linux/namei.h).
_MOST_LINKS = 40
_ACL = "system.posix_acl_access"


def weak_place(path: str, walked: dict[str, tuple[str, bool]] | None = None) -> str | None:
    """
    A description of the place where somebody else can redirect the absolute path, or None. KernelError if a
    place cannot be examined.

    Paths that do not exist (yet) are skipped, because opening them fails. ``walked``: a dictionary in which a
    run caches, for many files, the directories that nobody else can redirect.
    """
    if walked is None:
        return _walk(_parts(path))[0]
    directory, dummy, name = path.rpartition("/")
    if name in ("", ".", ".."):
        return _walk(_parts(path))[0]
    if directory not in walked:
        place, known = _walk(_parts(directory))
        if place is not None or known is None:
            return place
        walked[directory] = known
    return _walk([name], *walked[directory])[0]


def _walk(
    rest: list[str], done: str = "/", sticky: bool = False
) -> tuple[str | None, tuple[str, bool] | None]:
    """
    ``(place, (done, sticky))``: the result of :func:`weak_place`; the directory that the names ``rest`` lead
    to from the directory ``done``; and whether it is sticky. If a part does not exist, None replaces the
    pair.
    """
    links = 0
    path = "/".join([done, *rest])
    root = _look(done) if done == "/" else None
    place = None if root is None else _why_directory(done, root)
    while rest and place is None:
        name = rest.pop(0)
        above, done = done, os.path.join(done, name) if name != ".." else os.path.dirname(done)
        there = _look(done)
        if there is None:
            return None, None
        if sticky and not _is_trusted(there.st_uid):
            place = f"{done}, which belongs to the user {there.st_uid}, in a directory that others can write"
        sticky = stat.S_ISDIR(there.st_mode) and bool(there.st_mode & stat.S_ISVTX)
        if place is None and stat.S_ISLNK(there.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise KernelError("too many symbolic links", device=path, errno=errno.ELOOP)
            target = _target_of(done)
            done = "/" if target.startswith("/") else above
            there = _look(done)
            sticky = there is not None and bool(there.st_mode & stat.S_ISVTX)
            rest = _parts(target) + rest
        elif place is None and stat.S_ISDIR(there.st_mode):
            place = _why_directory(done, there)
    return place, (done, sticky)


def check(
    path: str,
    must: bool,
    warn: Callable[[str], None],
    option: str,
    walked: dict[str, tuple[str, bool]] | None = None,
) -> None:
    """
    Call ``warn(text)`` if somebody else can redirect the path, or if this cannot be examined. With ``must``,
    raise InvalidValue for ``option``, or KernelError, instead. ``walked``: as for :func:`weak_place`.
    """
    try:
        place = weak_place(path, walked)
    except KernelError as error:
        if must:
            raise
        warn(str(error))
        return
    if place is None:
        return
    text = f"a user other than root can redirect it to another file, through {place}"
    if must:
        raise InvalidValue(
            option, path, f"{text}. Keep images where only root can write, or set trusted_path=false"
        )
    warn(f"{option} {path}: {text}")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _look(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise KernelError.from_oserror(error, "check who can change the path", device=path) from error


def _target_of(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError as error:
        raise KernelError.from_oserror(error, "check who can change the path", device=link) from error


def _is_trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


def _why_directory(path: str, there: os.stat_result) -> str | None:
    if not _is_trusted(there.st_uid):
        return f"the directory {path}, which belongs to the user {there.st_uid}"
    if there.st_mode & stat.S_ISVTX:
        # In a sticky directory, only the owner of an entry can replace it.
        return None
    if there.st_mode & stat.S_IWOTH:
        return f"the directory {path}, which everybody can write"
    if there.st_mode & stat.S_IWGRP and (there.st_gid or _has_acl(path)):
        return f"the directory {path}, which the group {there.st_gid} or an ACL lets others write"
    return None


def _has_acl(path: str) -> bool:
    """Whether the directory has an ACL. The entries of an ACL appear as group permissions (acl(5))."""
    try:
        return _ACL in os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            # A file system without extended attributes has no ACLs.
            return False
        raise KernelError.from_oserror(error, "check who can change the path", device=path) from error
