/* The last steps: working directory, program, execve(2). */

#define _GNU_SOURCE
#include <limits.h>
#include <sys/stat.h>

#include "steps.h"

/* Longest program and search path together: execve(2) takes no longer string either. */
#define MAX_SEARCH (128 << 10)

/* First character of the working directory's name.  The system call itself: libc has its own idea of failure. */
static int first_of_getcwd(size_t size)
{
    char path[size];
    return syscall(SYS_getcwd, path, size) < 0 ? -1 : (unsigned char)*path;
}

/* A working directory outside the root, as a leaked descriptor gives it, has no name (CVE-2024-21626). */
static int check_directory(struct run *run)
{
    int first = first_of_getcwd(256);
    if (first < 0 && errno == ERANGE)
        first = first_of_getcwd(PATH_MAX);
    if (first < 0)
        return fail(run, "getcwd");
    return first == '/' ? 0 : fail_as(run, ENOENT, "the working directory is outside the container's root");
}

int do_chdir(struct run *run, const struct arg *arg)
{
    if (arg[1].i & MAKE_DIR) {
        int made = resolve(run, arg[0].s, MAKE_DIR);
        close_quietly(&made); /* What went wrong, on a read-only root for example, chdir will say. */
    }
    return chdir(arg[0].s) < 0 ? fail(run, "chdir") : check_directory(run);
}

/* 0 if the file can be executed, else its errno; EISDIR stands for a directory. */
static int cannot_execute(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return errno;
    if (S_ISDIR(st.st_mode))
        return EISDIR;
    if (!S_ISREG(st.st_mode))
        return EACCES;
    return sys_access_execute(path) < 0 ? errno : 0;
}

static int not_found(struct run *run, int error)
{
    if (error == EISDIR)
        return fail_as(run, EACCES, "is a directory");
    return fail_as(run, error, error == EACCES ? "permission denied" : "");
}

static int remember(struct run *run, const char *program)
{
    run->program = strdup(program);
    return run->program ? 0 : fail(run, "memory");
}

/* Looks for a program in the directories of `path`, where an empty one means "."; 0 or the most telling errno. */
static int search(const char *program, const char *path, char *found)
{
    int worst = ENOENT;
    size_t name = strlen(program);
    for (;; path++) {
        size_t size = strcspn(path, ":");
        const char *directory = size ? path : ".";
        size_t length = size ? size : 1;
        if (length + 1 + name < PATH_MAX) {
            memcpy(found, directory, length);
            found[length] = '/';
            strcpy(found + length + 1, program);
            int error = cannot_execute(found);
            if (!error)
                return 0;
            /* A directory that we may not search says nothing about the program. */
            bool exists = access(found, F_OK) == 0;
            if (exists && (error == EACCES || (error == EISDIR && worst == ENOENT)))
                worst = error;
        }
        path += size;
        if (!*path)
            return worst;
    }
}

int do_find(struct run *run, const struct arg *arg)
{
    int error;
    if (strchr(arg[0].s, '/')) {
        error = cannot_execute(arg[0].s);
        return error ? not_found(run, error) : remember(run, arg[0].s);
    }
    if (arg[0].n + arg[1].n > MAX_SEARCH)
        return not_found(run, ENAMETOOLONG);
    char found[arg[0].n + arg[1].n + 3]; /* "." may be longer than what it stands for */
    error = *arg[0].s ? search(arg[0].s, arg[1].s, found) : ENOENT;
    return error ? not_found(run, error) : remember(run, found);
}

/* Descriptors from 3 on are the container's as far as it is to keep them; everything after is ours, and ends with us.
 * Close-on-exec rather than closed, so that a failure can still be told. */
static int keep_descriptors(struct run *run, int64_t count)
{
    if (count < 0 || count > INT32_MAX - 4)
        return fail_as(run, EINVAL, "preserved descriptors");
    for (int fd = 3; fd < 3 + count; fd++)
        if (fcntl(fd, F_SETFD, 0) < 0)
            return fail(run, "preserved descriptor");
    if (!run->filtered && sys_close_range(3 + count, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        return fail(run, "close_range");
    return 0;
}

/* What comes right before execve(2), in this order; `preserved` descriptors from 3 on stay. */
static int prepare_to_execute(struct run *run, int64_t preserved)
{
    if (keep_descriptors(run, preserved) < 0 || keep_process_attributes(run) < 0)
        return -1;
    if (!run->filtered && check_directory(run) < 0)
        return -1;
    reset_signals();
    write_stamps(run);
    return load_filter(run);
}

int do_exec(struct run *run, const struct arg *arg)
{
    char **argv = list_to_vector(&arg[0]);
    char **env = list_to_vector(&arg[1]);
    if (!argv || !env)
        return fail(run, "memory");
    if (!*argv)
        return fail_as(run, EINVAL, "no program");
    if (prepare_to_execute(run, arg[2].i) < 0)
        return -1;
    execve(run->program ? run->program : *argv, argv, env);
    return errno == ENOEXEC ? fail(run, "exec format error") : fail(run, "execve");
}

/* Executes ourselves: until then our memory belongs to the user namespace in which we began, and an ordinary user could
 * not join the namespaces of such a process (ptrace(2), PTRACE_MODE_READ). */
int do_idle(struct run *run, const struct arg *arg)
{
    static char *const argv[] = {"warren-init", "--idle", NULL}, *const env[] = {NULL};
    int self = slot_fd(run, arg[0].i);
    if (self < 0)
        return fail(run, "slot");
    if (prepare_to_execute(run, 0) < 0)
        return -1;
    hold_signals(); /* Who has started us learns of it by what follows, and may end us before we look. */
    syscall(SYS_execveat, self, "", argv, env, AT_EMPTY_PATH);
    return fail(run, "execveat");
}
