// Pointer authentication: the keys stay, and so does what they make of a pointer; calls return.

#include <sys/auxv.h>

#include "workload.h"

#define PLAIN 0x0000123456789ab0UL
#define CONTEXT 0x42UL
#define DEPTH 12

static bool has_pac(void)
{
    return getauxval(AT_HWCAP) & 1UL << 30;
}

__attribute__((target("arch=armv8.3-a"))) static void sign(uint64_t signed_with[5])
{
    uint64_t a = PLAIN, b = PLAIN, c = PLAIN, d = PLAIN;
    asm("pacia %0, %4\n\tpacib %1, %4\n\tpacda %2, %4\n\tpacdb %3, %4"
        : "+r"(a), "+r"(b), "+r"(c), "+r"(d)
        : "r"(CONTEXT));
    signed_with[0] = a;
    signed_with[1] = b;
    signed_with[2] = c;
    signed_with[3] = d;
    asm("pacga %0, %1, %2" : "=r"(signed_with[4]) : "r"(PLAIN), "r"(CONTEXT));
}

// Each level's return address is signed while it waits.
__attribute__((noinline, target("branch-protection=pac-ret+leaf"))) static void deep(int level)
{
    if (level)
        deep(level - 1);
    else
        pause_ms(40);
    asm volatile("" : : : "memory");
}

__attribute__((target("arch=armv8.3-a"))) static void authentication(void)
{
    static const char *const keys[] = {"APIA", "APIB", "APDA", "APDB", "APGA"};
    uint64_t first[5], again[5];
    sign(first);
    for (;;) {
        uint64_t pointer = first[0];
        deep(DEPTH);
        sign(again);
        for (int key = 0; key < 5; key++)
            if (again[key] != first[key]) {
                fault("%s signs %#lx, not %#lx", keys[key], again[key], first[key]);
                first[key] = again[key];
            }
        asm("autia %0, %1" : "+r"(pointer) : "r"(CONTEXT));
        if (pointer != PLAIN)
            fault("AUTIA does not accept its own pointer");
        round_done();
    }
}

const struct worker pac_worker = {"pac", has_pac, authentication};
