/* Frames of the line between supervisor and guest; frames.h draws the conversation. */

#ifdef WARREN_GUEST

#define _GNU_SOURCE
#include "frames.h"

#include <string.h>
#include <termios.h>

#include "syscalls.h"

static int write_whole(int fd, const unsigned char *data, size_t size)
{
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        data += n;
        size -= n;
    }
    return 0;
}

size_t frame_build(unsigned char *bytes, int channel, int kind, const void *data, size_t size)
{
    struct frame_head head = {.kind = kind, .channel = channel, .size = size};
    memcpy(bytes, &head, sizeof head);
    if (size)
        memcpy(bytes + sizeof head, data, size);
    return sizeof head + size;
}

int frame_send(int fd, int channel, int kind, const void *data, size_t size)
{
    unsigned char bytes[sizeof(struct frame_head) + MAX_FRAME];
    if (size > MAX_FRAME) {
        errno = EMSGSIZE;
        return -1;
    }
    return write_whole(fd, bytes, frame_build(bytes, channel, kind, data, size));
}

int frame_send_number(int fd, int channel, int kind, uint32_t number)
{
    return frame_send(fd, channel, kind, &number, sizeof number);
}

uint32_t frame_number(const struct frame *frame, size_t at)
{
    uint32_t number = 0;
    if (frame->size >= at + sizeof number)
        memcpy(&number, frame->data + at, sizeof number);
    return number;
}

ssize_t frames_read(struct frames *frames, int fd)
{
    ssize_t n = read(fd, frames->data + frames->used, sizeof frames->data - frames->used);
    if (n > 0)
        frames->used += n;
    return n;
}

int frames_first(const struct frames *frames, struct frame *frame)
{
    struct frame_head head;
    if (frames->used < sizeof head)
        return 0;
    memcpy(&head, frames->data, sizeof head);
    if (head.channel >= CHANNELS || head.size > MAX_FRAME)
        return -1;
    if (frames->used < sizeof head + head.size)
        return 0;
    *frame = (struct frame){head.kind, head.channel, head.size, frames->data + sizeof head};
    return 1;
}

void frames_next(struct frames *frames)
{
    struct frame_head head;
    memcpy(&head, frames->data, sizeof head);
    size_t size = sizeof head + head.size;
    frames->used -= size;
    memmove(frames->data, frames->data + size, frames->used);
}

void make_raw(int fd)
{
    struct termios mode;
    if (tcgetattr(fd, &mode) < 0)
        return;
    cfmakeraw(&mode);
    mode.c_cflag |= CLOCAL | CREAD;
    mode.c_cc[VMIN] = 1;
    mode.c_cc[VTIME] = 0;
    tcsetattr(fd, TCSANOW, &mode);
}

#endif
