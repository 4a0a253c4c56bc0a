/* warren-init: executes a launch plan inside a container's namespaces.
 *
 *     init PLANFD          do what the plan in this descriptor says
 *     init-guest --guest FILE  the same, compiled for virtual machines: as process 1 of one do what the plan in FILE says
 *     init --reap PID      as process 1 of a container: pass on signals, collect orphans, end as PID, our child, does
 *     init --idle          as process 1 of a container: collect orphans, run nothing
 *     init --list-steps    print the vocabulary: number, name and signature of each step
 *     init --version
 *
 * It decides nothing, parses no JSON and reads no file that the plan does not name.  One program plays several roles,
 * each described where it begins:
 *
 *     outside    main(), until the step `clone`
 *     helper     steps_outside.c: owns a user namespace while its maps are written
 *     inside     steps_process.c: after the step `clone`; becomes the user's program
 *     reaper     steps_wait.c: process 1 of a container that wants one
 *     hook       steps_hook.c: becomes a hook
 *     monitor    monitor.c: the container's parent when nobody of Warren is left
 *     guardian   steps_wait.c: outlives a program that uses the library
 *     idle       steps_wait.c: process 1 of a container without a program
 *     event      monitor_events.c: becomes the program that a monitor runs
 *     guest      guest.c: process 1 of a virtual machine, beside the user's program
 *     supervisor supervise.c: process 1 of the container of a virtual machine, beside the hypervisor
 */

#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "steps.h"

#ifndef WARREN_VERSION
#define WARREN_VERSION "plan format 1"
#endif

#define ENTRY(number, name, signature) {#name, signature, do_##name, number},
static const struct word words[] = {WORDS(ENTRY)};
#undef ENTRY
#define WORD_COUNT (sizeof words / sizeof *words)

#define CHECK(number, name, signature) \
    _Static_assert(sizeof signature - 1 <= MAX_ARGS, "step " #name " takes too many arguments");
WORDS(CHECK)
#undef CHECK

/* Big and mostly untouched; in .bss it costs only the pages that are used.  A monitor gives it back. */
static struct run the_run __attribute__((aligned(4096)));

const struct word *word_by_number(unsigned number)
{
    for (size_t i = 0; i < WORD_COUNT; i++)
        if (words[i].number == number)
            return &words[i];
    return NULL;
}

int slot_fd(struct run *run, int64_t slot)
{
    int fd = slot < 0 || slot >= MAX_SLOTS ? -1 : run->slots[slot] - 1;
    if (fd < 0)
        errno = EBADF;
    return fd;
}

int set_slot(struct run *run, int64_t slot, int fd)
{
    if (slot < 0 || slot >= MAX_SLOTS) {
        close(fd);
        return fail_as(run, EINVAL, "no slot for the descriptor");
    }
    if (run->slots[slot] > 0 && run->slots[slot] - 1 != fd)
        close(run->slots[slot] - 1);
    run->slots[slot] = fd + 1;
    if (slot >= run->used_slots)
        run->used_slots = slot + 1;
    if (slot == 0)
        run->sync = fd;
    return 0;
}

void reset_signals(void)
{
    /* The kernel's struct sigaction, all zero: SIG_DFL, no flags, empty mask.  libc's keeps off some signals. */
    static const char defaults[32];
    for (int signal = 1; signal <= 64; signal++)
        syscall(SYS_rt_sigaction, signal, defaults, NULL, 8);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, defaults, NULL, 8);
}

static void print(const char *text)
{
    for (size_t size = strlen(text); size;) {
        ssize_t written = write(1, text, size);
        if (written <= 0)
            _exit(EXIT_INIT);
        text += written;
        size -= written;
    }
}

static int list_steps(void)
{
    for (size_t i = 0; i < WORD_COUNT; i++) {
        struct digits number;
        print(number_text(&number, words[i].number));
        print(" ");
        print(words[i].name);
        print(*words[i].signature ? " " : "");
        print(words[i].signature);
        print("\n");
    }
    return 0;
}

/* Decodes the whole plan; nothing is done before all of it is known to be well formed. */
int check_plan(struct run *run)
{
    const char *wrong = NULL;
    bool prefix = true;
    for (uint32_t i = 0; i < run->plan.steps; i++) {
        struct step step;
        wrong = plan_next(&run->plan, &step);
        prefix = prefix && step.word && step.word->act == do_inherit;
        run->step += !prefix;
        if (wrong)
            return fail_as(run, EBADMSG, wrong);
        if (prefix && step.args[0].i == 0 && step.args[1].i > 2 && step.args[1].i < INT32_MAX)
            run->sync = step.args[1].i; /* So that what is wrong with the rest can be told. */
        run->uses_proc |= step.word->act == do_sysctl || step.word->act == do_exec_label;
        if (step.word->act == do_exec)
            run->preserved = step.args[2].i;
        if (step.word->act == do_reap || step.word->act == do_idle)
            run->own_slot = step.args[0].i;
    }
    wrong = plan_end(&run->plan);
    return wrong ? fail_as(run, EBADMSG, wrong) : 0;
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    sys_now(&now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* The first number is when the first step began; the n-th after it is when step n ended, 0 if it has not. */
int do_timestamps(struct run *run, const struct arg *arg)
{
    run->stamps_fd = slot_fd(run, arg[0].i);
    run->stamps = calloc(run->plan.steps + 1, sizeof *run->stamps);
    if (run->stamps_fd < 0 || !run->stamps)
        return fail(run, "slot or memory");
    run->stamps[0] = nanoseconds();
    return 0;
}

void write_stamps(struct run *run)
{
    size_t size = (run->step + 1) * sizeof *run->stamps;
    if (run->stamps && write(run->stamps_fd, run->stamps, size) < 0)
        run->stamps = NULL; /* Who asked for them sees that they are missing. */
}

int run_plan(struct run *run)
{
    bool prefix = true;
    plan_rewind(&run->plan);
    run->step = 0;
    for (uint32_t i = 0; i < run->plan.steps; i++) {
        struct step step;
        const char *wrong = plan_next(&run->plan, &step);
        if (wrong)
            return fail_as(run, EBADMSG, wrong);
        prefix = prefix && step.word->act == do_inherit;
        run->step += !prefix;
        if (step.word->act(run, step.args) < 0)
            return -1;
        if (run->stamps)
            run->stamps[run->step] = nanoseconds();
    }
    return 0;
}

/* Descriptors 0 to 2 must be something, or the first file that we open becomes the container's standard stream. */
static void open_standard_streams(void)
{
    struct stat st;
    for (int fd = 0; fd < 3; fd++)
        if (fstat(fd, &st) < 0 && open("/dev/null", O_RDWR) < 0)
            _exit(EXIT_INIT);
}

/* Digits only, of a number that is above `least` and no more than 28 bits long; else -1. */
static int parse_number(const char *text, int least)
{
    int number = 0;
    for (const char *at = text; *at; at++) {
        if (*at < '0' || *at > '9' || number > 1 << 24)
            return -1;
        number = number * 10 + (*at - '0');
    }
    return number > least ? number : -1;
}

/* Outside: our job is to do what needs the host's paths and the caller's privileges (open, clone and idmap sources,
 * make the user namespace, join namespaces), then to clone the process that becomes the container, as a sibling of
 * ours, tell its pid and exit.  A plan without `clone` is done here to its end. */
int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list-steps") == 0)
        return list_steps();
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        print("warren-init " WARREN_VERSION "\n");
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--idle") == 0)
        be_idle();
    int child = argc == 3 && strcmp(argv[1], "--reap") == 0 ? parse_number(argv[2], 0) : -1;
    if (child > 0)
        be_reaper(child);
    struct run *run = &the_run;
    run->sync = run->report = run->told = run->root = run->old_root = run->scratch = run->empty = run->proc = -1;
    run->channel = run->own_slot = -1;
#ifdef WARREN_GUEST
    if (argc >= 3 && strcmp(argv[1], "--guest") == 0)
        be_guest(run, argv[2]);
#endif
    int fd = argc == 2 ? parse_number(argv[1], 2) : -1; /* not a standard stream */
    reset_signals();
    signal(SIGPIPE, SIG_IGN);
    open_standard_streams();
    umask(022);
    prctl(PR_SET_NAME, "warren-init");

    const char *wrong = fd < 0 ? "usage: init PLANFD | --list-steps | --version" : plan_read(&run->plan, fd);
    int failed = wrong ? fail_as(run, EBADMSG, wrong) : check_plan(run);
    if (failed < 0 || run_plan(run) < 0) {
        report_failure(run);
        reap_helper(run);
        _exit(EXIT_INIT);
    }
    reap_helper(run);
    return 0;
}
