/* Overlays: layers passed by descriptor, so that no path has to be named and no length limit applies.
 *
 * Linux 6.13 takes descriptors, 6.5 one name a layer, older kernels one string of all names.  Names are relative to the scratch tmpfs, where the layers are attached. */

#define _GNU_SOURCE
#include <sys/stat.h>

#include "steps.h"

/* A directory of an overlay. */
struct layer {
    int fd;        /* it, O_PATH */
    char name[32]; /* for kernels that want a name, relative to the scratch tmpfs */
};

/* Everything that an overlay is made of. */
struct layers {
    struct layer *lower; /* topmost first */
    size_t count;        /* of lower */
    int upper;           /* takes the changes */
    int work;            /* what overlayfs needs beside it */
};

static void close_layers(struct layers *layers)
{
    close_quietly(&layers->upper);
    close_quietly(&layers->work);
}

static int parse_slot(const char *text)
{
    int slot = 0;
    if (!*text)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || slot >= MAX_SLOTS)
            return -1;
        slot = slot * 10 + (*text - '0');
    }
    return slot;
}

static void name_layer(struct layer *layer, const char *prefix, int number)
{
    struct digits digits;
    strcpy(layer->name, prefix);
    strcat(layer->name, number_text(&digits, number));
}

/* Attaches a layer below the scratch tmpfs: before 6.x overlayfs refuses mounts that are attached nowhere.  A plain
 * directory (`open_path`) is no mount and is used where it is. */
static int attach_layer(struct run *run, int64_t slot, struct layer *layer)
{
    layer->fd = slot_fd(run, slot);
    if (layer->fd < 0)
        return fail(run, "slot of a layer");
    name_layer(layer, "l", slot);
    if (mkdirat(run->scratch, layer->name, 0700) < 0 && errno != EEXIST)
        return fail(run, "mkdir in scratch");
    if (sys_move_mount(layer->fd, "", run->scratch, layer->name, MOVE_MOUNT_F_EMPTY_PATH) == 0)
        return 0;
    if (errno != EINVAL)
        return fail(run, "move_mount of a layer");
    name_layer(layer, "/proc/self/fd/", layer->fd);
    return 0;
}

static int attach_lowers(struct run *run, const struct arg *list, struct layers *layers)
{
    layers->lower = calloc(list_count(list), sizeof *layers->lower);
    if (!layers->lower)
        return fail(run, "memory");
    for_each(text, list)
        if (attach_layer(run, parse_slot(text), &layers->lower[layers->count++]) < 0)
            return -1;
    return 0;
}

/* The root directory of an overlay is that of the upper layer: it must look like the topmost lower one.  Best effort,
 * since the owner may be an id that this user namespace does not map. */
static void copy_attributes(int from, int to)
{
    struct stat st;
    if (fstat(from, &st) < 0)
        return;
    (void)!fchown(to, st.st_uid, st.st_gid);
    (void)!fchmod(to, st.st_mode & 07777);
}

static int make_upper(struct run *run, int base, struct layers *layers)
{
    bool made = mkdirat(base, "upper", 0755) == 0;
    if (!made && errno != EEXIST)
        return fail(run, "mkdir upper");
    layers->upper = openat(base, "upper", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (layers->upper < 0)
        return fail(run, "upper");
    if (made)
        copy_attributes(layers->lower[0].fd, layers->upper);
    if (mkdirat(base, "work", 0755) < 0 && errno != EEXIST)
        return fail(run, "mkdir work");
    layers->work = openat(base, "work", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return layers->work < 0 ? fail(run, "work") : 0;
}

/* The directory in which changes go: a given one, or a new one of the scratch tmpfs. */
static int prepare_upper(struct run *run, int64_t slot, int64_t base, struct layers *layers)
{
    struct layer place;
    if (base >= 0)
        return attach_layer(run, base, &place) < 0 ? -1 : make_upper(run, place.fd, layers);
    name_layer(&place, "c", slot);
    if (mkdirat(run->scratch, place.name, 0755) < 0)
        return fail(run, "mkdir in scratch");
    autoclose int directory = openat(run->scratch, place.name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return directory < 0 ? fail(run, "changes") : make_upper(run, directory, layers);
}

/* 6.13: by descriptor.  Only failure to pass the first one means that the kernel knows no such thing. */
static int pass_descriptors(int fs, const struct layers *layers)
{
    for (size_t i = 0; i < layers->count; i++)
        if (sys_fsconfig(fs, FSCONFIG_SET_FD, "lowerdir+", NULL, layers->lower[i].fd) < 0)
            return -1;
    if (sys_fsconfig(fs, FSCONFIG_SET_FD, "upperdir", NULL, layers->upper) < 0)
        return -1;
    return sys_fsconfig(fs, FSCONFIG_SET_FD, "workdir", NULL, layers->work);
}

/* All names in one string, as far as fsconfig(2) takes it; false if it does not. */
static bool join_names(const struct layers *layers, char joined[256])
{
    size_t used = 0;
    *joined = 0;
    for (size_t i = 0; i < layers->count; i++) {
        size_t size = strlen(layers->lower[i].name);
        if (used + size + 2 > 256)
            return false;
        if (used)
            joined[used++] = ':';
        memcpy(joined + used, layers->lower[i].name, size + 1);
        used += size;
    }
    return true;
}

/* One string, which every kernel takes; a name a layer, since 6.5, where it would be too long.  Not the other way
 * round: older kernels take any option, and refuse to mount. */
static int pass_names(struct run *run, int fs, const struct layers *layers)
{
    struct layer upper, work;
    char joined[256];
    if (join_names(layers, joined)) {
        if (set_string(run, fs, "lowerdir", joined) < 0)
            return -1;
    } else {
        for (size_t i = 0; i < layers->count; i++)
            if (sys_fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir+", layers->lower[i].name, 0) < 0)
                return fail_with_log(run, fs, "lowerdir+");
    }
    name_layer(&upper, "/proc/self/fd/", layers->upper);
    name_layer(&work, "/proc/self/fd/", layers->work);
    if (set_string(run, fs, "upperdir", upper.name) < 0)
        return -1;
    return set_string(run, fs, "workdir", work.name);
}

/* A context that got some descriptors cannot take names for the others, hence a new one for each way. */
static int mount_layers(struct run *run, const struct layers *layers, const struct arg *options)
{
    autoclose int modern = open_filesystem(run, "overlay");
    autoclose int older = -1;
    if (modern < 0)
        return -1;
    int fs = modern;
    if (pass_descriptors(modern, layers) < 0) {
        fs = older = open_filesystem(run, "overlay");
        if (older < 0 || pass_names(run, older, layers) < 0)
            return -1;
    }
    if (set_string(run, fs, "source", "overlay") < 0)
        return -1;
    for_each(option, options)
        if (set_option(run, fs, option) < 0)
            return -1;
    return create_mount(run, fs, 0);
}

int do_overlay(struct run *run, const struct arg *arg)
{
    __attribute__((cleanup(close_layers))) struct layers layers = {.upper = -1, .work = -1};
    if (run->scratch < 0 || !list_count(&arg[2]))
        return fail_as(run, EINVAL, run->scratch < 0 ? "no scratch tmpfs" : "no lower layer");
    if (attach_lowers(run, &arg[2], &layers) < 0 || prepare_upper(run, arg[0].i, arg[1].i, &layers) < 0)
        return -1;
    /* Our caller's working directory may be one that root of this user namespace must not enter. */
    autoclose int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fchdir(run->scratch) < 0)
        return fail(run, "chdir to scratch");
    int mount = mount_layers(run, &layers, &arg[3]);
    if ((before < 0 || fchdir(before) < 0) && chdir("/") < 0 && mount >= 0) {
        close(mount);
        return fail(run, "chdir from scratch");
    }
    return mount < 0 ? -1 : set_slot(run, arg[0].i, mount);
}

/* ---- overlays that a bundle mounts itself: lowerdir=a:b,upperdir=c,workdir=d ---- */

bool is_layer_option(const char *option)
{
    return strncmp(option, "lowerdir=", 9) == 0 || strncmp(option, "upperdir=", 9) == 0 ||
           strncmp(option, "workdir=", 8) == 0;
}

static int pass_directory(int fs, const char *key, const char *path)
{
    autoclose int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -1 : sys_fsconfig(fs, FSCONFIG_SET_FD, key, NULL, fd);
}

/* Cuts the first directory off a list in which ':' separates and '\' protects; in place. */
static char *next_directory(char **list)
{
    char *start = *list, *to = start, *from = start;
    while (*from && *from != ':') {
        if (*from == '\\' && from[1])
            from++;
        *to++ = *from++;
    }
    *list = *from ? from + 1 : NULL;
    *to = 0;
    return start;
}

/* Short strings go as they are, the way mount(8) does it; long ones need Linux 6.13. */
int set_layer_option(struct run *run, int fs, const char *option)
{
    size_t size = strcspn(option, "=");
    char *copy = strdup(option);
    if (!copy)
        return fail(run, "memory");
    char *value = copy + size + 1;
    copy[size] = 0;
    if (strlen(value) <= 255)
        return set_string(run, fs, copy, value);
    bool lower = strcmp(copy, "lowerdir") == 0;
    for (char *path; value;) {
        path = lower ? next_directory(&value) : value;
        value = lower ? value : NULL;
        if (!*path)
            return fail_as(run, EINVAL, "data-only layers are not supported in long options");
        if (pass_directory(fs, lower ? "lowerdir+" : copy, path) < 0)
            return fail_with_log(run, fs, path);
    }
    return 0;
}
