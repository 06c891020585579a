/* Copyright (c) 2026, The racefree.block contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The loop of ptrace.py, for x86-64: on an emulated host a stop at every system call costs ten times as much in Python.
 */

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>

enum { MOST = 16 };

struct tracee {
    pid_t pid;
    int inside;
    int gone;
};

static struct tracee *find(struct tracee *all, int *known, pid_t pid)
{
    for (int i = 0; i < *known; i++)
        if (all[i].pid == pid)
            return &all[i];
    if (*known == MOST)
        return NULL;
    all[*known] = (struct tracee){ .pid = pid };
    return &all[(*known)++];
}

/* Whether a system call changes nothing that outlives the process: killed before or after it, the same is left. */
static int is_harmless(long number)
{
    switch (number) {
    case SYS_read: case SYS_pread64: case SYS_readv: case SYS_lseek: case SYS_stat: case SYS_fstat: case SYS_lstat: case SYS_newfstatat:
    case SYS_statx: case SYS_access: case SYS_readlink: case SYS_readlinkat: case SYS_getdents64: case SYS_poll: case SYS_select:
    case SYS_pselect6: case SYS_ppoll: case SYS_recvfrom: case SYS_recvmsg: case SYS_mmap: case SYS_munmap: case SYS_mprotect: case SYS_mremap:
    case SYS_brk: case SYS_madvise: case SYS_rt_sigaction: case SYS_rt_sigprocmask: case SYS_getpid: case SYS_getppid: case SYS_gettid:
    case SYS_getuid: case SYS_geteuid: case SYS_getgid: case SYS_getegid: case SYS_getcwd: case SYS_uname: case SYS_fcntl: case SYS_futex:
    case SYS_nanosleep: case SYS_clock_nanosleep: case SYS_clock_gettime: case SYS_getrandom: case SYS_wait4: case SYS_sysinfo:
    case SYS_arch_prctl: case SYS_set_tid_address: case SYS_set_robust_list: case SYS_rseq: case SYS_prlimit64: case SYS_getrusage:
        return 1;
    }
    return 0;
}

/* The process that is new with this stop, traced from its beginning; 0 if this is no such stop. */
static pid_t new_process(pid_t pid, int state)
{
    unsigned long made = 0;

    if (!(state >> 16) || state >> 16 == PTRACE_EVENT_EXEC || ptrace(PTRACE_GETEVENTMSG, pid, NULL, &made))
        return 0;
    return (pid_t)made;
}

/* The signal that stopped it, if that was sent to it and not made by tracing; else 0. */
static int sent_signal(int state)
{
    int stop = WSTOPSIG(state);

    return state >> 16 || stop == (SIGTRAP | 0x80) || stop == SIGTRAP || stop == SIGSTOP ? 0 : stop;
}

/*
 * Let all but the child go. Each stops at its next system call at the latest, and can be let go of only then. One may
 * first need the end of another, of which its parent learns only after this process: so none is waited for alone.
 */
static void release(struct tracee *all, int *known, pid_t child)
{
    const struct timespec pause = { .tv_nsec = 1000000 };

    for (;;) {
        int some = 0;
        for (int i = 0; i < *known; i++) {
            int state;
            if (all[i].gone || all[i].pid == child)
                continue;
            pid_t pid = waitpid(all[i].pid, &state, __WALL | WNOHANG);
            some = 1;
            if (!pid)
                continue;
            all[i].gone = 1;
            if (pid == all[i].pid && WIFSTOPPED(state)) {
                pid_t made = new_process(pid, state);
                if (made)
                    find(all, known, made);
                ptrace(PTRACE_DETACH, pid, NULL, (void *)(uintptr_t)sent_signal(state));
            }
        }
        if (!some)
            return;
        nanosleep(&pause, NULL);
    }
}

/*
 * The child has stopped itself and is traced (PTRACE_TRACEME). Of the which-th process the calls are counted: all that it makes with every,
 * else those that are not harmless. decide, if there is one, is called while the process stands before its count-th call: what it returns, if
 * not 0, is the errno that the process gets instead of the call. Without decide the process is killed right after its count-th call; 0 is
 * before the first. Whether it came to that, or -1 with errno; *status is the child's, *calls how many were counted.
 */
int at_call(pid_t child, int which, long count, int every, int (*decide)(pid_t, long), int *status, long *calls)
{
    struct tracee all[MOST];
    int known = 0, done = 0, ended = 0, left = 1, refuse = 0;
    const size_t number_at = offsetof(struct user_regs_struct, orig_rax), answer_at = offsetof(struct user_regs_struct, rax);

    *calls = 0;
    find(all, &known, child);
    if (ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(uintptr_t)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                                                                   PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)))
        return -1;
    ptrace(PTRACE_SYSCALL, child, NULL, NULL);
    while (left && !(done && ended)) {
        int state, pass_on = 0;
        pid_t pid = waitpid(-1, &state, __WALL);
        if (pid == -1) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        int before = known;
        struct tracee *one = find(all, &known, pid);
        if (!one)
            return errno = E2BIG, -1;
        left += known - before;
        if (WIFEXITED(state) || WIFSIGNALED(state)) {
            one->gone = 1;
            left--;
            if (pid == child) {
                *status = state;
                ended = 1;
            }
            continue;
        }
        int stop = WSTOPSIG(state);
        if (stop == (SIGTRAP | 0x80)) {
            one->inside = !one->inside;
            if (one - all == which) {
                /* Which call it is is only asked for where that matters: the question is a system call, too. */
                int is_asked = !every || (decide && one->inside && *calls + 1 == count);
                long number = is_asked ? ptrace(PTRACE_PEEKUSER, pid, (void *)number_at, NULL) : 0;
                int counted = every || !is_harmless(number);
                if (!decide && !done) {
                    *calls += counted && !one->inside;
                    if (*calls == count && (!one->inside || !count)) {
                        kill(pid, SIGKILL);
                        done = 1;
                    }
                } else if (decide && one->inside) {
                    *calls += counted;
                    if (counted && *calls == count) {
                        refuse = decide(pid, number);
                        done = 1;
                        if (refuse)
                            ptrace(PTRACE_POKEUSER, pid, (void *)number_at, (void *)-1L);
                    }
                } else if (decide && refuse) {
                    ptrace(PTRACE_POKEUSER, pid, (void *)answer_at, (void *)(long)-refuse);
                    refuse = 0;
                }
            }
        } else if (state >> 16) {
            /*
             * A new process is traced from its beginning, and stops. It must be known even if this loop ends before that stop is reported,
             * or it would stay stopped.
             */
            pid_t made = new_process(pid, state);
            if (made) {
                before = known;
                if (!find(all, &known, made))
                    return errno = E2BIG, -1;
                left += known - before;
            }
        } else {
            pass_on = sent_signal(state);
        }
        /* Nothing is left to be done to them: they go on at their own speed. The child's end is still told to its parent. */
        int free = decide && done && !refuse;
        ptrace(free ? PTRACE_DETACH : PTRACE_SYSCALL, pid, NULL, (void *)(uintptr_t)pass_on);
        if (free && pid != child) {
            one->gone = 1;
            left--;
        }
    }
    release(all, &known, child);
    return done;
}
