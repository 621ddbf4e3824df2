/* Preloaded into a program: sees each change to the files of one folder, in order.
 *
 * CRASH_FOLDER  the folder (no other file counts)
 * CRASH_AT      the program dies (SIGKILL) instead of making change number N, the first being 1
 * CRASH_ERROR   it does not die then: that change fails, with this errno
 * CRASH_LOG     every change is written there: a line "kind path offset length\n", then the bytes of a write
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long count;
static int output = -2;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int ours(const char *path) {
    const char *folder = getenv("CRASH_FOLDER");
    /* The wal-index does not survive a crash: SQLite makes it anew. */
    return folder && !strncmp(path, folder, strlen(folder)) && !strstr(path, "-shm");
}

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, size - 1);
    if (len < 0) return 0;
    path[len] = 0;
    return ours(path);
}

static void put(const void *bytes, size_t len) {
    for (const char *at = bytes; len;) {
        ssize_t done = REAL(write)(output, at, len);
        if (done < 0) abort();
        at += done, len -= done;
    }
}

/* Called with the lock held, before the change; whether that is to be made. */
static int change(const char *kind, const char *path, long long offset, size_t len, const void *bytes) {
    const char *at = getenv("CRASH_AT");
    if (++count == (at ? atol(at) : 0)) {
        const char *error = getenv("CRASH_ERROR");
        if (error) return errno = atoi(error), 0;
        kill(getpid(), SIGKILL), pause();
    }
    if (output == -2) {
        const char *name = getenv("CRASH_LOG");
        output = name ? REAL(open)(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    }
    if (output < 0) return 1;
    char line[4200];
    put(line, snprintf(line, sizeof line, "%s %s %lld %zu\n", kind, path, offset, len));
    if (bytes) put(bytes, len);
    return 1;
}

/* The change and what it does are one: nobody comes in between. */
#define MAKE(type, condition, told, made) \
    do { \
        if (!(condition)) return made; \
        pthread_mutex_lock(&lock); \
        type result = told ? made : -1; \
        int error = errno; \
        pthread_mutex_unlock(&lock); \
        errno = error; \
        return result; \
    } while (0)

#define PATH char path[4096]

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
    PATH;
    MAKE(ssize_t, path_of(fd, path, sizeof path), change("write", path, at, len, bytes), REAL(pwrite64)(fd, bytes, len, at));
}
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) {
    PATH;
    MAKE(ssize_t, path_of(fd, path, sizeof path), change("write", path, at, len, bytes), REAL(pwrite)(fd, bytes, len, at));
}
ssize_t write(int fd, const void *bytes, size_t len) {
    PATH;
    MAKE(ssize_t, path_of(fd, path, sizeof path), change("write", path, lseek(fd, 0, SEEK_CUR), len, bytes), REAL(write)(fd, bytes, len));
}
int ftruncate(int fd, off_t size) {
    PATH;
    MAKE(int, path_of(fd, path, sizeof path), change("size", path, size, 0, NULL), REAL(ftruncate)(fd, size));
}
int ftruncate64(int fd, off64_t size) {
    PATH;
    MAKE(int, path_of(fd, path, sizeof path), change("size", path, size, 0, NULL), REAL(ftruncate64)(fd, size));
}
int fsync(int fd) {
    PATH;
    MAKE(int, path_of(fd, path, sizeof path), change("sync", path, 0, 0, NULL), REAL(fsync)(fd));
}
int fdatasync(int fd) {
    PATH;
    MAKE(int, path_of(fd, path, sizeof path), change("sync", path, 0, 0, NULL), REAL(fdatasync)(fd));
}
int unlink(const char *path) { MAKE(int, ours(path), change("unlink", path, 0, 0, NULL), REAL(unlink)(path)); }

static int opened(const char *path, int flags) {
    struct stat st;
    return flags & O_CREAT && ours(path) && stat(path, &st) != 0;
}
int open64(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    int emptied = flags & O_TRUNC && ours(path) && !opened(path, flags);
    if (emptied) MAKE(int, 1, change("size", path, 0, 0, NULL), REAL(open64)(path, flags, mode));
    MAKE(int, opened(path, flags), change("create", path, 0, 0, NULL), REAL(open64)(path, flags, mode));
}
int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open64(path, flags, mode);
}
