/* Steps that make the container's root and move onto it. */

#define _GNU_SOURCE
#include <sys/stat.h>

#include "steps.h"

/* Propagation flags of mount(2), as mount_setattr(2) takes them. */
#ifndef MS_SLAVE
#define MS_SLAVE (1 << 19)
#endif

int do_propagation(struct run *run, const struct arg *arg)
{
    struct mount_attr attr = {.propagation = arg[0].i};
    if (sys_mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &attr) < 0)
        return fail(run, "mount_setattr");
    return 0;
}

/* Stacks a mount on "/".  Our own root directory stays the one below, so that host paths still mean the host's. */
static int stack(struct run *run, int mount)
{
    if (run->old_root < 0)
        run->old_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (run->old_root < 0)
        return fail(run, "/");
    if (sys_move_mount(mount, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return fail(run, "move_mount");
    return 0;
}

int do_scratch(struct run *run, const struct arg *arg)
{
    run->scratch = new_mount(run, "tmpfs", &arg[0], 0);
    return run->scratch < 0 ? -1 : stack(run, run->scratch);
}

int do_tmpfs(struct run *run, const struct arg *arg)
{
    int mount = new_mount(run, "tmpfs", &arg[1], 0);
    return mount < 0 ? -1 : set_slot(run, arg[0].i, mount);
}

/* Hooks look for the container's mounts at the path of its root, so it is attached there (runc does too).  A path that
 * the container's own root may not walk, in a user namespace, is as good as none: then it is stacked on "/". */
static int attach_root(struct run *run, int mount, const char *path)
{
    if (!*path)
        return stack(run, mount);
    if (run->old_root < 0)
        run->old_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (run->old_root < 0)
        return fail(run, "/");
    if (sys_move_mount(mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) == 0)
        return 0;
    return errno == EACCES ? stack(run, mount) : fail(run, "move_mount");
}

int do_root(struct run *run, const struct arg *arg)
{
    int fd = slot_fd(run, arg[0].i);
    if (fd < 0)
        return fail(run, "slot");
    if (attach_root(run, fd, arg[1].s) < 0)
        return -1;
    run->root = fd;
    return fchdir(fd) < 0 ? fail(run, "chdir") : 0;
}

/* The kernel lets a procfs be mounted in a user namespace only while another one can be seen in full, which may be
 * over after the pivot; what cannot be had now is reported by the step that needs it. */
static void prepare_proc(struct run *run)
{
    if (run->uses_proc)
        private_proc(run);
}

/* The scratch tmpfs covers the old root, and would take a umount(2) of its own, which waits for an RCU grace period.
 * Elsewhere in the old tree it goes with that; where it cannot be moved, detach_old() has one more to do. */
static void uncover_old(struct run *run)
{
    if (run->scratch >= 0)
        (void)!sys_move_mount(run->scratch, "", run->old_root, "proc", MOVE_MOUNT_F_EMPTY_PATH);
}

/* Detaches the old tree.  umount(2) takes the topmost of what is stacked, so it is repeated until "." itself is gone;
 * first nothing of it may propagate to the host. */
static int detach_old(struct run *run)
{
    struct mount_attr slave = {.propagation = MS_SLAVE};
    if (fchdir(run->old_root) < 0)
        return fail(run, "chdir to the old root");
    if (sys_mount_setattr(AT_FDCWD, ".", AT_RECURSIVE, &slave) < 0 && errno != EINVAL)
        return fail(run, "mount_setattr of the old root");
    uncover_old(run);
    int detached = 0;
    while (detached < MAX_SLOTS && sys_umount(".", MNT_DETACH) == 0)
        detached++;
    return detached && errno == EINVAL ? 0 : fail(run, "umount of the old root");
}

static int enter_new_root(struct run *run)
{
    if (chdir("/") < 0)
        return fail(run, "chdir");
    run->root = -1; /* The descriptor stays open in its slot, for a step that names it. */
    return in_root(run) < 0 ? fail(run, "/") : 0;
}

int do_pivot_root(struct run *run, const struct arg *arg)
{
    (void)arg;
    if (run->old_root < 0 || run->root < 0)
        return fail_as(run, EINVAL, "no root to pivot into");
    prepare_proc(run);
    if (fchdir(run->root) < 0)
        return fail(run, "chdir");
    if (sys_pivot_root(".", ".") < 0)
        return fail(run, "pivot_root");
    if (detach_old(run) < 0)
        return -1;
    close(run->old_root);
    run->old_root = -1;
    return enter_new_root(run);
}

/* For roots that cannot be pivoted, such as an initramfs: the container's root is moved on top of "/" and becomes ours;
 * the host's mounts remain below it. */
int do_chroot(struct run *run, const struct arg *arg)
{
    (void)arg;
    prepare_proc(run);
    if (in_root(run) < 0 || fchdir(run->root) < 0)
        return fail(run, "chdir");
    /* EINVAL, ELOOP: it is on "/" already. */
    if (sys_move_mount(run->root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 && errno != EINVAL && errno != ELOOP)
        return fail(run, "move_mount");
    if (chroot(".") < 0)
        return fail(run, "chroot");
    return enter_new_root(run);
}
