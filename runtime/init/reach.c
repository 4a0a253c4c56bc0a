/* Client: a process beside a hypervisor, in its container, that stands for one further program in the guest.  Our job
 * is to send the program's plan by way of the supervisor, to tell Python when it runs or why not, and to be what the
 * program is: its streams are ours, signals that we get are its, and its exit code is ours. */

#ifdef WARREN_GUEST

#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>

#include "ends.h"
#include "steps.h"

/* Of a program whose machine has ended: it was killed. */
#define KILLED (128 + SIGKILL)

struct client {
    struct run *run;
    int signals;            /* signalfd */
    const struct arg *plan; /* the program's */
    size_t sent;            /* bytes of it */
    bool opened;            /* its size has been sent */
    int64_t deadline;       /* CLOCK_MONOTONIC milliseconds by which the program must run */
    bool started, ended;    /* the guest has said so */
    int code;               /* the exit code */
    struct ends ends;
};

static struct client the_client;

static _Noreturn void give_up(struct client *client, int error, const char *why)
{
    fail_as(client->run, error, why);
    if (!client->started)
        report_failure(client->run);
    else
        (void)!(write(2, "warren: ", 8) + write(2, why, strlen(why)) + write(2, "\n", 1));
    _exit(EXIT_INIT);
}

static void check(struct client *client, int failed)
{
    if (failed < 0)
        give_up(client, errno, "the virtual machine's supervisor does not take it");
}

/* ---- to the guest ---- */

static void send_opening(struct client *client)
{
    struct winsize size = {0};
    struct opening opening = {.size = client->plan->n, .terminal = client->ends.terminal};
    if (opening.terminal && ioctl(0, TIOCGWINSZ, &size) == 0) {
        opening.rows = size.ws_row;
        opening.columns = size.ws_col;
    }
    client->opened = true;
    check(client, ends_send(&client->ends, 0, FRAME_OPEN, &opening, sizeof opening));
}

/* A piece of the plan, when the socket takes one: the guest may have hung, and our time may come. */
static void send_plan(struct client *client)
{
    size_t left = client->plan->n - client->sent, size = left < CLIENT_FRAME ? left : CLIENT_FRAME;
    if (!client->opened) {
        send_opening(client);
        return;
    }
    check(client, ends_send(&client->ends, 0, FRAME_PLAN, client->plan->s + client->sent, size));
    client->sent += size;
}

static void take_signals(struct client *client)
{
    struct signalfd_siginfo info;
    while (read(client->signals, &info, sizeof info) == sizeof info) {
        uint32_t number = info.ssi_signo;
        if (client->ended || number == SIGCHLD)
            continue;
        if (number == SIGWINCH && client->ends.terminal)
            check(client, ends_send_size(&client->ends));
        else if (client->started)
            check(client, ends_send(&client->ends, 0, FRAME_SIGNAL, &number, sizeof number));
        else if (number == SIGTERM || number == SIGINT || number == SIGHUP || number == SIGQUIT)
            _exit(128 + number);
    }
}

/* ---- from the guest ---- */

static void begin(struct client *client)
{
    int *own[] = {&client->ends.fd, &client->signals};
    client->started = client->ends.input = true;
    keep_only(own, 2);
    client->run->sync = client->run->report = -1;
    check(client, ends_send_size(&client->ends));
}

static void end(struct client *client, int code)
{
    client->ended = true;
    client->ends.input = false;
    client->ends.fd = -1;
    client->code = code & 255;
}

static void obey(struct client *client, const struct frame *frame)
{
    if (frame->kind == FRAME_FAIL && !client->started) {
        report_guest_failure(client->run, frame);
        _exit(EXIT_INIT);
    }
    if (frame->kind == FRAME_STARTED && !client->started && client->sent == client->plan->n)
        begin(client);
    else if (frame->kind == FRAME_EXIT && client->started)
        end(client, frame_number(frame, 0));
    else if (!client->started || ends_take(&client->ends, frame) < 0)
        give_up(client, EBADMSG, "the guest broke the rules");
}

static void hear(struct client *client)
{
    unsigned char bytes[sizeof(struct frame_head) + MAX_FRAME];
    struct frame_head head;
    ssize_t n = recv(client->ends.fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 && client->started)
        end(client, KILLED);
    else if (n <= 0)
        give_up(client, 0, "the virtual machine has ended");
    if (client->ended)
        return;
    memcpy(&head, bytes, n < (ssize_t)sizeof head ? (size_t)n : sizeof head);
    if (n < (ssize_t)sizeof head || n > (ssize_t)sizeof bytes || head.size != n - sizeof head)
        give_up(client, EBADMSG, "the supervisor sent what is no message");
    struct frame frame = {head.kind, 0, head.size, bytes + sizeof head};
    obey(client, &frame);
}

/* ---- the loop ---- */

static int left_to_start(const struct client *client)
{
    if (client->started)
        return -1;
    int64_t left = client->deadline - milliseconds();
    return left > 0 ? left : 0;
}

static void attend_once(struct client *client)
{
    bool more = !client->opened || client->sent < client->plan->n;
    struct pollfd ready[5] = {
        {client->signals, POLLIN, 0}, {client->ends.fd, more ? POLLIN | POLLOUT : POLLIN, 0}};
    ends_poll(&client->ends, ready + 2, WINDOW);
    int count = poll(ready, 5, left_to_start(client));
    if (count == 0 && !client->started)
        give_up(client, ETIMEDOUT, "the guest does not answer");
    if (count <= 0)
        return;
    if (ready[1].revents & ~POLLOUT)
        hear(client);
    if (ready[1].revents & POLLOUT && more && client->ends.fd >= 0)
        send_plan(client);
    check(client, ends_move(&client->ends, ready + 2, WINDOW));
    if (ready[0].revents)
        take_signals(client);
}

int do_reach(struct run *run, const struct arg *arg)
{
    struct client *client = &the_client;
    int fd = slot_fd(run, arg[0].i);
    if (fd < 0)
        return fail(run, "no socket of the virtual machine");
    *client = (struct client){.run = run, .plan = &arg[1], .deadline = milliseconds() + arg[2].i};
    client->ends = (struct ends){.fd = fd, .terminal = arg[3].i};
    client->signals = watch_all_signals();
    if (client->signals < 0 || keep_process_attributes(run) < 0)
        return fail(run, "signalfd");
    if (client->ends.terminal)
        take_terminal();
    while (!client->ended || !ends_done(&client->ends))
        attend_once(client);
    _exit(client->code);
}

#endif
