/* Steps on the process itself: its birth, identity, limits and privileges. */

#define _GNU_SOURCE
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "steps.h"

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

/* The most that setgroups(2) takes. */
#define MAX_GROUPS 65536

/* Outside, at the end: the child may not say a word before its pid has been told, or Python could take its failure
 * for that of a process that it does not know.  It waits for a byte of the pipe. */
static _Noreturn void tell_and_exit(struct run *run, pid_t child, int pipe_end)
{
    tell_monitor(run, child);
    tell(run, MESSAGE_PID, child, "");
    bool told = write(pipe_end, "", 1) == 1;
    reap_helper(run);
    _exit(told ? 0 : EXIT_INIT);
}

/* Inside: our job is to build the container from within, by the steps that follow, and to become the user's program.
 * We are a child of the monitor or of the Python process (CLONE_PARENT), or of its sub-reaper. */
int do_clone(struct run *run, const struct arg *arg)
{
    int ends[2], cgroup = arg[1].i < 0 ? -1 : slot_fd(run, arg[1].i);
    struct clone_args args = {.flags = (uint64_t)arg[0].i | CLONE_PARENT};
    char byte;
    if (arg[1].i >= 0 && cgroup < 0)
        return fail(run, "cgroup");
    if (cgroup >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup;
    }
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail(run, "pipe");
    pid_t child = sys_clone3(&args);
    if (child < 0)
        return fail(run, "clone3");
    if (child > 0)
        tell_and_exit(run, child, ends[1]);
    run->helper = run->outside = 0; /* It is no child of ours. */
    close(ends[1]);
    if (read(ends[0], &byte, 1) != 1)
        _exit(EXIT_INIT);
    close(ends[0]);
    return 0;
}

int keep_process_attributes(struct run *run)
{
    if (run->undumpable && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return fail(run, "PR_SET_DUMPABLE");
    if (run->death_signal && prctl(PR_SET_PDEATHSIG, (unsigned long)run->death_signal) < 0)
        return fail(run, "PR_SET_PDEATHSIG");
    return 0;
}

/* -1 as an id means "unchanged" to setresuid(2), so it must never get there. */
static bool is_id(int64_t id)
{
    return id >= 0 && id < UINT32_MAX;
}

static int become(struct run *run, int64_t uid, int64_t gid)
{
    if (!is_id(uid) || !is_id(gid))
        return fail_as(run, EINVAL, "not an id");
    if (sys_setresgid(gid) < 0)
        return fail(run, "setresgid");
    if (sys_setresuid(uid) < 0)
        return fail(run, "setresuid");
    return keep_process_attributes(run);
}

int do_setup_ids(struct run *run, const struct arg *arg)
{
    if (arg[2].i && sys_setgroups(0, NULL) < 0)
        return fail(run, "setgroups");
    return become(run, arg[0].i, arg[1].i);
}

int do_pdeathsig(struct run *run, const struct arg *arg)
{
    if (arg[0].i < 0 || arg[0].i > 64)
        return fail_as(run, EINVAL, "not a signal");
    run->death_signal = arg[0].i;
    return keep_process_attributes(run) < 0 ? -1 : check_monitor(run);
}

int do_setsid(struct run *run, const struct arg *arg)
{
    (void)arg;
    return setsid() < 0 ? fail(run, "setsid") : 0;
}

int do_rlimit(struct run *run, const struct arg *arg)
{
    struct {
        uint64_t soft, hard; /* RLIM_INFINITY is all ones, as -1 on the wire */
    } limit = {arg[1].i, arg[2].i};
    if (syscall(SYS_prlimit64, 0, (unsigned)arg[0].i, &limit, NULL) < 0)
        return fail(run, "prlimit");
    return 0;
}

int do_umask(struct run *run, const struct arg *arg)
{
    (void)run;
    umask(arg[0].i & 0777);
    return 0;
}

int do_bounding(struct run *run, const struct arg *arg)
{
    for (unsigned long capability = 0; capability < 64; capability++) {
        int held = prctl(PR_CAPBSET_READ, capability);
        if (held < 0)
            break; /* The kernel knows none from here on. */
        bool wanted = (uint64_t)arg[0].i >> capability & 1;
        if (held && !wanted && prctl(PR_CAPBSET_DROP, capability) < 0)
            return fail(run, "PR_CAPBSET_DROP");
    }
    return 0;
}

static bool parse_id(const char *text, gid_t *id)
{
    uint64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && value < UINT32_MAX; at++)
        value = value * 10 + (*at - '0');
    *id = value;
    return at > text && !*at && value < UINT32_MAX;
}

static int set_groups(struct run *run, const struct arg *list)
{
    size_t count = list_count(list), next = 0;
    if (count > MAX_GROUPS)
        return fail_as(run, EINVAL, "too many groups");
    gid_t *groups = calloc(count + 1, sizeof *groups);
    if (!groups)
        return fail(run, "memory");
    for_each(text, list)
        if (!parse_id(text, &groups[next++]))
            return fail_as(run, EINVAL, "not a group id");
    return sys_setgroups(count, groups) < 0 ? fail(run, "setgroups") : 0;
}

/* Permitted capabilities survive the change; the `capabilities` step decides what is left of them. */
int do_user(struct run *run, const struct arg *arg)
{
    if (prctl(PR_SET_KEEPCAPS, 1UL, 0, 0, 0) < 0)
        return fail(run, "PR_SET_KEEPCAPS");
    if (arg[2].i && set_groups(run, &arg[3]) < 0)
        return -1;
    if (become(run, arg[0].i, arg[1].i) < 0)
        return -1;
    return prctl(PR_SET_KEEPCAPS, 0UL, 0, 0, 0) < 0 ? fail(run, "PR_SET_KEEPCAPS") : 0;
}

int do_capabilities(struct run *run, const struct arg *arg)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    for (int word = 0; word < 2; word++) {
        data[word].effective = (uint64_t)arg[0].i >> 32 * word;
        data[word].permitted = (uint64_t)arg[1].i >> 32 * word;
        data[word].inheritable = (uint64_t)arg[2].i >> 32 * word;
    }
    if (syscall(SYS_capset, &head, data) < 0)
        return fail(run, "capset");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return fail(run, "PR_CAP_AMBIENT_CLEAR_ALL");
    for (unsigned long capability = 0; capability < 64; capability++)
        if ((uint64_t)arg[3].i >> capability & 1 &&
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
            return fail(run, "PR_CAP_AMBIENT_RAISE");
    /* capset(2) that gives up capabilities makes the kernel forget both. */
    return keep_process_attributes(run);
}

int do_no_new_privs(struct run *run, const struct arg *arg)
{
    (void)arg;
    return prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0, 0, 0) < 0 ? fail(run, "PR_SET_NO_NEW_PRIVS") : 0;
}

/* So that the user may open /dev/stdout again.  Only what is the container's own to give away: pipes and sockets, and
 * a terminal that `console` opened; never a file of the host, its terminal or its /dev/null. */
static bool may_own(struct run *run, const struct stat *st)
{
    if (S_ISCHR(st->st_mode))
        return run->own_console && st->st_rdev != makedev(1, 3);
    return S_ISFIFO(st->st_mode) || S_ISSOCK(st->st_mode);
}

int do_own_stdio(struct run *run, const struct arg *arg)
{
    struct stat st;
    if (!is_id(arg[0].i))
        return fail_as(run, EINVAL, "not an id");
    for (int fd = 0; fd < 3; fd++) {
        if (!(arg[2].i >> fd & 1) || fstat(fd, &st) < 0 || st.st_uid == (uid_t)arg[0].i || !may_own(run, &st))
            continue;
        if (fchown(fd, arg[0].i, -1) < 0 && errno != EROFS && errno != EPERM && errno != EINVAL)
            return fail(run, "fchown");
    }
    return 0;
}
