/* Opens the file of a descriptor for writing, once nobody executes it; writes nothing to it. Where
   somebody always does, whether its mount can be written is asked by a change that changes nothing.
   Leaves /dev/shm/tried. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int end(const char *name, const char *result) {
    printf("%s%s\n", name, result);
    fflush(stdout);
    close(open("/dev/shm/tried", O_WRONLY | O_CREAT, 0600));
    return 0;
}

int main(int argc, char **argv) {
    char path[64], name[4096];
    if (argc != 2) return 2;
    snprintf(path, sizeof path, "/proc/self/fd/%s", argv[1]);
    ssize_t length = readlink(path, name, sizeof name - 1);
    name[length < 0 ? 0 : length] = 0;
    for (int attempt = 0; attempt < 2000; attempt++) {
        if (open(path, O_WRONLY | O_CLOEXEC) >= 0) return end(name, " can be written");
        struct stat status;
        if (errno != ETXTBSY || stat(path, &status)) break;
        if (chmod(path, status.st_mode & 07777) && errno == EROFS) break;
        usleep(1000);
    }
    const char *reason = strerror(errno);
    return printf("%s: ", name) < 0 ? 1 : end("", reason);
}
