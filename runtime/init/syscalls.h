/* System calls that musl 1.2.3 or glibc 2.31 do not wrap, and the cleanup attribute.
 *
 * The raw forms of the identity calls are on purpose: libc's would signal other threads, and there are none. */
#ifndef WARREN_SYSCALLS_H
#define WARREN_SYSCALLS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

static inline void close_quietly(int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        close(*fd);
    errno = saved;
}

/* Closes the descriptor when the variable goes out of scope. */
#define autoclose __attribute__((cleanup(close_quietly)))

static inline int sys_open_tree(int dirfd, const char *path, unsigned flags)
{
    return syscall(SYS_open_tree, dirfd, path, flags);
}

static inline int sys_move_mount(int from, const char *from_path, int to, const char *to_path, unsigned flags)
{
    return syscall(SYS_move_mount, from, from_path, to, to_path, flags);
}

static inline int sys_mount_setattr(int dirfd, const char *path, unsigned flags, struct mount_attr *attr)
{
    return syscall(SYS_mount_setattr, dirfd, path, flags, attr, sizeof *attr);
}

static inline int sys_fsopen(const char *type)
{
    return syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
}

static inline int sys_fsconfig(int fd, unsigned command, const char *key, const void *value, int aux)
{
    return syscall(SYS_fsconfig, fd, command, key, value, aux);
}

static inline int sys_fsmount(int fd, unsigned attr)
{
    return syscall(SYS_fsmount, fd, FSMOUNT_CLOEXEC, attr);
}

static inline int sys_openat2(int dirfd, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
    return syscall(SYS_openat2, dirfd, path, &how, sizeof how);
}

static inline int sys_umount(const char *path, int flags)
{
    return syscall(SYS_umount2, path, flags);
}

static inline int sys_pivot_root(const char *new_root, const char *put_old)
{
    return syscall(SYS_pivot_root, new_root, put_old);
}

static inline int sys_close_range(unsigned first, unsigned last, unsigned flags)
{
    return syscall(SYS_close_range, first, last, flags);
}

static inline int sys_pidfd_open(pid_t pid)
{
    return syscall(SYS_pidfd_open, pid, 0);
}

static inline pid_t sys_clone3(struct clone_args *args)
{
    return syscall(SYS_clone3, args, sizeof *args);
}

/* fork(2), with namespaces: no atfork handlers, no cached ids. */
static inline pid_t sys_fork(unsigned long namespaces, int exit_signal)
{
    return syscall(SYS_clone, namespaces | exit_signal, 0, 0, 0, 0);
}

static inline pid_t sys_getpid(void)
{
    return syscall(SYS_getpid);
}

static inline int sys_setns(int fd, int types)
{
    return syscall(SYS_setns, fd, types);
}

static inline int sys_setgroups(size_t count, const gid_t *groups)
{
    return syscall(SYS_setgroups, count, groups);
}

static inline int sys_setresgid(gid_t gid)
{
    return syscall(SYS_setresgid, gid, gid, gid);
}

static inline int sys_setresuid(uid_t uid)
{
    return syscall(SYS_setresuid, uid, uid, uid);
}

static inline int sys_mknodat(int dirfd, const char *name, mode_t mode, unsigned device)
{
    return syscall(SYS_mknodat, dirfd, name, mode, device);
}

static inline int sys_now(struct timespec *time)
{
    return syscall(SYS_clock_gettime, CLOCK_MONOTONIC, time);
}

/* The real ids decide, and they are the effective ones by now.  Not faccessat2(2): the container's seccomp filter may
 * be in force, and older profiles do not know it. */
static inline int sys_access_execute(const char *path)
{
    return syscall(SYS_faccessat, AT_FDCWD, path, X_OK);
}

#endif
