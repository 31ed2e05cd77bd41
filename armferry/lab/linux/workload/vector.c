// The registers of NEON and SVE hold their values while the worker is preempted, stopped and moved.

#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "workload.h"

#define SPIN 1000000UL
#define SPIN_LIGHT 100000UL

#define EACH_16(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) \
    x(15)
#define EACH_32(x) EACH_16(x) x(16) x(17) x(18) x(19) x(20) x(21) x(22) x(23) x(24) x(25) x(26) \
    x(27) x(28) x(29) x(30) x(31)
#define V_NAMES "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", \
    "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", \
    "v26", "v27", "v28", "v29", "v30", "v31"

#define LOAD_Q(n) "ldr q" #n ", [%[in], #16 * " #n "]\n\t"
#define STORE_Q(n) "str q" #n ", [%[out], #16 * " #n "]\n\t"
#define LOAD_Z(n) "ldr z" #n ", [%[in], #" #n ", mul vl]\n\t"
#define STORE_Z(n) "str z" #n ", [%[out], #" #n ", mul vl]\n\t"
#define LOAD_P(n) "ldr p" #n ", [%[p_in], #" #n ", mul vl]\n\t"
#define STORE_P(n) "str p" #n ", [%[p_out], #" #n ", mul vl]\n\t"
#define WAIT "1: subs %[spin], %[spin], #1\n\tb.ne 1b\n\t"

static void neon(void)
{
    static uint64_t in[64], out[64];
    uint64_t control = 1 << 22 | 1 << 24, status = 0x08000010; // RMode, FZ; QC, IXC
    for (int i = 0; i < 64; i++)
        in[i] = 0x0123456789abcdef * (i + 3) + i;
    for (;; pause_ms(5)) {
        uint64_t spin = light ? SPIN_LIGHT : SPIN, control_after, status_after;
        memset(out, 0, sizeof out);
        asm volatile("msr fpcr, %[control]\n\tmsr fpsr, %[status]\n\t" EACH_32(LOAD_Q) WAIT
                     EACH_32(STORE_Q) "mrs %[control_after], fpcr\n\tmrs %[status_after], fpsr\n\t"
                     "msr fpcr, xzr"
                     : [spin] "+&r"(spin), [control_after] "=&r"(control_after),
                       [status_after] "=&r"(status_after)
                     : [in] "r"(in), [out] "r"(out), [control] "r"(control), [status] "r"(status)
                     : "memory", "cc", V_NAMES);
        if (memcmp(in, out, sizeof in))
            fault("a V register changed");
        if (control_after != control)
            fault("FPCR went from %#lx to %#lx", control, control_after);
        if ((status_after & 0x0800009f) != status)
            fault("FPSR went from %#lx to %#lx", status, status_after);
        round_done();
    }
}

static bool has_sve(void)
{
    return getauxval(AT_HWCAP) & 1 << 22;
}

__attribute__((target("arch=armv8.2-a+sve"))) static uint64_t vector_length(void)
{
    uint64_t bytes;
    asm volatile("rdvl %0, #1" : "=r"(bytes));
    return bytes;
}

__attribute__((target("arch=armv8.2-a+sve"))) static void sve(void)
{
    uint64_t length = vector_length();
    unsigned char *in = calloc(32, 256), *out = calloc(32, 256), *p_in = calloc(16, 32);
    unsigned char *p_out = calloc(16, 32);
    for (size_t i = 0; i < 32 * length; i++)
        in[i] = i * 7 + i / length * 13 + 1;
    for (size_t i = 0; i < 2 * length; i++)
        p_in[i] = i * 5 + 3;
    for (;; pause_ms(5)) {
        uint64_t spin = light ? SPIN_LIGHT : SPIN;
        memset(out, 0, 32 * length);
        asm volatile("setffr\n\t" EACH_32(LOAD_Z) EACH_16(LOAD_P) WAIT EACH_32(STORE_Z)
                     EACH_16(STORE_P)
                     : [spin] "+&r"(spin)
                     : [in] "r"(in), [out] "r"(out), [p_in] "r"(p_in), [p_out] "r"(p_out)
                     : "memory", "cc", V_NAMES);
        if (vector_length() != length)
            fault("the vector length went from %lu to %lu bytes", length, vector_length());
        else if (memcmp(in, out, 32 * length))
            fault("a Z register changed");
        else if (memcmp(p_in, p_out, 2 * length))
            fault("a P register changed");
        length = vector_length();
        round_done();
    }
}

const struct worker neon_worker = {"neon", 0, neon};
const struct worker sve_worker = {"sve", has_sve, sve};
