/* The line between the supervisor of a virtual machine and its guest: a byte stream over whatever the machine has
 * (virtio-serial, a serial port), which may lose what comes faster than it is read.
 *
 *     guest                                    supervisor
 *         HELLO (bytes, after any noise)  -->
 *                                        <--   PLAN, until all of it is there
 *         FAIL  step, errno, text         -->  ends, having told Python
 *         STARTED                         -->  the user's program has been executed
 *         OUT, ERR  data                  -->
 *                                        <--   IN data; END of input; SIGNAL number; SIZE rows, columns
 *         CREDIT  bytes                   -->  so much of PLAN or IN has been taken: WINDOW bytes may be on their way
 *         EXIT  code                      -->  kills the machine
 *
 * A frame is its kind, a zero, the length of its data, and the data; numbers are native-endian, since both ends run
 * on one machine. */
#ifndef WARREN_FRAMES_H
#define WARREN_FRAMES_H

#include <stdint.h>
#include <sys/types.h>

#define HELLO "\nwarren guest \x01\n"
#define HELLO_SIZE (sizeof HELLO - 1)
#define MAX_FRAME 4096
/* Less than what the line discipline of a terminal buffers (N_TTY_BUF_SIZE, 4096). */
#define WINDOW 2048

enum {
    FRAME_PLAN = 'P', FRAME_IN = 'i', FRAME_END = 'e', FRAME_SIGNAL = 'k', FRAME_SIZE = 'w',
    FRAME_FAIL = 'f', FRAME_STARTED = 's', FRAME_OUT = 'o', FRAME_ERR = 'E', FRAME_CREDIT = 'c', FRAME_EXIT = 'x'
};

struct frame_head {
    uint8_t kind, zero;
    uint16_t size;
};

/* What has been read and is not yet a whole frame. */
struct frames {
    size_t used;
    unsigned char data[sizeof(struct frame_head) + MAX_FRAME];
};

/* A frame that has been received. */
struct frame {
    int kind;
    size_t size;
    const unsigned char *data;
};

/* Writes one frame in one piece or waits; -1 with errno. */
int frame_send(int fd, int kind, const void *data, size_t size);
int frame_send_number(int fd, int kind, uint32_t number);
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
