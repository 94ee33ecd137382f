/* A static program for images: says lines to systemd (sd_notify(3)), shows the sockets it was given
   (sd_listen_fds(3)) and every other descriptor.
     speaker notify LINE        send one message, say how that went, stay: systemd passes over
                                messages of processes that have ended
     speaker listen             print what was passed; answer one connection on descriptor 3 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int notify(const char *line) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (!path) {
        return 1;
    }
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (sendto(fd, line, strlen(line), 0, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("sendto");
        return 1;
    }
    return 0;
}

static void descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;
    while ((entry = readdir(directory)))
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
            printf("fd %s\n", entry->d_name);
    closedir(directory);
}

static int listening(void) {
    const char *count = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    const char *names = getenv("LISTEN_FDNAMES");
    int connection;
    printf("count %s\n", count ? count : "none");
    printf("pid %s\n", pid && atoi(pid) == getpid() ? "right" : "wrong");
    printf("names %s\n", names ? names : "none");
    descriptors();
    puts("up");
    fflush(stdout);
    if (!count || (connection = accept(3, NULL, NULL)) < 0)
        return 1;
    dprintf(connection, "answer\n");
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "notify")) {
        printf("said %d\n", notify(argv[2]));
        fflush(stdout);
        pause();
    }
    return argc > 1 && !strcmp(argv[1], "listen") ? listening() : 2;
}
