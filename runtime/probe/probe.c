/* warren-probe: what `warren contrast` and `warren audit` run inside a container and inside virtual machines.
 *
 *     probe             read commands, a line each; answer each with lines and at last "done"
 *     probe true        end
 *     probe hold BYTES  touch so much memory, say "ready", and wait for the end of input
 *
 * It measures no time: a guest's clock may be wrong.  Whoever sends a command has a clock, and counts how long the
 * answer takes.  Commands:
 *
 *     compute N    N million rounds of an integer generator       syscall N    N calls of getppid(2)
 *     fork N       N times fork, execute ourselves, wait          read N       N small files opened, read and closed
 *     fsync PATH N N times write 4 KiB to a file and bring it to disk
 *     rtt ADDRESS PORT N    N bytes there and back, one by one    send ADDRESS PORT N    N KiB there
 *     info         kernel, memory, processes, devices             calls        which system calls answer
 *     reach PID PATH        what root may do here; PID and PATH are the host's
 *     try ..., see ..., eat ..., facts    attempts.c
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_ether.h>
#include <linux/reboot.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "attempts.h"

#define FILES 64
/* System calls of Linux 6.18 on x86_64 end below this; aarch64 has fewer. */
#define LAST_CALL 470

static const char *self;

static void fail(const char *what)
{
    printf("error %s: %s\n", what, strerror(errno));
}

/* ---- loops ---- */

static void compute(long count)
{
    volatile uint64_t sink;
    uint64_t x = 88172645463325252ULL;
    for (long i = 0; i < count * 1000000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    sink = x;
    (void)sink;
}

static void system_calls(long count)
{
    for (long i = 0; i < count; i++)
        syscall(SYS_getppid);
}

static void forks(long count)
{
    for (long i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            execl(self, self, "true", (char *)NULL);
            _exit(127);
        }
        int status;
        if (pid < 0 || waitpid(pid, &status, 0) < 0 || status) {
            fail("fork");
            return;
        }
    }
}

static void synced_writes(const char *path, long count)
{
    static char block[4096];
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0)
        fail(path);
    for (long i = 0; fd >= 0 && i < count; i++)
        if (pwrite(fd, block, sizeof block, i % 16 * sizeof block) < 0 || fsync(fd) < 0) {
            fail("fsync");
            break;
        }
    close(fd);
    unlink(path);
}

/* Files that are part of the image, beside ourselves. */
static void small_reads(long count)
{
    char path[512], data[4096];
    for (long i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%.480s.files/%ld", self, i % FILES);
        int fd = open(path, O_RDONLY);
        if (fd < 0 || read(fd, data, sizeof data) <= 0) {
            fail(path);
            return;
        }
        close(fd);
    }
}

/* ---- network ---- */

static int connect_to(const char *address, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (inet_pton(AF_INET, address, &to.sin_addr) == 1 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return fd;
    }
    fail("connect");
    close(fd);
    return -1;
}

static void round_trips(const char *address, int port, long count)
{
    char byte = 'e'; /* The server sends each of them back. */
    int fd = connect_to(address, port);
    for (long i = 0; fd >= 0 && i < count; i++)
        if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) {
            fail("round trip");
            break;
        }
    close(fd);
}

static void transfer(const char *address, int port, long kilobytes)
{
    static char block[65536];
    int fd = connect_to(address, port);
    if (fd < 0)
        return;
    *block = 's'; /* The server counts until the end, then answers. */
    for (long left = kilobytes * 1024; left > 0;) {
        ssize_t n = write(fd, block, left < (long)sizeof block ? left : (long)sizeof block);
        if (n <= 0) {
            fail("send");
            break;
        }
        left -= n;
    }
    shutdown(fd, SHUT_WR);
    if (read(fd, block, 1) != 1)
        fail("answer");
    close(fd);
}

/* ---- what can be seen ---- */

static void print_file(const char *name, const char *path)
{
    char text[512];
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    close(fd);
    text[n < 0 ? 0 : n] = 0;
    text[strcspn(text, "\n")] = 0;
    printf("%s %s\n", name, text);
}

static void print_memory(void)
{
    char line[128];
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        unsigned long kilobytes;
        if (sscanf(line, "MemTotal: %lu", &kilobytes) == 1)
            printf("memory_total %lu\n", kilobytes * 1024);
        else if (sscanf(line, "MemAvailable: %lu", &kilobytes) == 1)
            printf("memory_available %lu\n", kilobytes * 1024);
    }
    if (file)
        fclose(file);
}

static void print_processes(void)
{
    unsigned all = 0, threads = 0;
    DIR *directory = opendir("/proc");
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char path[300], text[16];
        if (*entry->d_name < '0' || *entry->d_name > '9')
            continue;
        all++;
        snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
        threads += readlink(path, text, sizeof text) < 0 && errno == ENOENT; /* A thread of the kernel. */
    }
    if (directory)
        closedir(directory);
    printf("processes %u\nkernel_threads %u\n", all - threads, threads);
}

static void count_devices(const char *path, unsigned *block, unsigned *character, int depth)
{
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char name[512];
        struct stat st;
        if (*entry->d_name == '.')
            continue;
        snprintf(name, sizeof name, "%.200s/%.255s", path, entry->d_name);
        if (lstat(name, &st) < 0)
            continue;
        *block += S_ISBLK(st.st_mode);
        *character += S_ISCHR(st.st_mode);
        if (S_ISDIR(st.st_mode) && depth < 3)
            count_devices(name, block, character, depth + 1);
    }
    if (directory)
        closedir(directory);
}

static void info(void)
{
    struct utsname name;
    unsigned block = 0, character = 0;
    uname(&name);
    printf("kernel %s\nversion %s\n", name.release, name.version);
    print_file("boot_id", "/proc/sys/kernel/random/boot_id");
    print_memory();
    print_processes();
    count_devices("/dev", &block, &character, 0);
    printf("block_devices %u\ncharacter_devices %u\nprocessors %ld\n", block, character, sysconf(_SC_NPROCESSORS_ONLN));
}

/* ---- system calls ---- */

/* Not tried: they would hang up a terminal, wait for all disks, or make processes of their own. */
static int is_left_out(long number)
{
    return number == SYS_vhangup || number == SYS_sync ||
#ifdef SYS_fork
           number == SYS_fork || number == SYS_vfork ||
#endif
           0;
}

/* With arguments that make no sense, which a call that is there refuses in its own words. */
static int answer_of(long number)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        alarm(1);
        errno = 0;
        syscall(number, -1L, -1L, -1L, -1L, -1L, -1L);
        _exit(errno == ENOSYS ? 2 : errno == EPERM || errno == EACCES ? 3 : 0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return 0;
    return WIFEXITED(status) && (WEXITSTATUS(status) == 2 || WEXITSTATUS(status) == 3) ? WEXITSTATUS(status) : 0;
}

static void calls(void)
{
    unsigned answered = 0, missing = 0, denied = 0;
    for (long number = 0; number < LAST_CALL; number++) {
        if (is_left_out(number))
            continue;
        int answer = answer_of(number);
        answered += answer == 0;
        missing += answer == 2;
        denied += answer == 3;
    }
    printf("calls_answered %u\ncalls_denied %u\ncalls_missing %u\n", answered, denied, missing);
}

/* ---- what root may do ---- */

static void tell(const char *name, long result)
{
    printf("reach %s %s\n", name, result >= 0 ? "yes" : strerror(errno));
}

/* Allowed is also what only the nonsense in it makes fail. */
static void tell_but(const char *name, long result, int harmless)
{
    tell(name, result < 0 && errno == harmless ? 0 : result);
}

static long write_setting(const char *path)
{
    int fd = open(path, O_WRONLY);
    if (fd >= 0)
        close(fd);
    return fd;
}

static long make_disk_node(void)
{
    const char *path = "/.warren-disk";
    int fd = -1;
    if (mknod(path, S_IFBLK | 0600, makedev(8, 0)) == 0 || errno == EEXIST)
        fd = open(path, O_RDONLY);
    int error = errno;
    unlink(path);
    if (fd >= 0)
        close(fd);
    errno = error;
    return fd;
}

/* A disk that does not exist could have been read. */
static void reach_disk(void)
{
    long result = make_disk_node();
    tell("disk", result < 0 && (errno == ENXIO || errno == ENODEV) ? 0 : result);
}

static long in_child(long (*act)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(act() < 0 ? errno : 0);
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return -1;
    errno = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
    return errno ? -1 : 0;
}

static long mount_something(void)
{
    return unshare(CLONE_NEWNS) < 0 || mount("none", "/", "tmpfs", 0, NULL) < 0 ? -1 : 0;
}

static long new_userns(void)
{
    return unshare(CLONE_NEWUSER);
}

static long set_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return clock_settime(CLOCK_REALTIME, &now);
}

static void reach(long pid, const char *path)
{
    struct stat st;
    tell("host_file", stat(path, &st));
    tell("host_process", kill(pid, 0));
    tell("kernel_log", klogctl(10, NULL, 0));
    reach_disk();
    tell("mount", in_child(mount_something));
    tell_but("kernel_module", syscall(SYS_init_module, "", 0L, ""), ENOEXEC);
    tell("clock", in_child(set_clock));
    tell("reboot", syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_CAD_OFF, 0));
    tell("kernel_settings", write_setting("/proc/sys/kernel/panic"));
    int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    tell("raw_packets", fd);
    close(fd);
    tell("user_namespace", in_child(new_userns));
    tell_but("bpf", syscall(SYS_bpf, 0, NULL, 0L), EINVAL);
    tell_but("io_uring", syscall(SYS_io_uring_setup, 1, NULL), EFAULT);
    tell_but("perf_events", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0UL), EFAULT);
    tell("keyring", syscall(SYS_keyctl, 0, -3, 1)); /* KEYCTL_GET_KEYRING_ID of the session's */
    fd = open("/dev/mem", O_RDONLY);
    tell("physical_memory", fd);
    close(fd);
}

/* ---- commands ---- */

static int is(const char *line, const char *word)
{
    size_t size = strlen(word);
    return strncmp(line, word, size) == 0 && (line[size] == ' ' || !line[size]);
}

static void obey(const char *line)
{
    char word[256] = "";
    long count = 0;
    int port = 0;
    if (sscanf(line, "compute %ld", &count) == 1)
        compute(count);
    else if (sscanf(line, "syscall %ld", &count) == 1)
        system_calls(count);
    else if (sscanf(line, "fork %ld", &count) == 1)
        forks(count);
    else if (sscanf(line, "read %ld", &count) == 1)
        small_reads(count);
    else if (sscanf(line, "fsync %255s %ld", word, &count) == 2)
        synced_writes(word, count);
    else if (sscanf(line, "rtt %255s %d %ld", word, &port, &count) == 3)
        round_trips(word, port, count);
    else if (sscanf(line, "send %255s %d %ld", word, &port, &count) == 3)
        transfer(word, port, count);
    else if (sscanf(line, "reach %ld %255s", &count, word) == 2)
        reach(count, word);
    else if (is(line, "info"))
        info();
    else if (is(line, "calls"))
        calls();
    else if (!obey_attempt(line))
        printf("error unknown command\n");
    printf("done\n");
}

static int hold(long bytes)
{
    char *memory = malloc(bytes + 1), byte;
    if (!memory)
        return 1;
    memset(memory, 1, bytes);
    printf("ready\n");
    while (read(0, &byte, 1) > 0)
        ;
    return memory[bytes / 2] != 1;
}

int main(int argc, char **argv)
{
    char line[700];
    self = argv[0];
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    if (argc == 2 && strcmp(argv[1], "true") == 0)
        return 0;
    if (argc == 3 && strcmp(argv[1], "hold") == 0)
        return hold(atol(argv[2]));
    printf("ready\n");
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        obey(line);
    }
    return 0;
}
