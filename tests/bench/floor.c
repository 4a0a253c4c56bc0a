/* The floor: what the kernel alone takes for a launch of the benchmark's bundle.
 *
 *     floor --cgroup DIR [--seccomp FILE] [--loop N] ROOTFS
 *
 * It makes the system calls that runtime/init makes for the plan of that bundle (bundle.py), in the same order and with
 * the same checks of every target, with everything that a runtime has to decide already decided.  FILE holds a compiled
 * filter, an array of struct sock_filter.  With --loop it prints the nanoseconds of each launch, one a line, measured
 * from making the cgroup to having removed it.  Paths are absolute. */

#define _GNU_SOURCE
#include "floor.h"

static const char *rootfs;
static char cgroup[4096];
static pid_t owner; /* of the cgroup: whoever fails there removes it */
static struct sock_fprog filter;

static _Noreturn void die(const char *call)
{
    fprintf(stderr, "floor: %s: %s\n", call, strerror(errno));
    if (owner == syscall(SYS_getpid) && *cgroup)
        rmdir(cgroup);
    _exit(125);
}

static long ok(long result, const char *call)
{
    if (result < 0)
        die(call);
    return result;
}

static int open_in(int root, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_PATH | O_CLOEXEC, .resolve = resolve};
    return syscall(SYS_openat2, root, path, &how, sizeof how);
}

static void set_attributes(int fd, const char *path, unsigned flags, uint64_t set, uint64_t propagation)
{
    struct mount_attr attr = {.attr_set = set, .propagation = propagation};
    ok(syscall(SYS_mount_setattr, fd, path, flags, &attr, sizeof attr), "mount_setattr");
}

static void attach(int mount, int target)
{
    unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    ok(syscall(SYS_move_mount, mount, "", target, "", flags), "move_mount");
}

/* What init asks about every target: is it the root itself, does it lie on procfs? */
static int checked(int target, int root)
{
    struct statx st;
    struct statfs fs;
    ok(syscall(SYS_statx, target, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &st), "statx");
    ok(syscall(SYS_statx, root, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &st), "statx");
    ok(fstatfs(target, &fs), "fstatfs");
    return target;
}

/* ---- file systems ---- */

static void set_options(int fs, const char *options)
{
    char copy[128], *rest = copy;
    for (char *key = strcpy(copy, options); *options && (key = strsep(&rest, ","));) {
        char *value = strchr(key, '=');
        unsigned command = value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
        if (value)
            *value++ = 0;
        ok(syscall(SYS_fsconfig, fs, command, key, value, 0), "fsconfig");
    }
}

static int new_mount(const char *type, const char *options, uint64_t attr)
{
    int fs = ok(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), "fsopen");
    set_options(fs, options);
    ok(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), "fsconfig");
    int mount = ok(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attr), "fsmount");
    close(fs);
    return mount;
}

/* Missing targets are directories of the fresh /dev. */
static int open_target(int root, const char *path)
{
    int target = open_in(root, path, 0, SCOPED);
    if (target < 0 && errno == ENOENT) {
        int parent = ok(open_in(root, "/dev/", O_DIRECTORY, SCOPED), "openat2");
        const char *name = strrchr(path, '/') + 1;
        ok(mkdirat(parent, name, 0755), "mkdirat");
        target = open_in(parent, name, O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS);
        close(parent);
    }
    return checked(ok(target, path), root);
}

static void mount_all(int root)
{
    for (const struct filesystem *fs = filesystems; fs < filesystems + COUNT(filesystems); fs++) {
        int mount = new_mount(fs->type, fs->options, fs->attr), target = open_target(root, fs->target);
        attach(mount, target);
        close(target);
        close(mount);
    }
}

static void make_nodes(int root)
{
    for (const struct node *node = nodes; node < nodes + COUNT(nodes); node++) {
        int dev = ok(open_in(root, "/dev/", 0, SCOPED), "openat2");
        mode_t mask = umask(0);
        dev_t device = makedev(node->major, node->minor);
        ok(syscall(SYS_mknodat, dev, node->name, S_IFCHR | 0666, (unsigned)device), "mknodat");
        umask(mask);
        ok(fchownat(dev, node->name, 0, 0, AT_SYMLINK_NOFOLLOW), "fchownat");
        close(dev);
    }
    for (size_t i = 0; i < COUNT(links); i++) {
        int dev = ok(open_in(root, "/dev/", 0, SCOPED), "openat2");
        ok(symlinkat(links[i][0], dev, links[i][1]), "symlinkat");
        close(dev);
    }
}

static int pivot(int root, int old)
{
    ok(fchdir(root), "fchdir");
    ok(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    ok(fchdir(old), "fchdir");
    set_attributes(AT_FDCWD, ".", RECURSIVE, 0, SLAVE);
    while (umount2(".", 2 /* MNT_DETACH */) == 0)
        ;
    if (errno != EINVAL)
        die("umount2");
    close(old);
    ok(chdir("/"), "chdir");
    return ok(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "open");
}

/* ---- names, paths ---- */

static void bring_loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    int fd = ok(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
    ok(ioctl(fd, SIOCGIFFLAGS, &request), "SIOCGIFFLAGS");
    request.ifr_flags |= IFF_UP;
    ok(ioctl(fd, SIOCSIFFLAGS, &request), "SIOCSIFFLAGS");
    close(fd);
}

static int clone_tree(int fd, unsigned flags)
{
    flags |= OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
    return ok(syscall(SYS_open_tree, fd, "", flags), "open_tree");
}

/* -1 for a path that this kernel does not have: there is nothing to protect. */
static int open_existing(int root, const char *path)
{
    int target = open_in(root, path, 0, SCOPED);
    return target < 0 && errno == ENOENT ? -1 : checked(ok(target, path), root);
}

static void make_read_only(int root, const char *path)
{
    int target = open_existing(root, path);
    if (target < 0)
        return;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    /* EINVAL: it is no mount of its own yet. */
    if (syscall(SYS_mount_setattr, target, "", AT_EMPTY_PATH | RECURSIVE, &attr, sizeof attr) < 0) {
        int copy = clone_tree(target, RECURSIVE);
        set_attributes(copy, "", AT_EMPTY_PATH | RECURSIVE, MOUNT_ATTR_RDONLY, 0);
        attach(copy, target);
        close(copy);
    }
    close(target);
}

static void mask_directory(int target)
{
    static int empty = -1; /* one tmpfs covers them all */
    int mount = empty < 0 ? -1 : clone_tree(empty, 0);
    if (empty < 0)
        empty = mount = new_mount("tmpfs", "source=tmpfs,mode=755,nr_blocks=1,nr_inodes=1", QUIET | MOUNT_ATTR_RDONLY);
    attach(mount, target);
    if (mount != empty)
        close(mount);
}

static void mask_file(int root, int target)
{
    struct stat st;
    int null = ok(open_in(root, "dev/null", 0, SCOPED | RESOLVE_NO_SYMLINKS), "openat2");
    ok(fstat(null, &st), "fstat");
    int copy = clone_tree(null, 0);
    attach(copy, target);
    close(copy);
    close(null);
}

static void mask(int root, const char *path)
{
    struct stat st;
    int target = open_existing(root, path);
    if (target < 0)
        return;
    ok(fstat(target, &st), "fstat");
    if (S_ISDIR(st.st_mode))
        mask_directory(target);
    else
        mask_file(root, target);
    close(target);
}

/* ---- the process ---- */

static void reset_signals(void)
{
    static const char defaults[32];
    for (int number = 1; number <= 64; number++)
        syscall(SYS_rt_sigaction, number, defaults, NULL, 8);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, defaults, NULL, 8);
}

static void drop_privileges(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{.effective = CAPABILITIES, .permitted = CAPABILITIES}};
    for (unsigned long number = 0; number < 64; number++) {
        int held = prctl(PR_CAPBSET_READ, number);
        if (held < 0)
            break;
        if (held && !(CAPABILITIES >> number & 1))
            ok(prctl(PR_CAPBSET_DROP, number), "PR_CAPBSET_DROP");
    }
    ok(prctl(PR_SET_KEEPCAPS, 1UL, 0, 0, 0), "PR_SET_KEEPCAPS");
    ok(syscall(SYS_setgroups, 0, NULL), "setgroups");
    ok(syscall(SYS_setresgid, 0, 0, 0), "setresgid");
    ok(syscall(SYS_setresuid, 0, 0, 0), "setresuid");
    ok(prctl(PR_SET_KEEPCAPS, 0UL, 0, 0, 0), "PR_SET_KEEPCAPS");
    ok(syscall(SYS_capset, &head, data), "capset");
    ok(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "PR_CAP_AMBIENT_CLEAR_ALL");
    ok(prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
}

static _Noreturn void execute(void)
{
    char *argv[] = {"/bin/true", NULL}, *env[] = {"PATH=/usr/bin:/bin", "TERM=xterm", NULL}, directory[256];
    struct stat st;
    ok(stat(*argv, &st), *argv);
    ok(syscall(SYS_faccessat2, AT_FDCWD, *argv, X_OK, AT_EACCESS), "faccessat2");
    ok(syscall(SYS_close_range, 3, ~0U, CLOSE_ON_EXEC_RANGE), "close_range");
    ok(syscall(SYS_getcwd, directory, sizeof directory), "getcwd");
    reset_signals();
    if (filter.len)
        ok(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter), "seccomp");
    execve(*argv, argv, env);
    die("execve");
}

static _Noreturn void inside(int root)
{
    struct rlimit files = {1024, 1024};
    ok(setsid(), "setsid");
    set_attributes(AT_FDCWD, "/", RECURSIVE, 0, SLAVE);
    int old = ok(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "open");
    ok(syscall(SYS_move_mount, root, "", AT_FDCWD, rootfs, MOVE_MOUNT_F_EMPTY_PATH), "move_mount");
    mount_all(root);
    make_nodes(root);
    int top = pivot(root, old);
    ok(sethostname("burrow", 6), "sethostname");
    bring_loopback_up();
    for (size_t i = 0; i < COUNT(read_only); i++)
        make_read_only(top, read_only[i]);
    for (size_t i = 0; i < COUNT(masked); i++)
        mask(top, masked[i]);
    set_attributes(root, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY, 0);
    ok(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &files, NULL), "prlimit64");
    drop_privileges();
    execute();
}

static void launch(void)
{
    int status, namespaces = CLONE_NEWNS | NEW_CGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET;
    ok(mkdir(cgroup, 0755), cgroup);
    int directory = ok(open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open");
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | RECURSIVE;
    int root = ok(syscall(SYS_open_tree, AT_FDCWD, rootfs, flags), "open_tree");
    set_attributes(root, "", AT_EMPTY_PATH | RECURSIVE, 0, SLAVE);
    struct clone_arguments args = {.flags = namespaces | INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = directory};
    pid_t child = ok(syscall(SYS_clone3, &args, sizeof args), "clone3");
    if (child == 0)
        inside(root);
    close(root);
    close(directory);
    ok(waitpid(child, &status, 0), "waitpid");
    ok(rmdir(cgroup), "rmdir");
    if (status)
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 125);
}

static void read_filter(const char *path)
{
    static struct sock_filter program[4096];
    int fd = ok(open(path, O_RDONLY | O_CLOEXEC), path);
    filter.len = ok(read(fd, program, sizeof program), path) / sizeof *program;
    filter.filter = program;
    close(fd);
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
    const char *parent = NULL;
    int loop = 0;
    for (; argc > 2 && strncmp(argv[1], "--", 2) == 0; argc -= 2, argv += 2) {
        if (strcmp(argv[1], "--cgroup") == 0)
            parent = argv[2];
        else if (strcmp(argv[1], "--seccomp") == 0)
            read_filter(argv[2]);
        else if (strcmp(argv[1], "--loop") == 0)
            loop = atoi(argv[2]);
    }
    if (argc != 2 || !parent || snprintf(cgroup, sizeof cgroup, "%s/floor-%d", parent, getpid()) >= (int)sizeof cgroup) {
        fprintf(stderr, "usage: floor --cgroup DIR [--seccomp FILE] [--loop N] ROOTFS\n");
        return 2;
    }
    rootfs = argv[1];
    owner = getpid();
    for (int64_t i = 0, start = now(); i < (loop ? loop : 1); i++, start = now()) {
        launch();
        if (loop)
            printf("%lld\n", (long long)(now() - start));
    }
    return 0;
}
