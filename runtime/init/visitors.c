/* Visitors: a further program in a guest each.  Nothing here waits for any of them: what one sends stays in his socket
 * until the line has room, and what the guest sends fits there, or one of the two has broken the rules (frames.h). */

#ifdef WARREN_GUEST

#define _GNU_SOURCE
#include "visitors.h"

#include <string.h>
#include <sys/socket.h>

#include "syscalls.h"

#define PACKET (sizeof(struct frame_head) + CLIENT_FRAME)

static const char from_visitors[] = {FRAME_OPEN, FRAME_PLAN,    FRAME_IN,  FRAME_END, FRAME_SIGNAL,
                                     FRAME_SIZE, FRAME_WRITTEN, FRAME_SHUT};
static const char to_visitors[] = {FRAME_STARTED, FRAME_OUT, FRAME_ERR, FRAME_CREDIT, FRAME_FAIL, FRAME_EXIT};

/* A channel that is free; 0 when none is. */
static int free_channel(const struct visitors *visitors)
{
    for (int channel = 1; channel < CHANNELS; channel++)
        if (!visitors->of[channel].here && !visitors->of[channel].leaving)
            return channel;
    return 0;
}

static int say(struct visitors *visitors, int channel, int kind, const void *data, size_t size)
{
    return ends_send(visitors->line, channel, kind, data, size);
}

static int see_off(struct visitors *visitors, int channel)
{
    struct visitor *visitor = &visitors->of[channel];
    close(visitor->fd);
    visitor->here = false;
    visitor->leaving = visitor->opened;
    return visitor->opened ? say(visitors, channel, FRAME_CLOSE, NULL, 0) : 0;
}

static void let_in(struct visitors *visitors)
{
    int channel = free_channel(visitors);
    int fd = channel ? accept4(visitors->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
    if (fd >= 0)
        visitors->of[channel] = (struct visitor){.fd = fd, .here = true};
}

/* One packet, which is one frame; who sends anything else has to go. */
static int hear(struct visitors *visitors, int channel)
{
    unsigned char bytes[PACKET];
    struct frame_head head;
    ssize_t n = recv(visitors->of[channel].fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < (ssize_t)sizeof head || n > (ssize_t)sizeof bytes)
        return see_off(visitors, channel);
    memcpy(&head, bytes, sizeof head);
    if (head.size != n - sizeof head || !memchr(from_visitors, head.kind, sizeof from_visitors))
        return see_off(visitors, channel);
    if ((head.kind == FRAME_OPEN) == visitors->of[channel].opened ||
        (head.kind == FRAME_OPEN && head.size != sizeof(struct opening)))
        return see_off(visitors, channel);
    visitors->of[channel].opened = true;
    return say(visitors, channel, head.kind, bytes + sizeof head, head.size);
}

void visitors_poll(const struct visitors *visitors, struct pollfd *ready, bool open, size_t room)
{
    bool let = open && visitors->listener >= 0 && free_channel(visitors);
    ready[0] = (struct pollfd){let ? visitors->listener : -1, POLLIN, 0};
    /* Who has hung up while the line is full is heard when it no longer is. */
    for (int channel = 1; channel < CHANNELS; channel++)
        ready[channel] = (struct pollfd){
            open && visitors->of[channel].here && room >= PACKET ? visitors->of[channel].fd : -1, POLLIN, 0};
}

int visitors_move(struct visitors *visitors, const struct pollfd *ready)
{
    if (ready[0].revents)
        let_in(visitors);
    for (int i = 0; i < CHANNELS; i++) {
        int channel = (visitors->next + i) % CHANNELS;
        if (!channel || !ready[channel].revents || !visitors->of[channel].here)
            continue;
        if (*visitors->line->sent + PACKET > WINDOW) {
            visitors->next = channel;
            return 0;
        }
        if (hear(visitors, channel) < 0)
            return -1;
    }
    return 0;
}

/* Closing with something unread would reset the connection, and what he has not read were lost to him. */
static void say_goodbye(struct visitor *visitor)
{
    char unread;
    shutdown(visitor->fd, SHUT_RD);
    while (recv(visitor->fd, &unread, 1, MSG_DONTWAIT) > 0)
        ;
    close(visitor->fd);
}

void visitors_take(struct visitors *visitors, const struct frame *frame)
{
    struct visitor *visitor = &visitors->of[frame->channel];
    size_t size = sizeof(struct frame_head) + frame->size;
    bool last = frame->kind == FRAME_EXIT || frame->kind == FRAME_FAIL;
    if (!memchr(to_visitors, frame->kind, sizeof to_visitors))
        return;
    /* A packet is what came over the line, with its head in front of it. */
    if (visitor->here &&
        send(visitor->fd, frame->data - sizeof(struct frame_head), size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && !last)
        see_off(visitors, frame->channel);
    if (last) {
        if (visitor->here)
            say_goodbye(visitor);
        visitor->here = visitor->leaving = false;
    }
}

#endif
