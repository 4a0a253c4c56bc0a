/* Our ends of the streams of a program in a guest; ends.h and frames.h say whose. */

#ifdef WARREN_GUEST

#define _GNU_SOURCE
#include "ends.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>

#include "steps.h"

/* A pipe that poll(2) calls writable takes this much without blocking (pipe(7), PIPE_BUF). */
#define PIECE 4096

int ends_send(struct ends *ends, int channel, int kind, const void *data, size_t size)
{
    if (ends->fd < 0)
        return 0;
    if (ends->sent) {
        if (*ends->sent + sizeof(struct frame_head) + size > MOST_UNREAD) {
            errno = ENOBUFS;
            return -1;
        }
        *ends->sent += sizeof(struct frame_head) + size;
    }
    int failed = frame_send(ends->fd, channel, kind, data, size);
    /* The other side is gone, as we are about to hear. */
    return failed < 0 && (errno == EPIPE || errno == ECONNRESET) ? 0 : failed;
}

int ends_send_size(struct ends *ends)
{
    struct winsize size;
    if (!ends->terminal || ioctl(0, TIOCGWINSZ, &size) < 0)
        return 0;
    uint16_t box[] = {size.ws_row, size.ws_col};
    return ends_send(ends, 0, FRAME_SIZE, box, sizeof box);
}

/* ---- input ---- */

static size_t most_input(const struct ends *ends, size_t room)
{
    size_t most = WINDOW - ends->unread < CLIENT_FRAME ? WINDOW - ends->unread : CLIENT_FRAME;
    size_t left = room > sizeof(struct frame_head) ? room - sizeof(struct frame_head) : 0;
    return most < left ? most : left;
}

static int read_input(struct ends *ends, size_t room)
{
    char data[CLIENT_FRAME];
    ssize_t n = read(0, data, most_input(ends, room));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n > 0) {
        ends->unread += n;
        return ends_send(ends, 0, FRAME_IN, data, n);
    }
    ends->input = false;
    return ends_send(ends, 0, FRAME_END, NULL, 0);
}

/* ---- output ---- */

/* The reader is to see the end of it; the number stays taken. */
static void end_output(int fd)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, fd);
        close(null);
    }
}

static int written(struct ends *ends, int stream)
{
    uint8_t number = stream;
    struct queue *queue = &ends->out[stream - 1];
    if (!queue->sizes[queue->first] && !ends->terminal)
        end_output(stream);
    queue->first = (queue->first + 1) % FRAMES;
    queue->count--;
    queue->at = 0;
    return ends_send(ends, 0, FRAME_WRITTEN, &number, sizeof number);
}

/* What nobody reads is dropped, and its program is told. */
static int shut(struct ends *ends, int stream)
{
    uint8_t number = stream;
    struct queue *queue = &ends->out[stream - 1];
    bool known = queue->shut;
    queue->shut = true;
    while (queue->count)
        if (written(ends, stream) < 0)
            return -1;
    return known ? 0 : ends_send(ends, 0, FRAME_SHUT, &number, sizeof number);
}

static int write_output(struct ends *ends, int stream)
{
    struct queue *queue = &ends->out[stream - 1];
    if (!queue->count)
        return 0;
    size_t left = queue->sizes[queue->first] - queue->at;
    ssize_t n = left ? write(stream, queue->data[queue->first] + queue->at, left < PIECE ? left : PIECE) : 0;
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n < 0)
        return shut(ends, stream);
    queue->at += n;
    return (size_t)n == left ? written(ends, stream) : 0;
}

static int add_output(struct ends *ends, int stream, const struct frame *frame)
{
    struct queue *queue = &ends->out[stream - 1];
    if (queue->count == FRAMES)
        return -1;
    unsigned last = (queue->first + queue->count++) % FRAMES;
    queue->sizes[last] = frame->size;
    memcpy(queue->data[last], frame->data, frame->size);
    return queue->shut ? shut(ends, stream) : 0;
}

/* ---- both ---- */

void ends_poll(const struct ends *ends, struct pollfd ready[3], size_t room)
{
    ready[0] = (struct pollfd){ends->input && most_input(ends, room) ? 0 : -1, POLLIN, 0};
    for (int stream = 1; stream < 3; stream++)
        ready[stream] = (struct pollfd){ends->out[stream - 1].count ? stream : -1, POLLOUT, 0};
}

int ends_move(struct ends *ends, const struct pollfd ready[3], size_t room)
{
    int failed = ready[0].revents ? read_input(ends, room) : 0;
    for (int stream = 1; failed == 0 && stream < 3; stream++)
        if (ready[stream].revents)
            failed = write_output(ends, stream);
    return failed;
}

int ends_take(struct ends *ends, const struct frame *frame)
{
    if (frame->kind == FRAME_OUT)
        return add_output(ends, 1, frame);
    if (frame->kind == FRAME_ERR)
        return add_output(ends, 2, frame);
    size_t bytes = frame_number(frame, 0);
    if (frame->kind != FRAME_CREDIT || bytes > ends->unread)
        return -1;
    ends->unread -= bytes;
    return 0;
}

void report_guest_failure(struct run *run, const struct frame *frame)
{
    struct digits step;
    char text[DETAIL_SIZE] = "";
    if (frame->size > 8 && frame->size < 8 + DETAIL_SIZE)
        memcpy(text, frame->data + 8, frame->size - 8);
    /* Its text goes to somebody's terminal. */
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    fail_text(run, frame_number(frame, 4), "guest ", number_text(&step, frame_number(frame, 0)), " ", text, NULL);
    report_failure(run);
}

/* Unlike a pipe one that poll(2) calls writable may take a single byte.  Nobody else has our open file of it. */
void take_terminal(void)
{
    make_raw(0);
    fcntl(0, F_SETFL, O_RDWR | O_NONBLOCK);
}

void keep_only(int *const own[], int count)
{
    int highest = 2;
    for (int i = 0; i < count; i++)
        highest = *own[i] > highest ? *own[i] : highest;
    for (int fd = 3; fd < highest; fd++) {
        bool kept = false;
        for (int i = 0; i < count; i++)
            kept |= fd == *own[i];
        if (!kept)
            close(fd);
    }
    sys_close_range(highest + 1, ~0U, 0);
}

/* A stream that nobody reads is no signal: its program is told. */
int watch_all_signals(void)
{
    static const int others[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS, SIGPIPE};
    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        sigdelset(&set, others[i]);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_SETMASK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int64_t milliseconds(void)
{
    struct timespec now;
    sys_now(&now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

bool ends_done(const struct ends *ends)
{
    return !ends->out[0].count && !ends->out[1].count;
}

#endif
