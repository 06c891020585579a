/*
 * Copyright (c) 2026, The racefree.block contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Stands in for the hypervisor, so that an unmodified xenstored serves its socket on a machine without Xen.
 *
 * Every domain id up to 0x7fef "exists", event channels are pipes on which nothing ever comes, grants and domain 0's
 * store page are anonymous memory, and the two files of /proc/xen that xenstored reads are replaced.
 * Interfaces: tools/include/xenctrl.h, xenevtchn.h, xengnttab.h of Xen 4.17.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DOMID_FIRST_RESERVED 0x7ff0u

static int handle;
static int events[2] = { -1, -1 };
static uint32_t next_port = 1;

void *xc_interface_open(void *logger, void *dombuild_logger, unsigned flags)
{
    (void)logger; (void)dombuild_logger; (void)flags;
    return &handle;
}

int xc_interface_close(void *xch)
{
    (void)xch;
    return 0;
}

/* xc_dominfo_t begins with domid, ssidref and a word of flag bits (dying, crashed, shutdown, ...). */
int xc_domain_getinfo(void *xch, uint32_t first, unsigned max, void *info)
{
    uint32_t *words = info;

    (void)xch;
    if (!max || first >= DOMID_FIRST_RESERVED)
        return 0;
    words[0] = first;
    words[1] = words[2] = 0;
    return 1;
}

void *xenevtchn_open(void *logger, unsigned flags)
{
    (void)logger; (void)flags;
    return pipe(events) ? NULL : (void *)&handle;
}

void *xenevtchn_fdopen(void *logger, int fd, unsigned flags)
{
    (void)fd;
    return xenevtchn_open(logger, flags);
}

int xenevtchn_fd(void *xce)
{
    (void)xce;
    return events[0];
}

int xenevtchn_bind_virq(void *xce, unsigned virq)
{
    (void)xce; (void)virq;
    return next_port++;
}

int xenevtchn_bind_interdomain(void *xce, uint32_t domid, uint32_t port)
{
    (void)xce; (void)domid; (void)port;
    return next_port++;
}

int xenevtchn_notify(void *xce, uint32_t port)
{
    (void)xce; (void)port;
    return 0;
}

int xenevtchn_pending(void *xce)
{
    (void)xce;
    errno = EAGAIN;
    return -1;
}

int xenevtchn_unbind(void *xce, uint32_t port)
{
    (void)xce; (void)port;
    return 0;
}

int xenevtchn_unmask(void *xce, uint32_t port)
{
    (void)xce; (void)port;
    return 0;
}

void *xengnttab_open(void *logger, unsigned flags)
{
    (void)logger; (void)flags;
    return &handle;
}

int xengnttab_close(void *xgt)
{
    (void)xgt;
    return 0;
}

int xengnttab_set_max_grants(void *xgt, uint32_t count)
{
    (void)xgt; (void)count;
    return 0;
}

static void *page(void)
{
    void *memory = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

void *xengnttab_map_grant_ref(void *xgt, uint32_t domid, uint32_t ref, int prot)
{
    (void)xgt; (void)domid; (void)ref; (void)prot;
    return page();
}

int xengnttab_unmap(void *xgt, void *start, uint32_t count)
{
    (void)xgt; (void)count;
    return munmap(start, getpagesize());
}

/* /proc/xen/xsd_port holds a port number, /proc/xen/xsd_kva is mapped as domain 0's store page. */
int open(const char *path, int flags, ...)
{
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    mode_t mode = 0;
    va_list rest;
    int fd;

    if (!strcmp(path, "/proc/xen/xsd_port") || !strcmp(path, "/proc/xen/xsd_kva")) {
        fd = memfd_create("xsd", MFD_CLOEXEC);
        if (fd < 0)
            return -1;
        if (path[strlen(path) - 1] == 't') {
            if (write(fd, "1", 1) != 1 || lseek(fd, 0, SEEK_SET))
                return -1;
        } else if (ftruncate(fd, getpagesize())) {
            return -1;
        }
        return fd;
    }
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    return real(path, flags, mode);
}
