// A bare-metal guest that notices when anything of it is lost.
//
// Boots at EL1 with `-kernel` on machine virt, MMU off, no firmware. Every CPU fills registers
// with patterns and compares them for ever; CPU 0 also rewrites a few MiB of memory, checking
// each word as it goes, and ten times a second prints what it knows on the PL011 serial line:
//
//     armferry guest psci 1.1 cpus 2
//     tick 00000001 ok psci 1.1 pass 00000007
//     tick 00000002 LOST cpu 1 x21 got 0000000000000000 want 3131313131313131
//
// When the machine's power key is pressed it turns the machine off.
//
// Numbers are decimal but for `got` and `want`. What was lost once is told at every tick from then
// on. Nothing is repaired.
//
// x19..x28, v8..v31 hold patterns and are used for nothing else; x29 is this CPU's record.

        .arch   armv8-a

        .equ    UART, 0x09000000
        .equ    UART_DR, 0x00
        .equ    UART_FR, 0x18
        .equ    UART_CR, 0x30

        .equ    GPIO, 0x09030000        // a PL061; it remembers which of its lines fell
        .equ    GPIO_RIS, 0x414
        .equ    GPIO_POWER_KEY, 3

        .equ    PSCI_VERSION, 0x84000000
        .equ    PSCI_SYSTEM_OFF, 0x84000008
        .equ    PSCI_CPU_ON, 0xc4000003

        .equ    CPUS, 8                 // at most: the affinity of a GICv2 machine
        .equ    TICKS_PER_SECOND, 10
        .equ    STALL, 100              // ticks a CPU may stand still: a busy host is no loss

        .equ    ARENA, 4 << 20          // bytes of memory kept in motion
        .equ    ARENA_STEP, 0x9e3779b97f4a7c15
        .equ    ARENA_PASS, 0xd1b54a32d192ed03

        // A CPU's record, above its stack; then its losses: name, got, want.
        .equ    AREA, 0x2000
        .equ    STACK, 0x1000
        .equ    R_NUMBER, 0
        .equ    R_COUNTER, 8            // rounds of checking this CPU has made
        .equ    R_SALT, 16              // mixed into the patterns, so that no two CPUs are alike
        .equ    R_LOSSES, 24
        .equ    R_SEEN, 32              // what CPU 0 last saw in R_COUNTER
        .equ    R_STALLED, 40           // ticks since it moved
        .equ    R_LOG, 64
        .equ    LOG_ENTRY, 24
        .equ    LOG_LIMIT, 100

// Registers that hold any 64-bit value.
        .macro  each_free op
        \op     tpidr_el0, 0x7c1e94d2a6b8053f
        \op     tpidr_el1, 0x2b6d80f51ca7e943
        \op     tpidrro_el0, 0xe58f13a9d47b620c
        \op     sp_el0, 0x00007f3a5b9c1d20
        \op     elr_el1, 0x0000123456789ab0
        \op     far_el1, 0xffff0f1e2d3c4b5a
        \op     cntv_cval_el0, 0x6f00e1d2c3b4a596
        .endm

// Registers whose bits have meanings: values that every CPU model keeps.
        .macro  each_shaped op
        \op     contextidr_el1, 0x5ca1ab1e
        \op     mair_el1, 0x000000ff44040c00
        \op     ttbr0_el1, 0x0012000040400000
        \op     ttbr1_el1, 0x003400004abc0000
        \op     tcr_el1, 0x00000001b5193519
        \op     esr_el1, 0x5600abcd
        \op     spsr_el1, 0x600003c5
        \op     cntkctl_el1, 0x3
        \op     csselr_el1, 0x1
        \op     fpcr, 0x00400000
        \op     fpsr, 0x0800001f
        \op     dbgbvr0_el1, 0x0000123456789abc
        \op     dbgwvr0_el1, 0x0000456789abcde8
        .endm

        .macro  each_general op
        \op     x19, 0x1919191919191919
        \op     x20, 0x2020202020202020
        \op     x21, 0x2121212121212121
        \op     x22, 0x2222222222222222
        \op     x23, 0x2323232323232323
        \op     x24, 0x2424242424242424
        \op     x25, 0x2525252525252525
        \op     x26, 0x2626262626262626
        \op     x27, 0x2727272727272727
        \op     x28, 0x2828282828282828
        .endm

        .macro  each_vector op
        .irp    n, 8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        \op     \n
        .endr
        .endm

        .macro  set_free register, value
        ldr     x1, =\value
        eor     x1, x1, x18
        msr     \register, x1
        .endm

        .macro  set_shaped register, value
        ldr     x1, =\value
        msr     \register, x1
        .endm

        .macro  set_general register, value
        ldr     \register, =\value
        eor     \register, \register, x18
        .endm

        .macro  set_vector n
        ldr     x1, =0xa5c3e10f00000000 + \n
        eor     x1, x1, x18
        mvn     x2, x1
        mov     v\n\().d[0], x1
        mov     v\n\().d[1], x2
        .endm

// Records a loss unless x1 (want) equals x2 (got).
        .macro  compare name
        cmp     x1, x2
        b.eq    1f
        adr     x0, 2f
        bl      record
        b       1f
2:      .asciz  "\name"
        .balign 4
1:
        .endm

        .macro  check_free register, value
        ldr     x1, =\value
        eor     x1, x1, x18
        mrs     x2, \register
        compare \register
        .endm

        .macro  check_shaped register, value
        ldr     x1, =\value
        mrs     x2, \register
        compare \register
        .endm

        .macro  check_general register, value
        ldr     x1, =\value
        eor     x1, x1, x18
        mov     x2, \register
        compare \register
        .endm

        .macro  check_vector n
        ldr     x1, =0xa5c3e10f00000000 + \n
        eor     x1, x1, x18
        mov     x2, v\n\().d[0]
        compare v\n\().d0
        ldr     x1, =0xa5c3e10f00000000 + \n
        eor     x1, x1, x18
        mvn     x1, x1
        mov     x2, v\n\().d[1]
        compare v\n\().d1
        .endm

        .macro  say text
        adr     x0, 2f
        bl      put_text
        b       1f
2:      .asciz  "\text"
        .balign 4
1:
        .endm

        .text
        .global start
start:
        adr     x29, areas
        add     x29, x29, #STACK
        bl      prepare
        ldr     x9, =UART
        mov     w10, #0x301             // enabled, transmit and receive
        str     w10, [x9, #UART_CR]
        bl      set_patterns
        bl      start_others
        say     "armferry guest psci "
        bl      put_psci
        say     " cpus "
        adr     x9, cpus
        ldr     x0, [x9]
        bl      put_number
        say     "\n"
        bl      fill_arena
        mrs     x0, cntvct_el0
        adr     x9, clock
        str     x0, [x9]
        adr     x9, deadline
        str     x0, [x9]

main:
        bl      rewrite_arena
        bl      check_patterns
        bl      check_clock
        adr     x9, deadline
        ldr     x10, [x9]
        mrs     x11, cntvct_el0
        cmp     x11, x10
        b.lo    main
        mrs     x12, cntfrq_el0
        mov     x13, #TICKS_PER_SECOND
        udiv    x12, x12, x13
        add     x11, x11, x12
        str     x11, [x9]
        bl      tick
        ldr     x9, =GPIO
        ldr     w10, [x9, #GPIO_RIS]
        tbz     w10, #GPIO_POWER_KEY, main
        ldr     x0, =PSCI_SYSTEM_OFF
        hvc     #0
        b       main

// The other CPUs, from PSCI CPU_ON: x0 is the record.
second:
        mov     x29, x0
        bl      prepare
        bl      set_patterns
3:      bl      check_patterns
        yield
        b       3b

// Makes a CPU fit to run the rest: stack, FP unit, vectors.
prepare:
        mov     sp, x29
        mov     x9, #3 << 20
        msr     cpacr_el1, x9
        adr     x9, vectors
        msr     vbar_el1, x9
        isb
        ret

// CPUs 1.. one after the other, until there is none of that number.
start_others:
        stp     x30, xzr, [sp, #-16]!
        mov     x14, #1
4:      adr     x15, areas
        mov     x9, #AREA
        madd    x15, x14, x9, x15
        add     x15, x15, #STACK
        str     x14, [x15, #R_NUMBER]
        ldr     x9, =0x1010101010101010
        mul     x9, x9, x14
        str     x9, [x15, #R_SALT]
        dsb     sy
        stp     x14, x15, [sp, #-16]!
        ldr     x0, =PSCI_CPU_ON
        mov     x1, x14
        adr     x2, second
        mov     x3, x15
        hvc     #0
        ldp     x14, x15, [sp], #16
        cbnz    x0, 5f
        add     x14, x14, #1
        cmp     x14, #CPUS
        b.lo    4b
5:      adr     x9, cpus
        str     x14, [x9]
        ldp     x30, xzr, [sp], #16
        ret

set_patterns:
        ldr     x18, [x29, #R_SALT]
        each_free set_free
        each_shaped set_shaped
        each_general set_general
        each_vector set_vector
        isb
        ret
        .ltorg

// Every register against its pattern; once something is lost the CPU only counts on.
check_patterns:
        stp     x30, xzr, [sp, #-16]!
        ldr     x9, [x29, #R_LOSSES]
        cbnz    x9, 6f
        ldr     x18, [x29, #R_SALT]
        each_free check_free
        each_shaped check_shaped
        each_general check_general
        each_vector check_vector
        adr     x1, vectors
        mrs     x2, vbar_el1
        compare vbar_el1
6:      ldr     x9, [x29, #R_COUNTER]
        add     x9, x9, #1
        dmb     sy
        str     x9, [x29, #R_COUNTER]
        ldp     x30, xzr, [sp], #16
        ret
        .ltorg

// x0 name, x1 want, x2 got: appended to this CPU's losses.
record:
        ldr     x9, [x29, #R_LOSSES]
        cmp     x9, #LOG_LIMIT
        b.hs    7f
        mov     x10, #LOG_ENTRY
        madd    x10, x9, x10, x29
        add     x10, x10, #R_LOG
        stp     x0, x2, [x10]
        str     x1, [x10, #16]
        add     x9, x9, #1
        dmb     sy
        str     x9, [x29, #R_LOSSES]
7:      ret

// The virtual counter never runs backwards.
check_clock:
        stp     x30, xzr, [sp, #-16]!
        adr     x9, clock
        ldr     x1, [x9]
        mrs     x2, cntvct_el0
        str     x2, [x9]
        cmp     x2, x1
        b.hs    8f
        compare cntvct_el0
        adr     x9, deadline            // or the next tick would be far away
        adr     x10, clock
        ldr     x10, [x10]
        str     x10, [x9]
8:      ldp     x30, xzr, [sp], #16
        ret

// Word i of the arena is pass * ARENA_PASS + i * ARENA_STEP.
fill_arena:
        adr     x9, pass
        ldr     x9, [x9]
        ldr     x10, =ARENA_PASS
        mul     x9, x9, x10
        ldr     x10, =ARENA_STEP
        ldr     x11, =arena
        ldr     x12, =arena + ARENA
9:      str     x9, [x11], #8
        add     x9, x9, x10
        cmp     x11, x12
        b.lo    9b
        ret

// Checks every word and gives it the value of the next pass.
rewrite_arena:
        stp     x30, xzr, [sp, #-16]!
        adr     x13, pass
        ldr     x14, [x13]
        ldr     x15, =ARENA_PASS
        mul     x1, x14, x15
        ldr     x10, =ARENA_STEP
        ldr     x11, =arena
        ldr     x12, =arena + ARENA
        add     x14, x14, #1
        str     x14, [x13]
10:     ldr     x2, [x11]
        cmp     x1, x2
        b.ne    11f
        add     x2, x2, x15
        str     x2, [x11], #8
        add     x1, x1, x10
        cmp     x11, x12
        b.lo    10b
        ldp     x30, xzr, [sp], #16
        ret
11:     compare ram
        ldp     x30, xzr, [sp], #16
        b       fill_arena

// One tick: `ok`, or a line for each loss of each CPU.
tick:
        stp     x30, xzr, [sp, #-16]!
        adr     x9, ticks
        ldr     x10, [x9]
        add     x10, x10, #1
        str     x10, [x9]
        adr     x9, told
        str     xzr, [x9]
        mov     x16, #0
12:     adr     x17, areas
        mov     x9, #AREA
        madd    x17, x16, x9, x17
        add     x17, x17, #STACK
        bl      tell_losses
        bl      tell_stall
        add     x16, x16, #1
        adr     x9, cpus
        ldr     x9, [x9]
        cmp     x16, x9
        b.lo    12b
        adr     x9, told
        ldr     x9, [x9]
        cbnz    x9, 13f
        bl      put_tick
        say     "ok psci "
        bl      put_psci
        say     " pass "
        adr     x9, pass
        ldr     x0, [x9]
        bl      put_eight
        say     "\n"
13:     ldp     x30, xzr, [sp], #16
        ret

// The losses of CPU x16, whose record is x17.
tell_losses:
        stp     x30, x29, [sp, #-16]!
        mov     x15, #0
14:     ldr     x9, [x17, #R_LOSSES]
        cmp     x15, x9
        b.hs    15f
        mov     x9, #LOG_ENTRY
        madd    x9, x15, x9, x17
        add     x14, x9, #R_LOG
        bl      put_lost
        ldr     x0, [x14]
        bl      put_text
        ldr     x1, [x14, #8]
        ldr     x2, [x14, #16]
        bl      put_got_want
        add     x15, x15, #1
        b       14b
15:     ldp     x30, x29, [sp], #16
        ret

// Whether CPU x16, whose record is x17, has moved lately.
tell_stall:
        stp     x30, x29, [sp, #-16]!
        ldr     x9, [x17, #R_COUNTER]
        ldr     x10, [x17, #R_SEEN]
        str     x9, [x17, #R_SEEN]
        ldr     x11, [x17, #R_STALLED]
        add     x11, x11, #1
        cmp     x9, x10
        csel    x11, x11, xzr, eq
        str     x11, [x17, #R_STALLED]
        cmp     x11, #STALL
        b.lo    16f
        bl      put_lost
        say     "progress"
        ldr     x1, [x17, #R_COUNTER]
        add     x2, x1, #1
        bl      put_got_want
16:     ldp     x30, x29, [sp], #16
        ret

// `tick 00000001 `
put_tick:
        stp     x30, xzr, [sp, #-16]!
        say     "tick "
        adr     x9, ticks
        ldr     x0, [x9]
        bl      put_eight
        say     " "
        ldp     x30, xzr, [sp], #16
        ret

// `tick 00000001 LOST cpu 1 `, for CPU x16
put_lost:
        stp     x30, xzr, [sp, #-16]!
        adr     x9, told
        mov     x10, #1
        str     x10, [x9]
        bl      put_tick
        say     "LOST cpu "
        mov     x0, x16
        bl      put_number
        say     " "
        ldp     x30, xzr, [sp], #16
        ret

// ` got X1 want X2` and the end of the line
put_got_want:
        stp     x30, xzr, [sp, #-16]!
        stp     x1, x2, [sp, #-16]!
        say     " got "
        ldr     x0, [sp]
        bl      put_hex
        say     " want "
        ldr     x0, [sp, #8]
        bl      put_hex
        say     "\n"
        add     sp, sp, #16
        ldp     x30, xzr, [sp], #16
        ret

// The PSCI version as the hypervisor tells it now: `1.1`
put_psci:
        stp     x30, x16, [sp, #-16]!
        stp     x17, xzr, [sp, #-16]!
        ldr     x0, =PSCI_VERSION
        hvc     #0
        str     x0, [sp, #8]
        lsr     w0, w0, #16
        bl      put_number
        say     "."
        ldr     x0, [sp, #8]
        and     x0, x0, #0xffff
        bl      put_number
        ldp     x17, xzr, [sp], #16
        ldp     x30, x16, [sp], #16
        ret

// x0 in decimal, below 10
put_number:
        add     w0, w0, #'0'
        b       put_character

// x0 in decimal, the last eight digits
put_eight:
        stp     x30, xzr, [sp, #-16]!
        ldr     w5, =10000000
        mov     x3, x0
        mov     w4, #10
17:     udiv    x6, x3, x5
        udiv    x7, x6, x4
        msub    x0, x7, x4, x6
        bl      put_number
        udiv    x5, x5, x4
        cbnz    x5, 17b
        ldp     x30, xzr, [sp], #16
        ret

// x0 in sixteen hexadecimal digits
put_hex:
        stp     x30, xzr, [sp, #-16]!
        mov     x3, x0
        mov     x4, #60
18:     lsr     x5, x3, x4
        and     w5, w5, #15
        cmp     w5, #10
        add     w0, w5, #'0'
        add     w6, w5, #'a' - 10
        csel    w0, w0, w6, lo
        bl      put_character
        subs    x4, x4, #4
        b.pl    18b
        ldp     x30, xzr, [sp], #16
        ret

// The text at x0, up to its zero byte
put_text:
        stp     x30, xzr, [sp, #-16]!
        mov     x3, x0
19:     ldrb    w0, [x3], #1
        cbz     w0, 20f
        bl      put_character
        b       19b
20:     ldp     x30, xzr, [sp], #16
        ret

put_character:
        ldr     x9, =UART
21:     ldr     w10, [x9, #UART_FR]
        tbnz    w10, #5, 21b            // transmit queue full
        str     w0, [x9, #UART_DR]
        ret
        .ltorg

// No exception is expected: say where, and stand still.
unexpected:
        say     "\nEXCEPTION esr "
        mrs     x0, esr_el1
        bl      put_hex
        say     " elr "
        mrs     x0, elr_el1
        bl      put_hex
        say     " far "
        mrs     x0, far_el1
        bl      put_hex
        say     "\n"
22:     yield
        b       22b

        .balign 2048
vectors:
        .rept   16
        b       unexpected
        .balign 128
        .endr

        .balign 8
cpus:     .quad 1
ticks:    .quad 0
told:     .quad 0
pass:     .quad 0
clock:    .quad 0
deadline: .quad 0

        // Here, not in .bss: adr reaches a megabyte, and the arena is larger.
        .balign 64
areas:
        .space  CPUS * AREA

        .bss
        .balign 4096
arena:
        .space  ARENA
