/* Copies a directory's contents into a new tmpfs (the mount option tmpcopyup).  No link is followed, and nothing is
 * opened but regular files and directories. */

#define _GNU_SOURCE
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "steps.h"

/* The kernel's struct linux_dirent64 (getdents(2)). */
struct entry {
    uint64_t inode, offset;
    unsigned short size; /* of the whole entry */
    unsigned char type;
    char name[];
};

static int copy_file(int from, int to, const char *name, const struct stat *st)
{
    autoclose int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    autoclose int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ssize_t copied;
    if (in < 0 || out < 0)
        return -1;
    do
        copied = sendfile(out, in, NULL, 1 << 30);
    while (copied > 0);
    if (copied < 0 || fchown(out, st->st_uid, st->st_gid) < 0)
        return -1;
    return fchmod(out, st->st_mode & 07777);
}

static int copy_link(int from, int to, const char *name, const struct stat *st)
{
    char target[4096];
    ssize_t size = readlinkat(from, name, target, sizeof target - 1);
    if (size < 0)
        return -1;
    target[size] = 0;
    if (symlinkat(target, to, name) < 0)
        return -1;
    return fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW);
}

static int copy_directory(int from, int to, const char *name, const struct stat *st)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    if (mkdirat(to, name, 0700) < 0)
        return -1;
    autoclose int in = openat(from, name, flags);
    autoclose int out = openat(to, name, flags);
    if (in < 0 || out < 0 || copy_tree(in, out) < 0 || fchown(out, st->st_uid, st->st_gid) < 0)
        return -1;
    return fchmod(out, st->st_mode & 07777);
}

/* Devices, sockets and FIFOs are left out where they may not be made. */
static int copy_entry(int from, int to, const char *name)
{
    struct stat st;
    if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (S_ISDIR(st.st_mode))
        return copy_directory(from, to, name, &st);
    if (S_ISREG(st.st_mode))
        return copy_file(from, to, name, &st);
    if (S_ISLNK(st.st_mode))
        return copy_link(from, to, name, &st);
    if (mknodat(to, name, st.st_mode, st.st_rdev) < 0)
        return errno == EPERM ? 0 : -1;
    return fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW);
}

/* One buffer of entries; the system call, since readdir(3) brings free(3) with it (struct run). */
static int copy_entries(int from, int to, const char *buffer, ssize_t size)
{
    for (ssize_t at = 0; at < size;) {
        const struct entry *entry = (const struct entry *)(buffer + at);
        at += entry->size;
        if (strcmp(entry->name, ".") && strcmp(entry->name, "..") && copy_entry(from, to, entry->name) < 0)
            return -1;
    }
    return 0;
}

int copy_tree(int from, int to)
{
    char buffer[2048] __attribute__((aligned(8)));
    autoclose int readable = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ssize_t got;
    while ((got = syscall(SYS_getdents64, readable, buffer, sizeof buffer)) > 0)
        if (copy_entries(readable, to, buffer, got) < 0)
            return -1;
    return got < 0 ? -1 : 0;
}
