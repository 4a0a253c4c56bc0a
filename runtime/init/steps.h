/* The vocabulary of init: one table of all words, the state that they share, and what they need of each other. */
#ifndef WARREN_STEPS_H
#define WARREN_STEPS_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "plan.h"
#include "syscalls.h"

/* X(number, name, signature): each is done by a function do_NAME.  Numbers are never used again for something else. */
#define WORDS(X)                     \
    X(1, inherit, "fi")              \
    X(2, cgroup_join, "s")           \
    X(3, open_path, "fsi")           \
    X(4, open_tree, "fsi")           \
    X(5, mount_setattr, "fiiiif")    \
    X(6, userns, "fssiif")           \
    X(7, open_ns, "fsi")             \
    X(8, setns, "fi")                \
    X(9, undumpable, "")             \
    X(10, clone, "if")               \
    X(11, setup_ids, "iii")          \
    X(12, pdeathsig, "i")            \
    X(13, setsid, "")                \
    X(14, propagation, "i")          \
    X(15, scratch, "l")              \
    X(16, overlay, "ffll")           \
    X(17, tmpfs, "fl")               \
    X(18, root, "fs")                \
    X(19, mount, "sslii")            \
    X(20, bind, "fsi")               \
    X(21, mkdir, "si")               \
    X(22, symlink, "ss")             \
    X(23, mknod, "siiii")            \
    X(24, pivot_root, "")            \
    X(25, chroot, "")                \
    X(26, mask, "s")                 \
    X(27, readonly, "s")             \
    X(28, hostname, "s")             \
    X(29, domainname, "s")           \
    X(30, sysctl, "ss")              \
    X(31, loopback, "")              \
    X(32, console, "fiii")           \
    X(33, sync, "s")                 \
    X(34, hook, "slli")              \
    X(35, rlimit, "iii")             \
    X(36, umask, "i")                \
    X(37, bounding, "i")             \
    X(38, user, "iiil")              \
    X(39, capabilities, "iiii")      \
    X(40, no_new_privs, "")          \
    X(41, own_stdio, "iii")          \
    X(42, chdir, "si")               \
    X(43, find, "ss")                \
    X(44, wait_start, "ff")          \
    X(45, reap, "f")                 \
    X(46, exec, "lli")               \
    X(47, oom_score_adj, "i")        \
    X(48, seccomp, "bii")            \
    X(49, time_offsets, "s")         \
    X(50, scheduler, "iiiiiii")      \
    X(51, io_priority, "i")          \
    X(52, affinity, "b")             \
    X(53, personality, "i")          \
    X(54, keyring, "si")             \
    X(55, exec_label, "ss")          \
    X(56, device_program, "fb")     \
    X(57, remount, "sliii")          \
    X(58, timestamps, "f")           \
    X(59, netlink, "s")              \
    X(60, memory_policy, "ib")       \
    X(61, monitor_log, "sfsii")      \
    X(62, monitor_events, "llis")    \
    X(63, monitor, "fffffi")         \
    X(64, fill, "fs")                \
    X(65, own, "fii")                \
    X(66, wait_command, "f")         \
    X(67, idle, "f")                 \
    X(68, guard, "ff")               \
    X(69, take_network, "f")         \
    X(84, supervise, "bii")          \
    GUEST_WORDS(X)

/* Those of process 1 of a virtual machine, a program of its own: what it needs, and nobody else, would be in the memory
 * of every monitor. */
#ifdef WARREN_GUEST
#define GUEST_WORDS(X)               \
    X(80, module, "s")               \
    X(81, channel, "l")              \
    X(82, interface, "ssss")         \
    X(83, guest, "iii")              \
    X(85, wait_path, "s")            \
    X(86, file, "sb")
#else
#define GUEST_WORDS(X)
#endif

#define DETAIL_SIZE 320

/* What the steps of one run share.  Descriptors are -1 where there is none, but in `slots`.
 *
 * No memory is ever freed: a run is short, and without free() musl links an allocator of a few lines, which counts
 * in a process that may wait for months. */
struct run {
    struct plan plan;         /* what is being done */
    uint32_t step;            /* number of the step at work, from 1, without the `inherit` steps; 0 none */
    int error;                /* errno of the failure that fail() noted */
    char detail[DETAIL_SIZE]; /* its text */
    int sync;                 /* the sync socket, SOCK_SEQPACKET; its descriptor is that of slot 0 */
    int report;               /* where a failure is written after `wait_start` */
    int channel;              /* guest: the line to the supervisor on the host */
    int root;                 /* the container's root, O_PATH; in_root() opens it on first use */
    int old_root;             /* the root before anything was stacked on it, O_PATH */
    int scratch;              /* the scratch tmpfs */
    int empty;                /* the read-only tmpfs that hides directories, once it is attached */
    int proc;                 /* a private procfs for `sysctl` and `exec_label` */
    int death_signal;         /* PR_SET_PDEATHSIG, which changes of credentials clear; 0 none */
    int told;                 /* where the monitor learns the container's pid, and that its program runs */
    pid_t outside;            /* with a monitor: ourselves, until `clone`, since Python did not start us; 0 otherwise */
    pid_t helper;             /* the helper of `userns`, until reap_helper(); 0 none */
    int64_t own_slot;         /* the slot of our own program, for `reap` and `idle`; -1 none */
    int64_t preserved;        /* descriptors from 3 on that the `exec` step leaves to the user's program */
    int used_slots;           /* slots from this one on have never been used */
    bool undumpable;          /* PR_SET_DUMPABLE 0, which changes of credentials undo */
    bool uses_proc;           /* the plan has a step that needs `proc` */
    bool own_console;         /* the standard streams are a terminal that `console` opened */
    int64_t *stamps;          /* when each step ended, in nanoseconds; NULL unless asked for */
    int stamps_fd;            /* where they are written before the program is executed */
    char *state;              /* text of the last OK to a `sync`: the input of hooks */
    char *program;            /* what `find` found */
    struct sock_fprog filter; /* the program that load_filter() is to load; empty if there is none */
    unsigned filter_flags;    /* flags of seccomp(2) for it */
    bool filtered;            /* by the container's filter, which may forbid what do_exec() would check once more */
    int slots[MAX_SLOTS];     /* descriptor + 1; 0 is an empty slot, so that unused pages are never touched */
};

#define DECLARE(number, name, signature) int do_##name(struct run *run, const struct arg *arg);
WORDS(DECLARE)
#undef DECLARE

/* ---- report.c ---- */

enum { MESSAGE_MAP = 1, MESSAGE_PID, MESSAGE_SYNC, MESSAGE_READY, MESSAGE_FAIL, MESSAGE_OK = 16 };
#define MAX_MESSAGE 65536
#define EXIT_INIT 125

/* Notes errno (or `error`) and text of a failure, for report_failure(); always returns -1. */
int fail(struct run *run, const char *detail);
int fail_as(struct run *run, int error, const char *detail);
/* The same with a text of several parts, ended by NULL; errno is kept. */
int fail_text(struct run *run, int error, ...) __attribute__((sentinel));
/* Decimal digits of a number, written to the end of a buffer. */
struct digits { char text[24]; };
const char *number_text(struct digits *buffer, long long number);
/* Tells whoever listens of the failure noted last. */
void report_failure(struct run *run);
/* Sends a message; waits for the OK and returns its text.  Neither returns when nobody is there any more: without a
 * runtime a container is not to be. */
void tell(struct run *run, uint32_t kind, int64_t value, const char *text);

/* Sends an errno, or 0 and a descriptor, over a socket to another process of ours; the other end, which takes the
 * descriptor, or fails with that errno (EPIPE: the sender has ended). */
void pass_fd(int line, int error, int fd);
int receive_fd(struct run *run, int line, const char *what);
char *wait_for_ok(struct run *run);
/* Sends a SYNC with a duplicate of a descriptor. */
void sync_with_fd(struct run *run, const char *name, int fd);
/* Sends a SYNC by write(2), which is the one call that SCMP_ACT_NOTIFY never holds back. */
void sync_by_write(struct run *run, const char *name, int64_t value);

/* ---- init.c ---- */

/* Decodes all of the plan; then does its steps, one after the other.  -1 after fail(). */
int check_plan(struct run *run);
int run_plan(struct run *run);

/* The descriptor in a slot; -1 and EBADF if it is empty. */
int slot_fd(struct run *run, int64_t slot);
/* Puts a descriptor into a slot; closes it if that fails. */
int set_slot(struct run *run, int64_t slot, int fd);
/* Every signal back to its default, none blocked (RULES: CPython ignores SIGPIPE). */
void reset_signals(void);

/* Writes the time stamps that the `timestamps` step asked for, if any. */
void write_stamps(struct run *run);

/* ---- resolve.c: paths inside the container's root ---- */

enum { MUST_EXIST = 0, MAKE_DIR = 1, MAKE_FILE = 2, NO_SYMLINKS = 4, ON_KERNEL_FS = 8, COPY_UP = 16 };

/* The container's root, O_PATH. */
int in_root(struct run *run);
/* Opens (O_PATH) a path inside the root; links cannot leave it.  -1 with errno. */
int resolve(struct run *run, const char *path, int flags);
/* The same for something to be mounted on: neither the root itself nor, without ON_KERNEL_FS, on procfs or sysfs. */
int resolve_target(struct run *run, const char *path, int flags);
/* Opens the directory that contains the path's last component, and copies that to name[NAME_MAX + 1]. */
int resolve_parent(struct run *run, const char *path, char *name);
/* Opens something below a directory without following any link. */
int open_beneath(int dirfd, const char *path, uint64_t flags);

/* ---- filesystem.c: mounts by descriptor ---- */

/* Makes a detached mount of a new file system; -1 after fail(). */
int new_mount(struct run *run, const char *type, const struct arg *options, uint64_t attr);
/* fsopen(2), one option, CMD_CREATE with fsmount(2); -1 after fail(). */
int open_filesystem(struct run *run, const char *type);
int set_option(struct run *run, int fs, const char *option);
int set_string(struct run *run, int fs, const char *key, const char *value);
int create_mount(struct run *run, int fs, uint64_t attr);
/* fail() with the last line of the file system's own log, or else `what`. */
int fail_with_log(struct run *run, int fs, const char *what);
/* Gives the file system at a mount point new options. */
int reconfigure(struct run *run, int target, const struct arg *options);
/* Attaches a detached mount. */
int attach(struct run *run, int mount, int target);
/* A copy of the mount at or below a descriptor; flags may hold AT_RECURSIVE. */
int clone_mount(int fd, unsigned flags);
/* A procfs of our own, detached and verified (CVE-2025-52881). */
int private_proc(struct run *run);

/* ---- copy.c ---- */

/* Copies what is in one directory into another, with owners, modes and links; -1 with errno. */
int copy_tree(int from, int to);
/* The same into an empty directory, which becomes like the other one; 0 at once for one that is not empty. */
int fill_tree(int from, int to);
/* Gives a file, or a directory and all in it, to an owner; -1 with errno. */
int own_tree(int root, uid_t uid, gid_t gid);

/* ---- steps_overlay.c ---- */

/* An option of an overlay that names directories. */
bool is_layer_option(const char *option);
int set_layer_option(struct run *run, int fs, const char *option);

/* ---- steps_outside.c ---- */

/* Writes /proc/PID/NAME of ourselves, in a /proc that has been verified; outside only. */
int write_own(struct run *run, const char *name, const char *text);
/* Waits for the helper of `userns`, which has been told to end. */
void reap_helper(struct run *run);

/* ---- monitor.c ---- */

/* Tells the monitor of the container's process, if there is a monitor; ends if there is none any more. */
void tell_monitor(struct run *run, pid_t child);
/* Fails if there was a monitor and it is gone. */
int check_monitor(struct run *run);

/* ---- steps_seccomp.c ---- */

/* Loads the filter that the `seccomp` step left for the end, if any. */
int load_filter(struct run *run);

/* ---- steps_wait.c ---- */

/* Process 1 of a container without a program. */
_Noreturn void be_idle(void);
_Noreturn void be_reaper(pid_t child);

#ifdef WARREN_GUEST
/* ---- guest.c: process 1 of a virtual machine ---- */

/* Does what the plan in a file says, and what the supervisor's plan says that comes over its `channel`. */
_Noreturn void be_guest(struct run *run, const char *path);
/* Sends the failure noted last over the channel; -1 if there is none. */
int report_over_channel(struct run *run);
#endif

/* ---- steps_process.c ---- */

/* Sets again what the kernel takes back when credentials change: undumpable, and the parent-death signal. */
int keep_process_attributes(struct run *run);

#endif
