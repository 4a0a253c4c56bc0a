/* Who has further programs in the guest of a virtual machine: clients of the supervisor's socket, each on a channel. */
#ifndef WARREN_VISITORS_H
#define WARREN_VISITORS_H

#include "ends.h"

struct visitor {
    int fd;       /* his socket */
    bool here;    /* it is open */
    bool opened;  /* he has said OPEN, first of all and once: the guest will say when the channel is free */
    bool leaving; /* it is not, but the guest has not said that his channel is free */
};

struct visitors {
    int listener;      /* a socket in the container's state directory, which keeps others out; -1 for none */
    int next;          /* who is asked first for what he has to say */
    struct ends *line; /* to the guest */
    struct visitor of[CHANNELS];
};

#define VISITOR_POLLS CHANNELS

/* What to wait for; `room` is how many bytes the line takes. */
void visitors_poll(const struct visitors *visitors, struct pollfd *ready, bool open, size_t room);
/* Lets in who knocks, and passes on what the others say; -1 with errno when the line has failed. */
int visitors_move(struct visitors *visitors, const struct pollfd *ready);
/* Passes on what the guest says on a channel. */
void visitors_take(struct visitors *visitors, const struct frame *frame);

#endif
