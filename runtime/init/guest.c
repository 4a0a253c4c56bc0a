/* Guest: process 1 of a virtual machine.  Our job is to do what the plan in the initramfs says (load modules, open the
 * line to the supervisor), then what the plan says that comes over that line, whose step `guest` starts the user's
 * program beside us; to pass on its streams, signals and exit code, to reap orphans, and to switch the machine off. */

#ifdef WARREN_GUEST

#define _GNU_SOURCE
#include <linux/reboot.h>
#include <net/if.h>
#include <net/route.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>

#include "frames.h"
#include "steps.h"

/* How long a device may take to show up once its driver has been loaded. */
#define DEVICE_MILLISECONDS 20000

static _Noreturn void power_off(void)
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

int report_over_channel(struct run *run)
{
    struct {
        uint32_t step, error;
        char text[DETAIL_SIZE];
    } message = {run->step, run->error, {0}};
    size_t size = strlen(run->detail);
    if (run->channel < 0)
        return -1;
    memcpy(message.text, run->detail, size);
    return frame_send(run->channel, FRAME_FAIL, &message, offsetof(typeof(message), text) + size);
}

/* A module that the kernel has already is as good. */
int do_module(struct run *run, const struct arg *arg)
{
    autoclose int fd = open(arg[0].s, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(run, "open");
    return syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST ? fail(run, "finit_module") : 0;
}

static void nap(void)
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

/* The plan comes in frames; each is acknowledged, so that no more is on its way than the line can hold. */
static int receive_plan(struct run *run, struct frames *in, size_t size)
{
    struct plan *plan = &run->plan;
    struct frame frame;
    size_t got = 0;
    *plan = (struct plan){.data = malloc(size), .size = size};
    if (!plan->data)
        return fail(run, "memory");
    while (got < size) {
        int whole = frames_first(in, &frame);
        if (whole == 0 && frames_read(in, run->channel) > 0)
            continue;
        if (whole <= 0 || frame.kind != FRAME_PLAN || frame.size > size - got)
            return fail_as(run, EBADMSG, "the supervisor sent no plan");
        memcpy(plan->data + got, frame.data, frame.size);
        got += frame.size;
        if (frame_send_number(run->channel, FRAME_CREDIT, frame.size) < 0)
            return fail(run, "channel");
        frames_next(in);
    }
    const char *wrong = plan_check(plan);
    return wrong ? fail_as(run, EBADMSG, wrong) : 0;
}

static struct frames from_supervisor;

/* Says hello, and goes on with the plan that comes: its size first, as a number. */
int do_channel(struct run *run, const struct arg *arg)
{
    struct frame frame;
    struct frames *in = &from_supervisor;
    int fd = open_device(run, &arg[0]);
    if (fd < 0)
        return -1;
    make_raw(fd);
    run->channel = fd;
    if (write(fd, HELLO, HELLO_SIZE) != (ssize_t)HELLO_SIZE)
        return fail(run, "channel");
    while (frames_first(in, &frame) == 0)
        if (frames_read(in, fd) <= 0)
            return fail(run, "channel");
    size_t size = frame_number(&frame, 0);
    if (frame.kind != FRAME_PLAN || frame.size != 4 || size > MAX_PLAN)
        return fail_as(run, EBADMSG, "the supervisor sent no plan");
    frames_next(in);
    if (receive_plan(run, in, size) < 0)
        return -1;
    run->step = 0;
    return check_plan(run) < 0 ? -1 : run_plan(run);
}

/* ---- guest: the user's program and its streams ---- */

/* What connects us with the user's program; -1 where there is none. */
struct program {
    pid_t pid;
    int in, out, err; /* our ends of its streams; with a terminal all three are its master */
    int failure;      /* where it tells why it could not be executed; ends when it has been */
    int signals;      /* signalfd of SIGCHLD */
    bool terminal, started, ending;
    size_t waiting;  /* bytes of input that its stream has not taken yet */
    size_t from;     /* where they begin */
    unsigned char input[WINDOW];
};

static int open_terminal(struct run *run, struct program *program, int64_t rows, int64_t columns, int *slave)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    struct digits digits;
    char name[40] = "/dev/pts/";
    int unlock = 0, number;
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0 || ioctl(master, TIOCGPTN, &number) < 0)
        return fail(run, "ptmx");
    strcat(name, number_text(&digits, number));
    *slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*slave < 0)
        return fail(run, name);
    ioctl(*slave, TIOCSWINSZ, &size);
    program->in = program->out = master;
    return 0;
}

/* What the child does, between fork and the rest of the plan. */
static int take_streams(struct run *run, const int streams[3], bool terminal)
{
    setsid();
    for (int fd = 0; fd < 3; fd++)
        if (dup2(streams[fd], fd) < 0)
            return fail(run, "dup2");
    if (terminal && ioctl(0, TIOCSCTTY, 0) < 0)
        return fail(run, "TIOCSCTTY");
    run->own_console = terminal;
    reset_signals();
    return 0;
}

static int make_streams(struct run *run, struct program *program, const struct arg *arg, int streams[3])
{
    int ends[3][2], slave = -1;
    if (program->terminal) {
        if (open_terminal(run, program, arg[1].i, arg[2].i, &slave) < 0)
            return -1;
        streams[0] = streams[1] = streams[2] = slave;
        return fcntl(program->in, F_SETFL, O_NONBLOCK | O_RDWR);
    }
    for (int i = 0; i < 3; i++)
        if (pipe2(ends[i], O_CLOEXEC) < 0)
            return fail(run, "pipe");
    streams[0] = ends[0][0], program->in = ends[0][1];
    streams[1] = ends[1][1], program->out = ends[1][0];
    streams[2] = ends[2][1], program->err = ends[2][0];
    fcntl(program->in, F_SETFL, O_NONBLOCK);
    fcntl(program->out, F_SETFL, O_NONBLOCK);
    fcntl(program->err, F_SETFL, O_NONBLOCK);
    return 0;
}

static void shut(int *fd)
{
    close_quietly(fd);
    *fd = -1;
}

/* Moves what there is from a stream of the program to the supervisor; false at its end, or when nothing is there. */
static bool move_output(struct run *run, int *fd, int kind)
{
    char data[MAX_FRAME];
    ssize_t n = *fd < 0 ? -1 : read(*fd, data, sizeof data);
    if (n > 0) {
        if (frame_send(run->channel, kind, data, n) < 0)
            power_off();
        return true;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        *fd = -1; /* Not closed: a terminal's master is our input as well. */
    return false;
}

static void give_credit(struct run *run, size_t bytes)
{
    if (bytes && frame_send_number(run->channel, FRAME_CREDIT, bytes) < 0)
        power_off();
}

static void end_input(struct program *program)
{
    static const char end = 4; /* VEOF */
    if (program->in < 0)
        return;
    if (program->terminal)
        (void)!write(program->in, &end, 1);
    else
        shut(&program->in);
}

static void move_input(struct run *run, struct program *program)
{
    ssize_t n = program->in < 0 ? -1 : write(program->in, program->input + program->from, program->waiting);
    if (n < 0 && program->in >= 0 && (errno == EAGAIN || errno == EINTR))
        return;
    /* What nobody reads any more is dropped. */
    size_t taken = n < 0 ? program->waiting : (size_t)n;
    program->from += taken;
    program->waiting -= taken;
    give_credit(run, taken);
    if (!program->waiting && program->ending)
        end_input(program);
}

static void take_input(struct run *run, struct program *program, const struct frame *frame)
{
    size_t size = frame->size;
    if (size > sizeof program->input - program->waiting)
        power_off(); /* The supervisor sent more than it may. */
    memmove(program->input, program->input + program->from, program->waiting);
    memcpy(program->input + program->waiting, frame->data, size);
    program->from = 0;
    program->waiting += size;
    move_input(run, program);
}

static void resize(struct program *program, const struct frame *frame)
{
    struct winsize size = {0};
    if (program->terminal && frame->size == 4) {
        memcpy(&size.ws_row, frame->data, 2);
        memcpy(&size.ws_col, frame->data + 2, 2);
        ioctl(program->in, TIOCSWINSZ, &size);
    }
}

static void obey(struct run *run, struct program *program, const struct frame *frame)
{
    if (frame->kind == FRAME_IN)
        take_input(run, program, frame);
    else if (frame->kind == FRAME_SIZE)
        resize(program, frame);
    else if (frame->kind == FRAME_SIGNAL && program->pid > 1)
        kill(program->pid, frame_number(frame, 0));
    else if (frame->kind == FRAME_END) {
        program->ending = true;
        if (!program->waiting)
            end_input(program);
    }
}

/* The program has been executed, or told why not. */
static void hear_of_start(struct run *run, struct program *program)
{
    struct {
        uint32_t kind, step;
        int64_t error;
        char text[DETAIL_SIZE];
    } message;
    ssize_t n = read(program->failure, &message, sizeof message - 1);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    shut(&program->failure);
    if (n < (ssize_t)offsetof(typeof(message), text)) {
        program->started = true;
        frame_send(run->channel, FRAME_STARTED, NULL, 0);
        return;
    }
    ((char *)&message)[n] = 0;
    run->step = message.step;
    fail_as(run, message.error, message.text);
    report_over_channel(run);
    power_off();
}

static void drain(struct run *run, struct program *program)
{
    while (move_output(run, &program->out, FRAME_OUT))
        ;
    while (move_output(run, &program->err, FRAME_ERR))
        ;
}

/* Takes every child that has ended; does not return when the main one has. */
static void reap(struct run *run, struct program *program)
{
    struct signalfd_siginfo info;
    int status;
    while (read(program->signals, &info, sizeof info) > 0)
        ;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == program->pid) {
            if (program->failure >= 0)
                hear_of_start(run, program);
            drain(run, program);
            syscall(SYS_sync);
            uint32_t code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            frame_send_number(run->channel, FRAME_EXIT, code);
            power_off();
        }
}

static void read_frames(struct run *run, struct program *program)
{
    struct frame frame;
    int whole;
    if (frames_read(&from_supervisor, run->channel) <= 0)
        power_off();
    while ((whole = frames_first(&from_supervisor, &frame)) > 0) {
        obey(run, program, &frame);
        frames_next(&from_supervisor);
    }
    if (whole < 0)
        power_off();
}

static _Noreturn void attend(struct run *run, struct program *program)
{
    for (;;) {
        short out = program->waiting ? POLLOUT : 0;
        struct pollfd ready[] = {
            {run->channel, POLLIN, 0}, {program->signals, POLLIN, 0}, {program->failure, POLLIN, 0},
            {program->out, POLLIN, 0}, {program->err, POLLIN, 0},     {out ? program->in : -1, out, 0},
        };
        if (poll(ready, 6, -1) < 0)
            continue;
        if (ready[2].revents)
            hear_of_start(run, program);
        if (ready[3].revents)
            move_output(run, &program->out, FRAME_OUT);
        if (ready[4].revents)
            move_output(run, &program->err, FRAME_ERR);
        if (ready[5].revents)
            move_input(run, program);
        if (ready[0].revents)
            read_frames(run, program);
        if (ready[1].revents)
            reap(run, program);
    }
}

static int watch_children(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* User-mode Linux needs a process of its host for each of its own, and passes on EAGAIN where the host has a lot to do;
 * it is gone a moment later. */
static pid_t fork_patiently(void)
{
    pid_t pid = sys_fork(0, SIGCHLD);
    for (int tries = 0; pid < 0 && errno == EAGAIN && tries < 100; tries++) {
        nap();
        pid = sys_fork(0, SIGCHLD);
    }
    return pid;
}

int do_guest(struct run *run, const struct arg *arg)
{
    static struct program program = {.in = -1, .out = -1, .err = -1};
    int streams[3], failure[2];
    program.terminal = arg[0].i;
    if (run->channel < 0)
        return fail_as(run, EINVAL, "no channel");
    if (make_streams(run, &program, arg, streams) < 0)
        return -1;
    program.signals = watch_children();
    if (program.signals < 0 || pipe2(failure, O_CLOEXEC) < 0)
        return fail(run, "pipe");
    program.failure = failure[0];
    program.pid = fork_patiently();
    if (program.pid < 0)
        return fail(run, "fork");
    if (program.pid == 0) {
        run->channel = -1;
        run->report = failure[1];
        return take_streams(run, streams, program.terminal);
    }
    close(failure[1]);
    for (int i = 0; i < (program.terminal ? 1 : 3); i++)
        close(streams[i]);
    attend(run, &program);
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
