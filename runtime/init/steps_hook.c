/* Hooks that run inside the container's namespaces. */

#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "steps.h"

/* A hook at work. */
struct hook {
    pid_t pid;         /* process and process group */
    int process;       /* its pidfd */
    int input;         /* write end of its standard input; -1 when all is written */
    int verdict;       /* read end of a pipe on which the child tells why it could not execute the hook */
    const char *rest;  /* what is still to be written to it */
    int64_t deadline;  /* in milliseconds of CLOCK_MONOTONIC; 0 none */
};

static int64_t now(void)
{
    struct timespec time;
    sys_now(&time);
    return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/* Hook: our job is just to execute the hook with the container's state on standard input, in a process group of its
 * own, with nothing of init's left open. */
static _Noreturn void be_hook(const struct arg *arg, int input, int verdict)
{
    char **argv = list_to_vector(&arg[1]), **env = list_to_vector(&arg[2]);
    setpgid(0, 0);
    reset_signals();
    if (argv && env && dup2(input, 0) == 0 && sys_close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
        execve(arg[0].s, argv, env);
    int error = errno;
    _exit(write(verdict, &error, sizeof error) == sizeof error ? 127 : 126);
}

/* Starts the hook; the pipes' other ends are closed in either process. */
static int start_hook(struct run *run, const struct arg *arg, struct hook *hook)
{
    int input[2], verdict[2];
    if (pipe2(input, O_CLOEXEC) < 0)
        return fail(run, "pipe");
    hook->input = input[1];
    autoclose int input_end = input[0];
    if (pipe2(verdict, O_CLOEXEC) < 0)
        return fail(run, "pipe");
    hook->verdict = verdict[0];
    autoclose int verdict_end = verdict[1];
    hook->pid = sys_fork(0, SIGCHLD);
    if (hook->pid == 0)
        be_hook(arg, input_end, verdict_end);
    if (hook->pid < 0)
        return fail(run, "fork");
    setpgid(hook->pid, hook->pid);
    hook->process = sys_pidfd_open(hook->pid);
    if (hook->process < 0 || fcntl(hook->input, F_SETFL, O_NONBLOCK) < 0)
        return fail(run, "pidfd_open");
    return 0;
}

/* Writes as much as the pipe takes.  A hook that does not read its input, and closes it, is fine. */
static void feed(struct hook *hook)
{
    ssize_t written = write(hook->input, hook->rest, strlen(hook->rest));
    if (written > 0)
        hook->rest += written;
    bool again = written < 0 && (errno == EAGAIN || errno == EINTR);
    if (!*hook->rest || (written < 0 && !again)) {
        close(hook->input);
        hook->input = -1;
    }
}

/* Feeds the hook until it ends; -1 when its time is over first. */
static int attend(struct hook *hook)
{
    for (;;) {
        struct pollfd fds[] = {{.fd = hook->process, .events = POLLIN}, {.fd = hook->input, .events = POLLOUT}};
        int64_t left = hook->deadline ? hook->deadline - now() : -1;
        if (hook->deadline && left <= 0)
            return -1;
        if (poll(fds, 2, left > INT32_MAX ? INT32_MAX : left) <= 0)
            continue;
        if (fds[0].revents)
            return 0;
        if (fds[1].revents)
            feed(hook);
    }
}

static int judge(struct run *run, int status)
{
    struct digits digits;
    if (WIFSIGNALED(status))
        return fail_text(run, ECHILD, "killed by signal ", number_text(&digits, WTERMSIG(status)), NULL);
    if (WEXITSTATUS(status))
        return fail_text(run, ECHILD, "exit status ", number_text(&digits, WEXITSTATUS(status)), NULL);
    return 0;
}

static int finish_hook(struct run *run, struct hook *hook, int64_t timeout)
{
    struct digits digits;
    int status = 0, error;
    bool late = attend(hook) < 0;
    if (late)
        kill(-hook->pid, SIGKILL);
    while (waitpid(hook->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (late)
        return fail_text(run, ETIMEDOUT, "timed out after ", number_text(&digits, timeout), " s", NULL);
    if (fcntl(hook->verdict, F_SETFL, O_NONBLOCK) == 0 && read(hook->verdict, &error, sizeof error) == sizeof error)
        return fail_as(run, error, "execve");
    return judge(run, status);
}

int do_hook(struct run *run, const struct arg *arg)
{
    struct hook hook = {.pid = -1, .process = -1, .input = -1, .verdict = -1, .rest = run->state ? run->state : ""};
    int64_t timeout = arg[3].i > 0 && arg[3].i < INT32_MAX ? arg[3].i : 0;
    hook.deadline = timeout ? now() + timeout * 1000 : 0;
    int result = start_hook(run, arg, &hook);
    if (result == 0)
        result = finish_hook(run, &hook, timeout);
    close_quietly(&hook.process);
    close_quietly(&hook.input);
    close_quietly(&hook.verdict);
    return result;
}
