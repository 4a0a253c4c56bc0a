/* Steps on what a process carries beside its privileges: scheduling, processors, memory, personality, keyring, labels. */

#define _GNU_SOURCE
#include <linux/keyctl.h>
#include <sys/personality.h>

#include "steps.h"

/* The first version of sched_setattr(2)'s struct sched_attr. */
struct schedule {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period; /* nanoseconds */
};

int do_scheduler(struct run *run, const struct arg *arg)
{
    struct schedule schedule = {
        .size = sizeof schedule,
        .policy = arg[0].i,
        .nice = arg[1].i,
        .priority = arg[2].i,
        .flags = arg[3].i,
        .runtime = arg[4].i,
        .deadline = arg[5].i,
        .period = arg[6].i,
    };
    return syscall(SYS_sched_setattr, 0, &schedule, 0) < 0 ? fail(run, "sched_setattr") : 0;
}

int do_io_priority(struct run *run, const struct arg *arg)
{
    enum { IOPRIO_WHO_PROCESS = 1 };
    return syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, (int)arg[0].i) < 0 ? fail(run, "ioprio_set") : 0;
}

int do_affinity(struct run *run, const struct arg *arg)
{
    return syscall(SYS_sched_setaffinity, 0, arg[0].n, arg[0].s) < 0 ? fail(run, "sched_setaffinity") : 0;
}

/* An empty mask is none: some modes refuse even one without nodes.  The kernel takes one off the number of bits. */
int do_memory_policy(struct run *run, const struct arg *arg)
{
    const void *nodes = arg[1].n ? arg[1].s : NULL;
    unsigned long bits = arg[1].n ? arg[1].n * 8 + 1 : 0;
    return syscall(SYS_set_mempolicy, (int)arg[0].i, nodes, bits) < 0 ? fail(run, "set_mempolicy") : 0;
}

int do_personality(struct run *run, const struct arg *arg)
{
    return personality(arg[0].i) < 0 ? fail(run, "personality") : 0;
}

/* Permissions of a key, from its description "keyring;UID;GID;PERMISSIONS;NAME". */
static bool parse_permissions(const char *text, uint32_t *permissions)
{
    for (int field = 0; field < 3; field++) {
        text += strcspn(text, ";");
        text += *text == ';';
    }
    const char *digits = "0123456789abcdef", *digit;
    *permissions = 0;
    for (const char *at = text; *at && (digit = strchr(digits, *at)); at++)
        *permissions = *permissions << 4 | (uint32_t)(digit - digits);
    return *text;
}

/* A session keyring of the container's own, so that nobody inside sees the caller's.  A kernel without keyrings has
 * none to protect.  `exec` joins it by its name, for which it must be searchable. */
int do_keyring(struct run *run, const struct arg *arg)
{
    char description[256] = "";
    uint32_t permissions;
    long key = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, arg[0].s);
    if (key < 0)
        return errno == ENOSYS ? 0 : fail(run, "KEYCTL_JOIN_SESSION_KEYRING");
    if (!arg[1].i)
        return 0;
    if (syscall(SYS_keyctl, KEYCTL_DESCRIBE, key, description, sizeof description - 1) < 0)
        return fail(run, "KEYCTL_DESCRIBE");
    if (!parse_permissions(description, &permissions))
        return fail_as(run, EINVAL, "description of the keyring");
    if (syscall(SYS_keyctl, KEYCTL_SETPERM, key, permissions | (uint32_t)arg[1].i) < 0)
        return fail(run, "KEYCTL_SETPERM");
    return 0;
}

/* What a security module is to make of us at execve(2), through a procfs that nobody else can have covered. */
int do_exec_label(struct run *run, const struct arg *arg)
{
    struct digits digits;
    int proc = private_proc(run);
    if (proc < 0)
        return -1;
    autoclose int process = open_beneath(proc, number_text(&digits, syscall(SYS_getpid)), O_PATH | O_DIRECTORY);
    if (process < 0)
        return fail(run, "own process");
    autoclose int fd = open_beneath(process, arg[0].s, O_WRONLY);
    if (fd < 0)
        return fail(run, "open");
    return write(fd, arg[1].s, arg[1].n) == (ssize_t)arg[1].n ? 0 : fail(run, "write");
}
