/* Guest: process 1 of a virtual machine.  Our job is to do what the plan in the initramfs says (load modules, open the
 * line to the supervisor), then what the plan says that comes over that line, whose step `guest` starts the user's
 * program beside us (programs.c); and to switch the machine off in the end. */

#ifdef WARREN_GUEST

#define _GNU_SOURCE
#include <linux/reboot.h>
#include <net/if.h>
#include <net/route.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "guest.h"

/* How long a device may take to show up once its driver has been loaded. */
#define DEVICE_MILLISECONDS 20000

_Noreturn void power_off(void)
{
    syscall(SYS_sync);
    syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0);
    syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART, 0);
    for (;;)
        pause();
}

_Noreturn void be_guest(struct run *run, const char *path)
{
    reset_signals();
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    const char *wrong = fd < 0 ? "no plan" : plan_read(&run->plan, fd);
    int failed = wrong ? fail_as(run, EBADMSG, wrong) : check_plan(run);
    if (failed == 0)
        run_plan(run);
    report_failure(run);
    if (sys_getpid() != 1)
        _exit(EXIT_INIT); /* The one that was to become the user's program. */
    power_off();
}

int send_failure(struct run *run, int channel)
{
    struct {
        uint32_t step, error;
        char text[DETAIL_SIZE];
    } message = {run->step, run->error, {0}};
    size_t size = strlen(run->detail);
    memcpy(message.text, run->detail, size);
    return frame_send(run->channel, channel, FRAME_FAIL, &message, offsetof(typeof(message), text) + size);
}

int report_over_channel(struct run *run)
{
    return run->channel < 0 ? -1 : send_failure(run, 0);
}

/* A module that the kernel has already is as good. */
int do_module(struct run *run, const struct arg *arg)
{
    autoclose int fd = open(arg[0].s, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(run, "open");
    return syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST ? fail(run, "finit_module") : 0;
}

void nap(void)
{
    struct timespec time = {.tv_nsec = 2000000};
    nanosleep(&time, NULL);
}

int do_wait_path(struct run *run, const struct arg *arg)
{
    for (int waited = 0; access(arg[0].s, F_OK) < 0; waited += 2) {
        if (waited > DEVICE_MILLISECONDS)
            return fail(run, "it did not show up");
        nap();
    }
    return 0;
}

/* Writes a file inside the root; procfs is still the one of the initramfs. */
int do_file(struct run *run, const struct arg *arg)
{
    struct digits digits;
    char path[40] = "/proc/self/fd/";
    autoclose int target = resolve(run, arg[0].s, MAKE_FILE);
    if (target < 0)
        return fail(run, "resolve");
    strcat(path, number_text(&digits, target));
    autoclose int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd < 0 || write(fd, arg[1].s, arg[1].n) != (ssize_t)arg[1].n)
        return fail(run, "write");
    return 0;
}

/* ---- channel ---- */

/* Opens the first of the devices that there is, waiting for one. */
static int open_device(struct run *run, const struct arg *paths)
{
    for (int waited = 0; waited < DEVICE_MILLISECONDS; waited += 2) {
        for_each(path, paths) {
            int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
            if (fd >= 0)
                return fd;
        }
        nap();
    }
    return fail_as(run, ENODEV, "no line to the supervisor");
}

struct frames from_supervisor;

ssize_t read_line(struct run *run)
{
    ssize_t n = frames_read(&from_supervisor, run->channel);
    if (n > 0 && frame_send_number(run->channel, 0, FRAME_READ, n) < 0)
        return -1;
    return n;
}

/* Waits for the first whole frame. */
static int next_frame(struct run *run, struct frame *frame)
{
    int whole;
    while ((whole = frames_first(&from_supervisor, frame)) == 0)
        if (read_line(run) <= 0)
            return fail(run, "channel");
    return whole < 0 ? fail_as(run, EBADMSG, "the supervisor sent what is no message") : 0;
}

static int receive_plan(struct run *run, size_t size)
{
    struct plan *plan = &run->plan;
    struct frame frame;
    size_t got = 0;
    *plan = (struct plan){.data = malloc(size), .size = size};
    if (!plan->data)
        return fail(run, "memory");
    while (got < size) {
        if (next_frame(run, &frame) < 0)
            return -1;
        if (frame.kind != FRAME_PLAN || frame.channel || frame.size > size - got)
            return fail_as(run, EBADMSG, "the supervisor sent no plan");
        memcpy(plan->data + got, frame.data, frame.size);
        got += frame.size;
        frames_next(&from_supervisor);
    }
    const char *wrong = plan_check(plan);
    return wrong ? fail_as(run, EBADMSG, wrong) : 0;
}

/* Says hello, and goes on with the plan that comes. */
int do_channel(struct run *run, const struct arg *arg)
{
    struct frame frame;
    int fd = open_device(run, &arg[0]);
    if (fd < 0)
        return -1;
    make_raw(fd);
    run->channel = fd;
    if (write(fd, HELLO, HELLO_SIZE) != (ssize_t)HELLO_SIZE)
        return fail(run, "channel");
    if (next_frame(run, &frame) < 0)
        return -1;
    size_t size = frame_number(&frame, offsetof(struct opening, size));
    if (frame.kind != FRAME_OPEN || frame.size != sizeof(struct opening) || size > MAX_PLAN)
        return fail_as(run, EBADMSG, "the supervisor sent no plan");
    frames_next(&from_supervisor);
    if (receive_plan(run, size) < 0)
        return -1;
    run->step = 0;
    return check_plan(run) < 0 ? -1 : run_plan(run);
}

/* ---- what further programs may be ---- */

/* A program that is in no file of the guest; nobody in there can change it. */
int do_program(struct run *run, const struct arg *arg)
{
    struct digits digits;
    char path[40] = "/proc/self/fd/";
    int fd = memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || write(fd, arg[0].s, arg[0].n) != (ssize_t)arg[0].n)
        return fail(run, "memfd");
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        return fail(run, "seal");
    run->program = strdup(strcat(path, number_text(&digits, fd)));
    return run->program ? 0 : fail(run, "memory");
}

/* Is there, and runs nothing, until a signal ends it. */
int do_linger(struct run *run, const struct arg *arg)
{
    (void)run, (void)arg;
    sys_close_range(0, ~0U, 0);
    for (;;)
        pause();
}

/* ---- network ---- */

static int set_address(struct run *run, int fd, struct ifreq *request, unsigned long what, const char *text)
{
    struct sockaddr_in *address = (struct sockaddr_in *)&request->ifr_addr;
    *address = (struct sockaddr_in){.sin_family = AF_INET};
    if (inet_pton(AF_INET, text, &address->sin_addr) != 1)
        return fail_as(run, EINVAL, "not an address");
    return ioctl(fd, what, request) < 0 ? fail(run, "address") : 0;
}

static int add_gateway(struct run *run, int fd, const char *text)
{
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    struct sockaddr_in any = {.sin_family = AF_INET}, gateway = any;
    if (inet_pton(AF_INET, text, &gateway.sin_addr) != 1)
        return fail_as(run, EINVAL, "not an address");
    memcpy(&route.rt_dst, &any, sizeof any);
    memcpy(&route.rt_genmask, &any, sizeof any);
    memcpy(&route.rt_gateway, &gateway, sizeof gateway);
    return ioctl(fd, SIOCADDRT, &route) < 0 ? fail(run, "route") : 0;
}

/* Gives an interface, for which we wait, its address, network mask and gateway (none: ""). */
int do_interface(struct run *run, const struct arg *arg)
{
    struct ifreq request = {0};
    autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || arg[0].n >= IFNAMSIZ)
        return fail(run, "socket");
    memcpy(request.ifr_name, arg[0].s, arg[0].n);
    for (int waited = 0; ioctl(fd, SIOCGIFFLAGS, &request) < 0; waited += 2) {
        if (waited > DEVICE_MILLISECONDS)
            return fail(run, "no such interface");
        nap();
    }
    if (set_address(run, fd, &request, SIOCSIFADDR, arg[1].s) < 0 ||
        set_address(run, fd, &request, SIOCSIFNETMASK, arg[2].s) < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return run->error ? -1 : fail(run, "flags");
    request.ifr_flags |= IFF_UP;
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        return fail(run, "SIOCSIFFLAGS");
    return arg[3].n ? add_gateway(run, fd, arg[3].s) : 0;
}

#endif
