/* The line between the supervisor of a virtual machine and its guest: a byte stream over whatever the machine has
 * (virtio-serial, a serial port), which may lose what comes faster than it is read.  Several programs share it: each
 * has a channel, 0 is the one that the machine was started for, the others came later (`exec`).
 *
 *     guest                                    supervisor
 *         HELLO (bytes, after any noise)  -->
 *                                        <--   OPEN on channel 0: struct opening; PLAN, until all of it is there
 *         FAIL  step, errno, text         -->  of channel 0: ends, having told Python
 *         STARTED                         -->  the program has been executed
 *         OUT, ERR  data; none: its end   -->  at most FRAMES each that are not written out
 *                                        <--   IN data; END of input; SIGNAL number; SIZE rows, columns
 *                                        <--   WRITTEN stream: one OUT or ERR; SHUT stream: nobody reads it any more
 *         CREDIT  bytes                   -->  so much of IN has been taken: WINDOW bytes may be on their way
 *                                        <--   OPEN, PLAN on another channel: one more program; CLOSE: it is to be killed
 *         EXIT  code                      -->  of channel 0: kills the machine; else the channel is free, as after FAIL
 *         READ  bytes                     -->  of everything: WINDOW bytes may be unread on the line
 *
 * Who wants one more program connects to the supervisor's socket (reach.c) and says the same, a packet a frame; the
 * supervisor gives it a channel.  Neither side trusts the other: what breaks these rules ends what it is about.
 *
 * A frame is its kind, its channel, the length of its data, and the data; numbers are native-endian, since both ends
 * run on one machine. */
#ifndef WARREN_FRAMES_H
#define WARREN_FRAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define HELLO "\nwarren guest \x01\n"
#define HELLO_SIZE (sizeof HELLO - 1)
#define MAX_FRAME 4096
/* Less than what the line discipline of a terminal buffers (N_TTY_BUF_SIZE, 4096). */
#define WINDOW 2048
/* What a client says at most in one frame: two fit the window. */
#define CLIENT_FRAME 1000
/* Of each stream that may be unwritten; as many of both fit the buffer of a socket. */
#define FRAMES 8
#define CHANNELS 64

enum {
    FRAME_OPEN = 'n', FRAME_PLAN = 'P', FRAME_IN = 'i', FRAME_END = 'e', FRAME_SIGNAL = 'k', FRAME_SIZE = 'w',
    FRAME_CLOSE = 'q', FRAME_WRITTEN = 'a', FRAME_SHUT = 'h',
    FRAME_FAIL = 'f', FRAME_STARTED = 's', FRAME_OUT = 'o', FRAME_ERR = 'E', FRAME_CREDIT = 'c', FRAME_EXIT = 'x',
    FRAME_READ = 'r'
};

struct frame_head {
    uint8_t kind, channel;
    uint16_t size;
};

/* The data of OPEN. */
struct opening {
    uint32_t size;          /* bytes of the plan */
    uint16_t rows, columns; /* of the terminal */
    uint32_t terminal;      /* whether it has one; channel 0 learns that from its plan */
};

/* What has been read and is not yet a whole frame. */
struct frames {
    size_t used;
    unsigned char data[sizeof(struct frame_head) + MAX_FRAME];
};

/* A frame that has been received. */
struct frame {
    int kind, channel;
    size_t size;
    const unsigned char *data;
};

/* Writes one frame in one piece or waits; -1 with errno. */
int frame_send(int fd, int channel, int kind, const void *data, size_t size);
int frame_send_number(int fd, int channel, int kind, uint32_t number);
/* Copies head and data into `bytes`, which has room for the largest; the size of both. */
size_t frame_build(unsigned char *bytes, int channel, int kind, const void *data, size_t size);
uint32_t frame_number(const struct frame *frame, size_t at);
/* Reads once; 0 at the end of the line, -1 with errno. */
ssize_t frames_read(struct frames *frames, int fd);
/* 1 and the first whole frame; 0 when there is none; -1 for bytes that are no frame. */
int frames_first(const struct frames *frames, struct frame *frame);
/* Forgets the first frame. */
void frames_next(struct frames *frames);
/* Makes a terminal a line that changes no byte; nothing for what is none. */
void make_raw(int fd);

#endif
