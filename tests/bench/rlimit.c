/* Preloaded into a peer that will not start because root may not raise RLIMIT_MEMLOCK here (crun, on hosts without
 * CAP_SYS_RESOURCE).  That one call does nothing and succeeds; every other goes to the kernel. */

#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    return resource == RLIMIT_MEMLOCK ? 0 : syscall(SYS_prlimit64, 0, resource, limit, NULL);
}

int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
    return resource == RLIMIT_MEMLOCK ? 0 : syscall(SYS_prlimit64, 0, resource, limit, NULL);
}
