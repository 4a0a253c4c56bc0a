/* The one program of the test root file system: it answers questions about where it runs.
 *
 * It knows nothing of any runtime.  Each question prints lines; a refusal by the kernel is an answer too (the errno's
 * name), so that the exit code is 0 unless a question is none (64).  Several questions are asked in one launch,
 * separated by "--": the answer to each is then preceded by "## QUESTION ARGUMENTS", so that it can be told apart.  */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int all_argc;
static char **all_argv;

/* musl and glibc know no strerrorname_np in common; these are the ones that containers meet. */
static const char *errno_name(int number)
{
	static const struct {
		int number;
		const char *name;
	} names[] = {
		{0, "OK"}, {EPERM, "EPERM"}, {ENOENT, "ENOENT"}, {ESRCH, "ESRCH"}, {EIO, "EIO"}, {ENXIO, "ENXIO"},
		{EBADF, "EBADF"}, {EAGAIN, "EAGAIN"}, {ENOMEM, "ENOMEM"}, {EACCES, "EACCES"}, {EBUSY, "EBUSY"},
		{EEXIST, "EEXIST"}, {EXDEV, "EXDEV"}, {ENODEV, "ENODEV"}, {ENOTDIR, "ENOTDIR"}, {EISDIR, "EISDIR"},
		{EINVAL, "EINVAL"}, {EMFILE, "EMFILE"}, {ENOTTY, "ENOTTY"}, {ETXTBSY, "ETXTBSY"}, {EFBIG, "EFBIG"},
		{ENOSPC, "ENOSPC"}, {EROFS, "EROFS"}, {EPIPE, "EPIPE"}, {ELOOP, "ELOOP"}, {ENOSYS, "ENOSYS"},
		{ENOTEMPTY, "ENOTEMPTY"}, {ENAMETOOLONG, "ENAMETOOLONG"}, {EOPNOTSUPP, "EOPNOTSUPP"},
		{EOVERFLOW, "EOVERFLOW"}, {ENOEXEC, "ENOEXEC"}, {EUSERS, "EUSERS"},
	};
	static char other[16];
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (names[i].number == number)
			return names[i].name;
	snprintf(other, sizeof other, "E%d", number);
	return other;
}

/* The answer to an attempt: the errno's name, or OK. */
static int outcome(int result)
{
	puts(result < 0 ? errno_name(errno) : "OK");
	return 0;
}

static int complain(const char *what)
{
	printf("error %s %s\n", what, errno_name(errno));
	return 0;
}

static int number(const char *text)
{
	return (int)strtol(text, NULL, 0);
}

/* Copies a file to standard output; a file without a newline at its end gets one. */
static int cat(const char *path)
{
	char buffer[65536], last = '\n';
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return complain(path);
	ssize_t got;
	while ((got = read(fd, buffer, sizeof buffer)) > 0) {
		fwrite(buffer, 1, (size_t)got, stdout);
		last = buffer[got - 1];
	}
	close(fd);
	if (got < 0)
		return complain(path);
	if (last != '\n')
		putchar('\n');
	return 0;
}

/* Prints each line of /proc/self/status whose field begins with `prefix`. */
static int status_lines(const char *prefix)
{
	char line[4096];
	FILE *file = fopen("/proc/self/status", "re");
	if (!file)
		return complain("/proc/self/status");
	while (fgets(line, sizeof line, file))
		if (!strncmp(line, prefix, strlen(prefix)))
			fputs(line, stdout);
	fclose(file);
	return 0;
}

/* Calls `each` for every name in a directory, in the kernel's order. */
static int each_entry(const char *path, void (*each)(int dirfd, const char *name))
{
	DIR *dir = opendir(path);
	if (!dir)
		return complain(path);
	struct dirent *entry;
	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			each(dirfd(dir), entry->d_name);
	closedir(dir);
	return 0;
}

static void print_name(int dirfd, const char *name)
{
	(void)dirfd;
	puts(name);
}

static void print_link(int dirfd, const char *name)
{
	char target[4096];
	ssize_t length = readlinkat(dirfd, name, target, sizeof target - 1);
	if (length < 0 || atoi(name) == dirfd)
		return;
	target[length] = 0;
	printf("%s %s\n", name, target);
}

static void print_namespace(int dirfd, const char *name)
{
	char target[128];
	ssize_t length = readlinkat(dirfd, name, target, sizeof target - 1);
	if (length < 0)
		return;
	target[length] = 0;
	printf("%s %s\n", name, target);
}

static void print_pid(int dirfd, const char *name)
{
	(void)dirfd;
	if (*name >= '0' && *name <= '9')
		puts(name);
}

static int q_true(int argc, char **argv)
{
	(void)argc, (void)argv;
	return 0;
}

static int q_echo(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		printf("%s%s", argv[i], i + 1 < argc ? " " : "");
	putchar('\n');
	return 0;
}

static int q_error(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		fprintf(stderr, "%s%s", argv[i], i + 1 < argc ? " " : "\n");
	return 0;
}

static int q_exit(int argc, char **argv)
{
	(void)argc;
	fflush(stdout);
	_exit(number(argv[1]));
}

static int q_sleep(int argc, char **argv)
{
	(void)argc;
	double seconds = strtod(argv[1], NULL);
	struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
	fflush(stdout);
	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
	return 0;
}

static int q_cat(int argc, char **argv)
{
	int failed = 0;
	for (int i = 1; i < argc; i++)
		failed |= cat(argv[i]);
	return failed;
}

/* read: standard input, up to its end, is copied to standard output. */
static int q_read(int argc, char **argv)
{
	(void)argc, (void)argv;
	return cat("/proc/self/fd/0");
}

/* save PATH: standard input, up to its end, becomes a file. */
static int q_save(int argc, char **argv)
{
	char buffer[65536];
	ssize_t got;
	(void)argc;
	int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return complain(argv[1]);
	while ((got = read(0, buffer, sizeof buffer)) > 0)
		if (write(fd, buffer, (size_t)got) != got)
			return complain(argv[1]);
	close(fd);
	return 0;
}

static int write_to(const char *path, const char *text, int flags)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);
	if (fd < 0)
		return outcome(-1);
	ssize_t put = write(fd, text, strlen(text));
	int saved = errno;
	close(fd);
	errno = saved;
	return outcome(put < 0 ? -1 : 0);
}

static int q_write(int argc, char **argv)
{
	return write_to(argv[1], argc > 2 ? argv[2] : "", O_CREAT | O_TRUNC);
}

/* append: also to standard output of others, a log that hooks and the program share. */
static int q_append(int argc, char **argv)
{
	char line[4096];
	snprintf(line, sizeof line, "%s\n", argc > 2 ? argv[2] : "");
	int fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0 || write(fd, line, strlen(line)) < 0)
		return complain(argv[1]);
	close(fd);
	return 0;
}

static int q_ls(int argc, char **argv)
{
	(void)argc;
	return each_entry(argv[1], print_name);
}

static int q_readlink(int argc, char **argv)
{
	char target[4096];
	(void)argc;
	ssize_t length = readlink(argv[1], target, sizeof target - 1);
	if (length < 0)
		return complain(argv[1]);
	target[length] = 0;
	puts(target);
	return 0;
}

/* stat PATH...: "PATH TYPE MODE UID GID MAJOR:MINOR", symbolic links as themselves. */
static int q_stat(int argc, char **argv)
{
	int failed = 0;
	for (int i = 1; i < argc; i++) {
		struct stat st;
		if (lstat(argv[i], &st) < 0) {
			failed |= complain(argv[i]);
			continue;
		}
		char type = S_ISREG(st.st_mode) ? 'f' : S_ISDIR(st.st_mode) ? 'd' : S_ISLNK(st.st_mode) ? 'l' :
			S_ISCHR(st.st_mode) ? 'c' : S_ISBLK(st.st_mode) ? 'b' : S_ISFIFO(st.st_mode) ? 'p' : 's';
		printf("%s %c %04o %u %u %u:%u\n", argv[i], type, st.st_mode & 07777, st.st_uid, st.st_gid,
		       major(st.st_rdev), minor(st.st_rdev));
	}
	return failed;
}

/* id: "uid REAL EFFECTIVE SAVED", "gid ...", "groups N N ...". */
static int q_id(int argc, char **argv)
{
	uid_t real, effective, saved;
	gid_t groups[1024];
	(void)argc, (void)argv;
	getresuid(&real, &effective, &saved);
	printf("uid %u %u %u\n", real, effective, saved);
	getresgid(&real, &effective, &saved);
	printf("gid %u %u %u\ngroups", real, effective, saved);
	int count = getgroups(1024, groups);
	for (int i = 0; i < count; i++)
		printf(" %u", groups[i]);
	putchar('\n');
	return 0;
}

static int q_caps(int argc, char **argv)
{
	(void)argc, (void)argv;
	return status_lines("Cap");
}

static int q_sigs(int argc, char **argv)
{
	(void)argc, (void)argv;
	return status_lines("SigBlk") | status_lines("SigIgn") | status_lines("SigCgt");
}

static int q_nnp(int argc, char **argv)
{
	(void)argc, (void)argv;
	printf("%d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	return 0;
}

static int q_status(int argc, char **argv)
{
	(void)argc;
	return status_lines(argv[1]);
}

static int q_env(int argc, char **argv)
{
	(void)argc, (void)argv;
	for (char **variable = environ; *variable; variable++)
		puts(*variable);
	return 0;
}

/* args: every argument of the process, one a line, as "INDEX TEXT". */
static int q_args(int argc, char **argv)
{
	(void)argc, (void)argv;
	for (int i = 0; i < all_argc; i++)
		printf("%d %s\n", i, all_argv[i]);
	return 0;
}

static int q_cwd(int argc, char **argv)
{
	char path[4096];
	(void)argc, (void)argv;
	/* The system call itself: it says "(unreachable)" where libc would hide it. */
	puts(syscall(SYS_getcwd, path, sizeof path) < 0 ? errno_name(errno) : path);
	return 0;
}

static int q_hostname(int argc, char **argv)
{
	struct utsname name;
	(void)argc, (void)argv;
	uname(&name);
	puts(name.nodename);
	return 0;
}

static int q_domainname(int argc, char **argv)
{
	struct utsname name;
	(void)argc, (void)argv;
	uname(&name);
	puts(name.domainname);
	return 0;
}

static int q_machine(int argc, char **argv)
{
	struct utsname name;
	(void)argc, (void)argv;
	uname(&name);
	puts(name.machine);
	return 0;
}

static int q_umask(int argc, char **argv)
{
	(void)argc, (void)argv;
	mode_t mask = umask(0);
	umask(mask);
	printf("%04o\n", mask);
	return 0;
}

/* rlimits: "NAME SOFT HARD", -1 for unlimited. */
static int q_rlimits(int argc, char **argv)
{
	static const char *const names[] = {"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE",
		"MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};
	(void)argc, (void)argv;
	for (int i = 0; i < 16; i++) {
		struct rlimit limit;
		getrlimit(i, &limit);
		printf("%s %lld %lld\n", names[i], (long long)limit.rlim_cur, (long long)limit.rlim_max);
	}
	return 0;
}

static int q_ns(int argc, char **argv)
{
	(void)argc, (void)argv;
	return each_entry("/proc/self/ns", print_namespace);
}

static int q_mounts(int argc, char **argv)
{
	(void)argc, (void)argv;
	return cat("/proc/self/mountinfo");
}

static int q_cgroup(int argc, char **argv)
{
	(void)argc, (void)argv;
	return cat("/proc/self/cgroup");
}

static int q_oom(int argc, char **argv)
{
	(void)argc, (void)argv;
	return cat("/proc/self/oom_score_adj");
}

static int q_sysctl(int argc, char **argv)
{
	char path[4096];
	(void)argc;
	snprintf(path, sizeof path, "/proc/sys/%s", argv[1]);
	for (char *c = path + 10; *c; c++)
		if (*c == '.')
			*c = '/';
	return cat(path);
}

static int q_fds(int argc, char **argv)
{
	(void)argc, (void)argv;
	return each_entry("/proc/self/fd", print_link);
}

/* pids: of the processes that /proc shows. */
static int q_pids(int argc, char **argv)
{
	(void)argc, (void)argv;
	return each_entry("/proc", print_pid);
}

/* process: "pid ppid session group". */
static int q_process(int argc, char **argv)
{
	(void)argc, (void)argv;
	printf("pid %d\nppid %d\nsid %d\npgid %d\ndumpable %d\npdeathsig ", getpid(), getppid(), getsid(0), getpgrp(),
	       prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
	int signal_number = 0;
	prctl(PR_GET_PDEATHSIG, &signal_number, 0, 0, 0);
	printf("%d\n", signal_number);
	return 0;
}

/* tty: "FD NAME ROWSxCOLUMNS" for 0, 1 and 2, "FD -" for what is no terminal; then whether one controls us. */
static int q_tty(int argc, char **argv)
{
	(void)argc, (void)argv;
	for (int fd = 0; fd < 3; fd++) {
		struct winsize size = {0};
		char name[256];
		if (ioctl(fd, TIOCGWINSZ, &size) < 0) {
			printf("%d -\n", fd);
			continue;
		}
		if (ttyname_r(fd, name, sizeof name))
			strcpy(name, "?");
		printf("%d %s %dx%d\n", fd, name, size.ws_row, size.ws_col);
	}
	int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	printf("controlling %s\n", fd < 0 ? errno_name(errno) : "yes");
	if (fd >= 0)
		close(fd);
	return 0;
}

/* net: "NAME up|down ADDRESS" for each interface of the network namespace. */
static int q_net(int argc, char **argv)
{
	struct if_nameindex *all = if_nameindex();
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	(void)argc, (void)argv;
	if (!all || fd < 0)
		return complain("socket");
	for (struct if_nameindex *one = all; one->if_index; one++) {
		struct ifreq request = {0};
		strncpy(request.ifr_name, one->if_name, IFNAMSIZ - 1);
		int up = !ioctl(fd, SIOCGIFFLAGS, &request) && request.ifr_flags & IFF_UP;
		unsigned char *a = (unsigned char *)&request.ifr_addr + 4;
		int known = !ioctl(fd, SIOCGIFADDR, &request);
		printf("%s %s ", one->if_name, up ? "up" : "down");
		known ? printf("%u.%u.%u.%u\n", a[0], a[1], a[2], a[3]) : puts("-");
	}
	if_freenameindex(all);
	close(fd);
	return 0;
}

/* access MODE PATH: r, w, x tried for real rather than asked of access(2), which knows no read-only tricks. */
static int q_access(int argc, char **argv)
{
	(void)argc;
	if (strchr(argv[1], 'x'))
		return outcome(access(argv[2], X_OK));
	int fd = open(argv[2], (strchr(argv[1], 'w') ? strchr(argv[1], 'r') ? O_RDWR : O_WRONLY : O_RDONLY) |
		      O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0 && strchr(argv[1], 'r')) {
		char byte;
		struct stat st;
		if (!fstat(fd, &st) && S_ISREG(st.st_mode) && read(fd, &byte, 1) < 0)
			return outcome(-1);
	}
	int result = outcome(fd);
	if (fd >= 0)
		close(fd);
	return result;
}

/* touch PATH: can a file be made here?  Removed again. */
static int q_touch(int argc, char **argv)
{
	(void)argc;
	int fd = open(argv[1], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0) {
		close(fd);
		unlink(argv[1]);
	}
	return outcome(fd);
}

static int q_create(int argc, char **argv)
{
	(void)argc;
	int fd = open(argv[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (fd >= 0)
		close(fd);
	return outcome(fd);
}

static int q_mkdir(int argc, char **argv)
{
	(void)argc;
	return outcome(mkdir(argv[1], 0777));
}

static int q_unlink(int argc, char **argv)
{
	(void)argc;
	return outcome(unlink(argv[1]));
}

static int q_symlink(int argc, char **argv)
{
	(void)argc;
	return outcome(symlink(argv[1], argv[2]));
}

static int q_chown(int argc, char **argv)
{
	(void)argc;
	return outcome(chown(argv[1], (uid_t)number(argv[2]), (gid_t)number(argv[3])));
}

/* mknod PATH c|b MAJOR MINOR */
static int q_mknod(int argc, char **argv)
{
	(void)argc;
	mode_t type = *argv[2] == 'c' ? S_IFCHR : S_IFBLK;
	return outcome(mknod(argv[1], type | 0600, makedev((unsigned)number(argv[3]), (unsigned)number(argv[4]))));
}

/* mount SOURCE TARGET TYPE FLAGS [DATA] */
static int q_mount(int argc, char **argv)
{
	return outcome(mount(argv[1], argv[2], argv[3], (unsigned long)number(argv[4]), argc > 5 ? argv[5] : NULL));
}

static int q_umount(int argc, char **argv)
{
	(void)argc;
	return outcome(umount2(argv[1], MNT_DETACH));
}

static int q_unshare(int argc, char **argv)
{
	(void)argc;
	return outcome(unshare(number(argv[1])));
}

static int q_sethostname(int argc, char **argv)
{
	(void)argc;
	return outcome(sethostname(argv[1], strlen(argv[1])));
}

static int q_chroot(int argc, char **argv)
{
	(void)argc;
	return outcome(chroot(argv[1]));
}

/* kill-self SIG: with the default disposition, so that the parent sees the signal. */
static int q_kill_self(int argc, char **argv)
{
	(void)argc;
	fflush(stdout);
	kill(getpid(), number(argv[1]));
	return 0;
}

static int q_kill(int argc, char **argv)
{
	(void)argc;
	return outcome(kill(number(argv[1]), number(argv[2])));
}

/* fork SECONDS: leaves a child behind that sleeps, and goes on. */
static int q_fork(int argc, char **argv)
{
	(void)argc;
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		q_sleep(2, argv);
		_exit(0);
	}
	printf("%d\n", pid);
	return 0;
}

/* fork-orphan SECONDS: a grandchild whose parent is gone at once, for a reaper to adopt. */
static int q_fork_orphan(int argc, char **argv)
{
	(void)argc;
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		if (!fork())
			q_sleep(2, argv);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	return 0;
}

static void on_signal(int signal_number)
{
	char text[] = "signal 00\n";
	text[7] = (char)('0' + signal_number / 10);
	text[8] = (char)('0' + signal_number % 10);
	if (write(1, text, 10) < 0)
		_exit(1);
}

/* trap SIG...: prints "ready", then "signal NN" for each that comes; ends after SIGTERM. */
static int q_trap(int argc, char **argv)
{
	sigset_t wanted, old;
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGTERM);
	for (int i = 1; i < argc; i++)
		sigaddset(&wanted, number(argv[i]));
	sigprocmask(SIG_BLOCK, &wanted, &old);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int got = sigwaitinfo(&wanted, NULL);
		if (got < 0)
			continue;
		on_signal(got);
		if (got == SIGTERM)
			return 0;
	}
}

/* wait-winch: prints the terminal's size again when it changes. */
static int q_wait_winch(int argc, char **argv)
{
	sigset_t wanted;
	(void)argc, (void)argv;
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGWINCH);
	sigprocmask(SIG_BLOCK, &wanted, NULL);
	puts("ready");
	fflush(stdout);
	sigwaitinfo(&wanted, NULL);
	return q_tty(1, argv);
}

/* zombies: how many processes that /proc shows are dead and not waited for. */
static int zombie_count;
static void count_zombie(int dirfd, const char *name)
{
	char path[64], text[512];
	(void)dirfd;
	if (*name < '0' || *name > '9')
		return;
	snprintf(path, sizeof path, "/proc/%.20s/stat", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	ssize_t got = read(fd, text, sizeof text - 1);
	close(fd);
	text[got < 0 ? 0 : got] = 0;
	char *end = strrchr(text, ')');
	zombie_count += end && end[1] && end[2] == 'Z';
}

static int q_zombies(int argc, char **argv)
{
	(void)argc, (void)argv;
	zombie_count = 0;
	each_entry("/proc", count_zombie);
	printf("%d\n", zombie_count);
	return 0;
}

/* clock: seconds of CLOCK_MONOTONIC and CLOCK_BOOTTIME. */
static int q_clock(int argc, char **argv)
{
	struct timespec monotonic, boot;
	(void)argc, (void)argv;
	clock_gettime(CLOCK_MONOTONIC, &monotonic);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	printf("monotonic %lld\nboottime %lld\n", (long long)monotonic.tv_sec, (long long)boot.tv_sec);
	return 0;
}

/* exec PROGRAM ARGUMENT...: replaces this process. */
static int q_exec(int argc, char **argv)
{
	(void)argc;
	fflush(stdout);
	execv(argv[1], argv + 1);
	return outcome(-1);
}

/* syscall NUMBER ARGUMENT...: "= RESULT" or the errno's name; arguments are numbers, or text after a colon. */
static int q_syscall(int argc, char **argv)
{
	long a[7] = {0};
	for (int i = 1; i < argc && i < 8; i++)
		a[i - 1] = *argv[i] == ':' ? (long)(argv[i] + 1) : strtol(argv[i], NULL, 0);
	long result = syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
	if (result < 0)
		return outcome(-1);
	printf("= %ld\n", result);
	return 0;
}

static const struct question {
	const char *name;
	int arguments; /* at least so many */
	int (*ask)(int argc, char **argv);
} questions[] = {
	{"true", 0, q_true}, {"echo", 0, q_echo}, {"error", 0, q_error}, {"exit", 1, q_exit}, {"sleep", 1, q_sleep},
	{"cat", 1, q_cat}, {"read", 0, q_read}, {"save", 1, q_save},
	{"write", 1, q_write}, {"append", 2, q_append}, {"ls", 1, q_ls},
	{"readlink", 1, q_readlink}, {"stat", 1, q_stat}, {"id", 0, q_id}, {"caps", 0, q_caps}, {"sigs", 0, q_sigs},
	{"nnp", 0, q_nnp}, {"status", 1, q_status}, {"env", 0, q_env}, {"args", 0, q_args}, {"cwd", 0, q_cwd},
	{"hostname", 0, q_hostname}, {"domainname", 0, q_domainname}, {"machine", 0, q_machine},
	{"umask", 0, q_umask}, {"rlimits", 0, q_rlimits}, {"ns", 0, q_ns}, {"mounts", 0, q_mounts},
	{"cgroup", 0, q_cgroup}, {"oom", 0, q_oom}, {"sysctl", 1, q_sysctl}, {"fds", 0, q_fds}, {"pids", 0, q_pids},
	{"process", 0, q_process}, {"tty", 0, q_tty}, {"net", 0, q_net}, {"access", 2, q_access},
	{"touch", 1, q_touch}, {"create", 1, q_create}, {"mkdir", 1, q_mkdir}, {"unlink", 1, q_unlink},
	{"symlink", 2, q_symlink}, {"chown", 3, q_chown}, {"mknod", 4, q_mknod}, {"mount", 4, q_mount},
	{"umount", 1, q_umount}, {"unshare", 1, q_unshare}, {"sethostname", 1, q_sethostname},
	{"chroot", 1, q_chroot}, {"kill-self", 1, q_kill_self}, {"kill", 2, q_kill}, {"fork", 1, q_fork},
	{"fork-orphan", 1, q_fork_orphan}, {"trap", 0, q_trap}, {"wait-winch", 0, q_wait_winch},
	{"zombies", 0, q_zombies}, {"clock", 0, q_clock}, {"exec", 1, q_exec},
	{"syscall", 1, q_syscall},
};

static int ask(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
		if (strcmp(questions[i].name, argv[0]))
			continue;
		if (argc - 1 < questions[i].arguments)
			break;
		return questions[i].ask(argc, argv);
	}
	fprintf(stderr, "probe: no such question, or too few arguments: %s\n", argv[0]);
	return 64;
}

static int is_separator(const char *argument)
{
	return !strcmp(argument, "--");
}

int main(int argc, char **argv)
{
	int failed = 0, several = 0;
	all_argc = argc;
	all_argv = argv;
	for (int i = 1; i < argc; i++)
		several |= is_separator(argv[i]);
	for (int first = 1; first < argc;) {
		int last = first;
		while (last < argc && !is_separator(argv[last]))
			last++;
		if (several) {
			printf("##");
			for (int i = first; i < last; i++)
				printf(" %s", argv[i]);
			putchar('\n');
		}
		if (last > first)
			failed |= ask(last - first, argv + first);
		fflush(stdout);
		first = last + 1;
	}
	return failed;
}
