/* The container's terminal: made by its own devpts, sent to the engine by its master's descriptor. */

#define _GNU_SOURCE
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>

#include "steps.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

/* The name that goes with the descriptor, as runc sends it; engines take any. */
static const char master_name[] = "/dev/ptmx";

static int open_master(struct run *run)
{
    struct statfs fs;
    int unlocked = 0;
    const uint64_t how = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    int root = in_root(run);
    autoclose int master = root < 0 ? -1 : sys_openat2(root, "dev/pts/ptmx", O_RDWR | O_NOCTTY, how);
    if (master < 0)
        return fail(run, "dev/pts/ptmx");
    if (fstatfs(master, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC)
        return fail_as(run, ENODEV, "dev/pts/ptmx is not on a devpts");
    if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        return fail(run, "TIOCSPTLCK");
    int result = master;
    master = -1;
    return result;
}

/* The slave is taken from the master's descriptor, not by a path that could be replaced (CVE-2025-52565). */
static int open_slave(struct run *run, int master, int64_t rows, int64_t columns)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return fail(run, "TIOCGPTPEER");
    if ((rows || columns) && ioctl(slave, TIOCSWINSZ, &size) < 0) {
        close_quietly(&slave);
        return fail(run, "TIOCSWINSZ");
    }
    return slave;
}

static int bind_console(struct run *run, int slave)
{
    autoclose int copy = clone_mount(slave, 0);
    if (copy < 0)
        return fail(run, "open_tree");
    autoclose int target = resolve_target(run, "dev/console", MAKE_FILE | NO_SYMLINKS);
    return target < 0 ? -1 : attach(run, copy, target);
}

static int send_master(int sock, int master)
{
    union {
        struct cmsghdr head;             /* for its alignment */
        char data[CMSG_SPACE(sizeof(int))]; /* one descriptor */
    } control = {0};
    struct iovec name = {(void *)master_name, sizeof master_name - 1};
    struct msghdr message = {
        .msg_iov = &name, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &master, sizeof master);
    return sendmsg(sock, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static int become_terminal(struct run *run, int slave)
{
    for (int fd = 0; fd < 3; fd++)
        if (dup2(slave, fd) < 0)
            return fail(run, "dup2");
    run->own_console = true;
    return ioctl(0, TIOCSCTTY, 0) < 0 ? fail(run, "TIOCSCTTY") : 0;
}

int do_console(struct run *run, const struct arg *arg)
{
    int sock = slot_fd(run, arg[0].i);
    if (sock < 0)
        return fail(run, "console socket");
    autoclose int master = open_master(run);
    if (master < 0)
        return -1;
    autoclose int slave = open_slave(run, master, arg[2].i, arg[3].i);
    if (slave < 0 || (arg[1].i && bind_console(run, slave) < 0))
        return -1;
    if (send_master(sock, master) < 0)
        return fail(run, "console socket");
    close(sock);
    run->slots[arg[0].i] = 0;
    return become_terminal(run, slave);
}
