// Process 1 of the Linux guest. Lines on the serial console, each with its number in decimal:
//
//     armferry linux 6.12.1 cpus 2 workers clock memory ...
//     tick 00000001 clock 12 memory 40 ...     rounds that each worker made since the last tick
//     fault clock went back 40 ns
//     stalled pmu                              no round in STILL ticks
//     ended pac signal 11
//     kernel 4 CPU features: SANITY CHECK: ... a new line of the kernel's log, warning or worse
//     note ...                                 what a worker found at its start
//     did offline 1: ok                        the answer to a command
//
// Commands, a line each on the same console: `offline N`, `online N`, `reboot cold`, `reboot warm`,
// `cache N` (the geometry that the kernel shows of a CPU's caches).

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

#define TICK_MS 500
#define STILL 40 // ticks: a busy host is no fault
#define WARNING 4

static const struct worker *const workers[] = {
    &clock_worker, &memory_worker, &threads_worker,    &timer_worker,  &neon_worker,    &sve_worker,
    &pac_worker,   &cache_worker,  &pmu_worker,        &breakpoint_worker, &ptrace_worker,
    &atomics_worker,
};

bool light;
static struct tally *tallies;
static struct tally *own;
static int started;
static int console = 1;

static void say_line(const char *prefix, const char *format, va_list values)
{
    char line[900];
    int length = snprintf(line, sizeof line, "%s", prefix);
    length += vsnprintf(line + length, sizeof line - length - 1, format, values);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    if (write(console, line, length) < 0)
        _exit(1);
}

void say(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    say_line("", format, values);
    va_end(values);
}

void fault(const char *format, ...)
{
    char prefix[40];
    va_list values;
    if (++own->faults > SAID_FAULTS)
        return;
    snprintf(prefix, sizeof prefix, "fault %s ", own->name);
    va_start(values, format);
    say_line(prefix, format, values);
    va_end(values);
}

void round_done(void)
{
    own->rounds++;
}

void pause_ms(unsigned milliseconds)
{
    uint64_t length = milliseconds * 1000000ULL * (light ? 8 : 1);
    struct timespec left = {length / 1000000000, length % 1000000000};
    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

uint64_t now(int clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

uint64_t counter(void)
{
    uint64_t value;
    asm volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(value) : : "memory");
    return value;
}

static void start(const struct worker *worker)
{
    struct tally *tally = &tallies[started];
    pid_t process;
    if (worker->wanted && !worker->wanted())
        return;
    tally->name = worker->name;
    process = fork();
    if (!process) {
        own = tally;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, worker->name);
        worker->run();
        _exit(0);
    }
    tally->process = process;
    started++;
}

static void greet(void)
{
    struct utsname system;
    char names[300];
    int length = 0;
    uname(&system);
    for (int i = 0; i < started; i++)
        length += snprintf(names + length, sizeof names - length, " %s", tallies[i].name);
    say("armferry linux %s cpus %ld workers%s", system.release, sysconf(_SC_NPROCESSORS_ONLN),
        names);
}

static void tick(uint64_t number)
{
    char line[700];
    int length = snprintf(line, sizeof line, "tick %08lu", number);
    for (int i = 0; i < started; i++) {
        struct tally *tally = &tallies[i];
        uint64_t rounds = tally->rounds;
        length += snprintf(line + length, sizeof line - length, " %s %lu", tally->name,
                           rounds - tally->seen);
        tally->still = rounds == tally->seen ? tally->still + 1 : 0;
        tally->seen = rounds;
        if (tally->still == STILL && tally->process)
            say("stalled %s", tally->name);
    }
    say("%s", line);
}

static void bury(void)
{
    int status;
    pid_t process;
    while ((process = waitpid(-1, &status, WNOHANG)) > 0)
        for (int i = 0; i < started; i++)
            if (tallies[i].process == process) {
                tallies[i].process = 0;
                if (WIFSIGNALED(status))
                    say("ended %s signal %d", tallies[i].name, WTERMSIG(status));
                else
                    say("ended %s status %d", tallies[i].name, WEXITSTATUS(status));
            }
}

// New lines of the kernel's log: `LEVEL+8*FACILITY,SEQUENCE,TIME,FLAGS;TEXT\n`.
static void read_kernel_log(int log)
{
    char record[2048];
    ssize_t length;
    while ((length = read(log, record, sizeof record - 1)) > 0 || (length < 0 && errno == EPIPE)) {
        if (length < 0)
            continue; // older lines were overwritten
        record[length] = 0;
        char *text = strchr(record, ';');
        unsigned long level = strtoul(record, 0, 10) & 7;
        if (!text || level > WARNING)
            continue;
        text[1 + strcspn(text + 1, "\n")] = 0;
        say("kernel %lu %s", level, text + 1);
    }
}

static int write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY), failed = 0;
    if (file < 0)
        return errno;
    if (write(file, text, strlen(text)) < 0)
        failed = errno;
    close(file);
    return failed;
}

static void read_word(const char *path, char *word, size_t size)
{
    int file = open(path, O_RDONLY);
    ssize_t length = file < 0 ? 0 : read(file, word, size - 1);
    if (file >= 0)
        close(file);
    word[length > 0 ? length : 0] = 0;
    word[strcspn(word, "\n")] = 0;
}

static void say_caches(const char *cpu)
{
    char line[400] = "", path[120], level[8], kind[20], size[20];
    int length = 0;
    for (int index = 0; index < 8; index++) {
        const char *base = "/sys/devices/system/cpu/cpu%s/cache/index%d/%s";
        snprintf(path, sizeof path, base, cpu, index, "level");
        read_word(path, level, sizeof level);
        if (!level[0])
            break;
        snprintf(path, sizeof path, base, cpu, index, "type");
        read_word(path, kind, sizeof kind);
        snprintf(path, sizeof path, base, cpu, index, "size");
        read_word(path, size, sizeof size);
        length += snprintf(line + length, sizeof line - length, " L%s %s %s", level, kind,
                           size[0] ? size : "?");
    }
    say("did cache %s:%s", cpu, line);
}

static void reboot_guest(const char *how)
{
    int failed = write_file("/sys/kernel/reboot/mode", how); // since Linux 5.11; else `cold` is built in
    say("did reboot %s: %s", how, failed ? strerror(failed) : "ok");
    tcdrain(console);
    reboot(RB_AUTOBOOT);
}

static void obey(char *command)
{
    char *argument = strchr(command, ' ');
    if (!argument)
        return;
    *argument++ = 0;
    if (!strcmp(command, "offline") || !strcmp(command, "online")) {
        char path[80];
        int failed;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%s/online", argument);
        failed = write_file(path, !strcmp(command, "online") ? "1" : "0");
        say("did %s %s: %s", command, argument, failed ? strerror(failed) : "ok");
    } else if (!strcmp(command, "cache"))
        say_caches(argument);
    else if (!strcmp(command, "reboot"))
        reboot_guest(argument);
}

static void read_commands(void)
{
    static char line[120];
    static size_t filled;
    ssize_t length = read(console, line + filled, sizeof line - 1 - filled);
    if (length <= 0)
        return;
    filled += length;
    line[filled] = 0;
    for (char *end; (end = strpbrk(line, "\r\n"));) {
        *end = 0;
        obey(line);
        filled -= end + 1 - line;
        memmove(line, end + 1, filled + 1);
    }
    if (filled == sizeof line - 1)
        filled = 0;
}

static void prepare(void)
{
    struct termios raw;
    char words[400];
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mount("proc", "/proc", "proc", 0, 0);
    mount("sysfs", "/sys", "sysfs", 0, 0);
    mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    console = open("/dev/console", O_RDWR | O_NOCTTY);
    if (console < 0 || tcgetattr(console, &raw))
        return;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST | ONLCR;
    tcsetattr(console, TCSANOW, &raw);
    read_word("/proc/cmdline", words, sizeof words);
    light = strstr(words, "armferry.light") != 0;
    write_file("/proc/sys/kernel/perf_event_paranoid", "-1");
    // a busy host delays the guest's perf interrupts; the kernel must not slow sampling for it
    write_file("/proc/sys/kernel/perf_cpu_time_max_percent", "0");
}

int main(void)
{
    int log;
    prepare();
    log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
    tallies = mmap(0, sizeof *tallies * WORKERS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                   -1, 0);
    for (size_t i = 0; i < sizeof workers / sizeof *workers; i++)
        start(workers[i]);
    greet();
    for (uint64_t number = 1, next = now(CLOCK_MONOTONIC);; number++) {
        next += TICK_MS * 1000000ULL;
        for (uint64_t time; (time = now(CLOCK_MONOTONIC)) < next;) {
            struct pollfd input = {console, POLLIN, 0};
            if (poll(&input, 1, (next - time) / 1000000 + 1) > 0)
                read_commands();
        }
        bury();
        read_kernel_log(log);
        tick(number);
        if (now(CLOCK_MONOTONIC) > next + 5000000000ULL)
            next = now(CLOCK_MONOTONIC); // the guest stood still for a while
    }
}
