/* Supervisor: process 1 of the container in which a hypervisor runs.  Our job is to start the hypervisor beside us, to
 * send the guest its plan, to tell Python when the user's program runs in it or why not, to pass on streams, signals
 * and the size of the terminal, to let others in who want a further program there (visitors.c), and to end with the
 * program's exit code; the kernel then kills what is left. */

#ifdef WARREN_GUEST

#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "steps.h"
#include "visitors.h"

#define TAIL 4096

/* A machine and what we know of it. */
struct machine {
    struct run *run;
    pid_t pid;                /* the hypervisor */
    int line;                 /* to the guest */
    int console;              /* what kernel and hypervisor print; -1 when they no longer can */
    int signals;              /* signalfd */
    const struct arg *plan;   /* the guest's */
    size_t sent;              /* bytes of it */
    size_t on_line;           /* bytes of anything that the guest has not read */
    size_t noise;             /* bytes of HELLO that have been seen */
    int64_t deadline;         /* CLOCK_MONOTONIC milliseconds by which the program must run */
    bool hello, started;      /* the guest has said so */
    bool ended;               /* the program has; only its output is left */
    int code;                 /* its exit code */
    struct ends ends;         /* its streams */
    struct visitors visitors; /* who has further programs in the guest */
    size_t tail;              /* bytes of `text` */
    char text[TAIL];          /* the end of what the console said */
    struct frames frames;
};

static struct machine the_machine;

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

static _Noreturn void pass_on_failure(struct machine *machine, const struct frame *frame)
{
    report_guest_failure(machine->run, frame);
    end_hypervisor(machine);
    _exit(EXIT_INIT);
}

static void reap(struct machine *machine)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == machine->pid) {
            machine->pid = 0;
            if (machine->ended)
                return;
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

static size_t room_on_line(const struct machine *machine)
{
    return machine->on_line < WINDOW ? WINDOW - machine->on_line : 0;
}

static void send_or_give_up(struct machine *machine, int kind, const void *data, size_t size)
{
    if (ends_send(&machine->ends, 0, kind, data, size) < 0)
        give_up(machine, errno, "the line to the guest failed");
}

static void send_plan(struct machine *machine)
{
    for (;;) {
        size_t room = room_on_line(machine), left = machine->plan->n - machine->sent;
        if (!left || room <= sizeof(struct frame_head))
            return;
        room -= sizeof(struct frame_head);
        size_t size = room < left ? room : left;
        send_or_give_up(machine, FRAME_PLAN, machine->plan->s + machine->sent, size);
        machine->sent += size;
    }
}

/* Python learns by the end of the sync socket, or of the fifo, that the program runs: we keep the standard streams and
 * our own descriptors. */
static void begin(struct machine *machine)
{
    int *own[] = {&machine->line, &machine->console, &machine->signals, &machine->visitors.listener};
    machine->started = true;
    machine->ends.input = true;
    if (ends_send_size(&machine->ends) < 0)
        give_up(machine, errno, "the line to the guest failed");
    keep_only(own, sizeof own / sizeof *own);
    machine->run->sync = machine->run->report = -1;
}

static void end(struct machine *machine, int code)
{
    machine->ended = true;
    machine->ends.input = false;
    machine->code = code & 255;
    end_hypervisor(machine);
}

static void take_back(struct machine *machine, size_t bytes)
{
    if (bytes > machine->on_line)
        give_up(machine, EBADMSG, "the guest has read more than it was sent");
    machine->on_line -= bytes;
    send_plan(machine);
}

static void obey(struct machine *machine, const struct frame *frame)
{
    if (frame->channel)
        visitors_take(&machine->visitors, frame);
    else if (frame->kind == FRAME_READ)
        take_back(machine, frame_number(frame, 0));
    else if (frame->kind == FRAME_FAIL && !machine->started)
        pass_on_failure(machine, frame);
    else if (frame->kind == FRAME_STARTED && !machine->started)
        begin(machine);
    else if (frame->kind == FRAME_EXIT && machine->started)
        end(machine, frame_number(frame, 0));
    else if (!machine->started || ends_take(&machine->ends, frame) < 0)
        give_up(machine, EBADMSG, "the guest broke the rules");
}

static void obey_all(struct machine *machine)
{
    struct frame frame;
    int whole = 0;
    while (!machine->ended && (whole = frames_first(&machine->frames, &frame)) > 0) {
        obey(machine, &frame);
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
        struct opening opening = {.size = machine->plan->n};
        machine->hello = true;
        send_or_give_up(machine, FRAME_OPEN, &opening, sizeof opening);
        send_plan(machine);
    }
}

static void read_line(struct machine *machine)
{
    ssize_t n = frames_read(&machine->frames, machine->line);
    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0) {
        machine->line = machine->ends.fd = -1; /* The hypervisor has ended, as SIGCHLD is about to tell. */
        return;
    }
    if (!machine->hello)
        wait_for_hello(machine);
    if (machine->hello)
        obey_all(machine);
}

/* ---- to the guest ---- */

static void take_signals(struct machine *machine)
{
    struct signalfd_siginfo info;
    while (read(machine->signals, &info, sizeof info) == sizeof info) {
        int number = info.ssi_signo;
        if (number == SIGCHLD)
            reap(machine);
        else if (machine->ended || machine->on_line > MOST_UNREAD_FOR_SIGNALS)
            continue;
        else if (number == SIGWINCH && machine->started)
            ends_send_size(&machine->ends);
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

enum { SIGNALS, CONSOLE, LINE, STREAMS, VISITORS = STREAMS + 3, ALL = VISITORS + VISITOR_POLLS };

static void attend_once(struct machine *machine)
{
    struct pollfd ready[ALL] = {
        [SIGNALS] = {machine->signals, POLLIN, 0},
        [CONSOLE] = {machine->console, POLLIN, 0},
        [LINE] = {machine->ended ? -1 : machine->line, POLLIN, 0},
    };
    ends_poll(&machine->ends, ready + STREAMS, room_on_line(machine));
    visitors_poll(&machine->visitors, ready + VISITORS, machine->started && !machine->ended, room_on_line(machine));
    int count = poll(ready, ALL, left_to_boot(machine));
    if (count == 0 && !machine->started)
        give_up(machine, ETIMEDOUT, "the virtual machine did not come up in time");
    if (count <= 0)
        return;
    if (ready[CONSOLE].revents)
        read_console(machine);
    if (ready[LINE].revents)
        read_line(machine);
    if (ends_move(&machine->ends, ready + STREAMS, room_on_line(machine)) < 0)
        give_up(machine, errno, "the line to the guest failed");
    if (!machine->ended && visitors_move(&machine->visitors, ready + VISITORS) < 0)
        give_up(machine, errno, "the line to the guest failed");
    if (ready[SIGNALS].revents)
        take_signals(machine);
}

static _Noreturn void attend(struct machine *machine)
{
    while (!machine->ended || !ends_done(&machine->ends))
        attend_once(machine);
    _exit(machine->code);
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
    *machine = (struct machine){.run = run, .plan = &arg[0]};
    machine->deadline = milliseconds() + arg[1].i;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line) < 0 || pipe2(console, O_CLOEXEC) < 0)
        return fail(run, "socketpair");
    setsockopt(line[0], SOL_SOCKET, SO_SNDBUF, &(int){LINE_BUFFER}, sizeof(int));
    machine->signals = watch_all_signals();
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
    machine->ends = (struct ends){.fd = line[0], .sent = &machine->on_line, .terminal = arg[2].i};
    machine->visitors.listener = slot_fd(run, arg[3].i);
    machine->visitors.line = &machine->ends;
    if (machine->ends.terminal)
        take_terminal();
    attend(machine);
}

#endif
