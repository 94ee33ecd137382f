/* Opens the file of a descriptor for writing, once nobody executes it; writes nothing to it. Where
   somebody always does, whether its mount can be written is asked by a change that changes nothing. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char path[64], name[4096];
    if (argc != 2) return 2;
    snprintf(path, sizeof path, "/proc/self/fd/%s", argv[1]);
    ssize_t length = readlink(path, name, sizeof name - 1);
    name[length < 0 ? 0 : length] = 0;
    for (int attempt = 0; attempt < 2000; attempt++) {
        if (open(path, O_WRONLY | O_CLOEXEC) >= 0) {
            printf("%s can be written\n", name);
            return 0;
        }
        struct stat status;
        if (errno != ETXTBSY || stat(path, &status)) break;
        if (chmod(path, status.st_mode & 07777) && errno == EROFS) break;
        usleep(1000);
    }
    printf("%s: %s\n", name, strerror(errno));
    return 0;
}
