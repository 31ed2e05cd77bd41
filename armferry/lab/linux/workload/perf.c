// Performance counters that count and sample; breakpoints and watchpoints of the CPU.

#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

#define SAMPLE_EVERY 2000000
#define ROUNDS_WITHOUT_SAMPLE 100
#define TOO_MANY 1000000000000ULL // events in one round

static int open_event(struct perf_event_attr *event)
{
    event->size = sizeof *event;
    event->exclude_kernel = 1;
    event->exclude_hv = 1;
    return syscall(SYS_perf_event_open, event, 0, -1, -1, 0);
}

static volatile uint64_t samples;

static void sampled(int signal)
{
    (void)signal;
    samples++;
}

static int open_sampling(void)
{
    struct perf_event_attr event = {.type = PERF_TYPE_HARDWARE,
                                    .config = PERF_COUNT_HW_CPU_CYCLES,
                                    .sample_period = SAMPLE_EVERY,
                                    .wakeup_events = 1};
    struct sigaction action = {.sa_handler = sampled, .sa_flags = SA_RESTART};
    int file = open_event(&event);
    if (file < 0)
        return file;
    sigaction(SIGIO, &action, 0);
    mmap(0, 2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    fcntl(file, F_SETOWN, getpid());
    fcntl(file, F_SETSIG, SIGIO);
    fcntl(file, F_SETFL, O_RDWR | O_NONBLOCK | O_ASYNC);
    return file;
}

static void counters(void)
{
    struct perf_event_attr cycles = {.type = PERF_TYPE_HARDWARE,
                                     .config = PERF_COUNT_HW_CPU_CYCLES};
    int counting = open_event(&cycles), sampling = open_sampling(), without = 0;
    uint64_t last = 0, last_samples = 0;
    if (counting < 0) {
        say("note pmu cannot count: %s", strerror(errno));
        for (;; pause_ms(500))
            round_done();
    }
    say("note pmu counts%s", sampling < 0 ? "" : " and samples");
    for (;; pause_ms(20)) {
        uint64_t spin = light ? 100000 : 1000000, value;
        asm volatile("1: subs %0, %0, #1\n\tb.ne 1b" : "+r"(spin) : : "cc");
        if (read(counting, &value, sizeof value) != sizeof value)
            fault("the cycle counter cannot be read");
        if (value <= last || value - last > TOO_MANY)
            fault("cycles went from %lu to %lu", last, value);
        last = value;
        without = samples == last_samples ? without + 1 : 0;
        last_samples = samples;
        if (sampling >= 0 && without == ROUNDS_WITHOUT_SAMPLE)
            fault("no sample in %d rounds", without);
        round_done();
    }
}

static volatile uint64_t watched[4] __attribute__((aligned(32)));

static void __attribute__((noinline)) landmark(void)
{
    asm volatile("nop");
}

static void check_hits(int file, uint64_t *expected, const char *what)
{
    uint64_t hits;
    if (file < 0 || read(file, &hits, sizeof hits) != sizeof hits || hits == *expected)
        return;
    fault("%lu hits of a %s, not %lu", hits, what, *expected);
    *expected = hits;
}

static void breakpoints(void)
{
    struct perf_event_attr data = {.type = PERF_TYPE_BREAKPOINT,
                                   .bp_type = HW_BREAKPOINT_W,
                                   .bp_addr = (uintptr_t)&watched[0],
                                   .bp_len = HW_BREAKPOINT_LEN_8};
    struct perf_event_attr code = {.type = PERF_TYPE_BREAKPOINT,
                                   .bp_type = HW_BREAKPOINT_X,
                                   .bp_addr = (uintptr_t)landmark,
                                   .bp_len = sizeof(long)};
    int watchpoint = open_event(&data), breakpoint = open_event(&code);
    uint64_t writes = 0, calls = 0;
    if (breakpoint < 0) {
        code.bp_len = HW_BREAKPOINT_LEN_4;
        breakpoint = open_event(&code);
    }
    say("note breakpoint %s, watchpoint %s", breakpoint < 0 ? strerror(errno) : "set",
        watchpoint < 0 ? "not set" : "set");
    for (;; pause_ms(30)) {
        watched[0]++;
        writes++;
        landmark();
        calls++;
        check_hits(watchpoint, &writes, "watchpoint");
        check_hits(breakpoint, &calls, "breakpoint");
        round_done();
    }
}

struct debug_registers {
    uint32_t info, pad;
    struct {
        uint64_t address;
        uint32_t control, pad;
    } slot[1];
};

static bool set_watch(pid_t child, bool on)
{
    // byte mask of eight, on stores, from user space, enabled
    struct debug_registers registers = {
        .slot = {{(uintptr_t)&watched[1], on ? 0xff << 5 | 2 << 3 | 2 << 1 | 1 : 0, 0}}};
    struct iovec part = {&registers, sizeof registers};
    return !ptrace(PTRACE_SETREGSET, child, NT_ARM_HW_WATCH, &part);
}

// A child that is stopped at each of its stores, by a watchpoint; then stepped over it.
static void watched_child(void)
{
    volatile uint64_t *stores = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                                     -1, 0);
    uint64_t stops = 0;
    int status;
    pid_t child = fork();
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        for (;; pause_ms(30)) {
            stores[0]++;
            watched[1] = stores[0];
        }
    }
    waitpid(child, &status, 0);
    if (!set_watch(child, true)) {
        say("note ptrace has no watchpoint: %s", strerror(errno));
        kill(child, SIGKILL);
        for (;; pause_ms(500))
            round_done();
    }
    for (int signal = 0;;) {
        ptrace(PTRACE_CONT, child, 0, signal);
        if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status)) {
            fault("the watched child ended, status %#x", status);
            _exit(1);
        }
        signal = WSTOPSIG(status);
        if (signal != SIGTRAP)
            continue;
        signal = 0;
        if (stores[0] != ++stops) {
            fault("%lu stores, stopped at %lu of them", stores[0], stops);
            stops = stores[0];
        }
        set_watch(child, false);
        ptrace(PTRACE_SINGLESTEP, child, 0, 0);
        waitpid(child, &status, 0);
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
            fault("the step over a store ended with status %#x", status);
        set_watch(child, true);
        round_done();
    }
}

const struct worker pmu_worker = {"pmu", 0, counters};
const struct worker breakpoint_worker = {"breakpoint", 0, breakpoints};
const struct worker ptrace_worker = {"ptrace", 0, watched_child};
