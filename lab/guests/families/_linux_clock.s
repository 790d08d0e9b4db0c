# A program without a library: sets the clock to the seconds and nanoseconds that it is given as two words, and has
# the random generator take in what was written to it. Without words it only shows that it can be started.
# Ends with 0; 1: the clock was not set; 2: the generator did not do it (it needs root, and Linux 4.17 or later).
.globl _start
base:
    # ELF header: 64 bits, little endian; an executable for x86-64; one program header behind it
    .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
    .word 2, 62
    .long 1
    .quad _start, 64, 0
    .long 0
    .word 64, 56, 1, 0, 0, 0
    # program header: load all of the file, to be read and executed
    .long 1, 5
    .quad 0, base, base, end - base, end - base, 4096
_start:
    movl (%rsp), %ecx
    xorl %edi, %edi
    decl %ecx
    jz leave
    incl %edi
    cmpl $2, %ecx
    jne leave
    movq 24(%rsp), %rsi
    call number
    movq %rax, %rbx
    movq 16(%rsp), %rsi
    call number
    pushq %rbx
    pushq %rax
    # clock_settime(CLOCK_REALTIME, ...)
    xorl %edi, %edi
    movq %rsp, %rsi
    movl $227, %eax
    syscall
    movl $1, %edi
    testl %eax, %eax
    jnz leave
    # open("/dev/urandom", O_WRONLY); where that fails, so does the next
    movl $random, %edi
    movl $1, %esi
    xorl %edx, %edx
    movl $2, %eax
    syscall
    # ioctl(..., RNDRESEEDCRNG)
    movl %eax, %edi
    movl $0x5207, %esi
    movl $16, %eax
    syscall
    xorl %edi, %edi
    testl %eax, %eax
    jz leave
    movl $2, %edi
leave:
    movl $60, %eax
    syscall
number:
    # of the decimal digits at RSI, up to the first other byte
    xorl %eax, %eax
1:  movzbl (%rsi), %edx
    subl $'0', %edx
    cmpl $9, %edx
    ja 2f
    leaq (%rax, %rax, 4), %rax
    leaq (%rdx, %rax, 2), %rax
    incq %rsi
    jmp 1b
2:  ret
random:
    .asciz "/dev/urandom"
end:
