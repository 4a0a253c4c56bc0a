/* Steps on what namespaces hold beside mounts: names, kernel settings, network interfaces. */

#define _GNU_SOURCE
#include <linux/netlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "steps.h"

int do_hostname(struct run *run, const struct arg *arg)
{
    return sethostname(arg[0].s, arg[0].n) < 0 ? fail(run, "sethostname") : 0;
}

int do_domainname(struct run *run, const struct arg *arg)
{
    return setdomainname(arg[0].s, arg[0].n) < 0 ? fail(run, "setdomainname") : 0;
}

/* Through a procfs that nobody else can see: a mount below the container's /proc could send the write elsewhere. */
int do_sysctl(struct run *run, const struct arg *arg)
{
    char path[256] = "sys/";
    if (arg[0].n >= sizeof path - 4)
        return fail_as(run, ENAMETOOLONG, "key");
    memcpy(path + 4, arg[0].s, arg[0].n);
    int proc = private_proc(run);
    if (proc < 0)
        return -1;
    const uint64_t how = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
    autoclose int fd = sys_openat2(proc, path, O_WRONLY, how);
    if (fd < 0)
        return fail(run, "open");
    return write(fd, arg[1].s, arg[1].n) == (ssize_t)arg[1].n ? 0 : fail(run, "write");
}

int do_loopback(struct run *run, const struct arg *arg)
{
    (void)arg;
    struct ifreq request = {.ifr_name = "lo"};
    autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(run, "socket");
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return fail(run, "SIOCGIFFLAGS");
    request.ifr_flags |= IFF_UP;
    return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? fail(run, "SIOCSIFFLAGS") : 0;
}

/* A netlink socket stays in the network namespace in which it was opened, and keeps the power of who opened it.  Python
 * gets a duplicate and configures interfaces through it. */
int do_netlink(struct run *run, const struct arg *arg)
{
    autoclose int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return fail(run, "socket");
    sync_with_fd(run, arg[0].s, fd);
    wait_for_ok(run);
    return 0;
}
