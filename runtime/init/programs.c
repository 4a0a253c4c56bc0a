/* Programs of a virtual machine, seen from its process 1: the one that it was started for, and those that come later.
 * Our job is to start each with its plan, to pass on its streams, signals and exit code, and to reap orphans.  A
 * program that does not read or whose output nobody reads holds up nobody else (frames.h). */

#ifdef WARREN_GUEST

#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>

#include "guest.h"

/* What a pipe holds: so much of its output may be there when a program has ended, others may have it, too. */
#define LEFT 65536
#define KILLED (128 + SIGKILL)

/* What connects us with a program; descriptors are -1 where there is none. */
struct program {
    bool used;             /* the channel is not free */
    bool terminal, started;
    bool ending;           /* there is no more input than what is waiting */
    bool ended;            /* so has the program: only its output is left */
    int code;              /* its exit code */
    pid_t pid;
    int in, out[2];        /* our ends of its streams; with a terminal `in` and the first are its master */
    int failure;           /* where it tells why it could not be executed; ends when it has been */
    unsigned unwritten[2]; /* frames of output that the other side has not written out */
    size_t left[2];        /* bytes that we move at most once it has ended */
    struct plan plan;      /* of one that comes later, while it comes */
    size_t got;            /* bytes of it */
    struct winsize size;
    size_t waiting, from;  /* bytes of input that its stream has not taken yet; where they begin */
    unsigned char input[WINDOW];
};

static struct program programs[CHANNELS];
static int cgroup = -1; /* of all programs; -1 for none of its own */

static int channel_of(const struct program *program)
{
    return program - programs;
}

static void send_number(struct run *run, const struct program *program, int kind, uint32_t number)
{
    if (frame_send_number(run->channel, channel_of(program), kind, number) < 0)
        power_off();
}

static void shut(int *fd)
{
    close_quietly(fd);
    *fd = -1;
}

static void forget_plan(struct program *program)
{
    if (program->plan.data)
        munmap(program->plan.data, program->plan.size);
    program->plan = (struct plan){0};
}

/* The channel is free from here on, as the frame before has said. */
static void release(struct program *program)
{
    forget_plan(program);
    if (program->out[0] != program->in)
        shut(&program->out[0]);
    shut(&program->out[1]);
    shut(&program->in);
    shut(&program->failure);
    program->pid = 0;
    program->used = false;
}

static void prepare(struct program *program)
{
    *program = (struct program){.used = true, .in = -1, .out = {-1, -1}, .failure = -1};
}

/* ---- output ---- */

enum moved { MOVED, NOTHING, OVER };

static void end_stream(struct program *program, int i)
{
    if (program->terminal)
        program->out[i] = -1; /* It is our input as well. */
    else
        shut(&program->out[i]);
}

/* Moves what there is from a stream of a program to the supervisor. */
static enum moved move_output(struct run *run, struct program *program, int i)
{
    char data[MAX_FRAME];
    ssize_t n = read(program->out[i], data, sizeof data);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return NOTHING;
    if (n > 0 || (n == 0 && !program->terminal)) {
        program->unwritten[i]++;
        if (frame_send(run->channel, channel_of(program), i ? FRAME_ERR : FRAME_OUT, data, n) < 0)
            power_off();
    }
    if (n <= 0)
        end_stream(program, i);
    else
        program->left[i] -= (size_t)n < program->left[i] ? (size_t)n : program->left[i];
    return n > 0 ? MOVED : OVER;
}

static bool may_move(const struct program *program, int i)
{
    return program->out[i] >= 0 && program->unwritten[i] < FRAMES;
}

/* What one that has ended has left in its pipes. */
static void drain(struct run *run, struct program *program)
{
    for (int i = 0; i < 2; i++) {
        while (may_move(program, i))
            if (!program->left[i] || move_output(run, program, i) == NOTHING)
                end_stream(program, i);
    }
    if (program->out[0] >= 0 || program->out[1] >= 0)
        return;
    if (program == programs)
        syscall(SYS_sync);
    send_number(run, program, FRAME_EXIT, program->code);
    if (program == programs)
        power_off();
    release(program);
}

static void count_written(struct program *program, const struct frame *frame)
{
    unsigned stream = frame->size == 1 ? frame->data[0] : 0;
    if ((stream == 1 || stream == 2) && program->unwritten[stream - 1])
        program->unwritten[stream - 1]--;
}

static void shut_output(struct program *program, const struct frame *frame)
{
    unsigned stream = frame->size == 1 ? frame->data[0] : 0;
    if (stream == 1 || stream == 2)
        end_stream(program, stream - 1);
}

/* ---- input ---- */

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
    if (taken)
        send_number(run, program, FRAME_CREDIT, taken);
    if (!program->waiting && program->ending)
        end_input(program);
}

/* Whoever sends more than it may. */
static void break_off(struct program *program)
{
    if (program == programs)
        power_off();
    if (program->pid > 1)
        kill(program->pid, SIGKILL);
}

static void take_input(struct run *run, struct program *program, const struct frame *frame)
{
    size_t size = frame->size;
    if (size > sizeof program->input - program->waiting) {
        break_off(program);
        return;
    }
    memmove(program->input, program->input + program->from, program->waiting);
    memcpy(program->input + program->waiting, frame->data, size);
    program->from = 0;
    program->waiting += size;
    move_input(run, program);
}

static void resize(struct program *program, const struct frame *frame)
{
    struct winsize size = {0};
    if (program->terminal && program->in >= 0 && frame->size == 4) {
        memcpy(&size.ws_row, frame->data, 2);
        memcpy(&size.ws_col, frame->data + 2, 2);
        ioctl(program->in, TIOCSWINSZ, &size);
    }
}

/* ---- the beginning ---- */

static int open_terminal(struct run *run, struct program *program, int *slave)
{
    struct digits digits;
    char name[40] = "/dev/pts/";
    int unlock = 0, number;
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    program->in = program->out[0] = master;
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0 || ioctl(master, TIOCGPTN, &number) < 0)
        return fail(run, "ptmx");
    strcat(name, number_text(&digits, number));
    *slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*slave < 0)
        return fail(run, name);
    ioctl(*slave, TIOCSWINSZ, &program->size);
    return fcntl(master, F_SETFL, O_NONBLOCK | O_RDWR);
}

static int make_streams(struct run *run, struct program *program, int streams[3])
{
    int *ours[] = {&program->in, &program->out[0], &program->out[1]};
    streams[0] = streams[1] = streams[2] = -1;
    if (program->terminal) {
        int slave = -1, failed = open_terminal(run, program, &slave);
        streams[0] = streams[1] = streams[2] = slave;
        return failed;
    }
    for (int i = 0; i < 3; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0)
            return fail(run, "pipe");
        streams[i] = ends[i > 0];
        *ours[i] = ends[i == 0];
        fcntl(*ours[i], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

/* What the child does, between fork and its plan. */
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

/* User-mode Linux needs a process of its host for each of its own, and passes on EAGAIN where the host has a lot to do;
 * it is gone a moment later. */
static pid_t fork_patiently(void)
{
    struct clone_args args = {.exit_signal = SIGCHLD};
    if (cgroup >= 0) {
        args.flags = CLONE_INTO_CGROUP;
        args.cgroup = cgroup;
    }
    pid_t pid = sys_clone3(&args);
    for (int tries = 0; pid < 0 && errno == EAGAIN && tries < 100; tries++) {
        nap();
        pid = sys_clone3(&args);
    }
    return pid;
}

/* 0 in the child, 1 here, -1 after fail(). */
static int fork_program(struct run *run, struct program *program)
{
    int streams[3], failure[2] = {-1, -1}, done = make_streams(run, program, streams);
    if (done == 0 && pipe2(failure, O_CLOEXEC) < 0)
        done = fail(run, "pipe");
    program->failure = failure[0];
    if (done == 0 && (program->pid = fork_patiently()) < 0)
        done = fail(run, "fork");
    if (done == 0 && program->pid == 0) {
        run->channel = -1;
        run->report = failure[1];
        return take_streams(run, streams, program->terminal);
    }
    close_quietly(&failure[1]);
    for (int i = 0; i < (program->terminal ? 1 : 3); i++)
        close_quietly(&streams[i]);
    return done < 0 ? -1 : 1;
}

static void refuse(struct run *run, struct program *program)
{
    if (send_failure(run, channel_of(program)) < 0)
        power_off();
    release(program);
}

/* One of those that come later: its plan is whole. */
static void start(struct run *run, struct program *program)
{
    run->step = 0;
    int forked = fork_program(run, program);
    if (forked > 0) {
        forget_plan(program);
        return;
    }
    if (run->channel >= 0) {
        refuse(run, program);
        return;
    }
    const char *wrong = plan_check(&program->plan);
    run->plan = program->plan;
    if (forked == 0 && (wrong ? fail_as(run, EBADMSG, wrong) : check_plan(run)) == 0)
        run_plan(run);
    report_failure(run);
    _exit(EXIT_INIT);
}

static void take_opening(struct run *run, struct program *program, const struct frame *frame)
{
    struct opening opening;
    if (program->used || frame->size != sizeof opening) {
        break_off(program);
        return;
    }
    memcpy(&opening, frame->data, sizeof opening);
    prepare(program);
    program->terminal = opening.terminal;
    program->size = (struct winsize){.ws_row = opening.rows, .ws_col = opening.columns};
    size_t size = opening.size;
    void *data = size && size <= MAX_PLAN
                     ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                     : MAP_FAILED;
    if (data == MAP_FAILED) {
        run->step = 0;
        fail_as(run, ENOMEM, "there is no room for the plan");
        refuse(run, program);
        return;
    }
    program->plan = (struct plan){.data = data, .size = size};
}

static void take_plan(struct run *run, struct program *program, const struct frame *frame)
{
    if (!program->plan.data || frame->size > program->plan.size - program->got) {
        break_off(program);
        return;
    }
    memcpy(program->plan.data + program->got, frame->data, frame->size);
    program->got += frame->size;
    if (program->got == program->plan.size)
        start(run, program);
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
        if (frame_send(run->channel, channel_of(program), FRAME_STARTED, NULL, 0) < 0)
            power_off();
        return;
    }
    ((char *)&message)[n] = 0;
    run->step = message.step;
    fail_as(run, message.error, message.text);
    if (program->pid)
        waitpid(program->pid, NULL, 0); /* It is about to end. */
    refuse(run, program);
    if (program == programs)
        power_off();
}

/* ---- the end ---- */

static void end(struct run *run, struct program *program, int status)
{
    program->pid = 0;
    if (program->failure >= 0)
        hear_of_start(run, program);
    if (!program->used)
        return;
    program->ended = true;
    program->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    program->left[0] = program->left[1] = LEFT;
}

/* Takes every child that has ended. */
static void reap(struct run *run, int signals)
{
    struct signalfd_siginfo info;
    int status;
    while (read(signals, &info, sizeof info) > 0)
        ;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (struct program *program = programs; program < programs + CHANNELS; program++)
            if (program->used && program->pid == pid)
                end(run, program, status);
}

/* Nobody is there for it any more. */
static void close_program(struct run *run, struct program *program)
{
    if (program->pid > 1)
        kill(program->pid, SIGKILL);
    for (int i = 0; i < 2; i++)
        end_stream(program, i);
    if (program->pid || program->ended)
        return;
    send_number(run, program, FRAME_EXIT, KILLED);
    release(program);
}

/* ---- the loop ---- */

static void obey(struct run *run, const struct frame *frame)
{
    struct program *program = &programs[frame->channel];
    if (frame->kind == FRAME_OPEN)
        take_opening(run, program, frame);
    else if (!program->used)
        return; /* It has ended meanwhile. */
    else if (frame->kind == FRAME_PLAN)
        take_plan(run, program, frame);
    else if (frame->kind == FRAME_IN)
        take_input(run, program, frame);
    else if (frame->kind == FRAME_SIZE)
        resize(program, frame);
    else if (frame->kind == FRAME_WRITTEN)
        count_written(program, frame);
    else if (frame->kind == FRAME_SHUT)
        shut_output(program, frame);
    else if (frame->kind == FRAME_CLOSE && program != programs)
        close_program(run, program);
    else if (frame->kind == FRAME_SIGNAL && program->pid > 1)
        kill(program->pid, frame_number(frame, 0));
    else if (frame->kind == FRAME_END) {
        program->ending = true;
        if (!program->waiting)
            end_input(program);
    }
}

static void read_frames(struct run *run)
{
    struct frame frame;
    int whole;
    if (read_line(run) <= 0)
        power_off();
    while ((whole = frames_first(&from_supervisor, &frame)) > 0) {
        obey(run, &frame);
        frames_next(&from_supervisor);
    }
    if (whole < 0)
        power_off();
}

enum { FAILURE, IN, OUT, ERR, POLLS };

static void ask(const struct program *program, struct pollfd *ready)
{
    bool runs = program->used && program->started;
    ready[FAILURE] = (struct pollfd){program->used ? program->failure : -1, POLLIN, 0};
    ready[IN] = (struct pollfd){runs && program->waiting ? program->in : -1, POLLOUT, 0};
    for (int i = 0; i < 2; i++)
        ready[OUT + i] = (struct pollfd){runs && may_move(program, i) ? program->out[i] : -1, POLLIN, 0};
}

static void serve(struct run *run, struct program *program, const struct pollfd *ready)
{
    if (ready[FAILURE].revents)
        hear_of_start(run, program);
    for (int i = 0; i < 2; i++)
        if (ready[OUT + i].revents && program->used && may_move(program, i))
            move_output(run, program, i);
    if (ready[IN].revents && program->used)
        move_input(run, program);
    if (program->used && program->ended)
        drain(run, program);
}

static _Noreturn void attend(struct run *run, int signals)
{
    static struct pollfd ready[2 + CHANNELS * POLLS];
    for (;;) {
        ready[0] = (struct pollfd){run->channel, POLLIN, 0};
        ready[1] = (struct pollfd){signals, POLLIN, 0};
        for (int i = 0; i < CHANNELS; i++)
            ask(&programs[i], ready + 2 + i * POLLS);
        if (poll(ready, sizeof ready / sizeof *ready, -1) < 0)
            continue;
        for (int i = 0; i < CHANNELS; i++)
            serve(run, &programs[i], ready + 2 + i * POLLS);
        if (ready[0].revents)
            read_frames(run);
        if (ready[1].revents)
            reap(run, signals);
        for (int i = 0; i < CHANNELS; i++)
            if (programs[i].used && programs[i].ended)
                drain(run, &programs[i]);
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

/* The rest of the plan is the child's. */
int do_guest(struct run *run, const struct arg *arg)
{
    struct program *program = programs;
    prepare(program);
    program->terminal = arg[0].i;
    program->size = (struct winsize){.ws_row = arg[1].i, .ws_col = arg[2].i};
    cgroup = arg[3].i < 0 ? -1 : slot_fd(run, arg[3].i);
    if (run->channel < 0)
        return fail_as(run, EINVAL, "no channel");
    int signals = watch_children();
    if (signals < 0)
        return fail(run, "signalfd");
    int forked = fork_program(run, program);
    if (forked <= 0)
        return forked;
    attend(run, signals);
}

#endif
