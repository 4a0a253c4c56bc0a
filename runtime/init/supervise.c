/* Supervisor: process 1 of the container in which a hypervisor runs.  Our job is to start the hypervisor beside us, to
 * send the guest its plan, to tell Python when the user's program runs in it or why not, to pass on streams, signals
 * and the size of the terminal, and to end with the program's exit code; the kernel then kills what is left. */

#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>

#include "frames.h"
#include "steps.h"

#define TAIL 4096
/* A pipe that poll(2) calls writable takes this much without blocking (pipe(7), PIPE_BUF). */
#define PIECE 4096

/* A machine and what we know of it. */
struct machine {
    struct run *run;
    pid_t pid;                /* the hypervisor */
    int line;                 /* to the guest */
    int console;              /* what kernel and hypervisor print; -1 when they no longer can */
    int signals;              /* signalfd */
    const struct arg *plan;   /* the guest's */
    size_t sent;              /* bytes of it */
    size_t on_their_way;      /* bytes of plan or input that the guest has not taken */
    size_t noise;             /* bytes of HELLO that have been seen */
    int64_t deadline;         /* CLOCK_MONOTONIC milliseconds by which the program must run */
    bool terminal;            /* our streams are a terminal */
    bool hello, started;      /* the guest has said so */
    bool input;               /* there may be more of it */
    int output;               /* 1 or 2: where `rest` goes */
    size_t rest;              /* bytes of the first frame that are still to be written */
    size_t tail;              /* bytes of `text` */
    char text[TAIL];          /* the end of what the console said */
    struct frames frames;
};

static struct machine the_machine;

static int64_t milliseconds(void)
{
    struct timespec now;
    sys_now(&now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* ---- the console: only its end is kept, for when something goes wrong ---- */

static void remember_console(struct machine *machine, const char *data, size_t size)
{
    if (size > TAIL) {
        data += size - TAIL;
        size = TAIL;
    }
    size_t kept = machine->tail + size > TAIL ? TAIL - size : machine->tail;
    memmove(machine->text, machine->text + machine->tail - kept, kept);
    memcpy(machine->text + kept, data, size);
    machine->tail = kept + size;
}

static void read_console(struct machine *machine)
{
    char data[1024];
    ssize_t n = read(machine->console, data, sizeof data);
    if (n > 0)
        remember_console(machine, data, n);
    else if (n == 0 || errno != EINTR)
        machine->console = -1;
}

static void drain_console(struct machine *machine)
{
    struct pollfd ready = {machine->console, POLLIN, 0};
    while (machine->console >= 0 && poll(&ready, 1, 0) > 0) {
        read_console(machine);
        ready.fd = machine->console;
    }
}

/* The last lines of the console that fit a failure's text, on one line. */
static const char *console_end(struct machine *machine)
{
    static char line[DETAIL_SIZE / 2];
    size_t size = 0;
    drain_console(machine);
    size_t from = machine->tail > sizeof line - 1 ? machine->tail - (sizeof line - 1) : 0;
    for (; from < machine->tail; from++) {
        char c = machine->text[from];
        if (c >= ' ' && c < 127)
            line[size++] = c;
        else if (c == '\n' && size)
            line[size++] = ' ';
    }
    line[size] = 0;
    return line;
}

/* ---- the end ---- */

/* Nothing of the hypervisor is left, and what it has used is added to what our parent learns of us (wait4(2)); the
 * kernel would end the rest of a pid namespace as well, but forget that. */
static void end_hypervisor(struct machine *machine)
{
    if (sys_getpid() == 1)
        kill(-1, SIGKILL);
    else if (machine->pid)
        kill(machine->pid, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
}

/* Before the program runs Python is told, afterwards whoever reads the program's errors. */
static _Noreturn void give_up(struct machine *machine, int error, const char *why)
{
    struct run *run = machine->run;
    const char *end = console_end(machine);
    fail_text(run, error, why, *end ? "; its console ended with: " : "", end, NULL);
    if (machine->started) {
        (void)!write(2, "warren: ", 8);
        (void)!write(2, run->detail, strlen(run->detail));
        (void)!write(2, "\n", 1);
    } else {
        report_failure(run);
    }
    end_hypervisor(machine);
    _exit(EXIT_INIT);
}

/* The guest names its own step: Python has the guest's plan, and makes the error of it. */
static _Noreturn void pass_on_failure(struct machine *machine, const struct frame *frame)
{
    struct digits step;
    char text[DETAIL_SIZE] = "";
    if (frame->size > 8 && frame->size < 8 + DETAIL_SIZE)
        memcpy(text, frame->data + 8, frame->size - 8);
    fail_text(machine->run, frame_number(frame, 4), "guest ", number_text(&step, frame_number(frame, 0)), " ", text,
              NULL);
    report_failure(machine->run);
    end_hypervisor(machine);
    _exit(EXIT_INIT);
}

static void reap(struct machine *machine)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == machine->pid) {
            machine->pid = 0;
            if (WIFSIGNALED(status) && machine->started)
                _exit(128 + WTERMSIG(status));
            struct digits code;
            fail_text(machine->run, 0, WIFSIGNALED(status) ? "signal " : "exit code ",
                      number_text(&code, WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)), NULL);
            char how[64];
            strncpy(how, machine->run->detail, sizeof how - 1);
            how[sizeof how - 1] = 0;
            char why[128] = "the virtual machine ended by itself, ";
            strcat(why, how);
            give_up(machine, 0, why);
        }
}

/* ---- from the guest ---- */

static void send_or_give_up(struct machine *machine, int kind, const void *data, size_t size)
{
    if (frame_send(machine->line, kind, data, size) < 0 && errno != EPIPE && errno != ECONNRESET)
        give_up(machine, errno, "the line to the guest failed");
}

static void send_plan(struct machine *machine)
{
    while (machine->sent < machine->plan->n && machine->on_their_way < WINDOW) {
        size_t room = WINDOW - machine->on_their_way, left = machine->plan->n - machine->sent;
        size_t size = room < left ? room : left;
        send_or_give_up(machine, FRAME_PLAN, machine->plan->s + machine->sent, size);
        machine->sent += size;
        machine->on_their_way += size;
    }
}

static void send_size(struct machine *machine)
{
    struct winsize size;
    if (machine->terminal && ioctl(0, TIOCGWINSZ, &size) == 0) {
        uint16_t box[] = {size.ws_row, size.ws_col};
        send_or_give_up(machine, FRAME_SIZE, box, sizeof box);
    }
}

/* Python learns by the end of the sync socket, or of the fifo, that the program runs: we keep the standard streams and
 * our own three descriptors. */
static void keep_own_descriptors(struct machine *machine)
{
    int *own[] = {&machine->line, &machine->console, &machine->signals};
    int highest = 2;
    for (int i = 0; i < 3; i++)
        highest = *own[i] > highest ? *own[i] : highest;
    for (int fd = 3; fd < highest; fd++)
        if (fd != *own[0] && fd != *own[1] && fd != *own[2])
            close(fd);
    sys_close_range(highest + 1, ~0U, 0);
    machine->run->sync = machine->run->report = -1;
}

static void begin(struct machine *machine)
{
    machine->started = true;
    machine->input = true;
    send_size(machine);
    keep_own_descriptors(machine);
}

/* Writes what a stream takes now of the first frame. */
static void write_output(struct machine *machine)
{
    struct frame frame;
    if (frames_first(&machine->frames, &frame) <= 0)
        return;
    size_t size = machine->rest < PIECE ? machine->rest : PIECE;
    ssize_t n = write(machine->output, frame.data + frame.size - machine->rest, size);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    /* What nobody reads is dropped. */
    machine->rest -= n < 0 ? machine->rest : (size_t)n;
    if (!machine->rest)
        frames_next(&machine->frames);
}

static void obey(struct machine *machine, const struct frame *frame)
{
    if (frame->kind == FRAME_CREDIT) {
        size_t bytes = frame_number(frame, 0);
        machine->on_their_way -= bytes < machine->on_their_way ? bytes : machine->on_their_way;
        send_plan(machine);
    } else if (frame->kind == FRAME_STARTED) {
        begin(machine);
    } else if (frame->kind == FRAME_FAIL) {
        pass_on_failure(machine, frame);
    } else if (frame->kind == FRAME_EXIT) {
        end_hypervisor(machine);
        _exit(frame_number(frame, 0) & 255);
    } else if (frame->kind == FRAME_OUT || frame->kind == FRAME_ERR) {
        machine->output = frame->kind == FRAME_OUT ? 1 : 2;
        machine->rest = frame->size;
    }
}

/* Does what whole frames say, up to one with output, which waits for its reader. */
static void obey_all(struct machine *machine)
{
    struct frame frame;
    int whole = 0;
    while (!machine->rest && (whole = frames_first(&machine->frames, &frame)) > 0) {
        obey(machine, &frame);
        if (!machine->rest)
            frames_next(&machine->frames);
    }
    if (whole < 0)
        give_up(machine, EBADMSG, "the guest sent what is no message");
}

/* Everything before HELLO is noise of firmware and kernel, and belongs to the console. */
static void wait_for_hello(struct machine *machine)
{
    struct frames *frames = &machine->frames;
    static const char hello[] = HELLO;
    size_t at = 0;
    while (at < frames->used && machine->noise < HELLO_SIZE) {
        char c = frames->data[at++];
        machine->noise = c == hello[machine->noise] ? machine->noise + 1 : c == hello[0];
    }
    if (machine->noise < HELLO_SIZE)
        remember_console(machine, (char *)frames->data, at);
    frames->used -= at;
    memmove(frames->data, frames->data + at, frames->used);
    if (machine->noise == HELLO_SIZE) {
        machine->hello = true;
        uint32_t size = machine->plan->n;
        send_or_give_up(machine, FRAME_PLAN, &size, sizeof size);
        send_plan(machine);
    }
}

static void read_line(struct machine *machine)
{
    ssize_t n = frames_read(&machine->frames, machine->line);
    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0) {
        machine->line = -1; /* The hypervisor has ended, as SIGCHLD is about to tell. */
        return;
    }
    if (!machine->hello)
        wait_for_hello(machine);
    if (machine->hello)
        obey_all(machine);
}

/* ---- to the guest ---- */

static void read_input(struct machine *machine)
{
    char data[WINDOW];
    ssize_t n = read(0, data, WINDOW - machine->on_their_way);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n > 0) {
        machine->on_their_way += n;
        send_or_give_up(machine, FRAME_IN, data, n);
        return;
    }
    machine->input = false;
    send_or_give_up(machine, FRAME_END, NULL, 0);
}

static void take_signals(struct machine *machine)
{
    struct signalfd_siginfo info;
    while (read(machine->signals, &info, sizeof info) == sizeof info) {
        int number = info.ssi_signo;
        if (number == SIGCHLD)
            reap(machine);
        else if (number == SIGWINCH && machine->started)
            send_size(machine);
        else if (machine->started) {
            uint32_t value = number;
            send_or_give_up(machine, FRAME_SIGNAL, &value, sizeof value);
        } else if (number == SIGTERM || number == SIGINT || number == SIGHUP || number == SIGQUIT) {
            end_hypervisor(machine);
            _exit(128 + number);
        }
    }
}

/* ---- the loop ---- */

static int left_to_boot(const struct machine *machine)
{
    if (machine->started)
        return -1;
    int64_t left = machine->deadline - milliseconds();
    return left > 0 ? left : 0;
}

static _Noreturn void attend(struct machine *machine)
{
    for (;;) {
        bool ask = machine->input && machine->on_their_way < WINDOW;
        struct pollfd ready[] = {
            {machine->signals, POLLIN, 0},
            {machine->console, POLLIN, 0},
            {machine->rest ? machine->output : machine->line, machine->rest ? POLLOUT : POLLIN, 0},
            {ask ? 0 : -1, POLLIN, 0},
        };
        int count = poll(ready, 4, left_to_boot(machine));
        if (count == 0 && !machine->started)
            give_up(machine, ETIMEDOUT, "the virtual machine did not come up in time");
        if (ready[1].revents)
            read_console(machine);
        if (ready[2].revents && machine->rest) {
            write_output(machine);
            if (!machine->rest)
                obey_all(machine);
        } else if (ready[2].revents) {
            read_line(machine);
        }
        if (ready[3].revents)
            read_input(machine);
        if (ready[0].revents)
            take_signals(machine);
    }
}

static int watch_signals(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&set, faults[i]);
    sigprocmask(SIG_SETMASK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The hypervisor: it has the line as its standard input and output, and the console as its standard error. */
static int become_hypervisor(struct run *run, int line, int console)
{
    setsid();
    if (dup2(line, 0) < 0 || dup2(line, 1) < 0 || dup2(console, 2) < 0)
        return fail(run, "dup2");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    reset_signals();
    return 0;
}

int do_supervise(struct run *run, const struct arg *arg)
{
    struct machine *machine = &the_machine;
    int line[2], console[2];
    *machine = (struct machine){.run = run, .plan = &arg[0], .terminal = arg[2].i};
    machine->deadline = milliseconds() + arg[1].i;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line) < 0 || pipe2(console, O_CLOEXEC) < 0)
        return fail(run, "socketpair");
    machine->signals = watch_signals();
    if (machine->signals < 0 || keep_process_attributes(run) < 0)
        return fail(run, "signalfd");
    machine->pid = sys_fork(0, SIGCHLD);
    if (machine->pid < 0)
        return fail(run, "fork");
    if (machine->pid == 0)
        return become_hypervisor(run, line[1], console[1]);
    close(line[1]);
    close(console[1]);
    machine->line = line[0];
    machine->console = console[0];
    if (machine->terminal)
        make_raw(0);
    attend(machine);
}
