/* Monitor: our job is to be the container's parent when nobody of Warren is left.  We pump its output into the log
 * and to whoever is attached, pass on their input, keep its exit code, and run a program of Warren's for all that
 * needs a decision.  We decide nothing, and end after the container.
 *
 * The step `monitor` forks: the child goes on with the plan as `init` outside, and what that clones is our child
 * (CLONE_PARENT).  With PR_SET_PDEATHSIG the container ends with us, too.  Python holds a pipe while it launches:
 * before it has let us go the container is not waited for, so that its pid stays its own, and if it closes the pipe
 * instead the launch has failed, or Python has died: we kill what there is, and end.
 *
 * Messages of attached clients (SOCK_SEQPACKET), the first byte says which:
 *     i data   input                              o data   output, or the terminal's
 *     e        end of the input                   E data   error output
 *     w u16 u16   rows and columns                x u32    exit code; the last one
 *     d        done: the owner has cleaned up, and no program needs to be run for the end
 *     k        keep: the owner takes it off the leash
 *     c o|E    the owner reads this stream no more: whoever writes to it gets EPIPE
 *
 * A container on a leash is its owner's, who gets no output: it is killed when that goes, however it goes. */

#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "monitor.h"

/* Milliseconds: between looks at a terminal that nobody has open, idle before memory is given back, and how long a
 * client that does not read keeps us after the end. */
enum { TERMINAL_PAUSE = 100, TIDY_AFTER = 1000, FAREWELL = 10000 };
/* More than a terminal buffers; what comes on top is from a process that outlives the container's. */
#define TERMINAL_REST (128 << 10)
#define EXIT_TEMPORARY "exit.tmp"

/* Where the poll loop looks for what. */
enum { HOLD, TOLD, CONSOLE, INPUT, LISTENER, EVENT, OUTPUT, CLIENT = OUTPUT + STREAMS, PLACES = CLIENT + MAX_CLIENTS };

struct monitor the_monitor;

/* In .bss, where it costs only the pages that are used. */
static struct {
    char chunks[STREAMS][CHUNK], lines[STREAMS][LINE], message[CHUNK + 4096];
} buffers page_aligned;

int64_t now_ms(void)
{
    struct timespec now;
    sys_now(&now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000 + 1;
}

int64_t wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

void give_back(void *start, size_t size)
{
    uintptr_t first = ((uintptr_t)start + 4095) & ~4095UL, end = ((uintptr_t)start + size) & ~4095UL;
    if (first < end)
        madvise((void *)first, end - first, MADV_DONTNEED);
}

static void close_fd(int *fd)
{
    close_quietly(fd);
    *fd = -1;
}

/* ---- the end ---- */

/* Makes the file and room in it, so that a full disk does not cost us the exit code. */
static int prepare_exit(int directory)
{
    char room[100];
    memset(room, ' ', sizeof room);
    autoclose int fd = openat(directory, EXIT_TEMPORARY, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 || write(fd, room, sizeof room) != sizeof room ? -1 : 0;
}

/* An owner is not kept waiting for the disk: what it sees is not lost by anything that it survives. */
static void write_exit(struct monitor *m)
{
    int64_t numbers[] = {m->code, m->started, m->finished, m->log.lost};
    char text[100], *at = text;
    struct digits digits;
    if (m->directory < 0)
        return;
    for (int i = 0; i < 4; i++) {
        at = stpcpy(at, number_text(&digits, numbers[i]));
        *at++ = i < 3 ? ' ' : '\n';
    }
    autoclose int fd = openat(m->directory, EXIT_TEMPORARY, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write(fd, text, at - text) != at - text || ftruncate(fd, at - text) < 0)
        return;
    m->unsynced = owner_of(m);
    if (!m->unsynced)
        fsync(fd);
    renameat(m->directory, EXIT_TEMPORARY, m->directory, "exit");
}

/* The owner has gone, and has not seen to it. */
static void sync_exit(struct monitor *m)
{
    autoclose int fd = m->unsynced ? openat(m->directory, "exit", O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd >= 0)
        fsync(fd);
    m->unsynced = false;
}

/* There is no container, or it is not to be. */
static _Noreturn void leave_nothing(struct monitor *m)
{
    if (m->directory >= 0)
        unlinkat(m->directory, EXIT_TEMPORARY, 0);
    _exit(0);
}

static void wait_for(pid_t pid)
{
    while (pid && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* Outside tells of the container's process before it lets that do anything; closed by all of them, which execve(2)
 * does as well, the program runs, or there will be none. */
static void take_told(struct monitor *m)
{
    int64_t pid;
    ssize_t got;
    while (m->told >= 0 && (got = read(m->told, &pid, sizeof pid)) >= 0) {
        if (got == sizeof pid) {
            m->container = pid;
            continue;
        }
        close_fd(&m->told);
        m->started = wall_ns();
        /* Not before: on a busy machine the launch would wait for our turn, and we as a group of our own do (sched(7),
         * autogroups), for milliseconds.  It fails for a leader of a session, which is as good. */
        setsid();
        if (!m->container) {
            wait_for(m->outside);
            leave_nothing(m);
        }
    }
}

/* Outside first, which might still make a container; one that it has made without telling us ends by itself. */
static _Noreturn void abort_launch(struct monitor *m)
{
    struct pollfd told = {.fd = m->told, .events = POLLIN};
    kill(m->outside, SIGKILL);
    wait_for(m->outside);
    m->outside = 0;
    while (m->told >= 0 && !m->container)
        if (poll(&told, 1, -1) > 0)
            take_told(m);
    if (m->container)
        kill(m->container, SIGKILL);
    wait_for(m->container);
    leave_nothing(m);
}

static void take_hold(struct monitor *m)
{
    char byte = 0;
    ssize_t got = read(m->hold, &byte, 1);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    take_told(m);
    if (got != 1 || byte != 'g')
        abort_launch(m);
    close_fd(&m->hold);
    m->child_ended = 1; /* It may have been long ago. */
}

/* ---- output ---- */

static void deliver_to_all(struct monitor *m)
{
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (m->clients[i].fd >= 0)
            deliver(m, &m->clients[i]);
}

void hang_up(struct monitor *m, char kind)
{
    for (struct stream *stream = m->streams; stream < m->streams + STREAMS && !m->terminal; stream++)
        if (stream->kind == kind && stream->fd >= 0) {
            close_fd(&stream->fd);
            log_end(&m->log, stream);
        }
}

/* Reads what is there now, and passes it on. */
static void pump(struct monitor *m, struct stream *stream)
{
    ssize_t got = read(stream->fd, stream->chunk, CHUNK);
    stream->retry = 0;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got < 0 && m->terminal) {
        stream->retry = now_ms() + TERMINAL_PAUSE; /* Closed by all; who says that nobody opens it again? */
        return;
    }
    if (got <= 0) {
        close_fd(&stream->fd);
        log_end(&m->log, stream);
        return;
    }
    stream->data = stream->chunk;
    stream->size = got;
    for (int i = 0; i < MAX_CLIENTS; i++)
        m->clients[i].sent[stream - m->streams] = 0;
    m->untidy = true;
    log_feed(&m->log, stream, stream->data, got);
    log_flush(&m->log);
    deliver_to_all(m);
}

/* At the end: what is still in the pipe goes to the log at once, and is kept for clients that take their time. */
static void take_rest(struct monitor *m, struct stream *stream)
{
    int number = stream - m->streams;
    size_t kept = held_back(m, number) ? stream->size : 0, size = kept;
    int room = m->terminal ? TERMINAL_REST : fcntl(stream->fd, F_GETPIPE_SZ);
    size_t end = kept + (room > 0 ? room : CHUNK);
    char *rest = mmap(NULL, end, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (rest == MAP_FAILED)
        return;
    memcpy(rest, stream->data, kept);
    for (ssize_t got; size < end && (got = read(stream->fd, rest + size, end - size)) > 0;)
        size += got;
    log_feed(&m->log, stream, rest + kept, size - kept);
    for (int i = 0; i < MAX_CLIENTS && !kept; i++)
        m->clients[i].sent[number] = 0;
    stream->data = rest;
    stream->size = size;
}

/* The terminal, once the `console` step has sent it. */
static void take_console(struct monitor *m)
{
    union {
        struct cmsghdr head;                /* for its alignment */
        char data[CMSG_SPACE(sizeof(int))]; /* one descriptor */
    } control;
    char name[64];
    struct iovec part = {name, sizeof name};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(m->console, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    struct cmsghdr *head = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
        memcpy(&m->input, CMSG_DATA(head), sizeof m->input);
        fcntl(m->input, F_SETFL, O_RDWR | O_NONBLOCK);
        m->streams[OUT].fd = m->input;
    }
    close_fd(&m->console);
}

/* ---- children ---- */

static void container_ended(struct monitor *m, int status)
{
    m->finished = wall_ns();
    m->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    take_told(m);
    m->container = 0;
    m->ended = true;
    m->pending = 0;
    m->events.due = 0;
    if (m->console >= 0)
        take_console(m);
    for (int i = 0; i < STREAMS; i++) {
        struct stream *stream = &m->streams[i];
        if (stream->fd >= 0)
            take_rest(m, stream);
        close_fd(&stream->fd);
        log_end(&m->log, stream);
    }
    if (!m->terminal)
        close_fd(&m->input);
    m->input = -1;
    log_close(&m->log);
    write_exit(m);
    deliver_to_all(m);
}

/* Every child that has ended, orphans of the container among them. */
static void reap(struct monitor *m)
{
    int status;
    m->child_ended = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == m->container)
            container_ended(m, status);
        else if (pid == m->events.pid)
            event_ended(&m->events);
}

/* ---- the loop ---- */

static void watch(struct pollfd *place, int fd, int events)
{
    /* Without events poll(2) would still tell of a hang-up, again and again. */
    *place = (struct pollfd){.fd = events ? fd : -1, .events = events};
}

static void forget_past(int64_t *moment)
{
    if (*moment <= now_ms())
        *moment = 0;
}

static void watch_all(struct monitor *m, struct pollfd *places)
{
    forget_past(&m->accept_at);
    forget_past(&m->streams[OUT].retry);
    watch(&places[HOLD], m->hold, POLLIN);
    watch(&places[TOLD], m->told, POLLIN);
    watch(&places[CONSOLE], m->console, POLLIN);
    watch(&places[INPUT], m->input, m->pending ? POLLOUT : 0);
    watch(&places[LISTENER], m->listener, m->accept_at ? 0 : POLLIN);
    watch(&places[EVENT], m->events.out, POLLIN);
    for (int i = 0; i < STREAMS; i++)
        watch(&places[OUTPUT + i], m->streams[i].fd, m->streams[i].retry || held_back(m, i) ? 0 : POLLIN);
    for (int i = 0; i < MAX_CLIENTS; i++) {
        struct client *client = &m->clients[i];
        int wanted = client->fd < 0 ? 0 : (m->pending ? 0 : POLLIN) | (owes(m, client) ? POLLOUT : 0);
        watch(&places[CLIENT + i], client->fd, wanted);
    }
}

/* After the container's end the event program is first told of that, unless the owner is about to see to it. */
static bool timer_runs(const struct monitor *m)
{
    return m->events.due && !m->events.pid && (!m->ended || m->exit_told);
}

/* Milliseconds until something is due; -1 for never. */
static int time_left(const struct monitor *m)
{
    int64_t now = now_ms(), first = m->untidy ? now + TIDY_AFTER : 0;
    int64_t moments[] = {timer_runs(m) ? m->events.due : 0, m->streams[OUT].retry, m->accept_at, m->farewell};
    for (int i = 0; i < 4; i++)
        if (moments[i] && (!first || moments[i] < first))
            first = moments[i];
    if (!first)
        return -1;
    return first <= now ? 0 : first - now > INT32_MAX ? INT32_MAX : first - now;
}

static void tidy(struct monitor *m)
{
    for (int i = 0; i < STREAMS; i++) {
        if (!held_back(m, i))
            give_back(m->streams[i].chunk, CHUNK);
        if (!m->streams[i].unfinished)
            give_back(m->streams[i].line, LINE);
    }
    if (!m->pending)
        give_back(m->message, sizeof buffers.message);
    log_tidy();
    m->untidy = false;
}

static void attend_clients(struct monitor *m, const struct pollfd *places)
{
    for (int i = 0; i < MAX_CLIENTS; i++) {
        struct client *client = &m->clients[i];
        int events = places[CLIENT + i].fd == client->fd ? places[CLIENT + i].revents : 0;
        if (client->fd >= 0 && events & POLLOUT)
            deliver(m, client);
        if (client->fd >= 0 && events & (POLLIN | POLLHUP | POLLERR) && !m->pending)
            take_message(m, client);
    }
}

static void attend(struct monitor *m, const struct pollfd *places)
{
    if (places[TOLD].revents)
        take_told(m);
    if (places[HOLD].revents)
        take_hold(m);
    if (places[CONSOLE].revents)
        take_console(m);
    for (int i = 0; i < STREAMS; i++)
        if (places[OUTPUT + i].revents)
            pump(m, &m->streams[i]);
    if (places[INPUT].revents)
        feed_input(m);
    attend_clients(m, places);
    if (places[LISTENER].revents)
        accept_client(m);
    if (places[EVENT].revents)
        read_event(&m->events);
}

static void run_timer(struct monitor *m)
{
    if (timer_runs(m) && now_ms() >= m->events.due)
        run_event(&m->events, m->events.reason, NULL);
}

static bool have_clients(const struct monitor *m)
{
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (m->clients[i].fd >= 0)
            return true;
    return false;
}

/* Whether nothing is left to do; tells the event program of the end, unless the owner has dealt with it. */
static bool over(struct monitor *m)
{
    struct digits code;
    if (!m->ended || owner_of(m) || m->events.pid)
        return false;
    if (!m->exit_told && !m->cleaned_up) {
        m->exit_told = true;
        sync_exit(m);
        run_event(&m->events, "exited", number_text(&code, m->code));
        if (m->events.pid)
            return false;
    }
    if (m->events.due && !m->cleaned_up)
        return false;
    if (!m->farewell)
        m->farewell = now_ms() + FAREWELL;
    return !have_clients(m) || now_ms() >= m->farewell;
}

static _Noreturn void be_monitor(struct monitor *m)
{
    sigset_t none;
    sigemptyset(&none);
    while (!over(m)) {
        struct pollfd places[PLACES];
        watch_all(m, places);
        int left = m->child_ended && m->hold < 0 ? 0 : time_left(m);
        struct timespec timeout = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000L};
        int ready = ppoll(places, PLACES, left < 0 ? NULL : &timeout, &none);
        if (ready > 0)
            attend(m, places);
        else if (ready == 0 && m->untidy)
            tidy(m);
        if (m->child_ended && m->hold < 0)
            reap(m);
        run_timer(m);
    }
    _exit(0);
}

/* ---- the step ---- */

static void note_child(int signal)
{
    (void)signal;
    the_monitor.child_ended = 1;
}

/* Nothing that a terminal or a user sends may cost a container its monitor; faults of our own still end us.  SIGCHLD is
 * not ignored for a moment: the kernel would not keep the status of a child that ends in it. */
static void ignore_signals(void)
{
    static const unsigned char kept[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS, SIGCHLD};
    static const unsigned long ignore[4] = {(unsigned long)SIG_IGN}; /* The kernel's struct sigaction. */
    struct sigaction action = {.sa_handler = note_child};
    sigset_t held;
    for (int signal = 1; signal <= 64; signal++)
        if (!memchr(kept, signal, sizeof kept))
            syscall(SYS_rt_sigaction, signal, ignore, NULL, 8);
    sigemptyset(&held);
    sigaddset(&held, SIGCHLD);
    sigprocmask(SIG_SETMASK, &held, NULL); /* Delivered while we poll, and only then. */
    sigaction(SIGCHLD, &action, NULL);
    the_monitor.child_ended = 1;
}

static void close_others(const int *kept, int count)
{
    for (unsigned next = 3;;) {
        unsigned lowest = ~0U;
        for (int i = 0; i < count; i++)
            if (kept[i] >= (int)next && (unsigned)kept[i] < lowest)
                lowest = kept[i];
        if (lowest > next)
            sys_close_range(next, lowest - (lowest != ~0U), 0);
        if (lowest == ~0U)
            return;
        next = lowest + 1;
    }
}

/* Lets go of all that a process which may live for months must not hold: files, the directory, the plan's memory. */
static void settle(struct monitor *m, struct run *run, int null)
{
    int kept[] = {m->hold,      m->told,          m->directory,       m->listener,        m->console, m->input,
                  m->log.fd,    m->log.directory, m->streams[OUT].fd, m->streams[ERR].fd, m->clients[0].fd};
    ignore_signals();
    prctl(PR_SET_NAME, "warren-monitor");
    (void)!chdir("/");
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    close_others(kept, sizeof kept / sizeof *kept);
    give_back(run->plan.data + run->plan.at, run->plan.size - run->plan.at); /* Our steps are the first. */
    give_back(run, sizeof *run);
}

/* The container's ends of its streams. */
struct ends {
    int in, out, err; /* pipes; -1 none */
    int console;      /* of the socket for the terminal; -1 none */
    int told;         /* of the pipe for the pid */
    int null;         /* /dev/null */
};

static int make_pipe(struct run *run, int *reader, int *writer)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail(run, "pipe");
    *reader = ends[0];
    *writer = ends[1];
    return 0;
}

static int make_streams(struct run *run, struct monitor *m, struct ends *ends)
{
    int pair[2];
    if (m->terminal) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return fail(run, "socketpair");
        m->console = pair[0];
        ends->console = pair[1];
        return 0;
    }
    if (make_pipe(run, &m->streams[OUT].fd, &ends->out) < 0 || make_pipe(run, &m->streams[ERR].fd, &ends->err) < 0)
        return -1;
    if (m->flags & WANT_INPUT && make_pipe(run, &ends->in, &m->input) < 0)
        return -1;
    int ours[] = {m->streams[OUT].fd, m->streams[ERR].fd, m->input};
    for (int i = 0; i < 3; i++)
        if (ours[i] >= 0 && fcntl(ours[i], F_SETFL, O_NONBLOCK) < 0)
            return fail(run, "fcntl");
    return 0;
}

/* The child is `init` outside, with the container's ends as its standard streams. */
static int go_on(struct run *run, const struct arg *arg, struct monitor *m, const struct ends *ends)
{
    int ours[] = {m->told, m->console, m->input, m->streams[OUT].fd, m->streams[ERR].fd, m->log.fd};
    int theirs[] = {ends->in, ends->out, ends->err};
    for (int i = 0; i < 6; i++)
        close_quietly(&ours[i]);
    for (int i = 0; i < 4; i++)
        if (slot_fd(run, arg[i].i) >= 0) {
            close(slot_fd(run, arg[i].i));
            run->slots[arg[i].i] = 0;
        }
    for (int fd = 0; fd < 3 && !m->terminal; fd++) {
        if (dup2(theirs[fd] < 0 ? ends->null : theirs[fd], fd) < 0)
            return fail(run, "dup2");
        close_quietly(&theirs[fd]);
    }
    close(ends->null);
    run->told = ends->told;
    run->outside = getpid();
    return m->terminal ? set_slot(run, arg[4].i, ends->console) : 0;
}

static void set_up_streams(struct monitor *m)
{
    m->message = buffers.message;
    for (int i = 0; i < STREAMS; i++)
        m->streams[i] = (struct stream){.fd = -1, .line = buffers.lines[i], .chunk = buffers.chunks[i]};
    m->streams[OUT].kind = 'o';
    m->streams[OUT].name = "stdout";
    m->streams[ERR].kind = 'E';
    m->streams[ERR].name = "stderr";
}

static int prepare(struct run *run, const struct arg *arg, struct monitor *m, struct ends *ends)
{
    m->hold = slot_fd(run, arg[0].i);
    m->directory = slot_fd(run, arg[1].i);
    m->listener = slot_fd(run, arg[2].i);
    m->terminal = arg[4].i >= 0;
    m->flags = arg[5].i;
    set_up_streams(m);
    m->input = m->console = m->events.out = -1;
    for (int i = 0; i < MAX_CLIENTS; i++)
        m->clients[i].fd = -1;
    if (slot_fd(run, arg[3].i) >= 0) {
        struct client *owner = add_client(m, slot_fd(run, arg[3].i));
        owner->owner = true;
        owner->mute = m->flags & LEASH;
    }
    ends->null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (ends->null < 0)
        return fail(run, "/dev/null");
    if (m->directory >= 0 && prepare_exit(m->directory) < 0)
        return fail(run, "exit");
    if (make_pipe(run, &m->told, &ends->told) < 0 || fcntl(m->told, F_SETFL, O_NONBLOCK) < 0)
        return fail(run, "pipe");
    return make_streams(run, m, ends);
}

int do_monitor(struct run *run, const struct arg *arg)
{
    struct monitor *m = &the_monitor;
    struct ends ends = {-1, -1, -1, -1, -1, -1};
    if (run->told >= 0)
        return fail_as(run, EINVAL, "a second monitor");
    if (prepare(run, arg, m, &ends) < 0)
        return -1;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0, 0, 0) < 0)
        return fail(run, "PR_SET_CHILD_SUBREAPER");
    m->outside = sys_fork(0, SIGCHLD);
    if (m->outside < 0)
        return fail(run, "fork");
    if (m->outside == 0)
        return go_on(run, arg, m, &ends);
    settle(m, run, ends.null);
    be_monitor(m);
}

void tell_monitor(struct run *run, pid_t child)
{
    int64_t pid = child;
    if (run->told >= 0 && write(run->told, &pid, sizeof pid) != sizeof pid)
        _exit(EXIT_INIT);
}

/* The signal of pdeathsig comes when a parent ends from now on: it may have ended before. */
int check_monitor(struct run *run)
{
    struct pollfd told = {.fd = run->told};
    if (poll(&told, 1, 0) > 0)
        return fail_as(run, ECHILD, "the monitor is gone");
    return 0;
}
