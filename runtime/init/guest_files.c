/* Files of a guest: what a further program of ours does there, as root of the guest and in its root, with the content
 * of one file.  Links lead nowhere but within the guest; what is no regular file is refused, and never waited for. */

#ifdef WARREN_GUEST

#define _GNU_SOURCE
#include <sys/stat.h>

#include "steps.h"

#define PIECE 32768

/* Whoever waits for us learns by the end of `report` that it has begun; what is wrong from here on is told by the exit
 * code.  The other end of our input is among what we have of process 1. */
static int begin(struct run *run, int fd)
{
    enum { OURS = 3 };
    if (fd != OURS && dup2(fd, OURS) < 0)
        return fail(run, "dup2");
    sys_close_range(OURS + 1, ~0U, 0);
    return OURS;
}

static int open_file(struct run *run, const char *path, int flags, mode_t mode)
{
    struct stat st;
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode);
    if (fd < 0)
        return fail(run, "");
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return fail_as(run, EINVAL, "not a regular file");
}

/* The exit code: 0, or the errno. */
static _Noreturn void pump(int from, int to)
{
    static char data[PIECE];
    for (;;) {
        ssize_t n = read(from, data, sizeof data);
        if (n == 0)
            _exit(close(to) < 0 ? errno : 0);
        for (ssize_t at = 0, wrote; at < n; at += wrote)
            if ((wrote = write(to, data + at, n - at)) < 0)
                _exit(errno);
        if (n < 0)
            _exit(errno);
    }
}

int do_send_file(struct run *run, const struct arg *arg)
{
    int fd = open_file(run, arg[0].s, O_RDONLY, 0);
    if (fd < 0 || (fd = begin(run, fd)) < 0)
        return -1;
    pump(fd, 1);
}

/* Of a file that is there everything but the content and the mode stays. */
int do_receive_file(struct run *run, const struct arg *arg)
{
    int fd = open_file(run, arg[0].s, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return -1;
    if (fchmod(fd, arg[1].i & 07777) < 0)
        return fail(run, "chmod");
    fd = begin(run, fd);
    if (fd < 0)
        return -1;
    pump(0, fd);
}

#endif
