/* Pushes a line into the input of its terminal, as if it had been typed (TIOCSTI), and says into how
   many of the ways to it that worked. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>

int main(void) {
    int ways[] = {0, 1, 2, open("/dev/tty", O_RDWR), open("/dev/console", O_RDWR | O_NOCTTY)};
    int worked = 0;
    for (unsigned number = 0; number < sizeof ways / sizeof *ways; number++) {
        const char *letter = "injected\n";
        int result = 0;
        while (*letter && !result) result = ioctl(ways[number], TIOCSTI, letter++);
        worked += !result;
    }
    printf("pushed %d\n", worked);
    return 0;
}
