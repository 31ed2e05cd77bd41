// The workload of the lab's Linux guest: programs that notice when anything changes under them.
//
// Each worker is a process of its own that goes round and round one subject and says a line when
// something does not hold. main.c is process 1: it starts them, prints a tick twice a second, shows
// new warnings of the kernel, and does what is asked on the serial line.

#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define WORKERS 16
#define SAID_FAULTS 5 // a worker that fails again and again says so this many times

struct tally {
    const char *name;
    volatile uint64_t rounds;
    volatile uint64_t faults;
    uint64_t seen;  // rounds at the last tick
    unsigned still; // ticks without a round
    pid_t process;
};

struct worker {
    const char *name;
    bool (*wanted)(void); // does this CPU have what it needs; NULL: always
    void (*run)(void);
};

extern const struct worker clock_worker, memory_worker, threads_worker, timer_worker, neon_worker,
    sve_worker, pac_worker, cache_worker, pmu_worker, breakpoint_worker, ptrace_worker,
    atomics_worker;

extern bool light; // under a KVM that is itself emulated: the same work, more seldom

// One line on the serial console, in one write.
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Something did not hold: `fault NAME TEXT`.
void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

// A worker's subject was gone round once.
void round_done(void);

void pause_ms(unsigned milliseconds);
uint64_t now(int clock); // nanoseconds
uint64_t counter(void);  // CNTVCT_EL0

#endif
