/* Makes processes that end at once and are never waited for, at most 6000; says how many there are. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    int made = 0;
    while (made < 6000) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0) _exit(0);
        made++;
    }
    printf("%d %s\n", made, made < 6000 ? strerror(errno) : "no end");
    fflush(stdout);
    pause();
    return 0;
}
