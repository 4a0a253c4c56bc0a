/* Our ends of the streams of a program in a guest, which are our own standard streams: of the supervisor for the
 * machine's program, of a client (reach.c) for its own. */
#ifndef WARREN_ENDS_H
#define WARREN_ENDS_H

#include <poll.h>

#include "frames.h"

/* What has come of one stream, and has not been written out. */
struct queue {
    unsigned first, count; /* frames */
    size_t at;             /* bytes of the first that have been written */
    bool shut;             /* nobody reads them */
    uint16_t sizes[FRAMES];
    unsigned char data[FRAMES][MAX_FRAME];
};

struct ends {
    int fd;               /* the line or the socket to the guest; -1 when it has ended */
    size_t *sent;         /* where bytes are counted that the line takes; NULL for a socket */
    bool terminal;        /* our streams are one */
    bool input;           /* there may be more of it */
    size_t unread;        /* bytes of input that the program has not taken */
    struct queue out[2];
};

/* Of anything on the line: the window, and what is sent however full that is (WRITTEN, SHUT, CLOSE); so much fits its
 * socket in frames however small (LINE_BUFFER), and a guest that reads nothing does not hold us up.  Signals leave room
 * for the rest. */
#define MOST_UNREAD (WINDOW + 640)
#define MOST_UNREAD_FOR_SIGNALS (WINDOW + 512)
#define LINE_BUFFER 212992

/* Sends a frame; a socket, which stands for a channel, is told 0.  -1 with errno. */
int ends_send(struct ends *ends, int channel, int kind, const void *data, size_t size);
int ends_send_size(struct ends *ends);
/* Input or output can be moved; `room` is how many bytes the line takes. */
void ends_poll(const struct ends *ends, struct pollfd ready[3], size_t room);
/* Moves what is ready; -1 with errno when the guest cannot be told. */
int ends_move(struct ends *ends, const struct pollfd ready[3], size_t room);
/* OUT, ERR and CREDIT; -1 for what breaks the rules. */
int ends_take(struct ends *ends, const struct frame *frame);
/* Whether all output has been written. */
bool ends_done(const struct ends *ends);

/* ---- what supervisor and clients have in common beside that ---- */

struct run;
/* The guest names its own step: Python has the guest's plan, and makes the error of it. */
void report_guest_failure(struct run *run, const struct frame *frame);
/* Makes the terminal that is our standard streams raw; whoever does not read it holds up nobody else. */
void take_terminal(void);
/* Closes every descriptor but the standard streams and these, of which -1 is none. */
void keep_only(int *const own[], int count);
/* Blocks all signals that somebody may send; a signalfd of them. */
int watch_all_signals(void);
/* CLOCK_MONOTONIC. */
int64_t milliseconds(void);

#endif
