/* Lies in wait for podctl's launcher and tries to get hold of it before it is confined: its program,
   its memory, its descriptors, itself. Prints `ready`, and at the end how often it saw a launcher,
   and how often each attempt succeeded. Ends once there is a file /end. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int seen, program, memory, image, descriptor, traced;

/* A launcher becomes something else and never the reverse: what succeeded before it is asked again
   has succeeded with it. */
static int is_launcher(int pid) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t length = read(fd, line, sizeof line);
    close(fd);
    return length > 0 && memmem(line, (size_t)length, "applauncher", 11) != NULL;
}

static int opens(int pid, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

static int reads(int pid) {
    /* Where programs of fixed addresses lie; EFAULT says that it was allowed to look. */
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    return process_vm_readv(pid, &here, 1, &there, 1, 0) >= 0 || errno == EFAULT;
}

static int takes(int pid) {
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) return 0;
    int fd = (int)syscall(SYS_pidfd_getfd, pidfd, 1, 0);
    close(pidfd);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

static int traces(int pid) {
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) != 0) return 0;
    int found = is_launcher(pid);
    ptrace(PTRACE_INTERRUPT, pid, 0, 0);
    waitpid(pid, NULL, __WALL);
    ptrace(PTRACE_DETACH, pid, 0, 0);
    return found;
}

static void attack(int pid) {
    seen++;
    while (is_launcher(pid)) {
        int a = opens(pid, "exe"), b = opens(pid, "mem"), c = reads(pid), d = takes(pid);
        if (!is_launcher(pid)) return;
        program += a, image += b, memory += c, descriptor += d;
        traced += traces(pid);
    }
}

int main(void) {
    puts("ready");
    fflush(stdout);
    while (access("/end", F_OK) != 0) {
        struct dirent *entry;
        DIR *all = opendir("/proc");
        while ((entry = readdir(all))) {
            int pid = isdigit((unsigned char)entry->d_name[0]) ? atoi(entry->d_name) : 0;
            if (pid && is_launcher(pid)) attack(pid);
        }
        closedir(all);
    }
    printf("seen %d program %d image %d memory %d descriptor %d traced %d\n", seen > 0, program,
           image, memory, descriptor, traced);
    return 0;
}
