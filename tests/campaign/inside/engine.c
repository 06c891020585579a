/* Copyright (c) 2026, The racefree.block contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Run a program that has already imported everything, each time in a separate process, at the cost of a few
 * system calls.
 *
 * On a Linux that runs as a process (User-mode Linux), a fork takes a tenth of a second or more: each page
 * that parent or child then writes causes a fault that the host handles. So a run shares the memory of the
 * process that starts it, like a child of vfork(2). Afterwards that process restores its whole memory to the
 * state before the first run, however the run ended: normally, killed, or in the middle of an allocation. The
 * run has its own process ID, descriptors, signals and locks, as after fork(2), and no later run sees any of
 * its changes.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST = 1024, TEXT = 1 << 17 };

struct range {
    uintptr_t from, to;
};

/* The saved state is in shared memory, which is not restored. */
struct state {
    struct range mapped[MOST], saved[MOST], now[MOST];
    int mapped_count, saved_count;
    uintptr_t brk;
    char text[TEXT];
    char *copy;
};

static uintptr_t change_brk(uintptr_t to)
{
    return (uintptr_t)syscall(SYS_brk, to);
}

static uintptr_t hex(const char **at)
{
    uintptr_t value = 0;
    for (;; (*at)++) {
        char c = **at;
        if (c >= '0' && c <= '9')
            value = value << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uintptr_t)(c - 'a' + 10);
        else
            return value;
    }
}

static const char *end_of_line(const char *at)
{
    while (*at && *at != '\n')
        at++;
    return at;
}

/*
 * Read the mappings in the order of their addresses; adjacent ones are merged. With saved, also list the
 * ranges to restore: private writable mappings, without the part of the stack below the address stack.
 */
static int read_maps(struct state *state, struct range *all, struct range *saved, int *saved_count, uintptr_t stack)
{
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC), count = 0;
    size_t used = 0;
    ssize_t got;
    if (fd < 0)
        return -1;
    while ((got = read(fd, state->text + used, TEXT - 1 - used)) > 0)
        used += (size_t)got;
    close(fd);
    state->text[used] = 0;
    for (const char *at = state->text; *at;) {
        struct range range;
        range.from = hex(&at);
        at++;
        range.to = hex(&at);
        const char *flags = ++at, *end = end_of_line(at);
        if (count && all[count - 1].to == range.from)
            all[count - 1].to = range.to;
        else if (count == MOST)
            return -1;
        else
            all[count++] = range;
        if (saved && flags[1] == 'w' && flags[3] == 'p') {
            if (stack >= range.from && stack < range.to)
                range.from = stack;
            saved[(*saved_count)++] = range;
        }
        at = *end ? end + 1 : end;
    }
    return count;
}

/* Unmap ranges that were not mapped before. Map ranges that are missing now again, empty, to be filled. */
static int restore_maps(struct state *state)
{
    if (change_brk(state->brk) != state->brk)
        return -1;
    int count = read_maps(state, state->now, NULL, NULL, 0);
    if (count < 0)
        return -1;
    uintptr_t place = 0;
    int before = 0, now = 0;
    while (before < state->mapped_count || now < count) {
        const uintptr_t never = UINTPTR_MAX;
        struct range was = before < state->mapped_count ? state->mapped[before] : (struct range){ never, never };
        struct range is = now < count ? state->now[now] : (struct range){ never, never };
        if (was.to <= place) {
            before++;
            continue;
        }
        if (is.to <= place) {
            now++;
            continue;
        }
        if (was.from < place)
            was.from = place;
        if (is.from < place)
            is.from = place;
        if (was.from == is.from) {
            place = was.to < is.to ? was.to : is.to;
        } else if (is.from < was.from) {
            place = is.to < was.from ? is.to : was.from;
            if (munmap((void *)is.from, place - is.from))
                return -1;
        } else {
            place = was.to < is.from ? was.to : is.from;
            if (mmap((void *)was.from, place - was.from, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
                return -1;
        }
    }
    return 0;
}

static void copy_all(struct state *state, int back)
{
    char *copy = state->copy;
    for (int i = 0; i < state->saved_count; i++) {
        size_t size = state->saved[i].to - state->saved[i].from;
        void *there = (void *)state->saved[i].from;
        memcpy(back ? there : copy, back ? copy : there, size);
        copy += size;
    }
}

static size_t size_of(const struct state *state)
{
    size_t size = 0;
    for (int i = 0; i < state->saved_count; i++)
        size += state->saved[i].to - state->saved[i].from;
    return size;
}

static void *shared(size_t size)
{
    void *there = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return there == MAP_FAILED ? NULL : there;
}

/*
 * Never returns to Python. For each byte read from orders, run body in a process that is a child of this
 * process's parent, and write its process ID to pids, as four bytes. The byte t: the run first lets that
 * parent trace it, and stops. After seconds, SIGALRM kills it.
 */
__attribute__((noinline, optimize("no-omit-frame-pointer"))) int serve(int orders, int pids, unsigned seconds, int (*body)(void))
{
    struct state *state = shared(sizeof *state);
    uintptr_t stack = (uintptr_t)__builtin_frame_address(0);
    if (!state)
        return errno;
    state->brk = change_brk(0);
    /* Twice, because the buffer for the copy is itself a mapping. */
    for (int again = 0; again < 2; again++) {
        state->saved_count = 0;
        state->mapped_count = read_maps(state, state->mapped, state->saved, &state->saved_count, stack);
        if (state->mapped_count < 0)
            return E2BIG;
        if (!state->copy && !(state->copy = shared(size_of(state))))
            return errno;
    }
    copy_all(state, 0);
    for (;;) {
        char order;
        ssize_t got = read(orders, &order, 1);
        if (got <= 0)
            _exit(0);
        /*
         * Not with clone(3): as after vfork(2), the child continues here, on the same stack, while the parent
         * waits.
         */
        long child;
        __asm__ volatile("syscall"
                         : "=a"(child)
                         : "a"((long)SYS_clone), "D"((long)(CLONE_VM | CLONE_VFORK | CLONE_PARENT)), "S"(0L), "d"(0L)
                         : "rcx", "r11", "r8", "r9", "r10", "memory");
        if (!child) {
            pid_t self = (pid_t)syscall(SYS_getpid);
            alarm(seconds);
            if (order == 't')
                ptrace(PTRACE_TRACEME, 0, NULL, NULL);
            if (write(pids, &self, sizeof self) != sizeof self)
                _exit(254);
            if (order == 't')
                syscall(SYS_kill, self, SIGSTOP);
            _exit(body());
        }
        if (child < 0)
            _exit(253);
        if (restore_maps(state))
            _exit(252);
        copy_all(state, 1);
    }
}
