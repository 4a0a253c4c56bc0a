/* What a container may not do, tried: each line of an answer is "NAME yes DETAIL" or "NAME no REASON".
 *
 *     try open MODE PATH        MODE is r or w; nothing is written and nothing is made
 *     try read PATH             a byte of it, or an entry
 *     try connect ADDRESS PORT  a TCP connection, for at most a second
 *     try mount, mknod, userns, raw, chroot, keyring, bpf, perf, io_uring, userfaultfd, alg, vsock, modules,
 *         clock, handle, log, x32, i386       as seen by the one who asks
 *     try ptrace PID, signal PID, join PID KIND (mnt, net, pid ...)
 *     see path PATH, process PID [START TIME], network ADDRESS PORT
 *     eat memory BYTES, processes N, cpu MILLISECONDS       how much of it there was
 *     facts                     what is told of the host
 *
 * Everything is tried in a child, so that nothing stays. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "attempts.h"

#ifndef AF_ALG
#define AF_ALG 38
#endif
#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif
#define SECOND_NS 1000000000L

struct asked {
    const char *word;
    const char *path;
    long number;
};

static long try_open(const struct asked *asked)
{
    return open(asked->path, (*asked->word == 'w' ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_NOCTTY);
}

/* Masked files are empty, and so are masked directories. */
static long try_read(const struct asked *asked)
{
    char byte;
    DIR *directory = opendir(asked->path);
    if (!directory) {
        int fd = open(asked->path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
        ssize_t size = fd < 0 ? -1 : read(fd, &byte, 1);
        return size < 0 ? -1 : size ? 0 : (errno = ENODATA, -1);
    }
    for (struct dirent *entry; (entry = readdir(directory));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            return 0;
    return errno = ENODATA, -1;
}

static long try_connect(const struct asked *asked)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(asked->number)};
    struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(asked->number)};
    int is4 = inet_pton(AF_INET, asked->path, &to.sin_addr) == 1, error = 0;
    if (!is4 && inet_pton(AF_INET6, asked->path, &to6.sin6_addr) != 1)
        return errno = EINVAL, -1;
    int fd = socket(is4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socklen_t size = sizeof error;
    if (fd < 0)
        return -1;
    if ((is4 ? connect(fd, (struct sockaddr *)&to, sizeof to) : connect(fd, (struct sockaddr *)&to6, sizeof to6)) == 0)
        return 0;
    struct pollfd wait = {fd, POLLOUT, 0};
    if (errno != EINPROGRESS)
        return -1;
    if (poll(&wait, 1, 1000) != 1)
        return errno = ETIMEDOUT, -1;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return errno = error, error ? -1 : 0;
}

/* Allowed is also what only the nonsense in it makes fail. */
static long unless(long result, int harmless)
{
    return result < 0 && errno == harmless ? 0 : result;
}

static long try_mount(const struct asked *asked)
{
    (void)asked;
    /* In the mount namespace that there is, and in one of its own. */
    if (mount("none", "/", "tmpfs", 0, "mode=bogus") < 0 && errno == EINVAL)
        return 0;
    return unshare(CLONE_NEWNS) < 0 || mount("none", "/", "tmpfs", 0, NULL) < 0 ? -1 : 0;
}

static long try_mknod(const struct asked *asked)
{
    (void)asked;
    const char *places[] = {"/dev/.warren-node", "/.warren-node", "/tmp/.warren-node"};
    int error = EPERM;
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        if (mknod(places[i], S_IFBLK | 0600, makedev(8, 0)) < 0) {
            error = errno == EROFS || errno == ENOENT ? error : errno;
            continue;
        }
        int fd = open(places[i], O_RDONLY);
        error = errno;
        unlink(places[i]);
        if (fd >= 0 || error == ENXIO || error == ENODEV || error == ENOMEDIUM)
            return 0; /* A disk that does not exist could have been read. */
    }
    return errno = error, -1;
}

static long try_userns(const struct asked *asked)
{
    (void)asked;
    return unshare(CLONE_NEWUSER);
}

static long try_raw(const struct asked *asked)
{
    (void)asked;
    return socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
}

static long try_chroot(const struct asked *asked)
{
    (void)asked;
    return chroot("/");
}

static long try_keyring(const struct asked *asked)
{
    (void)asked;
    return syscall(SYS_keyctl, 0, -3, 1); /* KEYCTL_GET_KEYRING_ID of the session's */
}

static long try_bpf(const struct asked *asked)
{
    (void)asked;
    return unless(syscall(SYS_bpf, 0, NULL, 0L), EINVAL);
}

static long try_perf(const struct asked *asked)
{
    (void)asked;
    return unless(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0UL), EFAULT);
}

static long try_io_uring(const struct asked *asked)
{
    (void)asked;
    return unless(syscall(SYS_io_uring_setup, 1, NULL), EFAULT);
}

static long try_userfaultfd(const struct asked *asked)
{
    (void)asked;
    return syscall(SYS_userfaultfd, O_CLOEXEC | 1); /* UFFD_USER_MODE_ONLY */
}

/* A kernel without the family says so; a filter says EPERM. */
static long try_alg(const struct asked *asked)
{
    (void)asked;
    return unless(socket(AF_ALG, SOCK_SEQPACKET, 0), EAFNOSUPPORT);
}

static long try_vsock(const struct asked *asked)
{
    (void)asked;
    return unless(socket(AF_VSOCK, SOCK_STREAM, 0), EAFNOSUPPORT);
}

static long try_modules(const struct asked *asked)
{
    (void)asked;
    return unless(syscall(SYS_init_module, "", 0L, ""), ENOEXEC);
}

static long try_clock(const struct asked *asked)
{
    (void)asked;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return clock_settime(CLOCK_REALTIME, &now);
}

/* Shocker: a handle is opened wherever in the file system the file is. */
static long try_handle(const struct asked *asked)
{
    (void)asked;
    union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + 128];
    } one = {.handle.handle_bytes = 128};
    int id, root = open("/", O_RDONLY | O_DIRECTORY);
    if (name_to_handle_at(root, ".", &one.handle, &id, 0) < 0) {
        one.handle.handle_bytes = 8;
        one.handle.handle_type = 1;
    }
    return unless(open_by_handle_at(root, &one.handle, O_RDONLY), ESTALE);
}

static long try_log(const struct asked *asked)
{
    (void)asked;
    return klogctl(10, NULL, 0);
}

static long try_x32(const struct asked *asked)
{
    (void)asked;
#ifdef __x86_64__
    return syscall(0x40000000 | SYS_getppid);
#else
    return errno = ENOSYS, -1;
#endif
}

static long try_i386(const struct asked *asked)
{
    (void)asked;
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11"); /* getpid */
    return result < 0 ? errno = -result, -1 : 0;
#else
    return errno = ENOSYS, -1;
#endif
}

static long try_ptrace(const struct asked *asked)
{
    if (ptrace(PTRACE_SEIZE, asked->number, NULL, NULL) < 0)
        return -1;
    ptrace(PTRACE_DETACH, asked->number, NULL, NULL);
    return 0;
}

static long try_signal(const struct asked *asked)
{
    return kill(asked->number, 0);
}

static long try_join(const struct asked *asked)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/ns/%.16s", asked->number, asked->word);
    int fd = open(path, O_RDONLY);
    return fd < 0 ? -1 : setns(fd, 0);
}

static long see_path(const struct asked *asked)
{
    struct stat st;
    return lstat(asked->path, &st);
}

/* Start time in clock ticks since the machine's start: field 22 of proc_pid_stat(5), the 20th behind the name. */
static unsigned long long started(long pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    int fd = open(path, O_RDONLY);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[size < 0 ? 0 : size] = 0;
    char *at = strrchr(text, ')');
    for (int field = 0; at && field < 20; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

/* Its number may be another process's here: the same one has the same start time, `word`, where that is given. */
static long see_process(const struct asked *asked)
{
    if (*asked->word)
        return started(asked->number) == strtoull(asked->word, NULL, 10) ? 0 : (errno = ESRCH, -1);
    return kill(asked->number, 0) == 0 || errno == EPERM ? 0 : -1;
}

/* ---- how much there is */

static volatile long *shared;

static long eat_memory(const struct asked *asked)
{
    const long piece = 1 << 20;
    /* When it is too much, it shall be this process that goes. */
    int adjust = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (adjust >= 0 && write(adjust, "1000", 4) < 0)
        errno = 0;
    close(adjust);
    for (*shared = 0; *shared < asked->number; *shared += piece) {
        char *memory = mmap(NULL, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            break;
        memset(memory, 1, piece);
    }
    return 0;
}

static long eat_processes(const struct asked *asked)
{
    pid_t *made = calloc(asked->number + 1, sizeof *made);
    for (*shared = 0; made && *shared < asked->number; ++*shared)
        if ((made[*shared] = fork()) == 0) {
            pause();
            _exit(0);
        } else if (made[*shared] < 0) {
            break;
        }
    for (long i = 0; i < *shared; i++)
        kill(made[i], SIGKILL);
    for (long i = 0; i < *shared; i++)
        waitpid(made[i], NULL, 0);
    free(made);
    return 0;
}

static long now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* Processor time of as many processes as asked for, in so many milliseconds; in microseconds. */
static long eat_cpu(const struct asked *asked)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN), end = now_ns(CLOCK_MONOTONIC) + asked->number * 1000000;
    for (long i = 0; i < processors; i++)
        if (fork() == 0) {
            while (now_ns(CLOCK_MONOTONIC) < end)
                ;
            __sync_fetch_and_add(shared, now_ns(CLOCK_PROCESS_CPUTIME_ID) / 1000);
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    return 0;
}

/* ---- what is told of the host */

static void facts(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned leaked = 0;
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        leaked += atoi(entry->d_name) > 2 && atoi(entry->d_name) != dirfd(directory);
    if (directory)
        closedir(directory);
    printf("descriptors %u\n", leaked);
}

/* ---- the table */

static const struct attempt {
    const char *name;
    long (*act)(const struct asked *asked);
} attempts[] = {
    {"alg", try_alg}, {"bpf", try_bpf}, {"chroot", try_chroot}, {"clock", try_clock}, {"connect", try_connect},
    {"handle", try_handle}, {"i386", try_i386}, {"io_uring", try_io_uring}, {"join", try_join},
    {"keyring", try_keyring}, {"log", try_log}, {"mknod", try_mknod}, {"modules", try_modules}, {"mount", try_mount},
    {"open", try_open}, {"perf", try_perf}, {"ptrace", try_ptrace}, {"raw", try_raw}, {"read", try_read}, {"signal", try_signal},
    {"userfaultfd", try_userfaultfd}, {"userns", try_userns}, {"vsock", try_vsock}, {"x32", try_x32},
    {"path", see_path}, {"process", see_process}, {"network", try_connect},
    {"memory", eat_memory}, {"processes", eat_processes}, {"cpu", eat_cpu}, {NULL, NULL},
};

static void report(const char *name, pid_t pid, int status)
{
    if (pid < 0)
        printf("%s no fork: %s\n", name, strerror(errno));
    else if (WIFSIGNALED(status))
        printf("%s no killed by signal %d%s\n", name, WTERMSIG(status), WTERMSIG(status) == SIGSYS ? ", SIGSYS" : "");
    else if (WEXITSTATUS(status))
        printf("%s no %s\n", name, strerror(WEXITSTATUS(status)));
    else
        printf("%s yes\n", name);
}

static void attempt(const struct attempt *one, const struct asked *asked)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        long result = one->act(asked);
        _exit(result >= 0 ? 0 : errno ? errno : EIO);
    }
    if (pid > 0 && waitpid(pid, &status, 0) < 0)
        pid = -1;
    report(one->name, pid, status);
}

/* "try NAME ...", "see NAME ...", "eat NAME N": false for what is none of them. */
int obey_attempt(const char *line)
{
    char verb[8] = "", name[16] = "", first[300] = "", second[300] = "";
    struct asked asked = {first, first, 0};
    if (strcmp(line, "facts") == 0) {
        facts();
        return 1;
    }
    int words = sscanf(line, "%7s %15s %299s %299[^\n]", verb, name, first, second);
    if (words < 2 || (strcmp(verb, "try") && strcmp(verb, "see") && strcmp(verb, "eat")))
        return 0;
    asked.number = atol(first);
    if (strcmp(name, "open") == 0)
        asked.path = second;
    else if (strcmp(name, "connect") == 0 || strcmp(name, "network") == 0)
        asked.number = atol(second);
    else if (strcmp(name, "join") == 0 || strcmp(name, "process") == 0)
        asked.word = second;
    if (!shared)
        shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *shared = 0;
    for (const struct attempt *one = attempts; one->name; one++)
        if (strcmp(one->name, name) == 0) {
            attempt(one, &asked);
            if (*verb == 'e')
                printf("amount %ld\n", *shared);
            return 1;
        }
    return 0;
}
