/* Stands between the proxy and the C library (LD_PRELOAD) and lies about what time it is and where names lead.
 *
 * In the directory the proxy runs in: `clock` holds two numbers of seconds, by how much the wall clock is wrong and how
 * long the machine has slept; `names` holds the address that every name in .test has now, or `none`, or `hang`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int look(const char *file, char *into, size_t room) {
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, into, room - 1);
    close(fd);
    into[n > 0 ? n : 0] = 0;
    return n > 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    char text[64];
    long wall = 0, slept = 0;
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_BOOTTIME) && look("clock", text, sizeof text)
        && sscanf(text, "%ld %ld", &wall, &slept) == 2)
        now->tv_sec += id == CLOCK_REALTIME ? wall : slept;
    return result;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!real)
        real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    size_t len = node ? strlen(node) : 0;
    char address[64];
    if (len < 5 || strcmp(node + len - 5, ".test") != 0) return real(node, service, hints, found);
    while (look("names", address, sizeof address) && strcmp(address, "hang") == 0) usleep(10000);
    if (strcmp(address, "none") == 0) return EAI_NONAME;
    return real(address, service, hints, found);
}
