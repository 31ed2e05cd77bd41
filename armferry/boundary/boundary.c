/* The KVM boundary of armferry: what ioctl() answers a QEMU about a vCPU's registers, edited.
 *
 * Preloaded into an unmodified qemu-system-aarch64. It knows a table of rules and nothing else: no
 * policy, no register names of its own, no file. armferry decides, writes the table into a sealed
 * memfd, and passes it and a socket for reports by descriptor:
 *
 *     ARMFERRY_BOUNDARY="TABLE REPORT"     two numbers; without it this library does nothing
 *
 * Both leave the environment, and so does this library (the first of LD_PRELOAD), when the program
 * makes its first VM: a script or another launcher passes them on to QEMU, and what QEMU starts
 * knows nothing of them. A program that runs with raised privileges (AT_SECURE) is left alone. A
 * table that is not sealed or not whole ends the program (status 4).
 *
 * Six requests are looked at, all others, KVM_RUN first of them, go straight to the kernel:
 *
 *     KVM_CREATE_VM      the environment is cleaned; reported, so that armferry knows it is there
 *     KVM_CREATE_VCPU    the new descriptor is remembered with the vCPU's number
 *     KVM_ARM_VCPU_INIT  SET rules are applied and read back; one that did not take fails the call
 *     KVM_GET_REG_LIST   HIDE rules take an index out, CARRY rules add one that the kernel lacks
 *     KVM_GET_ONE_REG    a hidden index: a message and abort(); a carried one: its value
 *     KVM_SET_ONE_REG    the same, and KEEP, CAP, REFUSE
 *
 * Threads: vCPU threads call in parallel. The table is never written. What is kept for a vCPU is
 * written by the thread that QEMU serves that vCPU with, one at a time, as KVM itself demands.
 * Source of the interface: Documentation/virt/kvm/api.rst and include/uapi/linux/kvm.h of Linux.
 * Symbols of glibc 2.17 only: no stdio streams, no dlsym, no stat, no pthreads.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#endif
#define SEALS (0x1 | 0x2 | 0x4 | 0x8) /* F_SEAL_SEAL, _SHRINK, _GROW, _WRITE */

/* The numbers of include/uapi/linux/kvm.h. Only 32 bits count: QEMU up to 7.2 passes a
 * sign-extended int, and the kernel looks at no more. */
#define CREATE_VM 0x0000ae01u
#define CREATE_VCPU 0x0000ae41u
#define GET_ONE_REG 0x4010aeabu
#define SET_ONE_REG 0x4010aeacu
#define VCPU_INIT 0x4020aeaeu
#define GET_REG_LIST 0xc008aeb0u

struct one_reg {
    uint64_t index;
    uint64_t address;
};

struct reg_list {
    uint64_t count;
    uint64_t index[];
};

struct vcpu_init {
    uint32_t target;
    uint32_t features[7];
};

/* -- the table: a header and rules, ascending by index, then by what; written by table.py */

enum what {
    HIDE = 1,   /* the register does not exist for this VM */
    SET = 2,    /* after each VCPU_INIT: the bits of mask get those of value */
    REFUSE = 3, /* a write is refused unless its bits of mask are those of value */
    KEEP = 4,   /* a write leaves the bits of mask as they are */
    CAP = 5,    /* a write of more than value writes value */
    CARRY = 6,  /* listed where the kernel lacks it; value is what it holds after reset */
    WATCH = 7,  /* when index is read, what the hidden register `value` holds is reported if it is
                 * new; mask is what it holds after reset */
};

struct rule {
    uint64_t index;
    uint32_t what;
    uint32_t needs; /* bits of vcpu_init.features[0] that the vCPU must have */
    uint64_t value;
    uint64_t mask;
    char name[32];
};

struct table {
    char magic[8];
    uint32_t count;
    uint32_t reserved;
    struct rule rule[];
};

#define MAGIC "AFBOUND1"
#define MOST_RULES 1024u
#define MOST_REGISTERS 4096u /* in one list; kernels have some 400 */
#define MOST_DESCRIPTORS 65536

/* -- the report: messages of one or more events, read by events.py */

enum kind {
    STARTED = 1,   /* a program has loaded the library; other: its process id */
    HIDDEN = 2,    /* taken out of the list */
    PINNED = 3,    /* value: what it is now, other: what it was */
    UNPINNED = 4,  /* value: what it should be, other: what it is, error */
    CARRIED = 5,   /* added to the list; value: after reset */
    STORED = 6,    /* a carried register was given value */
    KEPT = 7,      /* value: what came, other: what was written or stays */
    CAPPED = 8,    /* the same */
    REFUSED = 9,   /* value: what came, other: what the register holds, error */
    FORBIDDEN = 10, /* a hidden register was named; value: the request; the program aborts */
    WATCHED = 11,  /* value: what a hidden register holds */
    LOST = 12,     /* value: events that the socket had no room for */
    OVERRULED = 13, /* value: what came and stays; other: what the register was set to before */
    MET = 14,      /* a VM is made under the table; value: rules in it, other: process id */
};

struct event {
    uint32_t kind;
    int32_t vcpu;
    uint64_t index;
    uint64_t value;
    uint64_t other;
    int32_t error;
    uint32_t reserved;
};

#define MOST_EVENTS 64

struct report {
    unsigned count;
    struct event event[MOST_EVENTS + 1]; /* the first is for LOST */
};

/* -- what is known of a vCPU: value[n] belongs to rule n: of CARRY what the register holds, of WATCH
 * what was seen last, of SET 1 once the guest came with another value, which it then keeps */

struct vcpu {
    int32_t number;
    uint32_t features;
    uint64_t value[];
};

static const struct table *table;
static int table_from = -1, report_to = -1;
static atomic_flag met = ATOMIC_FLAG_INIT;
static _Atomic uint64_t lost;
static _Atomic(struct vcpu *) vcpu_of[MOST_DESCRIPTORS];

static int kernel(int fd, unsigned long request, void *argument)
{
    return (int)syscall(SYS_ioctl, fd, request, argument);
}

/* Writes a line on standard error, whole or not at all. */
static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
    char line[256];
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length > 0 && (size_t)length < sizeof line)
        (void)!write(STDERR_FILENO, line, (size_t)length);
}

static void __attribute__((noreturn)) unusable(const char *why)
{
    say("armferry: the KVM boundary cannot be used: %s\n", why);
    _exit(4);
}

/* -- reports: never wait, never raise SIGPIPE, leave errno alone */

static void flush(struct report *report)
{
    int kept = errno;
    uint64_t missing = atomic_exchange(&lost, 0);

    report->event[0] = (struct event){ .kind = LOST, .vcpu = -1, .value = missing };
    const struct event *first = missing ? report->event : report->event + 1;
    unsigned count = report->count + (missing ? 1 : 0);
    if (count && report_to >= 0 &&
        send(report_to, first, count * sizeof *first, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        atomic_fetch_add(&lost, missing + report->count);
    report->count = 0;
    errno = kept;
}

static void note(struct report *report, struct event event)
{
    if (report->count == MOST_EVENTS)
        flush(report);
    report->event[++report->count] = event;
}

static void note_one(struct event event)
{
    struct report report = { 0 };

    note(&report, event);
    flush(&report);
}

/* -- registers of the kernel */

static int size_of(uint64_t index)
{
    return 1 << ((index >> 52) & 0xf);
}

static uint64_t load(const void *address, int size)
{
    uint64_t wide = 0;
    uint32_t narrow = 0;

    if (size == 4) {
        memcpy(&narrow, address, 4);
        return narrow;
    }
    memcpy(&wide, address, 8);
    return wide;
}

static void store(void *address, int size, uint64_t value)
{
    uint32_t narrow = (uint32_t)value;

    if (size == 4)
        memcpy(address, &narrow, 4);
    else
        memcpy(address, &value, 8);
}

static int get(int fd, uint64_t index, uint64_t *value)
{
    unsigned char room[8] = { 0 };
    struct one_reg one = { index, (uintptr_t)room };
    int answer = kernel(fd, GET_ONE_REG, &one);

    *value = load(room, size_of(index));
    return answer;
}

static int set(int fd, uint64_t index, uint64_t value)
{
    unsigned char room[8];
    struct one_reg one = { index, (uintptr_t)room };

    store(room, size_of(index), value);
    return kernel(fd, SET_ONE_REG, &one);
}

/* -- rules */

/* The first rule of an index or a later one; table->count where there is none. */
static uint32_t first_rule(uint64_t index)
{
    uint32_t low = 0, high = table->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (table->rule[middle].index < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int is_of(uint32_t at, uint64_t index)
{
    return at < table->count && table->rule[at].index == index;
}

static int applies(const struct rule *rule, const struct vcpu *vcpu)
{
    return !rule->needs || (vcpu && (vcpu->features & rule->needs) == rule->needs);
}

static struct vcpu *find(int fd)
{
    return fd >= 0 && fd < MOST_DESCRIPTORS ? atomic_load(&vcpu_of[fd]) : NULL;
}

static int32_t number_of(const struct vcpu *vcpu)
{
    return vcpu ? vcpu->number : -1;
}

/* -- the six requests */

/* Takes the first name, this library, out of LD_PRELOAD, and its own variable. */
static void leave_the_environment(void)
{
    const char *preload = getenv("LD_PRELOAD");
    const char *others = preload ? strchr(preload, ':') : NULL;

    unsetenv("ARMFERRY_BOUNDARY");
    if (others && others[1])
        setenv("LD_PRELOAD", others + 1, 1);
    else
        unsetenv("LD_PRELOAD");
}

static int create_vm(int fd, unsigned long request, void *argument)
{
    if (!atomic_flag_test_and_set(&met)) {
        leave_the_environment();
        close(table_from);
        if (fcntl(report_to, F_SETFD, FD_CLOEXEC) < 0)
            unusable("its report has no descriptor");
        note_one((struct event){ .kind = MET, .vcpu = -1, .value = table->count,
                                 .other = (uint64_t)getpid() });
    }
    return kernel(fd, request, argument);
}

static int create_vcpu(int fd, unsigned long request, void *argument)
{
    int made = kernel(fd, request, argument);

    if (made < 0)
        return made;
    if (made >= MOST_DESCRIPTORS)
        unusable("a vCPU has a descriptor beyond 65535");
    struct vcpu *vcpu = atomic_load(&vcpu_of[made]);
    if (!vcpu) { /* else the descriptor was another vCPU's, which is gone */
        size_t size = sizeof *vcpu + table->count * sizeof vcpu->value[0];
        vcpu = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (vcpu == MAP_FAILED)
            unusable("no memory for a vCPU");
    }
    vcpu->number = (int32_t)(uintptr_t)argument;
    vcpu->features = 0;
    memset(vcpu->value, 0, table->count * sizeof vcpu->value[0]);
    atomic_store(&vcpu_of[made], vcpu);
    return made;
}

/* One SET rule; 0 when the register now holds what it should. */
static int pin(int fd, const struct rule *rule, const struct vcpu *vcpu, struct report *report)
{
    uint64_t before = 0, after = 0;
    int refused = 0;

    if (get(fd, rule->index, &before))
        refused = errno;
    uint64_t wanted = (before & ~rule->mask) | (rule->value & rule->mask);
    if (!refused && before != wanted && set(fd, rule->index, wanted))
        refused = errno;
    if (get(fd, rule->index, &after) && !refused)
        refused = errno;
    if (!refused && after == wanted) {
        note(report, (struct event){ .kind = PINNED, .vcpu = number_of(vcpu),
                                     .index = rule->index, .value = after, .other = before });
        return 0;
    }
    note(report, (struct event){ .kind = UNPINNED, .vcpu = number_of(vcpu), .index = rule->index,
                                 .value = wanted, .other = after, .error = refused });
    say("armferry: %s (0x%016llx) of vCPU %d cannot be given the value 0x%llx: this kernel keeps "
        "0x%llx (errno %d)\n",
        rule->name, (unsigned long long)rule->index, number_of(vcpu), (unsigned long long)wanted,
        (unsigned long long)after, refused);
    return -1;
}

static int initialise(int fd, unsigned long request, void *argument)
{
    const struct vcpu_init *init = argument;
    struct report report = { 0 };
    int failed = 0;
    int answer = kernel(fd, request, argument);

    if (answer < 0)
        return answer;
    struct vcpu *vcpu = find(fd);
    if (!vcpu)
        unusable("a vCPU was made behind its back");
    vcpu->features = init->features[0];
    for (uint32_t at = 0; at < table->count; at++) {
        const struct rule *rule = &table->rule[at];
        if (rule->what == CARRY)
            vcpu->value[at] = rule->value;
        else if (rule->what == WATCH)
            vcpu->value[at] = rule->mask;
        else if (rule->what == SET && !vcpu->value[at] && applies(rule, vcpu) &&
                 pin(fd, rule, vcpu, &report))
            failed = 1;
    }
    flush(&report);
    if (failed) {
        errno = EINVAL;
        return -1;
    }
    return answer;
}

static int list(int fd, unsigned long request, struct reg_list *asked)
{
    struct {
        uint64_t count;
        uint64_t index[MOST_REGISTERS];
    } own;
    struct report report = { 0 };
    struct vcpu *vcpu = find(fd);
    uint64_t kept = 0;

    own.count = MOST_REGISTERS;
    if (kernel(fd, request, &own) < 0) {
        if (errno == E2BIG)
            unusable("the kernel lists more registers than it has room for");
        return -1;
    }
    for (uint64_t at = 0; at < own.count; at++) {
        uint32_t rule = first_rule(own.index[at]);
        if (is_of(rule, own.index[at]) && table->rule[rule].what == HIDE)
            note(&report, (struct event){ .kind = HIDDEN, .vcpu = number_of(vcpu),
                                          .index = own.index[at] });
        else
            own.index[kept++] = own.index[at];
    }
    uint64_t listed = kept;
    for (uint32_t at = 0; at < table->count; at++) {
        const struct rule *rule = &table->rule[at];
        int known = rule->what != CARRY || !applies(rule, vcpu);
        for (uint64_t one = 0; one < listed && !known; one++)
            known = own.index[one] == rule->index;
        if (known)
            continue;
        if (kept == MOST_REGISTERS)
            unusable("the list with the carried registers is too long");
        own.index[kept++] = rule->index;
        note(&report, (struct event){ .kind = CARRIED, .vcpu = number_of(vcpu),
                                      .index = rule->index, .value = rule->value });
    }
    uint64_t room = asked->count;
    asked->count = kept;
    if (room < kept) { /* QEMU asks with no room first, to learn how much it needs */
        errno = E2BIG;
        return -1;
    }
    memcpy(asked->index, own.index, kept * sizeof kept);
    flush(&report);
    return 0;
}

static void __attribute__((noreturn)) forbidden(uint32_t request, uint64_t index, int32_t vcpu)
{
    note_one((struct event){ .kind = FORBIDDEN, .vcpu = vcpu, .index = index, .value = request });
    say("%s reg 0x%llx is hidden and shall never been accessed\n",
        request == GET_ONE_REG ? "kvm_get_one_reg" : "kvm_set_one_reg",
        (unsigned long long)index);
    abort();
}

/* WATCH: tells what the hidden register holds when that is new. */
static void watch(int fd, uint32_t at, struct vcpu *vcpu)
{
    const struct rule *rule = &table->rule[at];
    uint64_t value = 0;
    int kept = errno;

    if (vcpu && get(fd, rule->value, &value) == 0 && value != vcpu->value[at]) {
        vcpu->value[at] = value;
        note_one((struct event){ .kind = WATCHED, .vcpu = vcpu->number, .index = rule->value,
                                 .value = value });
    }
    errno = kept;
}

static int read_one(int fd, unsigned long request, struct one_reg *one)
{
    struct vcpu *vcpu = find(fd);
    uint32_t at = first_rule(one->index);

    if (is_of(at, one->index) && table->rule[at].what == HIDE)
        forbidden(GET_ONE_REG, one->index, number_of(vcpu));
    int answer = kernel(fd, request, one);
    for (; is_of(at, one->index); at++) {
        const struct rule *rule = &table->rule[at];
        if (rule->what == CARRY && answer < 0 && errno == ENOENT && applies(rule, vcpu) && vcpu) {
            store((void *)(uintptr_t)one->address, size_of(one->index), vcpu->value[at]);
            answer = 0;
        } else if (rule->what == WATCH && answer == 0 && applies(rule, vcpu)) {
            watch(fd, at, vcpu);
        }
    }
    return answer;
}

/* A write that a rule is about: what came becomes what is to be written. */
static int write_by_rule(int fd, uint32_t at, const struct one_reg *one, struct vcpu *vcpu)
{
    uint64_t came = load((const void *)(uintptr_t)one->address, size_of(one->index));
    uint64_t value = came, own = 0;
    int absent = get(fd, one->index, &own) < 0 && errno == ENOENT;
    uint32_t setting = table->count;

    for (; is_of(at, one->index); at++) {
        const struct rule *rule = &table->rule[at];
        uint64_t before = value;
        if (!applies(rule, vcpu))
            continue;
        if (rule->what == SET)
            setting = at;
        if (rule->what == REFUSE && (value & rule->mask) != rule->value) {
            say("armferry: %s (0x%016llx) of vCPU %d comes with the value 0x%llx, which the policy "
                "does not allow\n",
                rule->name, (unsigned long long)one->index, number_of(vcpu),
                (unsigned long long)came);
            errno = EINVAL;
            return -1;
        }
        if (rule->what == CARRY && absent && vcpu) {
            if (vcpu->value[at] != value)
                note_one((struct event){ .kind = STORED, .vcpu = vcpu->number,
                                         .index = one->index, .value = value });
            vcpu->value[at] = value;
            return 0;
        }
        if (rule->what == KEEP)
            value = (value & ~rule->mask) | (own & rule->mask);
        else if (rule->what == CAP && value > rule->value)
            value = rule->value;
        if (value != before)
            note_one((struct event){ .kind = rule->what == KEEP ? KEPT : CAPPED,
                                     .vcpu = number_of(vcpu), .index = one->index,
                                     .value = before, .other = value });
    }
    if (!absent && value == own && value != came)
        return 0; /* what stays need not be written, and a constant cannot be */
    int answer = set(fd, one->index, value);
    if (answer == 0 && setting < table->count && vcpu) { /* a guest keeps what it came with */
        const struct rule *rule = &table->rule[setting];
        uint64_t overruled = ((value ^ rule->value) & rule->mask) != 0;
        if (overruled && !vcpu->value[setting])
            note_one((struct event){ .kind = OVERRULED, .vcpu = vcpu->number, .index = one->index,
                                     .value = value, .other = own });
        vcpu->value[setting] = overruled;
    }
    return answer;
}

static int write_one(int fd, unsigned long request, struct one_reg *one)
{
    struct vcpu *vcpu = find(fd);
    uint32_t at = first_rule(one->index);
    int size = size_of(one->index);
    int answer;

    if (is_of(at, one->index) && table->rule[at].what == HIDE)
        forbidden(SET_ONE_REG, one->index, number_of(vcpu));
    if (is_of(at, one->index))
        answer = write_by_rule(fd, at, one, vcpu);
    else
        answer = kernel(fd, request, one);
    if (answer < 0 && (size == 4 || size == 8)) { /* QEMU names no register: the report does */
        int refused = errno;
        uint64_t own = 0;
        (void)get(fd, one->index, &own);
        note_one((struct event){ .kind = REFUSED, .vcpu = number_of(vcpu), .index = one->index,
                                 .value = load((const void *)(uintptr_t)one->address, size),
                                 .other = own, .error = refused });
        errno = refused;
    }
    return answer;
}

int __attribute__((visibility("default"))) ioctl(int fd, unsigned long request, ...);

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;

    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (table) {
        switch ((uint32_t)request) {
        case CREATE_VM:
            return create_vm(fd, request, argument);
        case CREATE_VCPU:
            return create_vcpu(fd, request, argument);
        case VCPU_INIT:
            return initialise(fd, request, argument);
        case GET_REG_LIST:
            return list(fd, request, argument);
        case GET_ONE_REG:
            return read_one(fd, request, argument);
        case SET_ONE_REG:
            return write_one(fd, request, argument);
        default:
            break;
        }
    }
    return kernel(fd, request, argument);
}

/* -- the start */

/* A descriptor's number at *text, which moves past it; -1 when there is none. */
static int number_at(const char **text)
{
    int number = -1;

    for (; **text >= '0' && **text <= '9' && number < 1000000; ++*text)
        number = (number < 0 ? 0 : number) * 10 + (**text - '0');
    return number;
}

static int is_sound(const struct table *found, uint64_t size)
{
    const uint64_t header = offsetof(struct table, rule);

    if (size < header || memcmp(found->magic, MAGIC, sizeof found->magic) != 0 ||
        found->count > MOST_RULES || size != header + found->count * sizeof found->rule[0])
        return 0;
    for (uint32_t at = 0; at < found->count; at++) {
        const struct rule *rule = &found->rule[at];
        const struct rule *before = at ? rule - 1 : NULL;
        int size_here = size_of(rule->index);
        if (rule->what < HIDE || rule->what > WATCH || (size_here != 4 && size_here != 8) ||
            !memchr(rule->name, 0, sizeof rule->name))
            return 0;
        if (before && before->index == rule->index &&
            (before->what > rule->what || (before->what == rule->what && rule->what != WATCH)))
            return 0;
        if (before && before->index > rule->index)
            return 0;
    }
    return 1;
}

static void __attribute__((constructor)) begin(void)
{
    const char *text = getenv("ARMFERRY_BOUNDARY");

    if (!text || getauxval(AT_SECURE))
        return;
    int from = number_at(&text);
    text += *text == ' ';
    int to = number_at(&text);
    if (from < 0 || to < 0 || *text)
        unusable("ARMFERRY_BOUNDARY is not two descriptors");
    int seals = fcntl(from, F_GET_SEALS);
    off_t size = lseek(from, 0, SEEK_END);
    if (seals < 0 || (seals & SEALS) != SEALS || size <= 0)
        unusable("its table is not a sealed memfd");
    const struct table *found = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, from, 0);
    if (found == MAP_FAILED || !is_sound(found, (uint64_t)size))
        unusable("its table is not what this library reads");
    table_from = from;
    report_to = to;
    table = found;
    note_one((struct event){ .kind = STARTED, .vcpu = -1, .other = (uint64_t)getpid() });
}
