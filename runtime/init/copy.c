/* Copies a directory's contents into a new tmpfs (the mount option tmpcopyup) or an empty volume, and gives trees to
 * another owner.  No link is followed, and nothing is opened but regular files and directories. */

#define _GNU_SOURCE
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "steps.h"

/* The kernel's struct linux_dirent64 (getdents(2)). */
struct entry {
    uint64_t inode, offset;
    unsigned short size; /* of the whole entry */
    unsigned char type;
    char name[];
};

/* As far as they can be had and set: a file system without them, or a kernel that refuses one, is no reason to fail. */
static void copy_xattrs(int from, int to)
{
    char names[2048], value[4096];
    ssize_t size = flistxattr(from, names, sizeof names), length;
    for (const char *name = names; size > 0 && name < names + size; name += strlen(name) + 1)
        if ((length = fgetxattr(from, name, value, sizeof value)) >= 0)
            (void)!fsetxattr(to, name, value, length, 0);
}

/* Owner first: chown(2) takes set-user-ID bits and capabilities away. */
static int copy_attributes(int from, int to, const struct stat *st)
{
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    if (fchown(to, st->st_uid, st->st_gid) < 0 || fchmod(to, st->st_mode & 07777) < 0)
        return -1;
    copy_xattrs(from, to);
    (void)!futimens(to, times);
    return 0;
}

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
    return copied < 0 ? -1 : copy_attributes(in, out, st);
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
    return in < 0 || out < 0 || copy_tree(in, out) < 0 ? -1 : copy_attributes(in, out, st);
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

/* What is done with each entry of a directory: 0, or -1 with errno. */
typedef int entry_action(int directory, const char *name, const void *what);

/* The system call, since readdir(3) brings free(3) with it (struct run). */
static int for_entries(int directory, entry_action *act, const void *what)
{
    char buffer[2048] __attribute__((aligned(8)));
    autoclose int readable = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ssize_t got;
    while ((got = syscall(SYS_getdents64, readable, buffer, sizeof buffer)) > 0)
        for (ssize_t at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(buffer + at);
            at += entry->size;
            if (strcmp(entry->name, ".") && strcmp(entry->name, "..") && act(readable, entry->name, what) < 0)
                return -1;
        }
    return got < 0 ? -1 : 0;
}

static int copy_one(int from, const char *name, const void *to)
{
    return copy_entry(from, *(const int *)to, name);
}

int copy_tree(int from, int to)
{
    return for_entries(from, copy_one, &to);
}

static int refuse_entry(int directory, const char *name, const void *what)
{
    (void)directory, (void)name, (void)what;
    errno = ENOTEMPTY;
    return -1;
}

int fill_tree(int from, int to)
{
    struct stat st;
    autoclose int in = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    autoclose int out = openat(to, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (in < 0 || out < 0 || fstat(in, &st) < 0)
        return -1;
    if (for_entries(out, refuse_entry, NULL) < 0)
        return errno == ENOTEMPTY ? 0 : -1;
    return copy_tree(in, out) < 0 ? -1 : copy_attributes(in, out, &st);
}

/* The owner to be of a tree. */
struct owner {
    uid_t uid;
    gid_t gid;
};

static int own_entry(int directory, const char *name, const void *what)
{
    const struct owner *owner = what;
    struct stat st;
    if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if ((st.st_uid != owner->uid || st.st_gid != owner->gid) &&
        fchownat(directory, name, owner->uid, owner->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (!S_ISDIR(st.st_mode))
        return 0;
    autoclose int deeper = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return deeper < 0 ? -1 : for_entries(deeper, own_entry, owner);
}

int own_tree(int root, uid_t uid, gid_t gid)
{
    const struct owner owner = {uid, gid};
    struct stat st;
    if (fstat(root, &st) < 0)
        return -1;
    if ((st.st_uid != uid || st.st_gid != gid) && fchownat(root, "", uid, gid, AT_EMPTY_PATH) < 0)
        return -1;
    return S_ISDIR(st.st_mode) ? for_entries(root, own_entry, &owner) : 0;
}
