/* Decodes the launch plan.  Every length is checked against what is really there before it is used: the plan is the
 * only input that init has, and nothing of it is done before all of it has been understood (CVE-2021-43784). */

#define _GNU_SOURCE
#include "plan.h"

#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "syscalls.h"

#define HEADER 16
#define ALIGNED(n) (((n) + 7) & ~(size_t)7)

static uint32_t load_u32(const unsigned char *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static uint16_t load_u16(const unsigned char *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static bool all_zero(const unsigned char *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (from[i])
            return false;
    return true;
}

static const char *read_whole(struct plan *plan, int fd)
{
    size_t got = 0;
    while (got < plan->size) {
        ssize_t n = pread(fd, plan->data + got, plan->size - got, got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return "the plan cannot be read";
        got += n;
    }
    return NULL;
}

const char *plan_check(struct plan *plan)
{
    if (plan->size < HEADER)
        return "the plan is too short or too long";
    if (load_u32(plan->data) != PLAN_MAGIC)
        return "not a launch plan";
    if (load_u32(plan->data + 4) != PLAN_VERSION)
        return "the plan is of another version";
    if (load_u32(plan->data + 8) != plan->size)
        return "the plan's size is not what its header says";
    plan->steps = load_u32(plan->data + 12);
    /* A step takes eight bytes at least. */
    if (plan->steps > MAX_STEPS || plan->steps > (plan->size - HEADER) / 8)
        return "the plan has too many steps";
    plan_rewind(plan);
    return NULL;
}

const char *plan_read(struct plan *plan, int fd)
{
    autoclose int source = fd;
    struct stat st;
    if (fstat(source, &st) < 0 || !S_ISREG(st.st_mode))
        return "the plan's descriptor is not a file";
    if (st.st_size < HEADER || st.st_size > MAX_PLAN)
        return "the plan is too short or too long";
    plan->size = st.st_size;
    plan->data = malloc(plan->size);
    if (!plan->data)
        return "no memory for the plan";
    const char *wrong = read_whole(plan, source);
    return wrong ? wrong : plan_check(plan);
}

void plan_rewind(struct plan *plan)
{
    plan->at = HEADER;
    plan->done = 0;
}

const char *plan_end(const struct plan *plan)
{
    return plan->at == plan->size ? NULL : "bytes after the last step";
}

static const char *decode_integer(char letter, const unsigned char *data, size_t size, struct arg *arg)
{
    if (size != 8)
        return "an integer is not eight bytes long";
    memcpy(&arg->i, data, 8);
    if (letter == 'f' && (arg->i < -1 || arg->i >= MAX_SLOTS))
        return "a slot is out of range";
    return NULL;
}

/* `room` is what is left of the step; a string is followed by a NUL at least. */
static const char *decode_string(const unsigned char *data, size_t size, size_t room, struct arg *arg)
{
    size_t padded = ALIGNED(size + 1);
    if (padded > room || !all_zero(data + size, padded - size))
        return "a string is not ended";
    if (memchr(data, 0, size))
        return "a string contains NUL";
    arg->s = (const char *)data;
    arg->n = size;
    return NULL;
}

static const char *decode_list(const unsigned char *data, size_t size, size_t room, struct arg *arg)
{
    size_t padded = ALIGNED(size);
    if (padded > room || !all_zero(data + size, padded - size))
        return "a list is longer than its step";
    if (size && data[size - 1])
        return "a list is not ended";
    arg->s = (const char *)data;
    arg->n = size;
    return NULL;
}

static const char *decode_bytes(const unsigned char *data, size_t size, size_t room, struct arg *arg)
{
    size_t padded = ALIGNED(size);
    if (padded > room || !all_zero(data + size, padded - size))
        return "bytes are longer than their step";
    arg->s = (const char *)data;
    arg->n = size;
    return NULL;
}

/* Decodes one argument of at most *room bytes at *at, and moves both past it. */
static const char *decode_argument(char letter, const unsigned char **at, size_t *room, struct arg *arg)
{
    if (*room < 8)
        return "an argument is cut off";
    uint32_t type = load_u32(*at), size = load_u32(*at + 4);
    const unsigned char *data = *at + 8;
    size_t left = *room - 8;
    if (type != (unsigned char)(letter == 'f' ? 'i' : letter))
        return "an argument is of another type";
    if (size > left)
        return "an argument is longer than its step";
    const char *wrong;
    size_t padded = ALIGNED(size);
    if (letter == 's') {
        padded = ALIGNED((size_t)size + 1);
        wrong = decode_string(data, size, left, arg);
    } else if (letter == 'l') {
        wrong = decode_list(data, size, left, arg);
    } else if (letter == 'b') {
        wrong = decode_bytes(data, size, left, arg);
    } else {
        wrong = decode_integer(letter, data, size, arg);
    }
    if (wrong)
        return wrong;
    *at = data + padded;
    *room = left - padded;
    return NULL;
}

const char *plan_next(struct plan *plan, struct step *step)
{
    if (plan->size - plan->at < 8)
        return "the step is cut off";
    const unsigned char *at = plan->data + plan->at;
    unsigned count = load_u16(at + 2);
    size_t room = load_u32(at + 4);
    step->word = word_by_number(load_u16(at));
    if (!step->word)
        return "unknown step";
    if (room > plan->size - plan->at - 8)
        return "the step is longer than the plan";
    if (count != strlen(step->word->signature))
        return "the step has another number of arguments";
    plan->at += 8 + room;
    plan->done++;
    at += 8;
    for (unsigned i = 0; i < count; i++) {
        const char *wrong = decode_argument(step->word->signature[i], &at, &room, &step->args[i]);
        if (wrong)
            return wrong;
    }
    return room ? "bytes after the last argument" : NULL;
}

size_t list_count(const struct arg *list)
{
    size_t count = 0;
    for_each(item, list)
        count++;
    return count;
}

char **list_to_vector(const struct arg *list)
{
    char **vector = calloc(list_count(list) + 1, sizeof *vector), **next = vector;
    if (!vector)
        return NULL;
    for_each(item, list)
        *next++ = (char *)item;
    return vector;
}
