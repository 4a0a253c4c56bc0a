/* The monitor of a container: what its parts share.  monitor.c says what it is. */
#ifndef WARREN_MONITOR_H
#define WARREN_MONITOR_H

#include <signal.h>

#include "steps.h"

#define CHUNK 32768 /* most data in one message, and read at once */
#define LINE 16384  /* most text in one entry of the log */
#define MAX_CLIENTS 32
#define STREAMS 2
/* So that nothing else is in the pages that are given back. */
#define page_aligned __attribute__((aligned(4096)))

enum { OUT, ERR };                                  /* streams; a terminal is OUT */
enum { WANT_INPUT = 1, INPUT_ONCE = 2, LEASH = 4 }; /* flags of the step */
enum { NO_LOG = 0, JSON_FILE, K8S_FILE };           /* formats */

/* One of the container's outputs. */
struct stream {
    int fd;            /* pipe or terminal; -1 before and after */
    char kind;         /* of the messages to clients */
    const char *name;  /* in the log */
    int64_t retry;     /* a terminal that nobody has open just now is read again then; 0 now */
    char *data;        /* what was read last */
    size_t size;       /* its bytes; clients say how many they have got */
    size_t unfinished; /* bytes in `line` */
    char *line;        /* start of a line whose end has not come yet, LINE bytes */
    char *chunk;       /* where `data` usually is, CHUNK bytes */
};

/* The log and what could not be written to it. */
struct log {
    int format;          /* NO_LOG, JSON_FILE, K8S_FILE */
    int directory;       /* where it is */
    const char *name;    /* its name there */
    int64_t max_size;    /* bytes of one file; 0 any number */
    int64_t max_file;    /* files, the current one among them */
    int fd;              /* -1 if it could not be opened again */
    int64_t size;        /* of the current file */
    size_t used;         /* bytes of entries that wait to be written */
    size_t raw;          /* bytes of output that they tell */
    int64_t lost;        /* bytes of output that are in no log */
    int64_t unreported;  /* those of them that the log does not speak of yet */
    int error;           /* why */
};

/* Somebody who is attached. */
struct client {
    int fd;               /* -1 a free place */
    bool owner;           /* says 'd' when it has cleaned up */
    bool mute;            /* wants no output */
    bool first;           /* the container's input ends with it, if INPUT_ONCE */
    bool told;            /* of the end */
    size_t sent[STREAMS]; /* bytes of each stream's `data` that it has got */
};

/* The program that is run for what needs a decision, and when. */
struct events {
    struct arg argv;   /* its command; empty: there is none */
    struct arg env;    /* its environment */
    pid_t pid;         /* while it runs; 0 otherwise */
    int out;           /* its standard output; -1 */
    size_t got;        /* bytes in `line` */
    char line[256];    /* the start of what it prints */
    int64_t due;       /* when it is run next, in milliseconds of now_ms(); 0 never */
    char reason[200];  /* and with which argument */
};

/* Small and always in use; the buffers that it points to are big, and given back while nothing happens. */
struct monitor {
    int hold;                       /* Python's: 'g' lets us go on, its end ends us; -1 once we have been let go */
    int told;                       /* where `init` outside tells the container's pid; at its end the program runs */
    int directory;                  /* where the file `exit` is written; -1 nowhere */
    int listener;                   /* -1 nobody can attach */
    int console;                    /* where the terminal comes from; -1 none, or it has come */
    int input;                      /* the container's standard input or terminal; -1 none any more */
    int64_t flags;                  /* of the step */
    bool terminal;                  /* it has one */
    bool input_ends;                /* when what is pending has been written */
    bool had_client;                /* the first has come */
    size_t pending, pending_at;     /* bytes of `message` for the input, and from where */
    char *message;                  /* what a client sent last, CHUNK + 1 bytes */
    pid_t outside, container;       /* 0 not known, or waited for */
    volatile sig_atomic_t child_ended; /* some child, since we have last looked */
    bool ended;                     /* the container */
    bool exit_told;                 /* to the event program */
    bool cleaned_up;                /* by the owner: nothing is to be told */
    bool unsynced;                  /* the file `exit` may not be on the disk yet */
    int code;                       /* with which it ended */
    int64_t started, finished;      /* in nanoseconds since 1970 */
    int64_t accept_at;              /* too few descriptors: not before that; 0 now */
    int64_t farewell;               /* we do not wait for clients longer than that; 0 not decided */
    bool untidy;                    /* buffers have been used since they were given back */
    struct log log;
    struct events events;
    struct stream streams[STREAMS];
    struct client clients[MAX_CLIENTS];
};

/* The one that this process is, or is to become. */
extern struct monitor the_monitor;

/* ---- monitor.c ---- */

/* Milliseconds of CLOCK_MONOTONIC, never 0; nanoseconds since 1970. */
int64_t now_ms(void);
int64_t wall_ns(void);
/* Whole pages of it will be read as zeros; they cost nothing until they are used again. */
void give_back(void *start, size_t size);
/* Closes our end of the container's stream of that kind. */
void hang_up(struct monitor *m, char kind);

/* ---- monitor_log.c ---- */

/* Adds a stream's output; it is in the file after log_flush().  An unfinished line waits for its end or log_end(). */
void log_feed(struct log *log, struct stream *stream, const char *data, size_t size);
void log_end(struct log *log, struct stream *stream);
void log_flush(struct log *log);
/* At the end: tells of a loss that has not been told. */
void log_close(struct log *log);
/* Gives back the memory of its buffer. */
void log_tidy(void);

/* ---- monitor_attach.c ---- */

struct client *add_client(struct monitor *m, int fd);
void accept_client(struct monitor *m);
void drop_client(struct monitor *m, struct client *client);
struct client *owner_of(struct monitor *m);
/* Takes one message. */
void take_message(struct monitor *m, struct client *client);
/* Sends what the client has not got yet, and at the end the exit code. */
void deliver(struct monitor *m, struct client *client);
bool owes(const struct monitor *m, const struct client *client);
/* Whether somebody has not got all of the stream. */
bool held_back(const struct monitor *m, int stream);
/* Writes pending input. */
void feed_input(struct monitor *m);
void close_input(struct monitor *m);

/* ---- monitor_events.c ---- */

/* Runs the event program; does nothing if there is none.  `code` may be NULL. */
void run_event(struct events *events, const char *reason, const char *code);
/* Reads what it prints. */
void read_event(struct events *events);
/* It has been waited for: takes its line. */
void event_ended(struct events *events);

#endif
