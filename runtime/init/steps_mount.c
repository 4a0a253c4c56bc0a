/* Steps that fill the container's root: mounts, nodes, links, and paths hidden from it. */

#define _GNU_SOURCE
#include <limits.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "steps.h"

/* A target that may be made is made as a directory for a file system, or of the kind of what is bound on it. */
static int target_flags(int64_t wanted, bool directory)
{
    int flags = wanted & ~(MAKE_DIR | MAKE_FILE);
    return wanted & (MAKE_DIR | MAKE_FILE) ? flags | (directory ? MAKE_DIR : MAKE_FILE) : flags;
}

int do_mount(struct run *run, const struct arg *arg)
{
    autoclose int mount = new_mount(run, arg[0].s, &arg[2], arg[3].i);
    if (mount < 0)
        return -1;
    autoclose int target = resolve_target(run, arg[1].s, target_flags(arg[4].i & ~COPY_UP, true));
    if (target < 0)
        return -1;
    if (arg[4].i & COPY_UP && copy_tree(target, mount) < 0)
        return fail(run, "copy");
    return attach(run, mount, target);
}

/* Changes a mount that is there: options of its file system, then its own attributes and propagation. */
int do_remount(struct run *run, const struct arg *arg)
{
    struct mount_attr attr = {.attr_set = arg[2].i, .attr_clr = arg[3].i, .propagation = arg[4].i};
    autoclose int target = resolve_target(run, arg[0].s, ON_KERNEL_FS | NO_SYMLINKS);
    if (target < 0 || (arg[1].n && reconfigure(run, target, &arg[1]) < 0))
        return -1;
    if (attr.attr_set & MOUNT_ATTR__ATIME)
        attr.attr_clr |= MOUNT_ATTR__ATIME;
    if (sys_mount_setattr(target, "", AT_EMPTY_PATH, &attr) < 0)
        return fail(run, errno == EINVAL ? "not a mount point, or attributes that contradict" : "mount_setattr");
    return 0;
}

int do_bind(struct run *run, const struct arg *arg)
{
    int source = slot_fd(run, arg[0].i);
    struct stat st;
    if (source < 0 || fstat(source, &st) < 0)
        return fail(run, "source");
    autoclose int target = resolve_target(run, arg[1].s, target_flags(arg[2].i, S_ISDIR(st.st_mode)));
    return target < 0 ? -1 : attach(run, source, target);
}

/* An empty volume becomes what the image has in its place; where it has no directory there is nothing to be copied. */
int do_fill(struct run *run, const struct arg *arg)
{
    struct stat st;
    int volume = slot_fd(run, arg[0].i);
    if (volume < 0)
        return fail(run, "slot");
    autoclose int found = resolve(run, arg[1].s, MUST_EXIST);
    if (found < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : fail(run, "resolve");
    if (fstat(found, &st) < 0)
        return fail(run, "stat");
    if (!S_ISDIR(st.st_mode))
        return 0;
    autoclose int checked = resolve_target(run, arg[1].s, MUST_EXIST);
    if (checked < 0)
        return -1;
    return fill_tree(checked, volume) < 0 ? fail(run, "copy") : 0;
}

int do_own(struct run *run, const struct arg *arg)
{
    int mount = slot_fd(run, arg[0].i);
    if (mount < 0)
        return fail(run, "slot");
    if (arg[1].i < 0 || arg[1].i >= UINT32_MAX || arg[2].i < 0 || arg[2].i >= UINT32_MAX)
        return fail_as(run, EINVAL, "not an id");
    return own_tree(mount, arg[1].i, arg[2].i) < 0 ? fail(run, "chown") : 0;
}

/* What exists stays as it is; only the last directory gets the mode. */
int do_mkdir(struct run *run, const struct arg *arg)
{
    char name[NAME_MAX + 1];
    struct stat st;
    autoclose int found = resolve(run, arg[0].s, MUST_EXIST);
    if (found >= 0)
        return fstat(found, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : fail_as(run, ENOTDIR, "in the way");
    if (errno != ENOENT)
        return fail(run, "resolve");
    autoclose int parent = resolve_parent(run, arg[0].s, name);
    if (parent < 0)
        return fail(run, "parent");
    mode_t mask = umask(0);
    int made = mkdirat(parent, name, arg[1].i & 07777);
    umask(mask);
    return made < 0 ? fail(run, "mkdir") : 0;
}

int do_symlink(struct run *run, const struct arg *arg)
{
    char name[NAME_MAX + 1];
    autoclose int parent = resolve_parent(run, arg[1].s, name);
    if (parent < 0)
        return fail(run, "parent");
    if (symlinkat(arg[0].s, parent, name) < 0 && errno != EEXIST)
        return fail(run, "symlink");
    return 0;
}

static int check_node(struct run *run, int parent, const char *name, mode_t mode, dev_t device)
{
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(run, "stat");
    bool device_node = S_ISCHR(mode) || S_ISBLK(mode);
    if ((st.st_mode & S_IFMT) != (mode & S_IFMT) || (device_node && st.st_rdev != device))
        return fail_as(run, EEXIST, "something else is in the way");
    return 0;
}

int do_mknod(struct run *run, const struct arg *arg)
{
    char name[NAME_MAX + 1];
    mode_t mode = arg[1].i;
    autoclose int parent = resolve_parent(run, arg[0].s, name);
    if (parent < 0)
        return fail(run, "parent");
    mode_t mask = umask(0);
    int made = sys_mknodat(parent, name, mode, arg[2].i);
    umask(mask);
    if (made < 0)
        return errno == EEXIST ? check_node(run, parent, name, mode, arg[2].i) : fail(run, "mknod");
    if (fchownat(parent, name, arg[3].i, arg[4].i, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(run, "chown");
    return 0;
}

/* ---- hidden and read-only paths ---- */

/* Opens the path to be covered: 1 and its descriptor, 0 if there is none, -1 after fail(). */
static int open_covered(struct run *run, const char *path, int *fd)
{
    *fd = resolve_target(run, path, ON_KERNEL_FS);
    if (*fd >= 0)
        return 1;
    return run->error == ENOENT || run->error == ENOTDIR ? 0 : -1;
}

/* All hidden directories are covered by one read-only tmpfs; a mount that is attached nowhere cannot be cloned before
 * Linux 6.15, so the first directory gets the mount itself, and the others clones of it. */
static int hide_directory(struct run *run, int target)
{
    static const char options[] = "source=tmpfs\0mode=755\0nr_blocks=1\0nr_inodes=1";
    static const struct arg list = {.s = options, .n = sizeof options};
    const uint64_t attr = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    if (run->empty < 0) {
        run->empty = new_mount(run, "tmpfs", &list, attr);
        return run->empty < 0 ? -1 : attach(run, run->empty, target);
    }
    autoclose int copy = clone_mount(run->empty, 0);
    return copy < 0 ? fail(run, "open_tree") : attach(run, copy, target);
}

/* The container's /dev/null may be anything that its image or another container put there (CVE-2025-31133). */
static int hide_file(struct run *run, int target)
{
    struct stat st;
    autoclose int null = resolve(run, "dev/null", NO_SYMLINKS);
    if (null < 0)
        return fail(run, "dev/null");
    if (fstat(null, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
        return fail_as(run, ENODEV, "dev/null is not the null device");
    autoclose int copy = clone_mount(null, 0);
    return copy < 0 ? fail(run, "open_tree") : attach(run, copy, target);
}

int do_mask(struct run *run, const struct arg *arg)
{
    struct stat st;
    autoclose int target = -1;
    int found = open_covered(run, arg[0].s, &target);
    if (found <= 0)
        return found;
    if (fstat(target, &st) < 0)
        return fail(run, "stat");
    return S_ISDIR(st.st_mode) ? hide_directory(run, target) : hide_file(run, target);
}

int do_readonly(struct run *run, const struct arg *arg)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    autoclose int target = -1;
    int found = open_covered(run, arg[0].s, &target);
    if (found <= 0)
        return found;
    /* What is the root of a mount needs no other one on top. */
    if (sys_mount_setattr(target, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr) == 0)
        return 0;
    autoclose int copy = clone_mount(target, AT_RECURSIVE);
    if (copy < 0)
        return fail(run, "open_tree");
    if (sys_mount_setattr(copy, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr) < 0)
        return fail(run, "mount_setattr");
    return attach(run, copy, target);
}
