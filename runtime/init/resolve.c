/* Paths inside the container's root.
 *
 * Whoever made the image, or shares a volume with us, may put a link anywhere and change it at any time.  So every
 * path is resolved by the kernel, scoped to the root, and used by descriptor (CVE-2021-30465); missing directories
 * are made one by one beneath a descriptor, never through a link (CVE-2024-45310). */

#define _GNU_SOURCE
#include <limits.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "steps.h"

#define SCOPED (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS)

int in_root(struct run *run)
{
    if (run->root < 0)
        run->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return run->root;
}

/* openat2(2) says EAGAIN when a rename or mount elsewhere raced with "..". */
static int open_retrying(int dirfd, const char *path, uint64_t flags, uint64_t how)
{
    int fd;
    for (int attempt = 0; attempt < 128; attempt++) {
        fd = sys_openat2(dirfd, path, flags, how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return fd;
}

int open_beneath(int dirfd, const char *path, uint64_t flags)
{
    return open_retrying(dirfd, path, flags, BENEATH);
}

/* Makes one directory if need be, and opens it.  A link in its place, dangling or not, is an error (ELOOP). */
static int enter_directory(int parent, const char *name)
{
    if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
        return -1;
    return open_beneath(parent, name, O_PATH | O_DIRECTORY);
}

static int enter_file(int parent, const char *name)
{
    int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 && errno != EEXIST)
        return -1;
    if (fd >= 0)
        close(fd);
    return open_beneath(parent, name, O_PATH);
}

/* Opens the longest existing directory of a path, which is cut there; *rest points at the first missing component. */
static int open_existing(int root, char *path, uint64_t how, char **rest)
{
    char *cut = path + strlen(path);
    for (;;) {
        while (cut > path && cut[-1] != '/')
            cut--;
        char first = *cut;
        *cut = 0;
        int fd = open_retrying(root, *path ? path : "/", O_PATH | O_DIRECTORY, how);
        *cut = first;
        *rest = cut;
        if (fd >= 0 || errno != ENOENT || cut == path)
            return fd;
        while (cut > path && cut[-1] == '/')
            cut--;
    }
}

/* Nothing can be above what does not exist. */
static bool climbs(const char *path)
{
    for (; *path; path += strcspn(path, "/"), path += *path == '/')
        if (strncmp(path, "..", 2) == 0 && (!path[2] || path[2] == '/'))
            return true;
    return false;
}

/* Makes what is missing of a path; all directories but, with MAKE_FILE, the last. */
static int make_path(int root, const char *path, int flags, uint64_t how)
{
    size_t size = strlen(path) + 1;
    if (size > PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    char copy[size], *next;
    memcpy(copy, path, size);
    for (size_t end = size - 1; end && copy[end - 1] == '/'; end--)
        copy[end - 1] = 0;
    autoclose int existing = open_existing(root, copy, how, &next);
    if (existing >= 0 && climbs(next)) {
        errno = ENOENT;
        return -1;
    }
    int fd = existing;
    existing = -1;
    while (fd >= 0 && *next) {
        autoclose int parent = fd;
        char *name = next;
        next += strcspn(next, "/");
        while (*next == '/')
            *next++ = 0;
        bool file = !*next && !(flags & MAKE_DIR);
        if (strcmp(name, ".") == 0)
            fd = fcntl(parent, F_DUPFD_CLOEXEC, 3);
        else
            fd = file ? enter_file(parent, name) : enter_directory(parent, name);
    }
    return fd;
}

int resolve(struct run *run, const char *path, int flags)
{
    int root = in_root(run);
    uint64_t how = SCOPED | (flags & NO_SYMLINKS ? RESOLVE_NO_SYMLINKS : 0);
    if (root < 0)
        return -1;
    int fd = open_retrying(root, *path ? path : "/", O_PATH, how);
    if (fd >= 0 || errno != ENOENT || !(flags & (MAKE_DIR | MAKE_FILE)))
        return fd;
    return make_path(root, path, flags, how);
}

int resolve_parent(struct run *run, const char *path, char *name)
{
    size_t end = strlen(path);
    while (end && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start && path[start - 1] != '/')
        start--;
    if (end - start > NAME_MAX || start >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(name, path + start, end - start);
    name[end - start] = 0;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        errno = EINVAL;
        return -1;
    }
    char parent[start + 1];
    memcpy(parent, path, start);
    parent[start] = 0;
    return resolve(run, parent, MAKE_DIR);
}

/* Whether both descriptors are the same file on the same mount. */
static bool same_place(int one, int other)
{
    struct statx a, b;
    unsigned mask = STATX_INO | STATX_MNT_ID;
    return syscall(SYS_statx, one, "", AT_EMPTY_PATH, mask, &a) == 0 &&
           syscall(SYS_statx, other, "", AT_EMPTY_PATH, mask, &b) == 0 && a.stx_mnt_id == b.stx_mnt_id &&
           a.stx_ino == b.stx_ino && a.stx_dev_major == b.stx_dev_major && a.stx_dev_minor == b.stx_dev_minor;
}

/* A target on procfs or sysfs would let an image hide or fake what the kernel says (CVE-2019-16884).  The root of
 * such a mount may be covered as a whole where no link can have led there: that is /proc over /proc. */
static int check_kernel_fs(int fd, int flags)
{
    struct statfs fs;
    struct statx st;
    if (fstatfs(fd, &fs) < 0)
        return -1;
    if ((flags & ON_KERNEL_FS) || (fs.f_type != PROC_SUPER_MAGIC && fs.f_type != SYSFS_MAGIC))
        return 0;
    if ((flags & NO_SYMLINKS) && syscall(SYS_statx, fd, "", AT_EMPTY_PATH, 0, &st) == 0 &&
        (st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
        return 0;
    errno = EPERM;
    return -1;
}

int resolve_target(struct run *run, const char *path, int flags)
{
    int fd = resolve(run, path, flags);
    if (fd < 0)
        return fail_text(run, errno, "target ", path, NULL);
    if (same_place(fd, in_root(run)))
        fail_as(run, EINVAL, "the target is the root itself");
    else if (check_kernel_fs(fd, flags) < 0)
        fail_text(run, errno, "target ", path, " lies on procfs or sysfs", NULL);
    else
        return fd;
    close(fd);
    errno = run->error;
    return -1;
}
