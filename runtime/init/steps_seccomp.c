/* The seccomp filter: the last of what takes power away. */

#define _GNU_SOURCE
#include <linux/seccomp.h>

#include "steps.h"

/* Python takes the listener out of our table of descriptors (pidfd_getfd(2)) and gives it to the agent.  We could not
 * send it ourselves: the agent that is to allow our sendmsg(2) would be waiting for it. */
static int hand_over(struct run *run, int listener)
{
    sync_by_write(run, "seccomp", listener);
    wait_for_ok(run);
    close(listener);
    return 0;
}

int load_filter(struct run *run)
{
    if (!run->filter.len)
        return 0;
    long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, run->filter_flags, &run->filter);
    if (listener < 0)
        return fail(run, "seccomp");
    run->filter.len = 0;
    return run->filter_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER ? hand_over(run, listener) : 0;
}

/* With `at_exec` the filter is loaded right before execve(2), so that it need not allow what we still have to do.
 * Before that, it is made sure while we may that no descriptor survives execve: what we still open is close-on-exec. */
int do_seccomp(struct run *run, const struct arg *arg)
{
    size_t count = arg[0].n / sizeof(struct sock_filter);
    if (!count || count > BPF_MAXINSNS || arg[0].n % sizeof(struct sock_filter))
        return fail_as(run, EINVAL, "not a filter");
    run->filter = (struct sock_fprog){.len = count, .filter = (struct sock_filter *)arg[0].s};
    run->filter_flags = arg[1].i;
    if (arg[2].i)
        return 0;
    if (sys_close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        return fail(run, "close_range");
    run->filtered = true;
    return load_filter(run);
}
