# Boot sector that does what a guest kernel does: protected mode, page tables, long mode, an interrupt handler,
# a timer whose ticks it sleeps for, a long computation; prints the result to COM1 and ends QEMU.
.code16
.globl _start
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    cld
    # page tables at 0x1000: PML4, 0x2000: PDPT, 0x3000: PD with one 2 MiB page
    movw $0x1000, %di
    movw $0x1800, %cx
    rep stosw
    movw $0x2003, 0x1000
    movw $0x3003, 0x2000
    movw $0x0083, 0x3000
    # IDT at 0x4000: entry 8 (PIC's timer line in its power-on place)
    movw $0x4000, %di
    movw $0x800, %cx
    rep stosw
    movw $tick, 0x4080
    movw $0x08, 0x4082
    movw $0x8e00, 0x4084
    lgdt gdtr
    lidt idtr
    movl $0x20, %eax
    movl %eax, %cr4
    movl $0x1000, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orw $0x100, %ax
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax
    movl %eax, %cr0
    ljmp $0x08, $long
.code64
long:
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    # only the timer
    movb $0xfe, %al
    outb %al, $0x21
    # PIT channel 0, mode 2, about 1 kHz
    movb $0x34, %al
    outb %al, $0x43
    movb $0xa9, %al
    outb %al, $0x40
    movb $0x04, %al
    outb %al, $0x40
    xorl %ebx, %ebx
    sti
1:  hlt
    cmpl $20, %ebx
    jb 1b
    cli
    # 2^27 steps of a linear congruential generator
    movl $1, %eax
    movl $0x8000000, %ecx
2:  imull $1664525, %eax, %eax
    addl $1013904223, %eax
    decl %ecx
    jnz 2b
    movl %eax, %ebp
    # COM1: 115200 8n1
    movw $0x3fb, %dx
    movb $3, %al
    outb %al, %dx
    movl $8, %ecx
3:  roll $4, %ebp
    movl %ebp, %eax
    andb $15, %al
    addb $'a', %al
    movw $0x3f8, %dx
    outb %al, %dx
    movw $0x3fd, %dx
4:  inb %dx, %al
    testb $0x20, %al
    jz 4b
    decl %ecx
    jnz 3b
    movw $0xf4, %dx
    movb $0x10, %al
    outb %al, %dx
5:  hlt
    jmp 5b
tick:
    pushq %rax
    incl %ebx
    movb $0x20, %al
    outb %al, $0x20
    popq %rax
    iretq
.align 8
gdt:
    .quad 0
    .quad 0x00209a0000000000
gdtr:
    .word 15
    .long gdt
idtr:
    .word 0xfff
    .long 0x4000
.org 510
.word 0xaa55
