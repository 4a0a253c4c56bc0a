/* What the plan of the benchmark's bundle says (bundle.py), as tables, and the kernel's words for it. */
#ifndef FLOOR_H
#define FLOOR_H

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <linux/stat.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COUNT(array) (sizeof array / sizeof *array)
#define SLAVE (1 << 19)
#define RECURSIVE 0x8000
#define INTO_CGROUP 0x200000000ULL
#define NEW_CGROUP 0x02000000
#define CLOSE_ON_EXEC_RANGE 4
#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
#define SCOPED (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

/* CAP_KILL, CAP_NET_BIND_SERVICE, CAP_AUDIT_WRITE */
#define CAPABILITIES 0x20000420

struct clone_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

static const struct filesystem {
    const char *type, *target, *options;
    uint64_t attr;
} filesystems[] = {
    {"proc", "/proc", "", 0},
    {"tmpfs", "/dev", "mode=755,size=65536k", MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME},
    {"devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC},
    {"tmpfs", "/dev/shm", "mode=1777,size=65536k", QUIET},
    {"mqueue", "/dev/mqueue", "", QUIET},
    {"sysfs", "/sys", "", QUIET | MOUNT_ATTR_RDONLY},
    {"cgroup2", "/sys/fs/cgroup", "", QUIET | MOUNT_ATTR_RDONLY},
};

static const struct node {
    const char *name;
    int major, minor;
} nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

static const char *const links[][2] = {
    {"/proc/self/fd", "fd"},       {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
    {"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"},      {"pts/ptmx", "ptmx"},
};

static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};

static const char *const masked[] = {
    "/proc/acpi",        "/proc/asound",      "/proc/kcore",     "/proc/keys",    "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
};

#endif
