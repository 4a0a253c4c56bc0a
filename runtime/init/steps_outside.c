/* Steps for the host's side: descriptors, sources of mounts, user namespaces, namespaces to join. */

#define _GNU_SOURCE
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "steps.h"

/* Bits of `recursive` in open_tree and mount_setattr. */
enum { RECURSIVE = 1, NO_FOLLOW = 2, IDMAP_RECURSIVE = 2 };

int do_inherit(struct run *run, const struct arg *arg)
{
    int fd = arg[1].i < 0 || arg[1].i > INT32_MAX ? -1 : (int)arg[1].i;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return fail(run, "inherited descriptor");
    return set_slot(run, arg[0].i, fd);
}

/* One thread, by a v1 tasks file: unlike cgroup.procs it does not wait for an RCU grace period. */
int do_cgroup_join(struct run *run, const struct arg *arg)
{
    autoclose int fd = open(arg[0].s, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(run, "open");
    return write(fd, "0", 1) == 1 ? 0 : fail(run, "write");
}

int do_open_path(struct run *run, const struct arg *arg)
{
    int fd = open(arg[1].s, (int)arg[2].i | O_CLOEXEC, 0600);
    return fd < 0 ? fail(run, "open") : set_slot(run, arg[0].i, fd);
}

int do_open_tree(struct run *run, const struct arg *arg)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    flags |= arg[2].i & RECURSIVE ? AT_RECURSIVE : 0;
    flags |= arg[2].i & NO_FOLLOW ? AT_SYMLINK_NOFOLLOW : 0;
    int fd = sys_open_tree(AT_FDCWD, arg[1].s, flags);
    return fd < 0 ? fail(run, "open_tree") : set_slot(run, arg[0].i, fd);
}

/* Attributes and id map are two calls, since each has its own say on what it reaches. */
int do_mount_setattr(struct run *run, const struct arg *arg)
{
    int fd = slot_fd(run, arg[0].i);
    struct mount_attr attr = {.attr_set = arg[2].i, .attr_clr = arg[3].i, .propagation = arg[4].i};
    if (fd < 0)
        return fail(run, "slot");
    if ((attr.attr_set | attr.attr_clr) & MOUNT_ATTR__ATIME)
        attr.attr_clr |= MOUNT_ATTR__ATIME; /* A field of its own: it is set by clearing all of it first. */
    unsigned flags = AT_EMPTY_PATH | (arg[1].i & RECURSIVE ? AT_RECURSIVE : 0);
    if ((attr.attr_set || attr.attr_clr || attr.propagation) && sys_mount_setattr(fd, "", flags, &attr) < 0)
        return fail(run, "mount_setattr");
    if (arg[5].i < 0)
        return 0;
    int userns = slot_fd(run, arg[5].i);
    struct mount_attr idmap = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = userns};
    flags = AT_EMPTY_PATH | (arg[1].i & IDMAP_RECURSIVE ? AT_RECURSIVE : 0);
    if (userns < 0 || sys_mount_setattr(fd, "", flags, &idmap) < 0)
        return fail(run, "idmap");
    return 0;
}

/* ---- user namespaces ---- */

/* /proc/PID, verified: something else mounted on /proc must not get to see or fake our writes. */
static int open_process(pid_t pid)
{
    struct digits digits;
    struct statfs fs;
    autoclose int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0 || fstatfs(proc, &fs) < 0)
        return -1;
    if (fs.f_type != PROC_SUPER_MAGIC) {
        errno = ENODEV;
        return -1;
    }
    return open_beneath(proc, number_text(&digits, pid), O_PATH | O_DIRECTORY);
}

/* Of the process in this directory of /proc. */
static int open_namespace(int process, const char *name)
{
    autoclose int directory = open_beneath(process, "ns", O_PATH | O_DIRECTORY);
    return directory < 0 ? -1 : openat(directory, name, O_RDONLY | O_CLOEXEC);
}

static void make_network(int line)
{
    prctl(PR_SET_DUMPABLE, 0); /* Somebody else is about to be in our user namespace. */
    autoclose int process = unshare(CLONE_NEWNET) < 0 ? -1 : open_process(sys_getpid());
    autoclose int network = process < 0 ? -1 : open_namespace(process, "net");
    pass_fd(line, network < 0 ? errno : 0, network);
}

/* Helper: our job is to be the first process of a user namespace, so that it exists while its maps are written; and,
 * once they are, to make a network namespace that belongs to it and send it to process 1 of the container, which goes
 * on with its mounts meanwhile: making one takes as long as half of them.  We hold nothing but the read end of a pipe
 * and that line, and end when we are done, or init outside dies. */
static _Noreturn void be_helper(int pipe_end, int line)
{
    char mapped;
    ssize_t got = -1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int kept = dup2(pipe_end, 0) == 0 && (line < 0 || dup2(line, 1) == 1) ? (line < 0 ? 1 : 2) : -1;
    if (kept > 0 && sys_close_range(kept, ~0U, 0) == 0)
        while ((got = read(0, &mapped, 1)) < 0 && errno == EINTR)
            ;
    if (got == 1 && line >= 0)
        make_network(1);
    _exit(0);
}

static int write_below(struct run *run, int process, const char *name, const char *text)
{
    autoclose int fd = open_beneath(process, name, O_WRONLY);
    /* The kernel takes a map in one write, or not at all. */
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return fail(run, name);
    return 0;
}

static int write_maps(struct run *run, int process, const struct arg *arg)
{
    if (arg[3].i && write_below(run, process, "setgroups", "deny") < 0)
        return -1;
    if (write_below(run, process, "uid_map", arg[1].s) < 0)
        return -1;
    return write_below(run, process, "gid_map", arg[2].s);
}

/* Gives the helper's namespace its maps, and opens it. */
static int map_and_open(struct run *run, pid_t helper, const struct arg *arg)
{
    autoclose int process = open_process(helper);
    if (process < 0)
        return fail(run, "/proc");
    if (arg[4].i) {
        tell(run, MESSAGE_MAP, helper, "");
        wait_for_ok(run);
    } else if (write_maps(run, process, arg) < 0) {
        return -1;
    }
    int fd = open_namespace(process, "user");
    if (fd < 0)
        return fail(run, "ns/user");
    return set_slot(run, arg[0].i, fd);
}

void reap_helper(struct run *run)
{
    while (run->helper && waitpid(run->helper, NULL, 0) < 0 && errno == EINTR)
        ;
    run->helper = 0;
}

int do_userns(struct run *run, const struct arg *arg)
{
    int ends[2], lines[2] = {-1, -1};
    reap_helper(run);
    if (arg[5].i >= 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, lines) < 0)
        return fail(run, "socketpair");
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail(run, "pipe");
    pid_t helper = sys_fork(CLONE_NEWUSER, SIGCHLD);
    if (helper == 0) {
        close(ends[1]);
        be_helper(ends[0], lines[1]);
    }
    run->helper = helper > 0 ? helper : 0;
    int result = helper < 0 ? fail(run, "clone") : map_and_open(run, helper, arg);
    if (result == 0 && arg[5].i >= 0)
        result = write(ends[1], "", 1) == 1 ? set_slot(run, arg[5].i, lines[0]) : fail(run, "helper");
    close(ends[0]);
    close(ends[1]); /* The helper ends now, or when it has made the network, while we go on. */
    close_quietly(&lines[1]);
    return result;
}

int do_take_network(struct run *run, const struct arg *arg)
{
    int line = slot_fd(run, arg[0].i);
    autoclose int network = line < 0 ? fail(run, "slot") : receive_fd(run, line, "new network namespace");
    if (network < 0)
        return -1;
    return sys_setns(network, CLONE_NEWNET) < 0 ? fail(run, "setns") : 0;
}

/* ---- joining ---- */

static const struct {
    int64_t type;     /* CLONE_NEW... */
    const char *text; /* what an error says */
} kinds[] = {
    {CLONE_NEWNS, "not a mount namespace"},  {CLONE_NEWCGROUP, "not a cgroup namespace"},
    {CLONE_NEWUTS, "not a uts namespace"},   {CLONE_NEWIPC, "not an ipc namespace"},
    {CLONE_NEWUSER, "not a user namespace"}, {CLONE_NEWPID, "not a pid namespace"},
    {CLONE_NEWNET, "not a network namespace"}, {CLONE_NEWTIME, "not a time namespace"},
};

static const char *wrong_kind(int64_t type)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].type == type)
            return kinds[i].text;
    return "not a namespace of that type";
}

int write_own(struct run *run, const char *name, const char *text)
{
    autoclose int process = open_process(getpid());
    if (process < 0)
        return fail(run, "/proc");
    autoclose int fd = open_beneath(process, name, O_WRONLY);
    if (fd < 0)
        return fail(run, "open");
    return write(fd, text, strlen(text)) < 0 ? fail(run, "write") : 0;
}

/* Ours, and so that of all that we start.  Written outside, where /proc is the host's and our file in it belongs to us. */
int do_oom_score_adj(struct run *run, const struct arg *arg)
{
    struct digits digits;
    return write_own(run, "oom_score_adj", number_text(&digits, arg[0].i));
}

/* A time namespace takes offsets until somebody is in it.  We do not enter it ourselves, but our child will. */
int do_time_offsets(struct run *run, const struct arg *arg)
{
    if (unshare(CLONE_NEWTIME) < 0)
        return fail(run, "unshare");
    return arg[0].n ? write_own(run, "timens_offsets", arg[0].s) : 0;
}

int do_open_ns(struct run *run, const struct arg *arg)
{
    struct statfs fs;
    /* Whatever else is at the path must not block us, or become our terminal. */
    autoclose int fd = open(arg[1].s, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fail(run, "open");
    if (fstatfs(fd, &fs) < 0 || fs.f_type != NSFS_MAGIC || ioctl(fd, NS_GET_NSTYPE) != arg[2].i)
        return fail_as(run, EINVAL, wrong_kind(arg[2].i));
    int result = set_slot(run, arg[0].i, fd);
    fd = -1;
    return result;
}

int do_setns(struct run *run, const struct arg *arg)
{
    int fd = slot_fd(run, arg[0].i);
    if (fd < 0 || sys_setns(fd, arg[1].i) < 0)
        return fail(run, "setns");
    return 0;
}

int do_undumpable(struct run *run, const struct arg *arg)
{
    (void)arg;
    run->undumpable = true;
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ? fail(run, "prctl") : 0;
}
