/* A kernel of a few lines behind the boundary library, driven by commands on standard input.
 *
 * The library calls the C library's syscall() for every ioctl; this program has its own, which
 * answers as KVM does. So the very library that is shipped can be preloaded into it, and the same
 * source can be compiled into it with sanitizers. One line of answer for each command.
 *
 *     reg INDEX VALUE MODE       a register after reset; MODE rw, ro (EINVAL for another value),
 *                                deaf (writes are ignored), psci (EINVAL without feature bit 2)
 *     vm                         KVM_CREATE_VM
 *     create NUMBER FD           a vCPU whose descriptor is FD
 *     init FD FEATURES           KVM_ARM_VCPU_INIT
 *     list FD ROOM, get FD INDEX, set FD INDEX VALUE, run FD
 *     calls INDEX                how often the kernel was asked about INDEX
 *     threads COUNT ROUNDS       vCPUs 0.. at descriptors 100.., each served by a thread
 *     signed                     from now on requests are sign-extended ints, as QEMU 7.2 has them
 *     child                      how many variables and descriptors of the library a child has
 *     environment                what is left of the variables
 *     time ROUNDS                nanoseconds for one KVM_RUN through the library
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>

enum { RW, RO, DEAF, PSCI };
#define MOST 4500
#define MOST_FDS 70000

struct reg {
    uint64_t index, reset;
    int mode;
    _Atomic unsigned calls;
};
static struct reg regs[MOST];
static int count;
static struct fake { int made, initialised; uint32_t features; uint64_t value[MOST]; } *vcpus[MOST_FDS];
static int next_fd, sign;
static _Atomic unsigned runs;
struct one { uint64_t index, address; };
struct list { uint64_t count, index[]; };

static int find(uint64_t index)
{
    for (int at = 0; at < count; at++)
        if (regs[at].index == index)
            return at;
    return -1;
}

static long fail(int error)
{
    errno = error;
    return -1;
}

long syscall(long number, ...)
{
    va_list list_of;
    va_start(list_of, number);
    int fd = va_arg(list_of, int);
    unsigned long request = va_arg(list_of, unsigned long);
    void *argument = va_arg(list_of, void *);
    va_end(list_of);
    if (number != SYS_ioctl)
        return fail(ENOSYS);
    if ((uint32_t)request == 0xae01)
        return 4;
    if ((uint32_t)request == 0xae41) {
        if (!vcpus[next_fd])
            vcpus[next_fd] = calloc(1, sizeof *vcpus[0]);
        vcpus[next_fd]->made = 1;
        vcpus[next_fd]->initialised = 0;
        return next_fd;
    }
    struct fake *vcpu = fd >= 0 && fd < MOST_FDS ? vcpus[fd] : NULL;
    if (!vcpu)
        return fail(ENOTTY);
    if ((uint32_t)request == 0xae80) {
        atomic_fetch_add(&runs, 1);
        return 0;
    }
    if ((uint32_t)request == 0x4020aeae) {
        vcpu->features = ((uint32_t *)argument)[1];
        if (vcpu->features & 0x80000000u)
            return fail(EINVAL);
        vcpu->initialised = 1;
        for (int at = 0; at < count; at++)
            vcpu->value[at] = regs[at].reset;
        return 0;
    }
    if (!vcpu->initialised)
        return fail(ENOEXEC);
    if ((uint32_t)request == 0xc008aeb0) {
        struct list *asked = argument;
        uint64_t room = asked->count;
        asked->count = (uint64_t)count;
        if (room < (uint64_t)count)
            return fail(E2BIG);
        for (int at = 0; at < count; at++)
            asked->index[at] = regs[count - 1 - at].index;
        return 0;
    }
    struct one *one = argument;
    int at = find(one->index);
    if (at < 0)
        return fail(ENOENT);
    struct reg *reg = &regs[at];
    atomic_fetch_add(&reg->calls, 1);
    size_t size = 1u << ((one->index >> 52) & 15);
    uint64_t value = 0;
    if ((uint32_t)request == 0x4010aeab) {
        memcpy((void *)(uintptr_t)one->address, &vcpu->value[at], size);
        return 0;
    }
    if ((uint32_t)request != 0x4010aeac)
        return fail(ENOTTY);
    memcpy(&value, (void *)(uintptr_t)one->address, size);
    if (reg->mode == RO && value != vcpu->value[at])
        return fail(EINVAL);
    if (reg->mode == PSCI && !(vcpu->features & 4))
        return fail(EINVAL);
    if (reg->mode != DEAF)
        vcpu->value[at] = value;
    return 0;
}

static unsigned long asked(uint32_t request)
{
    return sign ? (unsigned long)(long)(int32_t)request : request;
}

static void *serve(void *argument)
{
    int *work = argument; /* descriptor, rounds */
    uint32_t init[8] = { 0, 4 };
    for (int round = 0; round < work[1]; round++) {
        struct { uint64_t count, index[MOST]; } all = { .count = MOST };
        if (ioctl(work[0], asked(0x4020aeae), init) || ioctl(work[0], asked(0xc008aeb0), &all))
            abort();
        for (uint64_t at = 0; at < all.count; at++) {
            uint64_t value = 0;
            struct one one = { all.index[at], (uintptr_t)&value };
            if (ioctl(work[0], asked(0x4010aeab), &one))
                abort();
            value ^= (uint64_t)round << 8;
            (void)ioctl(work[0], asked(0x4010aeac), &one);
        }
    }
    return NULL;
}

static void threads(int many, int rounds)
{
    pthread_t thread[256];
    int work[256][2];
    for (int at = 0; at < many; at++) {
        next_fd = 100 + at;
        work[at][0] = ioctl(3, asked(0xae41), (unsigned long)at);
        work[at][1] = rounds;
    }
    for (int at = 0; at < many; at++)
        pthread_create(&thread[at], NULL, serve, work[at]);
    for (int at = 0; at < many; at++)
        pthread_join(thread[at], NULL);
    printf("threads %d\n", many);
}

int main(void)
{
    char line[256], mode[16];
    while (fgets(line, sizeof line, stdin)) {
        unsigned long a = 0, b = 0, c = 0;
        errno = 0;
        if (sscanf(line, "reg %lx %lx %15s", &a, &b, mode) == 3) {
            regs[count].index = a;
            regs[count].reset = b;
            regs[count++].mode = !strcmp(mode, "ro") ? RO : !strcmp(mode, "deaf") ? DEAF
                               : !strcmp(mode, "psci") ? PSCI : RW;
        } else if (sscanf(line, "create %lu %lu", &a, &b) == 2) {
            next_fd = (int)b;
            printf("create %d\n", ioctl(3, asked(0xae41), a));
        } else if (sscanf(line, "init %lu %lx", &a, &b) == 2) {
            uint32_t init[8] = { 0, (uint32_t)b };
            int answer = ioctl((int)a, asked(0x4020aeae), init);
            printf("init %d %d\n", answer, answer ? errno : 0);
        } else if (sscanf(line, "list %lu %lu", &a, &b) == 2) {
            struct list *all = calloc(1, sizeof *all + b * 8);
            all->count = b;
            int answer = ioctl((int)a, asked(0xc008aeb0), all);
            printf("list %d %d %lu", answer, answer ? errno : 0, (unsigned long)all->count);
            for (uint64_t at = 0; !answer && at < all->count; at++)
                printf(" %lx", (unsigned long)all->index[at]);
            printf("\n");
            free(all);
        } else if (sscanf(line, "get %lu %lx", &a, &b) == 2) {
            unsigned char *room = malloc(1u << ((b >> 52) & 15)); /* no byte more than it has */
            uint64_t value = 0;
            struct one one = { b, (uintptr_t)room };
            int answer = ioctl((int)a, asked(0x4010aeab), &one);
            int error = errno;
            if (!answer)
                memcpy(&value, room, 1u << ((b >> 52) & 15) > 8 ? 8 : 1u << ((b >> 52) & 15));
            printf("get %d %d %lx\n", answer, answer ? error : 0, (unsigned long)value);
            free(room);
        } else if (sscanf(line, "set %lu %lx %lx", &a, &b, &c) == 3) {
            unsigned char *room = calloc(1, 1u << ((b >> 52) & 15));
            memcpy(room, &c, 1u << ((b >> 52) & 15) > 8 ? 8 : 1u << ((b >> 52) & 15));
            struct one one = { b, (uintptr_t)room };
            int answer = ioctl((int)a, asked(0x4010aeac), &one);
            printf("set %d %d\n", answer, answer ? errno : 0);
            free(room);
        } else if (sscanf(line, "run %lu", &a) == 1) {
            int answer = ioctl((int)a, asked(0xae80), 0);
            printf("run %d %u\n", answer, atomic_load(&runs));
        } else if (sscanf(line, "calls %lx", &a) == 1) {
            int at = find(a);
            printf("calls %u\n", at < 0 ? 0 : atomic_load(&regs[at].calls));
        } else if (sscanf(line, "threads %lu %lu", &a, &b) == 2) {
            threads((int)a, (int)b);
        } else if (!strcmp(line, "vm\n")) {
            printf("vm %d\n", ioctl(3, asked(0xae01), 0));
        } else if (!strcmp(line, "child\n")) {
            (void)!system("env | grep -c -e ^ARMFERRY_ -e ^LD_PRELOAD=.*armferry;"
                          "ls -l /proc/self/fd | grep -c -e memfd -e socket");
        } else if (!strcmp(line, "signed\n")) {
            sign = 1;
        } else if (!strcmp(line, "environment\n")) {
            const char *preload = getenv("LD_PRELOAD"), *own = getenv("ARMFERRY_BOUNDARY");
            printf("environment %s %s\n", preload ? preload : "-", own ? own : "-");
        } else if (sscanf(line, "time %lu", &a) == 1) {
            struct timespec from, to;
            clock_gettime(CLOCK_MONOTONIC, &from);
            for (unsigned long at = 0; at < a; at++)
                (void)ioctl(100, asked(0xae80), 0);
            clock_gettime(CLOCK_MONOTONIC, &to);
            double all = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
            printf("time %.2f\n", all / (double)a);
        } else {
            printf("? %s", line);
        }
        fflush(stdout);
    }
    return 0;
}
