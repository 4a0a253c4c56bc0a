/* Runs a seccomp filter on many inputs.  An interpreter of its own: what it runs is also given to the kernel by the
 * tests, but the kernel runs a filter only for the machine's own architecture and for calls that somebody makes. */

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { BROKEN = 0xdeadbeef };

static uint32_t run(const struct sock_filter *program, size_t length, const struct seccomp_data *data)
{
    uint32_t a = 0;
    for (size_t at = 0; at < length; at++) {
        const struct sock_filter *i = &program[at];
        switch (i->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            if (i->k > sizeof(*data) - 4 || i->k % 4)
                return BROKEN;
            memcpy(&a, (const char *)data + i->k, 4);
            break;
        case BPF_ALU | BPF_AND | BPF_K: a &= i->k; break;
        case BPF_JMP | BPF_JA: at += i->k; break;
        case BPF_JMP | BPF_JEQ | BPF_K: at += a == i->k ? i->jt : i->jf; break;
        case BPF_JMP | BPF_JGT | BPF_K: at += a > i->k ? i->jt : i->jf; break;
        case BPF_JMP | BPF_JGE | BPF_K: at += a >= i->k ? i->jt : i->jf; break;
        case BPF_JMP | BPF_JSET | BPF_K: at += a & i->k ? i->jt : i->jf; break;
        case BPF_RET | BPF_K: return i->k;
        default: return BROKEN;
        }
    }
    return BROKEN;
}

void run_all(const struct sock_filter *program, size_t length, const struct seccomp_data *data, size_t count,
             uint32_t *answers)
{
    for (size_t n = 0; n < count; n++)
        answers[n] = run(program, length, &data[n]);
}
