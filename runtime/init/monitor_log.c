/* The log of a container: entries in docker's or Kubernetes' format, rotation, and an account of what was lost.
 *
 * A log that cannot be written never holds the container back: what it says meanwhile is counted, and the log tells
 * of it as soon as there is room again. */

#define _GNU_SOURCE
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "monitor.h"

/* What surrounds the text of an entry: braces, names, a time. */
#define FRAME 128
/* Every byte of a line may become six, as \u0001. */
#define LONGEST (6 * LINE + FRAME)

static char out[LONGEST + CHUNK] page_aligned;

/* ---- text ---- */

static char *put(char *at, const char *text)
{
    return stpcpy(at, text);
}

static char *put_digits(char *at, int64_t number, int digits)
{
    for (int i = digits - 1; i >= 0; i--, number /= 10)
        at[i] = '0' + number % 10;
    return at + digits;
}

/* Year, month and day, by the civil calendar; gmtime_r(3) brings all of libc's time zones with it.  Counted in years
 * that begin in March and eras of 400 of them. */
static void civil(int64_t days, int *date)
{
    days += 719468; /* From 0000-03-01 to 1970-01-01. */
    int64_t era = days / 146097, day = days % 146097;
    int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    int64_t of_year = day - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
    date[2] = of_year - (153 * month + 2) / 5 + 1;
    date[1] = month < 10 ? month + 3 : month - 9;
    date[0] = year + era * 400 + (date[1] <= 2);
}

/* RFC 3339, UTC, to the nanosecond. */
static char *put_time(char *at, int64_t nanoseconds)
{
    int64_t seconds = nanoseconds / 1000000000;
    int parts[] = {0, 0, 0, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60};
    civil(seconds / 86400, parts);
    for (int i = 0; i < 6; i++) {
        at = put_digits(at, parts[i], i ? 2 : 4);
        *at++ = "--T::."[i];
    }
    at = put_digits(at, nanoseconds % 1000000000, 9);
    *at++ = 'Z';
    return at;
}

/* Bytes of the UTF-8 character that begins here (RFC 3629: no surrogates, nothing overlong); 0 for what is none, -1
 * for one whose end is not there. */
static int utf8(const unsigned char *s, size_t size)
{
    int length = *s < 0x80 ? 1 : *s < 0xC2 ? 0 : *s < 0xE0 ? 2 : *s < 0xF0 ? 3 : *s < 0xF5 ? 4 : 0;
    unsigned char low = *s == 0xE0 ? 0xA0 : *s == 0xF0 ? 0x90 : 0x80;
    unsigned char high = *s == 0xED ? 0x9F : *s == 0xF4 ? 0x8F : 0xBF;
    for (int i = 1; i < length; i++, low = 0x80, high = 0xBF) {
        if ((size_t)i >= size)
            return -1;
        if (s[i] < low || s[i] > high)
            return 0;
    }
    return length;
}

/* How much of the text there is without a character at its end that is cut off. */
static size_t whole_characters(const char *text, size_t size)
{
    for (size_t back = 1; back <= 3 && back < size; back++) {
        const unsigned char *at = (const unsigned char *)text + size - back;
        if (*at >= 0xC0)
            return utf8(at, back) < 0 ? size - back : size;
        if (*at < 0x80)
            break;
    }
    return size;
}

static char *put_ascii(char *at, unsigned char c)
{
    static const char escaped[] = "\n\r\t\b\f\"\\", letters[] = "nrtbf\"\\";
    const char *found = c ? strchr(escaped, c) : NULL;
    if (found) {
        *at++ = '\\';
        *at++ = letters[found - escaped];
    } else if (c < 0x20 || c == '<' || c == '>' || c == '&') {
        at = put(at, "\\u00");
        *at++ = "0123456789abcdef"[c >> 4];
        *at++ = "0123456789abcdef"[c & 15];
    } else {
        *at++ = c;
    }
    return at;
}

/* The inside of a JSON string, as Go's encoder, and so docker, writes it; U+FFFD for each byte that is no UTF-8. */
static char *put_json(char *at, const char *text, size_t size)
{
    const unsigned char *s = (const unsigned char *)text, *end = s + size;
    while (s < end) {
        int length = utf8(s, end - s);
        if (length == 1) {
            at = put_ascii(at, *s++);
        } else if (length <= 0) {
            at = put(at, "\\ufffd");
            s++;
        } else {
            memcpy(at, s, length);
            at += length;
            s += length;
        }
    }
    return at;
}

static char *put_entry(const struct log *log, char *at, const char *stream, const char *text, size_t size, bool ended)
{
    int64_t now = wall_ns();
    if (log->format == JSON_FILE) {
        at = put_json(put(at, "{\"log\":\""), text, size);
        at = put(put(put(at, ended ? "\\n" : ""), "\",\"stream\":\""), stream);
        at = put(put_time(put(at, "\",\"time\":\""), now), "\"}\n");
        return at;
    }
    at = put(put(put_time(at, now), " "), stream);
    at = put(at, ended ? " F " : " P ");
    memcpy(at, text, size);
    at[size] = '\n';
    return at + size + 1;
}

/* ---- files ---- */

static int open_log(struct log *log)
{
    struct stat st;
    log->fd = openat(log->directory, log->name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (log->fd < 0)
        return -1;
    log->size = fstat(log->fd, &st) < 0 ? 0 : st.st_size;
    return 0;
}

/* NAME.number; NAME itself for 0. */
static const char *log_name(const struct log *log, int64_t number, char *buffer)
{
    struct digits digits;
    char *at = put(buffer, log->name);
    if (number)
        put(put(at, "."), number_text(&digits, number));
    return buffer;
}

/* The current file becomes the first old one, the oldest goes; what cannot be renamed is written on. */
static void rotate(struct log *log)
{
    char from[NAME_MAX + 32], to[NAME_MAX + 32];
    if (log->max_file <= 1) {
        log->size = ftruncate(log->fd, 0) < 0 ? log->size : 0;
        return;
    }
    for (int64_t number = log->max_file - 1; number > 0; number--) {
        log_name(log, number - 1, from);
        if (renameat(log->directory, from, log->directory, log_name(log, number, to)) < 0 && number == 1)
            return;
    }
    close_quietly(&log->fd);
    open_log(log);
}

/* Cuts off what was written last. */
static void take_back(struct log *log, size_t size)
{
    struct stat st;
    if (size && fstat(log->fd, &st) == 0 && st.st_size >= (off_t)size)
        (void)!ftruncate(log->fd, st.st_size - size);
}

/* All of it, or nothing and false: an entry that is cut off would spoil the next one. */
static bool write_whole(struct log *log, const char *data, size_t size)
{
    size_t done = 0;
    if (log->fd < 0 && open_log(log) < 0) {
        log->error = errno;
        return false;
    }
    while (done < size) {
        ssize_t written = write(log->fd, data + done, size - done);
        if (written <= 0) {
            log->error = written < 0 ? errno : ENOSPC;
            take_back(log, done);
            return false;
        }
        done += written;
    }
    log->size += size;
    return true;
}

/* ---- loss ---- */

static const char *reason(int error, struct digits *digits)
{
    switch (error) {
    case ENOSPC: return "no space left on device";
    case EDQUOT: return "disk quota exceeded";
    case EFBIG: return "file too large";
    case EROFS: return "read-only file system";
    case EIO: return "input/output error";
    case EACCES: return "permission denied";
    case ENOENT: return "the directory is gone";
    }
    return number_text(digits, error);
}

/* Tells of what has been lost, if anything: the length of the entry, -1 if that cannot be written either. */
static ssize_t report_loss(struct log *log)
{
    char text[128], entry[2 * sizeof text + FRAME];
    struct digits bytes, error;
    if (!log->unreported)
        return 0;
    char *end = put(put(text, "warren: "), number_text(&bytes, log->unreported));
    end = put(put(end, " bytes of output were lost: "), reason(log->error, &error));
    end = put_entry(log, entry, "stderr", text, end - text, true);
    return write_whole(log, entry, end - entry) ? end - entry : -1;
}

/* What was lost is told together with what is not lost any more, or the last room would be filled with such news. */
void log_flush(struct log *log)
{
    if (!log->used)
        return;
    ssize_t report = report_loss(log);
    if (report >= 0 && write_whole(log, out, log->used)) {
        log->unreported = 0;
    } else {
        log->lost += log->raw;
        log->unreported += log->raw;
        if (report > 0) {
            take_back(log, report);
            log->size -= report;
        }
    }
    log->used = log->raw = 0;
}

void log_close(struct log *log)
{
    log_flush(log);
    report_loss(log);
}

void log_tidy(void)
{
    give_back(out, sizeof out);
}

/* ---- entries ---- */

/* An entry that does not fit in the file any more, after at least one that did, begins the next one. */
static void add_entry(struct log *log, const char *stream, const char *text, size_t size, bool ended)
{
    if (sizeof out - log->used < 6 * size + FRAME)
        log_flush(log);
    size_t start = log->used, length = put_entry(log, out + start, stream, text, size, ended) - (out + start);
    if (log->max_size && log->size + start && log->size + start + length > (size_t)log->max_size) {
        log_flush(log);
        if (log->size)
            rotate(log);
        memmove(out, out + start, length);
        start = 0;
    }
    log->used = start + length;
    log->raw += size + ended;
}

void log_feed(struct log *log, struct stream *stream, const char *data, size_t size)
{
    while (log->format && size) {
        const char *newline = memchr(data, '\n', size);
        size_t take = newline ? (size_t)(newline - data) : size, room = LINE - stream->unfinished;
        bool ended = newline && take <= room;
        take = take < room ? take : room;
        const char *text = data;
        if (stream->unfinished || (!ended && take < room)) {
            memcpy(stream->line + stream->unfinished, data, take);
            text = stream->line;
        }
        size_t length = stream->unfinished + take;
        data += take + ended;
        size -= take + ended;
        if (!ended && length < LINE) {
            stream->unfinished = length;
            return;
        }
        size_t whole = ended ? length : whole_characters(text, length);
        add_entry(log, stream->name, text, whole, ended);
        memmove(stream->line, text + whole, length - whole);
        stream->unfinished = length - whole;
    }
}

void log_end(struct log *log, struct stream *stream)
{
    if (stream->unfinished)
        add_entry(log, stream->name, stream->line, stream->unfinished, false);
    stream->unfinished = 0;
    log_flush(log);
}

/* ---- the step ---- */

int do_monitor_log(struct run *run, const struct arg *arg)
{
    struct log *log = &the_monitor.log;
    log->format = strcmp(arg[0].s, "json-file") == 0 ? JSON_FILE : strcmp(arg[0].s, "k8s-file") == 0 ? K8S_FILE : NO_LOG;
    log->directory = slot_fd(run, arg[1].i);
    log->name = arg[2].s;
    log->max_size = arg[3].i;
    log->max_file = arg[4].i;
    if (!log->format)
        return fail_as(run, EINVAL, "no such format");
    if (log->directory < 0)
        return fail(run, "slot");
    if (!arg[2].n || arg[2].n > NAME_MAX - 20 || strchr(log->name, '/') || arg[3].i < 0 || arg[4].i < 0 ||
        arg[4].i > 10000)
        return fail_as(run, EINVAL, "log");
    return open_log(log) < 0 ? fail(run, "open") : 0;
}
