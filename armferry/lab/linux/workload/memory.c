// Memory: blocks with known content, caches that user space may read of, atomics, two threads.

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "workload.h"

#define BLOCKS 16
#define WORDS (1 << 17) // of a block: 1 MiB

static uint64_t checksum(const uint64_t *words)
{
    uint64_t sum = 0xcbf29ce484222325;
    for (size_t i = 0; i < WORDS; i++)
        sum = (sum ^ words[i]) * 0x100000001b3;
    return sum;
}

static void memory(void)
{
    uint64_t *arena = mmap(0, (size_t)BLOCKS * WORDS * 8, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t sums[BLOCKS], word = 0x2545f4914f6cdd1d;
    for (size_t block = 0; block < BLOCKS; block++) {
        for (size_t i = 0; i < WORDS; i++) {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            arena[block * WORDS + i] = word;
        }
        sums[block] = checksum(arena + block * WORDS);
        round_done();
    }
    for (size_t block = 0;; block = (block + 1) % BLOCKS, pause_ms(10)) {
        uint64_t *words = arena + block * WORDS;
        if (checksum(words) != sums[block]) {
            fault("block %zu changed", block);
            sums[block] = checksum(words);
        }
        words[word % WORDS] = word; // pages go on changing
        word = word * 6364136223846793005 + 1;
        sums[block] = checksum(words);
        round_done();
    }
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static int turn;
static __thread uint64_t own_word;

static void *player(void *which)
{
    int mine = (int)(intptr_t)which;
    own_word = 0x5eed + mine;
    for (;; pause_ms(1)) {
        pthread_mutex_lock(&lock);
        while (turn != mine)
            pthread_cond_wait(&moved, &lock);
        turn = !mine;
        round_done();
        pthread_cond_signal(&moved);
        pthread_mutex_unlock(&lock);
        if (own_word != (uint64_t)(0x5eed + mine))
            fault("TPIDR_EL0 points elsewhere");
    }
    return 0;
}

static void threads(void)
{
    pthread_t other;
    cpu_set_t cpus;
    pthread_create(&other, 0, player, (void *)1);
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
    if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
        CPU_ZERO(&cpus);
        CPU_SET(1, &cpus);
        pthread_setaffinity_np(other, sizeof cpus, &cpus);
    }
    player(0);
}

static bool has_atomics(void)
{
    return getauxval(AT_HWCAP) & 1 << 8;
}

__attribute__((target("arch=armv8.1-a"))) static void atomics(void)
{
    static uint64_t word;
    for (uint64_t expected = 0;; expected++, pause_ms(10)) {
        uint64_t before;
        asm volatile("ldadd %2, %0, [%1]"
                     : "=r"(before)
                     : "r"(&word), "r"(1UL)
                     : "memory");
        if (before != expected) {
            fault("LDADD read %lu, not %lu", before, expected);
            expected = before;
        }
        round_done();
    }
}

static uint64_t cache_type(void)
{
    uint64_t value;
    asm volatile("mrs %0, ctr_el0" : "=r"(value));
    return value;
}

static uint64_t zero_size(void)
{
    uint64_t value;
    asm volatile("mrs %0, dczid_el0" : "=r"(value));
    return value;
}

static void caches(void)
{
    uint64_t type = cache_type(), zero = zero_size();
    size_t length = 4UL << (zero & 15);
    unsigned char *bytes = aligned_alloc(4096, 8192);
    uint32_t *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                          -1, 0);
    for (uint32_t number = 0;; number = (number + 1) & 0xffff, pause_ms(20)) {
        if (cache_type() != type)
            fault("CTR_EL0 went from %#lx to %#lx", type, cache_type());
        if (zero_size() != zero)
            fault("DCZID_EL0 went from %#lx to %#lx", zero, zero_size());
        type = cache_type();
        zero = zero_size();
        if (!(zero & 16)) {
            memset(bytes, 1, 8192);
            asm volatile("dc zva, %0" : : "r"(bytes) : "memory");
            for (size_t i = 0; i <= length; i++)
                if (bytes[i] != (i == length))
                    fault("DC ZVA left byte %zu at %d", i, bytes[i]);
        }
        code[0] = 0x52800000 | number << 5; // mov w0, #number
        code[1] = 0xd65f03c0;               // ret
        __builtin___clear_cache((char *)code, (char *)(code + 2));
        if (((uint32_t(*)(void))code)() != number)
            fault("old code ran after it was replaced");
        round_done();
    }
}

const struct worker memory_worker = {"memory", 0, memory};
const struct worker threads_worker = {"threads", 0, threads};
const struct worker atomics_worker = {"atomics", has_atomics, atomics};
const struct worker cache_worker = {"cache", 0, caches};
