/*
 * ptrace() for linux.uml up to 6.6 on processors whose register state is larger than its buffer.
 *
 * It sets a guest process's registers with PTRACE_SETREGSET, NT_X86_XSTATE and 2696 bytes: all up to PKRU. With
 * AMX the state has 11008 bytes, the kernel answers EFAULT to a shorter buffer, and no program of the guest runs
 * ("ptrace set fp regs failed, errno = 14"). Here the rest is filled in with what the process has. A guest never has
 * AMX state of its own, because its processes never ask the kernel for that permission (ARCH_REQ_XCOMP_PERM).
 * No headers, so that any C compiler alone can build it: cc -shared -fPIC -nostdlib.
 */
enum { SYS_PTRACE = 101, GETREGSET = 0x4204, SETREGSET = 0x4205, NT_X86_XSTATE = 0x202 };

struct iovec {
    void *base;
    unsigned long length;
};

extern long syscall(long number, ...);
extern int *__errno_location(void);

static unsigned char whole[1 << 16]; /* not on the stack: linux.uml calls this on a small kernel stack */

static long set_whole(long pid, struct iovec *wanted)
{
    struct iovec all = { whole, sizeof whole };
    const unsigned char *from = wanted->base;
    unsigned long i;

    if (syscall(SYS_PTRACE, GETREGSET, pid, NT_X86_XSTATE, &all) < 0)
        return -1;
    for (i = 0; i < wanted->length && i < all.length; i++)
        whole[i] = from[i];
    return syscall(SYS_PTRACE, SETREGSET, pid, NT_X86_XSTATE, &all);
}

long ptrace(long request, long pid, long address, void *data)
{
    long word, status;

    if (request == SETREGSET && address == NT_X86_XSTATE)
        return set_whole(pid, data);
    if (request < 1 || request > 3)
        return syscall(SYS_PTRACE, request, pid, address, data);
    /* The C library returns what the PEEK requests read; the system call stores it, ptrace(2). */
    status = syscall(SYS_PTRACE, request, pid, address, &word);
    if (status < 0)
        return status;
    *__errno_location() = 0;
    return word;
}
