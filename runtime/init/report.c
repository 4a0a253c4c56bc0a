/* The conversation with Python over the sync socket; runtime/steps.py draws it. */

#define _GNU_SOURCE
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "steps.h"

/* The head of every message; text follows. */
struct message {
    uint32_t kind; /* MESSAGE_... */
    uint32_t step; /* as run.step */
    int64_t value; /* a pid, or an errno */
};

int fail_as(struct run *run, int error, const char *detail)
{
    return fail_text(run, error, detail, NULL);
}

int fail(struct run *run, const char *detail)
{
    return fail_text(run, errno, detail, NULL);
}

int fail_text(struct run *run, int error, ...)
{
    size_t used = 0;
    va_list parts;
    va_start(parts, error);
    for (const char *part; (part = va_arg(parts, const char *));) {
        size_t size = strlen(part), room = DETAIL_SIZE - 1 - used;
        memcpy(run->detail + used, part, size < room ? size : room);
        used += size < room ? size : room;
    }
    va_end(parts);
    run->detail[used] = 0;
    run->error = error;
    return -1;
}

const char *number_text(struct digits *buffer, long long number)
{
    char *at = buffer->text + sizeof buffer->text - 1;
    unsigned long long rest = number < 0 ? -(unsigned long long)number : (unsigned long long)number;
    *at = 0;
    do
        *--at = '0' + rest % 10;
    while (rest /= 10);
    if (number < 0)
        *--at = '-';
    return at;
}

/* With a duplicate of the descriptor `passed`, -1 for none. */
static int send_message(int fd, struct message *head, const char *text, int passed)
{
    union {
        struct cmsghdr head;             /* for its alignment */
        char data[CMSG_SPACE(sizeof(int))]; /* one descriptor */
    } control = {0};
    struct iovec parts[] = {{head, sizeof *head}, {(void *)text, strlen(text)}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent;
    if (passed >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.head), &passed, sizeof passed);
    }
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -1 : 0;
}

static void write_line(struct run *run)
{
    struct digits step, error;
    const char *parts[] = {"warren-init: step ", number_text(&step, run->step), ": errno ",
                           number_text(&error, run->error), ": ", run->detail, "\n"};
    struct iovec line[7];
    for (int i = 0; i < 7; i++)
        line[i] = (struct iovec){(void *)parts[i], strlen(parts[i])};
    (void)!writev(2, line, 7);
}

void report_failure(struct run *run)
{
    struct message head = {MESSAGE_FAIL, run->step, run->error};
    struct iovec parts[] = {{&head, sizeof head}, {run->detail, strlen(run->detail)}};
#ifdef WARREN_GUEST
    if (report_over_channel(run) == 0)
        return;
#endif
    if (run->sync >= 0 && send_message(run->sync, &head, run->detail, -1) == 0)
        return;
    if (run->report >= 0 && writev(run->report, parts, 2) > 0)
        return;
    write_line(run);
}

void tell(struct run *run, uint32_t kind, int64_t value, const char *text)
{
    struct message head = {kind, run->step, value};
    if (run->sync < 0 || send_message(run->sync, &head, text, -1) < 0)
        _exit(EXIT_INIT);
}

void pass_fd(int line, int error, int fd)
{
    struct message head = {.value = error};
    (void)!send_message(line, &head, "", error ? -1 : fd);
}

int receive_fd(struct run *run, int line, const char *what)
{
    union {
        struct cmsghdr head;             /* for its alignment */
        char data[CMSG_SPACE(sizeof(int))]; /* one descriptor */
    } control = {0};
    struct message head;
    struct iovec part = {&head, sizeof head};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got;
    int fd;
    do
        got = recvmsg(line, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got != sizeof head)
        return fail_as(run, got < 0 ? errno : EPIPE, what);
    if (head.value || message.msg_controllen < CMSG_LEN(sizeof(int)))
        return fail_as(run, head.value ? (int)head.value : EBADMSG, what);
    memcpy(&fd, CMSG_DATA(&control.head), sizeof fd);
    return fd;
}

void sync_with_fd(struct run *run, const char *name, int fd)
{
    struct message head = {MESSAGE_SYNC, run->step, 0};
    if (run->sync < 0 || send_message(run->sync, &head, name, fd) < 0)
        _exit(EXIT_INIT);
}

void sync_by_write(struct run *run, const char *name, int64_t value)
{
    struct {
        struct message head;
        char text[16];
    } message = {.head = {MESSAGE_SYNC, run->step, value}};
    size_t size = strlen(name);
    memcpy(message.text, name, size < sizeof message.text ? size : sizeof message.text);
    if (run->sync < 0 || write(run->sync, &message, sizeof message.head + size) < 0)
        _exit(EXIT_INIT);
}

char *wait_for_ok(struct run *run)
{
    ssize_t size;
    do
        size = recv(run->sync, NULL, 0, MSG_PEEK | MSG_TRUNC);
    while (size < 0 && errno == EINTR);
    struct message *head = size < (ssize_t)sizeof *head || size > MAX_MESSAGE ? NULL : malloc(size + 1);
    if (!head || recv(run->sync, head, size, 0) != size || head->kind != MESSAGE_OK)
        _exit(EXIT_INIT);
    size_t length = size - sizeof *head;
    char *text = (char *)head;
    memmove(text, head + 1, length);
    text[length] = 0;
    return text;
}
