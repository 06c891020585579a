/*
 * Copyright (c) 2026, The racefree.block contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Loop devices by the bare system calls, as the least that any program must do: no identity is checked, nothing
 * is locked, and nothing is undone after an error.
 * Usage: bare_loops create|unchanged|info|absent FILE...
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct bound {
    __u64 device, inode;
    int number;
};

static struct bound *found;
static size_t count;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int open_node(int number, int flags)
{
    char path[32];

    snprintf(path, sizeof(path), "/dev/loop%d", number);
    return open(path, flags | O_CLOEXEC);
}

static int compare(const void *left, const void *right)
{
    const struct bound *a = left, *b = right;

    if (a->device != b->device)
        return a->device < b->device ? -1 : 1;
    return a->inode < b->inode ? -1 : a->inode > b->inode;
}

/* All bound loop devices, in the order of their files. */
static void list_bound(void)
{
    DIR *directory = opendir("/sys/block");
    struct dirent *entry;
    size_t room = 0;

    if (!directory)
        fail("/sys/block");
    while ((entry = readdir(directory))) {
        struct loop_info64 info;
        int number, fd;

        if (sscanf(entry->d_name, "loop%d", &number) != 1)
            continue;
        fd = open_node(number, O_RDONLY);
        if (fd < 0 && (errno == ENXIO || errno == ENODEV || errno == ENOENT))
            continue;
        if (fd < 0)
            fail(entry->d_name);
        if (ioctl(fd, LOOP_GET_STATUS64, &info) == 0) {
            if (count == room) {
                room = room ? 2 * room : 64;
                found = realloc(found, room * sizeof(*found));
                if (!found)
                    fail("realloc");
            }
            found[count++] = (struct bound){info.lo_device, info.lo_inode, number};
        } else if (errno != ENXIO) {
            fail("LOOP_GET_STATUS64");
        }
        close(fd);
    }
    closedir(directory);
    qsort(found, count, sizeof(*found), compare);
}

/* The number of the loop device that has the file, or -1. */
static int find(const char *path)
{
    struct bound wanted, *match;
    struct stat file;

    if (stat(path, &file))
        fail(path);
    wanted.device = file.st_dev;
    wanted.inode = file.st_ino;
    match = bsearch(&wanted, found, count, sizeof(*found), compare);
    return match ? match->number : -1;
}

static void create(int control, const char *path)
{
    struct loop_config config;
    int number, node;

    memset(&config, 0, sizeof(config));
    snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%s", path);
    config.fd = open(path, O_RDWR | O_CLOEXEC);
    if ((int)config.fd < 0)
        fail(path);
    do {
        number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            fail("LOOP_CTL_GET_FREE");
        node = open_node(number, O_RDWR);
        if (node < 0)
            fail("the loop device");
        if (ioctl(node, LOOP_CONFIGURE, &config) == 0)
            break;
        if (errno != EBUSY)
            fail("LOOP_CONFIGURE");
        close(node);
    } while (1);
    close(node);
    close(config.fd);
}

static void detach(const char *path)
{
    int number = find(path), node;

    if (number < 0)
        return;
    node = open_node(number, O_RDONLY);
    if (node < 0 || ioctl(node, LOOP_CLR_FD, 0))
        fail("LOOP_CLR_FD");
    close(node);
}

int main(int argc, char **argv)
{
    const char *step = argc > 1 ? argv[1] : "";

    if (!strcmp(step, "create")) {
        int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

        if (control < 0)
            fail("/dev/loop-control");
        for (int each = 2; each < argc; each++)
            create(control, argv[each]);
        return 0;
    }
    list_bound();
    for (int each = 2; each < argc; each++) {
        if (!strcmp(step, "absent")) {
            detach(argv[each]);
        } else if (find(argv[each]) < 0) {
            fprintf(stderr, "%s has no loop device\n", argv[each]);
            return 1;
        }
    }
    return 0;
}
