// Preloaded into a QEMU under test: each register that the kernel is asked about, a line for each
// request, appended to the file that $TRACE names: `get 6030000000140000` or `set ...`. It stands
// behind the boundary's library, whose requests go through syscall(), so it sees what the kernel
// does. Programs other than QEMU, which inherit it, are left alone.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GET_ONE_REG 0x4010aeabu
#define SET_ONE_REG 0x4010aeacu

static int trace = -1;

static void __attribute__((constructor)) begin(void)
{
    const char *path = getenv("TRACE");

    if (path && strncmp(program_invocation_short_name, "qemu-", 5) == 0)
        trace = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void note(uint32_t request, const uint64_t *index)
{
    char line[32];
    int kept = errno;

    if (trace < 0 || (request != GET_ONE_REG && request != SET_ONE_REG))
        return;
    int length = snprintf(line, sizeof line, "%s %llx\n", request == GET_ONE_REG ? "get" : "set",
                          (unsigned long long)*index);
    if (write(trace, line, (size_t)length) != length)
        abort();
    errno = kept;
}

long syscall(long number, ...)
{
    static long (*next)(long, ...);
    long word[6];
    va_list arguments;

    va_start(arguments, number);
    for (int at = 0; at < 6; at++)
        word[at] = va_arg(arguments, long);
    va_end(arguments);
    if (!next)
        next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_ioctl)
        note((uint32_t)word[1], (const uint64_t *)word[2]);
    return next(number, word[0], word[1], word[2], word[3], word[4], word[5]);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;

    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return (int)syscall(SYS_ioctl, (long)fd, (long)request, argument);
}
