/*
 * Copyright (c) 2026, The racefree.block contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The least that a hotplug script must do, for measurements: it opens the device, makes a loop device if the
 * target is a file, writes the three nodes that blkback and libxl wait for, and waits for nothing itself. It
 * checks no identity, and takes no lock. Not for use: the device can be replaced before blkback opens it.
 * Usage, as libxl calls scripts: XENBUS_PATH=backend/vbd/DOMID/DEVID bare_hotplug add|remove
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

/* Of xen/include/public/io/xs_wire.h. */
enum { XS_READ = 2, XS_WRITE = 11, XS_ERROR = 16, ROOM = 4096 };

struct message {
    uint32_t type, request, transaction, length;
};

static int store = -1;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void connect_store(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("XENSTORED_PATH");

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path ? path : "/run/xenstored/socket");
    store = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (store < 0 || connect(store, (struct sockaddr *)&address, sizeof(address)))
        fail(address.sun_path);
}

static void receive(void *into, size_t length)
{
    char *at = into;

    while (length) {
        ssize_t got = read(store, at, length);

        if (got <= 0)
            fail("XenStore");
        at += got;
        length -= got;
    }
}

/* Send the words, each with its length, and put the answer into the buffer of ROOM bytes. */
static void ask(uint32_t type, const char *path, const char *value, char *answer)
{
    char text[sizeof(struct message) + ROOM];
    struct message head = {.type = type};
    size_t first = strlen(path) + 1, second = value ? strlen(value) : 0;

    if (first + second > ROOM)
        fail("too long");
    head.length = first + second;
    memcpy(text, &head, sizeof(head));
    memcpy(text + sizeof(head), path, first);
    if (second)
        memcpy(text + sizeof(head) + first, value, second);
    if (write(store, text, sizeof(head) + head.length) != (ssize_t)(sizeof(head) + head.length))
        fail("XenStore");
    receive(&head, sizeof(head));
    if (head.length >= ROOM)
        fail("XenStore");
    receive(answer, head.length);
    answer[head.length] = 0;
    if (head.type == XS_ERROR) {
        fprintf(stderr, "%s: %s\n", path, answer);
        exit(1);
    }
}

static void node(uint32_t type, const char *name, const char *value, char *answer)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", getenv("XENBUS_PATH"), name);
    ask(type, path, value, answer);
}

/* The open loop device that has the open file now; its path is put into the buffer. */
static int attach(int file, char *path, size_t room)
{
    struct loop_config config;
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number, device;

    if (control < 0)
        fail("/dev/loop-control");
    memset(&config, 0, sizeof(config));
    config.fd = file;
    do {
        number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            fail("LOOP_CTL_GET_FREE");
        snprintf(path, room, "/dev/loop%d", number);
        device = open(path, O_RDWR | O_CLOEXEC);
        if (device < 0)
            fail(path);
        if (ioctl(device, LOOP_CONFIGURE, &config) == 0)
            return device;
        if (errno != EBUSY)
            fail("LOOP_CONFIGURE");
        close(device);
    } while (1);
}

static void add(void)
{
    char target[ROOM], answer[ROOM], path[ROOM], number[32];
    struct stat found;
    int device;

    node(XS_READ, "params", NULL, target);
    snprintf(path, sizeof(path), "%s", target);
    device = open(target, O_RDWR | O_CLOEXEC);
    if (device < 0 || fstat(device, &found))
        fail(target);
    if (S_ISREG(found.st_mode)) {
        device = attach(device, path, sizeof(path));
        if (fstat(device, &found))
            fail(path);
    }
    snprintf(number, sizeof(number), "%x:%x", major(found.st_rdev), minor(found.st_rdev));
    node(XS_WRITE, "physical-device", number, answer);
    node(XS_WRITE, "physical-device-path", path, answer);
    node(XS_WRITE, "hotplug-status", "connected", answer);
}

/* Only a loop device that add has made is detached: the target is a file then. */
static void detach(void)
{
    char target[ROOM], path[ROOM];
    struct stat found;
    int device;

    node(XS_READ, "params", NULL, target);
    if (stat(target, &found) || !S_ISREG(found.st_mode))
        return;
    node(XS_READ, "physical-device-path", NULL, path);
    device = open(path, O_RDONLY | O_CLOEXEC);
    if (device < 0 || ioctl(device, LOOP_CLR_FD, 0))
        fail(path);
}

int main(int argc, char **argv)
{
    if (argc != 2 || !getenv("XENBUS_PATH"))
        return 2;
    connect_store();
    if (!strcmp(argv[1], "add"))
        add();
    else
        detach();
    return 0;
}
