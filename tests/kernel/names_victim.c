/* Copyright (c) 2026, The racefree.block contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A victim of names_adversary.py. It lets its parent trace it and stops before it does anything:
 *
 *   names_victim open PATH OFFSET      open the device, read a letter: exit code 10 for a, 11 for b, else 1
 *   names_victim realpath PATH OFFSET  the same, but resolve the path first
 *   names_victim run COMMAND...        become the command; it stops when it has been executed
 *
 * It is linked statically, because a start of Python takes a tenth of a second on User-mode Linux.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <unistd.h>

enum { SECONDS = 60 };

static int read_letter(const char *path, off_t offset)
{
    char letter = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return 1;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (pread(fd, &letter, 1, offset) != 1)
        return 1;
    return letter == 'a' ? 10 : letter == 'b' ? 11 : 1;
}

int main(int argc, char **argv)
{
    static char resolved[PATH_MAX];

    if (argc < 3)
        return 2;
    /* A victim that hangs must not stop the adversary for ever. Commands inherit the alarm. */
    alarm(SECONDS);
    if (!strcmp(argv[1], "run")) {
        int null = open("/dev/null", O_RDWR);
        for (int fd = 0; fd < 3; fd++)
            dup2(null, fd);
        if (null > 2)
            close(null);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execvp(argv[2], argv + 2);
        return 2;
    }
    if (argc < 4)
        return 2;
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    if (strcmp(argv[1], "realpath"))
        return read_letter(argv[2], atoll(argv[3]));
    return realpath(argv[2], resolved) ? read_letter(resolved, atoll(argv[3])) : 1;
}
