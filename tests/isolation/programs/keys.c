/* Adds a key to the session's keyring (`add`), or says whether it is found from there (`search`). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    long key;
    if (argc != 2) return 2;
    if (!strcmp(argv[1], "add"))
        key = syscall(SYS_add_key, "user", "podctl-test", "x", 1, -3);
    else
        key = syscall(SYS_keyctl, 10, -3, "user", "podctl-test", 0);
    puts(key > 0 ? "found" : strerror(errno));
    return 0;
}
