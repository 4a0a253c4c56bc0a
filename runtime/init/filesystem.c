/* Mounts by descriptor: fsopen(2), fsconfig(2), fsmount(2), move_mount(2). */

#define _GNU_SOURCE
#include <linux/magic.h>
#include <sys/vfs.h>

#include "steps.h"

/* Longest string that fsconfig(2) takes; mount(2) took a page. */
#define MAX_VALUE 255

int fail_with_log(struct run *run, int fs, const char *what)
{
    int error = errno;
    char line[256], found[256] = "";
    /* Each read takes one message, "e overlay: ..." for an error; the last one is about the call that failed. */
    for (ssize_t size; (size = read(fs, line, sizeof line - 1)) > 0;) {
        line[size] = 0;
        line[strcspn(line, "\n")] = 0;
        if (line[0] == 'e' && line[1] == ' ')
            strcpy(found, line + 2);
    }
    return fail_as(run, error, *found ? found : what);
}

int open_filesystem(struct run *run, const char *type)
{
    int fs = sys_fsopen(type);
    return fs < 0 ? fail(run, "fsopen") : fs;
}

int set_string(struct run *run, int fs, const char *key, const char *value)
{
    if (strlen(value) > MAX_VALUE)
        return fail_text(run, EINVAL, "option ", key, " is longer than 255 bytes", NULL);
    if (sys_fsconfig(fs, FSCONFIG_SET_STRING, key, value, 0) < 0)
        return fail_with_log(run, fs, "fsconfig");
    return 0;
}

int set_option(struct run *run, int fs, const char *option)
{
    char key[MAX_VALUE + 1];
    size_t size = strcspn(option, "=");
    if (!size || size >= sizeof key)
        return fail_as(run, EINVAL, "an option has no name, or one longer than 255 bytes");
    memcpy(key, option, size);
    key[size] = 0;
    if (option[size])
        return set_string(run, fs, key, option + size + 1);
    if (sys_fsconfig(fs, FSCONFIG_SET_FLAG, key, NULL, 0) < 0)
        return fail_with_log(run, fs, "fsconfig");
    return 0;
}

int create_mount(struct run *run, int fs, uint64_t attr)
{
    if (sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return fail_with_log(run, fs, "fsconfig");
    int mount = sys_fsmount(fs, attr);
    return mount < 0 ? fail_with_log(run, fs, "fsmount") : mount;
}

int new_mount(struct run *run, const char *type, const struct arg *options, uint64_t attr)
{
    autoclose int fs = open_filesystem(run, type);
    if (fs < 0)
        return -1;
    bool overlay = strcmp(type, "overlay") == 0;
    for_each(option, options) {
        bool layers = overlay && is_layer_option(option);
        if ((layers ? set_layer_option(run, fs, option) : set_option(run, fs, option)) < 0)
            return -1;
    }
    return create_mount(run, fs, attr);
}

int reconfigure(struct run *run, int target, const struct arg *options)
{
    autoclose int fs = syscall(SYS_fspick, target, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);
    if (fs < 0)
        return fail(run, "fspick");
    for_each(option, options)
        if (set_option(run, fs, option) < 0)
            return -1;
    if (sys_fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
        return fail_with_log(run, fs, "fsconfig");
    return 0;
}

int attach(struct run *run, int mount, int target)
{
    if (sys_move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return fail(run, "move_mount");
    return 0;
}

int clone_mount(int fd, unsigned flags)
{
    return sys_open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);
}

int private_proc(struct run *run)
{
    static const struct arg no_options;
    struct statfs fs;
    if (run->proc >= 0)
        return run->proc;
    autoclose int mount = new_mount(run, "proc", &no_options, 0);
    if (mount < 0)
        return -1;
    if (fstatfs(mount, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)
        return fail_as(run, EINVAL, "not a procfs");
    run->proc = mount;
    mount = -1;
    return run->proc;
}
