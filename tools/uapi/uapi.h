/* Copyright (c) 2026, The racefree.block contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The kernel interface that the collection uses, in the subset of C that cffi reads.
 * Sources: include/uapi/linux/{loop,dm-ioctl,fs,prctl}.h and sem.h of Linux 6.12; numbers are expanded for x86-64.
 * tests/unit/plugins/module_utils/test_uapi.py compares every size, offset and constant with the real headers.
 */

/* linux/loop.h */
#define LOOP_SET_FD 0x4C00
#define LOOP_CLR_FD 0x4C01
#define LOOP_SET_STATUS64 0x4C04
#define LOOP_GET_STATUS64 0x4C05
#define LOOP_CHANGE_FD 0x4C06
#define LOOP_SET_CAPACITY 0x4C07
#define LOOP_SET_DIRECT_IO 0x4C08
#define LOOP_SET_BLOCK_SIZE 0x4C09
#define LOOP_CONFIGURE 0x4C0A
#define LOOP_CTL_ADD 0x4C80
#define LOOP_CTL_REMOVE 0x4C81
#define LOOP_CTL_GET_FREE 0x4C82
#define LO_FLAGS_READ_ONLY 1
#define LO_FLAGS_AUTOCLEAR 4
#define LO_FLAGS_PARTSCAN 8
#define LO_FLAGS_DIRECT_IO 16
#define LO_NAME_SIZE 64
#define LO_KEY_SIZE 32

struct loop_info64 {
    uint64_t lo_device;
    uint64_t lo_inode;
    uint64_t lo_rdevice;
    uint64_t lo_offset;
    uint64_t lo_sizelimit;
    uint32_t lo_number;
    uint32_t lo_encrypt_type;
    uint32_t lo_encrypt_key_size;
    uint32_t lo_flags;
    uint8_t lo_file_name[64];
    uint8_t lo_crypt_name[64];
    uint8_t lo_encrypt_key[32];
    uint64_t lo_init[2];
};

struct loop_config {
    uint32_t fd;
    uint32_t block_size;
    struct loop_info64 info;
    uint64_t __reserved[8];
};

/* linux/fs.h */
#define BLKROGET 0x125E
#define BLKSSZGET 0x1268
#define BLKPBSZGET 0x127B
#define BLKGETSIZE64 0x80081272
#define BLKGETDISKSEQ 0x80081280

/* linux/dm-ioctl.h */
#define DM_NAME_LEN 128
#define DM_UUID_LEN 129
#define DM_MAX_TYPE_NAME 16
#define DM_VERSION 0xC138FD00
#define DM_REMOVE_ALL 0xC138FD01
#define DM_LIST_DEVICES 0xC138FD02
#define DM_DEV_CREATE 0xC138FD03
#define DM_DEV_REMOVE 0xC138FD04
#define DM_DEV_RENAME 0xC138FD05
#define DM_DEV_SUSPEND 0xC138FD06
#define DM_DEV_STATUS 0xC138FD07
#define DM_DEV_WAIT 0xC138FD08
#define DM_TABLE_LOAD 0xC138FD09
#define DM_TABLE_CLEAR 0xC138FD0A
#define DM_TABLE_DEPS 0xC138FD0B
#define DM_TABLE_STATUS 0xC138FD0C
#define DM_LIST_VERSIONS 0xC138FD0D
#define DM_TARGET_MSG 0xC138FD0E
#define DM_DEV_SET_GEOMETRY 0xC138FD0F
#define DM_DEV_ARM_POLL 0xC138FD10
#define DM_GET_TARGET_VERSION 0xC138FD11
#define DM_READONLY_FLAG 0x1
#define DM_SUSPEND_FLAG 0x2
#define DM_PERSISTENT_DEV_FLAG 0x8
#define DM_STATUS_TABLE_FLAG 0x10
#define DM_ACTIVE_PRESENT_FLAG 0x20
#define DM_INACTIVE_PRESENT_FLAG 0x40
#define DM_BUFFER_FULL_FLAG 0x100
#define DM_SKIP_BDGET_FLAG 0x200
#define DM_SKIP_LOCKFS_FLAG 0x400
#define DM_NOFLUSH_FLAG 0x800
#define DM_QUERY_INACTIVE_TABLE_FLAG 0x1000
#define DM_UEVENT_GENERATED_FLAG 0x2000
#define DM_UUID_FLAG 0x4000
#define DM_SECURE_DATA_FLAG 0x8000
#define DM_DATA_OUT_FLAG 0x10000
#define DM_DEFERRED_REMOVE 0x20000
#define DM_INTERNAL_SUSPEND_FLAG 0x40000
#define DM_IMA_MEASUREMENT_FLAG 0x80000
#define DM_NAME_LIST_FLAG_HAS_UUID 1
#define DM_NAME_LIST_FLAG_DOESNT_HAVE_UUID 2

struct dm_ioctl {
    uint32_t version[3];
    uint32_t data_size;
    uint32_t data_start;
    uint32_t target_count;
    int32_t open_count;
    uint32_t flags;
    uint32_t event_nr;
    uint32_t padding;
    uint64_t dev;
    char name[128];
    char uuid[129];
    char data[7];
};

struct dm_target_spec {
    uint64_t sector_start;
    uint64_t length;
    int32_t status;
    uint32_t next;
    char target_type[16];
};

struct dm_target_deps {
    uint32_t count;
    uint32_t padding;
    uint64_t dev[];
};

struct dm_name_list {
    uint64_t dev;
    uint32_t next;
    char name[];
};

struct dm_target_versions {
    uint32_t next;
    uint32_t version[3];
    char name[];
};

struct dm_target_msg {
    uint64_t sector;
    char message[];
};

/* sys/sem.h: udev's cookies are SysV semaphores, which Python's library does not offer */
#define IPC_CREAT 0x200
#define IPC_EXCL 0x400
#define IPC_NOWAIT 0x800
#define IPC_RMID 0
#define GETVAL 12
#define SETVAL 16

struct sembuf {
    unsigned short sem_num;
    short sem_op;
    short sem_flg;
};

struct timespec {
    long tv_sec;
    long tv_nsec;
};

int semget(int key, int nsems, int semflg);
int semctl(int semid, int semnum, int cmd, ...);
int semtimedop(int semid, struct sembuf *sops, size_t nsops, const struct timespec *timeout);

/* linux/prctl.h */
#define PR_SET_PDEATHSIG 1

int prctl(int option, ...);

/* unistd.h: for calls that the C library has no function for */
long syscall(long number, ...);
