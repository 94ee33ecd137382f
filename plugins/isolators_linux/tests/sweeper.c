/* Makes every system call under a seccomp filter and writes down how each was answered.

   sweeper FILTER RESULTS ABI FIRST ARGUMENT0 ARGUMENT1

   The filter is one in which the policy's "allow" is an errno of its own, so that nothing is ever
   done; only exit_group(42) goes through. RESULTS is a file of 64-bit integers, one for each number
   from FIRST on. ABI: 64 for syscall, 32 for int 0x80. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static long native(long number, long a, long b)
{
    long result;
    register long r10 asm("r10") = 0, r8 asm("r8") = 0, r9 asm("r9") = 0;
    asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(0), "r"(r10), "r"(r8),
                 "r"(r9) : "rcx", "r11", "memory");
    return result;
}

static long compat(long number, long a, long b)
{
    long result;
    asm volatile("push %%rbx\n mov %2, %%rbx\n int $0x80\n pop %%rbx" : "=a"(result)
                 : "a"(number), "r"(a), "c"(b), "d"(0), "S"(0), "D"(0)
                 : "r8", "r9", "r10", "r11", "memory");
    return (int)result;
}

int main(int argc, char **argv)
{
    static struct sock_filter code[4096];
    struct stat status;
    int filter = open(argv[1], O_RDONLY), file = open(argv[2], O_RDWR);
    struct sock_fprog program = {read(filter, code, sizeof code) / sizeof code[0], code};
    int abi = atoi(argv[3]);
    long first = atol(argv[4]), a = atol(argv[5]), b = atol(argv[6]);
    if (argc != 7 || fstat(file, &status))
        return 1;
    long count = status.st_size / 8;
    long *results = mmap(0, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (results == MAP_FAILED || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 2;
    for (long i = 0; i < count; i++)
        /* The kernel lets uretprobe and uprobe pass without asking any filter (Linux 6.14), and
           ends whoever makes them elsewhere than in its trampoline. */
        if (abi != 64 || (first + i != 335 && first + i != 336))
            results[i] = abi == 64 ? native(first + i, a, b) : compat(first + i, a, b);
    native(231, 42, 0);
    __builtin_trap();
}
