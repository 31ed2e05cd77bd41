// A bare-metal guest that leaves a value in a register that older kernels do not list: the compare
// value of the physical timer. Ten times a second it tells what it finds there, in hexadecimal:
//
//     tick 0123456789abcdef
//
// It writes the value once, at its start, and looks no further.

        .equ    UART, 0x09000000
        .equ    UART_FR, 0x18
        .equ    UART_CR, 0x30
        .equ    FULL, 5

        .text
        .global start
start:
        ldr     x19, =UART
        mov     w0, #0x301
        str     w0, [x19, #UART_CR]
        ldr     x0, =0x0123456789abcdef
        msr     cntp_cval_el0, x0
        isb
        mrs     x20, cntfrq_el0
        mov     x0, #10
        udiv    x20, x20, x0
        mrs     x21, cntvct_el0
        mov     w0, #'\n'
        bl      put
tick:
        mrs     x0, cntvct_el0
        cmp     x0, x21
        b.lo    tick
        add     x21, x0, x20
        adr     x22, word
1:      ldrb    w0, [x22], #1
        cbz     w0, 2f
        bl      put
        b       1b
2:      mrs     x22, cntp_cval_el0
        mov     x23, #64
3:      sub     x23, x23, #4
        lsr     x0, x22, x23
        and     x0, x0, #15
        add     x0, x0, #'0'
        cmp     x0, #'9'
        b.ls    4f
        add     x0, x0, #'a' - '9' - 1
4:      bl      put
        cbnz    x23, 3b
        mov     w0, #'\n'
        bl      put
        b       tick
put:
        ldr     w1, [x19, #UART_FR]
        tbnz    w1, #FULL, put
        strb    w0, [x19]
        ret
word:
        .asciz  "tick "
