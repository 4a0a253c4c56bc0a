/* What the files of process 1 of a virtual machine share. */
#ifndef WARREN_GUEST_H
#define WARREN_GUEST_H

#include "frames.h"
#include "steps.h"

extern struct frames from_supervisor;

_Noreturn void power_off(void);
void nap(void);
/* Reads the line once, and tells the supervisor that there is room again; as frames_read(). */
ssize_t read_line(struct run *run);
/* Sends the failure noted last. */
int send_failure(struct run *run, int channel);

#endif
