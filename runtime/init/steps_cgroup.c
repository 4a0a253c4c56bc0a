/* The device program of a cgroup v2: loaded and attached while we are still outside, with the caller's privileges. */

#define _GNU_SOURCE
#include <linux/bpf.h>

#include "steps.h"

#define LOG_SIZE 65536
#define MAX_INSTRUCTIONS (1u << 20)

static int sys_bpf(unsigned command, union bpf_attr *attr)
{
    return syscall(SYS_bpf, command, attr, sizeof *attr);
}

/* The last line of the verifier's log, which says what it did not like but for statistics; "" if there is none. */
static char *last_line(char *log)
{
    size_t end = strlen(log);
    while (end && log[end - 1] == '\n')
        end--;
    log[end] = 0;
    char *line = strrchr(log, '\n');
    char *last = line ? line + 1 : log;
    if (line && strncmp(last, "processed ", 10) == 0) {
        *line = 0;
        return last_line(log);
    }
    return last;
}

/* Once more, with the log that costs too much to have always. */
static int fail_with_verifier(struct run *run, union bpf_attr *attr)
{
    static char log[LOG_SIZE];
    int error = errno;
    attr->log_level = 1;
    attr->log_size = sizeof log;
    attr->log_buf = (uintptr_t)log;
    if (error == EPERM || sys_bpf(BPF_PROG_LOAD, attr) >= 0)
        return fail_as(run, error, "BPF_PROG_LOAD");
    log[sizeof log - 1] = 0;
    return fail_text(run, error, "BPF_PROG_LOAD: ", last_line(log), NULL);
}

/* The cgroup keeps the program; it is gone with the cgroup. */
int do_device_program(struct run *run, const struct arg *arg)
{
    int cgroup = slot_fd(run, arg[0].i);
    size_t count = arg[1].n / sizeof(struct bpf_insn);
    if (cgroup < 0)
        return fail(run, "slot");
    if (!count || count > MAX_INSTRUCTIONS || arg[1].n % sizeof(struct bpf_insn))
        return fail_as(run, EINVAL, "not a program");
    union bpf_attr load = {0}, attach = {0};
    load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    load.insn_cnt = count;
    load.insns = (uintptr_t)arg[1].s;
    load.license = (uintptr_t) "Apache-2.0";
    memcpy(load.prog_name, "warren_devices", sizeof "warren_devices");
    autoclose int program = sys_bpf(BPF_PROG_LOAD, &load);
    if (program < 0)
        return fail_with_verifier(run, &load);
    attach.target_fd = cgroup;
    attach.attach_bpf_fd = program;
    attach.attach_type = BPF_CGROUP_DEVICE;
    attach.attach_flags = BPF_F_ALLOW_MULTI;
    return sys_bpf(BPF_PROG_ATTACH, &attach) < 0 ? fail(run, "BPF_PROG_ATTACH") : 0;
}
