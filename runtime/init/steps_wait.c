/* Steps that wait: for Python, for `start`, and, as process 1, for everybody else. */

#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "steps.h"

int do_sync(struct run *run, const struct arg *arg)
{
    tell(run, MESSAGE_SYNC, run->outside, arg[0].s);
    run->state = wait_for_ok(run);
    return 0;
}

/* ---- created, not yet started ---- */

static void die_of(int signal)
{
    _exit(128 + signal);
}

/* The kernel drops what process 1 has no handler for, but a container that waits must die of SIGTERM as any other
 * process would.  Left alone: signals that kill nobody, and those that report a fault of our own. */
static void die_of_signals(void)
{
    static const unsigned char harmless[] = {SIGCHLD, SIGCONT, SIGURG,  SIGWINCH, SIGTSTP, SIGTTIN, SIGTTOU,
                                             SIGKILL, SIGSTOP, SIGSEGV, SIGBUS,   SIGILL,  SIGFPE,  SIGTRAP};
    struct sigaction action = {.sa_handler = die_of};
    for (int signal = 1; signal <= 64; signal++)
        if (!memchr(harmless, signal, sizeof harmless))
            sigaction(signal, &action, NULL);
}

static void close_between(int64_t first, int64_t last)
{
    if (first <= last)
        sys_close_range(first, last, 0);
}

#define KEPT 4

static void sort(int *numbers, int count)
{
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && numbers[j - 1] > numbers[j]; j--) {
            int larger = numbers[j - 1];
            numbers[j - 1] = numbers[j];
            numbers[j] = larger;
        }
}

/* Lets go of everything but these descriptors (-1 is none), our own program, the standard streams and those to be
 * preserved: a container may wait for days, and must not hold the host's mounts or the pipes of whoever created it. */
static void keep_only(struct run *run, int one, int other, int third)
{
    int own = run->own_slot < 0 ? -1 : slot_fd(run, run->own_slot), kept[KEPT] = {one, other, third, own};
    int64_t next = 3 + (run->preserved > 0 ? run->preserved : 0);
    sort(kept, KEPT);
    for (int i = 0; i < KEPT; i++)
        if (kept[i] >= next) {
            close_between(next, kept[i] - 1);
            next = kept[i] + 1;
        }
    close_between(next, INT32_MAX);
    for (int slot = 0; slot < run->used_slots; slot++)
        if (run->slots[slot] - 1 != one && run->slots[slot] - 1 != other && slot != run->own_slot)
            run->slots[slot] = 0;
    run->root = run->old_root = run->scratch = run->empty = run->proc = -1;
}

/* Waits for one byte of the fifo, which we hold open for reading and writing: so whoever opens it for writing knows
 * that we live, and reading blocks even while nobody does. */
int do_wait_start(struct run *run, const struct arg *arg)
{
    int fifo = slot_fd(run, arg[0].i), flags = fcntl(fifo, F_GETFL);
    char byte;
    if (flags < 0 || fcntl(fifo, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return fail(run, "fifo");
    die_of_signals();
    run->report = arg[1].i < 0 ? -1 : slot_fd(run, arg[1].i);
    tell(run, MESSAGE_READY, 0, "");
    run->sync = -1;
    keep_only(run, fifo, run->report, run->told);
    ssize_t got;
    do
        got = read(fifo, &byte, 1);
    while (got < 0 && errno == EINTR);
    if (got != 1)
        return fail(run, "fifo");
    reset_signals();
    signal(SIGPIPE, SIG_IGN);
    /* The fifo stays open until execve closes it: `start` waits for that. */
    return 0;
}

/* ---- complete but for a command ---- */

/* A plan and the three standard streams. */
#define COMMAND_FDS 4

/* One byte with the descriptors; whoever was to send them may also have gone. */
static int receive_command(struct run *run, int line, int *fds)
{
    union {
        struct cmsghdr head;                              /* for its alignment */
        char data[CMSG_SPACE(COMMAND_FDS * sizeof(int))]; /* the descriptors */
    } control;
    char byte[2];
    struct iovec part = {byte, sizeof byte};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got;
    do
        got = recvmsg(line, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        _exit(0);
    struct cmsghdr *head = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (got != 1 || !head || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || head->cmsg_level != SOL_SOCKET ||
        head->cmsg_type != SCM_RIGHTS || head->cmsg_len != CMSG_LEN(COMMAND_FDS * sizeof(int)))
        return fail_as(run, EBADMSG, "this is no command");
    memcpy(fds, CMSG_DATA(head), COMMAND_FDS * sizeof(int));
    return 0;
}

/* Waits for the rest of the plan, which is sent with the standard streams, and goes on with it.  What fails from now on
 * is told to the sender. */
int do_wait_command(struct run *run, const struct arg *arg)
{
    int line = slot_fd(run, arg[0].i), fds[COMMAND_FDS];
    if (line < 0)
        return fail(run, "socket");
    die_of_signals();
    write_stamps(run);
    run->stamps = NULL; /* Of the first plan; where they go is not kept. */
    tell(run, MESSAGE_READY, 0, "");
    run->sync = line;
    keep_only(run, line, -1, run->told);
    if (receive_command(run, line, fds) < 0)
        return -1;
    for (int fd = 0; fd < 3; fd++) {
        if (dup2(fds[fd + 1], fd) < 0)
            return fail(run, "dup2");
        close(fds[fd + 1]);
    }
    reset_signals();
    signal(SIGPIPE, SIG_IGN);
    const char *wrong = plan_read(&run->plan, fds[0]);
    run->step = 0;
    if (wrong)
        return fail_as(run, EBADMSG, wrong);
    return check_plan(run) < 0 ? -1 : run_plan(run);
}

/* ---- for a process that may be killed ---- */

/* Waits until the process ends; false when it has said before that it leaves nothing. */
static bool wait_for_end(int process, int farewell)
{
    struct pollfd watched[] = {{.fd = process, .events = POLLIN}, {.fd = farewell, .events = POLLIN}};
    for (;;) {
        char byte;
        if (poll(watched, 2, -1) < 0)
            continue;
        if (watched[1].revents && read(farewell, &byte, 1) == 1)
            return false;
        if (watched[0].revents)
            return true;
        if (watched[1].revents)
            watched[1].fd = -1;
    }
}

/* Guardian: our job is to outlive the process that has started us, however it ends, and then to go on with the plan,
 * whose next step executes what clears up after it.  It is not our parent: it does not wait for us. */
int do_guard(struct run *run, const struct arg *arg)
{
    int process = slot_fd(run, arg[0].i), farewell = slot_fd(run, arg[1].i);
    if (process < 0 || farewell < 0)
        return fail(run, "slot");
    pid_t child = sys_fork(0, SIGCHLD);
    if (child < 0)
        return fail(run, "fork");
    if (child > 0)
        _exit(0);
    setsid();
    (void)!chdir("/");
    prctl(PR_SET_NAME, "warren-guardian");
    for (int number = 1; number <= 64; number++)
        signal(number, SIG_IGN);
    run->sync = -1;
    keep_only(run, process, farewell, -1);
    if (!wait_for_end(process, farewell))
        _exit(0);
    return 0;
}

/* ---- process 1 ---- */

/* Signals that a program causes itself are not held back, or a fault of ours would loop for ever. */
static void all_but_faults(sigset_t *set)
{
    static const unsigned char faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS};
    sigfillset(set);
    for (size_t i = 0; i < sizeof faults; i++)
        sigdelset(set, faults[i]);
}

/* Takes every child that has ended; leaves when the main one has, with its status. */
static void reap_children(pid_t main_child)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == main_child)
            _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/* Reaper: our job as process 1 is to pass on signals to the user's program, to collect orphans, and to end when it
 * ends, with its status; the kernel then ends whatever is left.  We keep the standard streams and nothing else. */
static _Noreturn void reap_and_pass_on(pid_t child, const sigset_t *signals)
{
    sys_close_range(3, ~0U, 0);
    for (;;) {
        siginfo_t info;
        if (sigwaitinfo(signals, &info) < 0)
            continue;
        if (info.si_signo == SIGCHLD)
            reap_children(child);
        else
            kill(child, info.si_signo);
    }
}

/* The program gets a process group of its own, in the foreground of its terminal if there is one (as tini does);
 * SIGTTOU is blocked here. */
static void lead_group(void)
{
    setpgid(0, 0);
    tcsetpgrp(0, getpgrp());
}

/* The same after do_reap() has executed us: signals are blocked since then, and none is lost. */
_Noreturn void be_reaper(pid_t child)
{
    sigset_t signals;
    all_but_faults(&signals);
    sigprocmask(SIG_SETMASK, &signals, NULL);
    prctl(PR_SET_NAME, "warren-init");
    reap_and_pass_on(child, &signals);
}

/* Until something is executed our memory belongs to the user namespace in which we began, and an ordinary user could not
 * join the namespaces of such a process (ptrace(2), PTRACE_MODE_READ).  So for him we execute ourselves; where the
 * container's filter has no execveat(2) we stay as we are. */
static void execute_reaper(int own, pid_t child)
{
    static char *const env[] = {NULL};
    struct digits digits;
    char *argv[] = {"warren-init", "--reap", (char *)number_text(&digits, child), NULL};
    syscall(SYS_execveat, own, "", argv, env, AT_EMPTY_PATH);
}

int do_reap(struct run *run, const struct arg *arg)
{
    int own = arg[0].i < 0 ? -1 : slot_fd(run, arg[0].i);
    sigset_t signals, none;
    if (arg[0].i >= 0 && own < 0)
        return fail(run, "slot");
    sigemptyset(&none);
    all_but_faults(&signals);
    if (sigprocmask(SIG_SETMASK, &signals, NULL) < 0 || keep_process_attributes(run) < 0)
        return fail(run, "sigprocmask");
    prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0, 0, 0); /* For a reaper that is not process 1 of a namespace. */
    pid_t child = sys_fork(0, SIGCHLD);
    if (child < 0)
        return fail(run, "fork");
    if (child > 0) {
        if (own >= 0)
            execute_reaper(own, child);
        reap_and_pass_on(child, &signals);
    }
    lead_group();
    return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? fail(run, "sigprocmask") : 0;
}

/* Idle: our job as process 1 of a container that has no program of its own is to collect orphans, and to end when we
 * are told to; the kernel then ends whatever is left.  We have been executed as any program of the container would be. */
_Noreturn void be_idle(void)
{
    static const unsigned char harmless[] = {SIGCHLD, SIGCONT, SIGURG, SIGWINCH, SIGTSTP, SIGTTIN, SIGTTOU};
    sigset_t signals;
    all_but_faults(&signals);
    sigprocmask(SIG_SETMASK, &signals, NULL);
    prctl(PR_SET_NAME, "warren-init");
    prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0, 0, 0);
    for (;;) {
        siginfo_t info;
        if (sigwaitinfo(&signals, &info) < 0)
            continue;
        reap_children(0);
        if (!memchr(harmless, info.si_signo, sizeof harmless))
            _exit(128 + info.si_signo);
    }
}
