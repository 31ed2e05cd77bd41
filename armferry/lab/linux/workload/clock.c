// Clocks and timers: none goes back, none steps against another, none is lost.

#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

#define STEP 200000000LL      // ns that two clocks may drift apart between two looks
#define CLOSE 5000000ULL      // ns: a pair of readings this close together is a pair
#define PERIOD 10000000ULL    // ns of the periodic timer

static uint64_t frequency(void)
{
    uint64_t value;
    asm volatile("mrs %0, cntfrq_el0" : "=r"(value));
    return value;
}

static void clocks(void)
{
    uint64_t first_counter = 0, first_raw = 0, rate = frequency(), last_counter = 0;
    uint64_t monotonic = now(CLOCK_MONOTONIC);
    int64_t wall = 0, boot = 0;
    for (;; pause_ms(20)) {
        uint64_t before = now(CLOCK_MONOTONIC), here = counter(), raw = now(CLOCK_MONOTONIC_RAW);
        uint64_t wall_now = now(CLOCK_REALTIME), boot_now = now(CLOCK_BOOTTIME);
        uint64_t after = now(CLOCK_MONOTONIC);
        if (before < monotonic || after < before)
            fault("CLOCK_MONOTONIC went back from %lu to %lu ns", monotonic, before);
        if (here < last_counter)
            fault("CNTVCT_EL0 went back from %lu to %lu", last_counter, here);
        if (frequency() != rate)
            fault("CNTFRQ_EL0 went from %lu to %lu", rate, frequency());
        monotonic = after;
        last_counter = here;
        rate = frequency();
        if (after - before < CLOSE) { // else something came between the readings
            int64_t wall_offset = wall_now - before, boot_offset = boot_now - before, apart;
            if (!first_counter) {
                first_counter = here;
                first_raw = raw;
                wall = wall_offset;
                boot = boot_offset;
            }
            apart = (here - first_counter) * 1e9 / rate - (raw - first_raw);
            if (llabs(wall_offset - wall) > STEP)
                fault("CLOCK_REALTIME stepped by %ld ms", (wall_offset - wall) / 1000000);
            if (llabs(boot_offset - boot) > STEP)
                fault("CLOCK_BOOTTIME stepped by %ld ms", (boot_offset - boot) / 1000000);
            if (llabs(apart) > STEP) {
                fault("CNTVCT_EL0 and the kernel's clock are %ld ms apart", apart / 1000000);
                first_counter = here;
                first_raw = raw;
            }
            wall = wall_offset;
            boot = boot_offset;
        }
        round_done();
    }
}

static void timers(void)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec every = {{0, PERIOD}, {0, PERIOD}};
    uint64_t began = now(CLOCK_MONOTONIC), total = 0;
    timerfd_settime(timer, 0, &every, 0);
    for (;;) {
        uint64_t before = (now(CLOCK_MONOTONIC) - began) / PERIOD, expired, after;
        if (read(timer, &expired, sizeof expired) != sizeof expired)
            fault("the timer cannot be read");
        total += expired;
        after = (now(CLOCK_MONOTONIC) - began) / PERIOD;
        if (total + 20 < before || total > after + 2) {
            fault("%lu expirations after %lu to %lu periods", total, before, after);
            total = after;
        }
        round_done();
    }
}

const struct worker clock_worker = {"clock", 0, clocks};
const struct worker timer_worker = {"timer", 0, timers};
