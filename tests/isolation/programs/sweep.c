/* Opens every regular file below its arguments for writing and prints those that opened. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned long seen;

static void walk(const char *path) {
    char name[4096];
    struct dirent *entry;
    DIR *directory = opendir(path);
    if (!directory) return;
    while ((entry = readdir(directory))) {
        struct stat status;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (snprintf(name, sizeof name, "%s/%s", path, entry->d_name) >= (int)sizeof name) continue;
        if (lstat(name, &status)) continue;
        if (S_ISDIR(status.st_mode)) walk(name);
        if (!S_ISREG(status.st_mode)) continue;
        seen++;
        int fd = open(name, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) continue;
        puts(name);
        close(fd);
    }
    closedir(directory);
}

int main(int argc, char **argv) {
    for (int number = 1; number < argc; number++) walk(argv[number]);
    printf("%lu files, process %d\n", seen, getpid());
    return 0;
}
