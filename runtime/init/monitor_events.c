/* Events: a program of ours is run for what needs a decision, when the container has ended or a timer is due.
 *
 * What it prints, "MILLISECONDS REASON\n", sets the next timer.  There is one at a time.  It may crash, hang or be
 * missing: then nothing is decided, and the container goes on. */

#define _GNU_SOURCE
#include <sys/wait.h>

#include "monitor.h"

/* A year: more than anybody waits, and nothing overflows. */
#define MAX_DELAY 31536000000LL

static void set_timer(struct events *events, int64_t delay, const char *reason, size_t size)
{
    if (delay < 0 || delay > MAX_DELAY || !size || size >= sizeof events->reason)
        return;
    memcpy(events->reason, reason, size);
    events->reason[size] = 0;
    events->due = now_ms() + delay;
}

/* Event program: our job is just to execute it, with nothing of the monitor's but /dev/null and its pipe. */
static _Noreturn void be_event_program(const struct events *events, int output, const char *reason, const char *code)
{
    size_t count = list_count(&events->argv);
    char **words = list_to_vector(&events->argv), **env = list_to_vector(&events->env);
    char **argv = calloc(count + 3, sizeof *argv);
    reset_signals();
    if (words && env && argv && dup2(output, 1) == 1 && sys_close_range(3, ~0U, 0) == 0) {
        memcpy(argv, words, count * sizeof *argv);
        argv[count] = (char *)reason;
        argv[count + 1] = (char *)code;
        execve(*argv, argv, env);
    }
    _exit(127);
}

void run_event(struct events *events, const char *reason, const char *code)
{
    int ends[2];
    events->due = 0;
    if (!events->argv.n || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return;
    events->pid = sys_fork(0, SIGCHLD);
    if (events->pid == 0) {
        fcntl(ends[1], F_SETFL, 0);
        be_event_program(events, ends[1], reason, code);
    }
    close(ends[1]);
    events->got = 0;
    events->out = ends[0];
    if (events->pid < 0) {
        events->pid = 0;
        close_quietly(&events->out);
        events->out = -1;
    }
}

/* Keeps the beginning; the rest is read, so that the program can go on, and dropped. */
void read_event(struct events *events)
{
    char rest[256];
    ssize_t got;
    do {
        size_t room = sizeof events->line - events->got;
        got = read(events->out, room ? events->line + events->got : rest, room ? room : sizeof rest);
        events->got += got > 0 && room ? got : 0;
    } while (got > 0);
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        close(events->out);
        events->out = -1;
    }
}

static void take_line(struct events *events)
{
    const char *at = events->line, *end = memchr(at, '\n', events->got);
    int64_t delay = 0;
    if (!end)
        return;
    for (; at < end && *at >= '0' && *at <= '9' && delay <= MAX_DELAY; at++)
        delay = delay * 10 + (*at - '0');
    if (at > events->line && at < end && *at == ' ')
        set_timer(events, delay, at + 1, end - at - 1);
}

void event_ended(struct events *events)
{
    events->pid = 0;
    if (events->out >= 0)
        read_event(events);
    close_quietly(&events->out); /* What it has left running may hold the other end. */
    events->out = -1;
    take_line(events);
}

/* ---- the step ---- */

int do_monitor_events(struct run *run, const struct arg *arg)
{
    struct events *events = &the_monitor.events;
    events->argv = arg[0];
    events->env = arg[1];
    if (arg[2].i < 0 || arg[2].i > MAX_DELAY || arg[3].n >= sizeof events->reason)
        return fail_as(run, EINVAL, "timer");
    set_timer(events, arg[2].i, arg[3].s, arg[3].n);
    return 0;
}
