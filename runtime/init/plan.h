/* The launch plan as it comes over the wire: decoding and checking, no meaning.
 *
 * runtime/steps.py documents the format; the two are held equal by tests/unit/test_init.py. */
#ifndef WARREN_PLAN_H
#define WARREN_PLAN_H

#include <stddef.h>
#include <stdint.h>

#define PLAN_MAGIC 0x504E5257u /* "WRNP" */
#define PLAN_VERSION 1
#define MAX_PLAN (32u << 20)
#define MAX_STEPS 65536u
#define MAX_SLOTS 4096
#define MAX_ARGS 8

/* One argument of a step. */
struct arg {
    int64_t i;     /* 'i' and 'f': the number, or the slot */
    const char *s; /* 's': a string; 'l': the first of the strings, each ended by a NUL; 'b': bytes, aligned to eight */
    size_t n;      /* 'l': bytes of all strings with their NULs; 's': bytes without the NUL; 'b': bytes */
};

/* One word of the vocabulary, and what does it. */
struct run;
struct word {
    const char *name;      /* as in runtime/steps.py */
    const char *signature; /* a letter an argument: i integer, f slot, s string, l list of strings, b bytes */
    int (*act)(struct run *run, const struct arg *arg); /* 0, or -1 after fail() */
    uint16_t number;       /* the op on the wire */
};

/* A step of the plan, decoded. */
struct step {
    const struct word *word;   /* what to do */
    struct arg args[MAX_ARGS]; /* as many as the word's signature has letters; they point into the plan */
};

/* A whole plan in memory, and the place where decoding has got to. */
struct plan {
    unsigned char *data; /* the bytes of the plan */
    size_t size;         /* how many */
    size_t at;           /* offset of the step that plan_next() decodes */
    uint32_t steps;      /* how many steps the header announces */
    uint32_t done;       /* how many have been decoded */
};

/* Reads the plan from a descriptor and closes it; returns what is wrong, or NULL. */
const char *plan_read(struct plan *plan, int fd);
/* The same for a plan whose bytes are there already: `data` and `size`. */
const char *plan_check(struct plan *plan);
/* Decodes the next step; returns what is wrong with it, or NULL. */
const char *plan_next(struct plan *plan, struct step *step);
/* Goes back to the first step. */
void plan_rewind(struct plan *plan);
/* After the last step: NULL unless bytes are left over. */
const char *plan_end(const struct plan *plan);
/* The word with this number, or NULL. */
const struct word *word_by_number(unsigned number);

/* Goes through the strings of a list: for_each(item, &arg) ... */
#define for_each(item, list) \
    for (const char *item = (list)->s; item < (list)->s + (list)->n; item += strlen(item) + 1)

/* The list as execve(2) wants it; NULL when memory is short. */
char **list_to_vector(const struct arg *list);
size_t list_count(const struct arg *list);

#endif
