/*
 * Copyright (c) 2026, The racefree.block contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Mapped devices by the bare system calls, as the least that any program must do: no identity is checked, nothing
 * is locked, nothing is undone after an error, and udev is not waited for.
 * Usage: bare_dm create|unchanged|info|absent MAJOR:MINOR NAME...
 * Device number N of the names is one of 8 sectors, from sector 8 * N of the device on.
 */
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ROOM (1 << 20)
#define SECTORS 8

static int control;
static char *buffer;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static struct dm_ioctl *request(const char *name, size_t size)
{
    struct dm_ioctl *head = (struct dm_ioctl *)buffer;

    memset(buffer, 0, sizeof(*head) + sizeof(struct dm_target_spec));
    head->version[0] = DM_VERSION_MAJOR;
    head->data_size = size;
    head->data_start = sizeof(*head);
    snprintf(head->name, sizeof(head->name), "%s", name);
    return head;
}

static void call(unsigned long command, const char *what)
{
    if (ioctl(control, command, buffer))
        fail(what);
}

static void create(const char *name, const char *device, unsigned long long sector)
{
    struct dm_target_spec *target = (struct dm_target_spec *)(buffer + sizeof(struct dm_ioctl));
    struct dm_ioctl *head;

    request(name, sizeof(*head));
    call(DM_DEV_CREATE, "DM_DEV_CREATE");
    head = request(name, sizeof(*head) + sizeof(*target) + 64);
    head->target_count = 1;
    target->length = SECTORS;
    strcpy(target->target_type, "linear");
    snprintf((char *)(target + 1), 64, "%s %llu", device, sector);
    call(DM_TABLE_LOAD, "DM_TABLE_LOAD");
    /* Without the flag for "suspend", this resumes. */
    request(name, sizeof(*head));
    call(DM_DEV_SUSPEND, "DM_DEV_SUSPEND");
}

static void check(const char *name, const char *device, unsigned long long sector)
{
    struct dm_ioctl *head = request(name, 4096);
    struct dm_target_spec *target;
    char wanted[64];

    head->flags = DM_STATUS_TABLE_FLAG;
    call(DM_TABLE_STATUS, "DM_TABLE_STATUS");
    target = (struct dm_target_spec *)(buffer + head->data_start);
    snprintf(wanted, sizeof(wanted), "%s %llu", device, sector);
    if (target->length != SECTORS || strcmp(target->target_type, "linear") || strcmp((char *)(target + 1), wanted)) {
        fprintf(stderr, "%s has another table\n", name);
        exit(1);
    }
}

/* The state and the table of every mapped device. */
static void list(void)
{
    char *names = malloc(ROOM);
    struct dm_ioctl *head = request("", ROOM);
    struct dm_name_list *entry;

    if (!names)
        fail("malloc");
    call(DM_LIST_DEVICES, "DM_LIST_DEVICES");
    memcpy(names, buffer + head->data_start, ROOM - head->data_start);
    entry = (struct dm_name_list *)names;
    while (entry->dev) {
        request(entry->name, sizeof(*head));
        call(DM_DEV_STATUS, "DM_DEV_STATUS");
        request(entry->name, 4096)->flags = DM_STATUS_TABLE_FLAG;
        call(DM_TABLE_STATUS, "DM_TABLE_STATUS");
        if (!entry->next)
            break;
        entry = (struct dm_name_list *)((char *)entry + entry->next);
    }
    free(names);
}

int main(int argc, char **argv)
{
    const char *step = argc > 2 ? argv[1] : "";

    control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
    buffer = malloc(ROOM);
    if (control < 0 || !buffer)
        fail("/dev/mapper/control");
    if (!strcmp(step, "info"))
        list();
    else
        for (int each = 3; each < argc; each++) {
            unsigned long long sector = SECTORS * (each - 3ULL);

            if (!strcmp(step, "create")) {
                create(argv[each], argv[2], sector);
            } else if (!strcmp(step, "unchanged")) {
                check(argv[each], argv[2], sector);
            } else {
                request(argv[each], sizeof(struct dm_ioctl));
                call(DM_DEV_REMOVE, "DM_DEV_REMOVE");
            }
        }
    return 0;
}
