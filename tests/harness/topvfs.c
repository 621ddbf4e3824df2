/* A VFS on top of another one, as a testing or tracing VFS is: it gives logs and journals names of its own, with a page in
 * front of each that nobody may touch. Register with topvfs_register("top", "replica"). */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct {
    sqlite3_file base;
    sqlite3_file *real;
} TopFile;

static sqlite3_vfs *below(sqlite3_vfs *vfs) { return vfs->pAppData; }
static sqlite3_file *real(sqlite3_file *file) { return ((TopFile *)file)->real; }
#define CALL(file, method, ...) real(file)->pMethods->method(real(file), ##__VA_ARGS__)

static int topClose(sqlite3_file *f) {
    int rc = CALL(f, xClose);
    free(real(f));
    return rc;
}
static int topRead(sqlite3_file *f, void *b, int n, sqlite3_int64 at) { return CALL(f, xRead, b, n, at); }
static int topWrite(sqlite3_file *f, const void *b, int n, sqlite3_int64 at) { return CALL(f, xWrite, b, n, at); }
static int topTruncate(sqlite3_file *f, sqlite3_int64 n) { return CALL(f, xTruncate, n); }
static int topSync(sqlite3_file *f, int flags) { return CALL(f, xSync, flags); }
static int topSize(sqlite3_file *f, sqlite3_int64 *n) { return CALL(f, xFileSize, n); }
static int topLock(sqlite3_file *f, int l) { return CALL(f, xLock, l); }
static int topUnlock(sqlite3_file *f, int l) { return CALL(f, xUnlock, l); }
static int topCheck(sqlite3_file *f, int *out) { return CALL(f, xCheckReservedLock, out); }
static int topControl(sqlite3_file *f, int op, void *arg) { return CALL(f, xFileControl, op, arg); }
static int topSector(sqlite3_file *f) { return CALL(f, xSectorSize); }
static int topDevice(sqlite3_file *f) { return CALL(f, xDeviceCharacteristics); }
static int topShmMap(sqlite3_file *f, int i, int n, int x, void volatile **p) { return CALL(f, xShmMap, i, n, x, p); }
static int topShmLock(sqlite3_file *f, int o, int n, int flags) { return CALL(f, xShmLock, o, n, flags); }
static void topShmBarrier(sqlite3_file *f) { CALL(f, xShmBarrier); }
static int topShmUnmap(sqlite3_file *f, int d) { return CALL(f, xShmUnmap, d); }

static const sqlite3_io_methods methods = {
    2, topClose, topRead, topWrite, topTruncate, topSync, topSize, topLock, topUnlock, topCheck, topControl, topSector,
    topDevice, topShmMap, topShmLock, topShmBarrier, topShmUnmap, 0, 0};

/* Kept for good: the VFS below may hold on to a name. */
static const char *own_name(const char *name) {
    char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages, 4096, PROT_NONE);
    return strcpy(pages + 4096, name);
}

static int topOpen(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out) {
    TopFile *top = (TopFile *)file;
    top->base.pMethods = NULL;
    top->real = calloc(1, below(vfs)->szOsFile);
    if (name && !(flags & SQLITE_OPEN_MAIN_DB)) name = own_name(name);
    int rc = below(vfs)->xOpen(below(vfs), name, top->real, flags, out);
    if (rc == SQLITE_OK) top->base.pMethods = &methods;
    else free(top->real);
    return rc;
}
static int topDelete(sqlite3_vfs *v, const char *n, int s) { return below(v)->xDelete(below(v), n, s); }
static int topAccess(sqlite3_vfs *v, const char *n, int f, int *o) { return below(v)->xAccess(below(v), n, f, o); }
static int topPath(sqlite3_vfs *v, const char *n, int l, char *o) { return below(v)->xFullPathname(below(v), n, l, o); }
static int topRandom(sqlite3_vfs *v, int n, char *o) { return below(v)->xRandomness(below(v), n, o); }
static int topSleep(sqlite3_vfs *v, int us) { return below(v)->xSleep(below(v), us); }
static int topTime(sqlite3_vfs *v, double *t) { return below(v)->xCurrentTime(below(v), t); }
static int topError(sqlite3_vfs *v, int n, char *o) { return below(v)->xGetLastError ? below(v)->xGetLastError(below(v), n, o) : 0; }

static void put(sqlite3_context *context, int argc, sqlite3_value **argv) {
    sqlite3_vfs *base = sqlite3_vfs_find((const char *)sqlite3_value_text(argv[1]));
    sqlite3_vfs *top = calloc(1, sizeof *top);
    if (!base) { sqlite3_result_error(context, "no such VFS", -1); return; }
    *top = (sqlite3_vfs){1, sizeof(TopFile), base->mxPathname, 0, strdup((const char *)sqlite3_value_text(argv[0])), base, topOpen,
                         topDelete, topAccess, topPath, 0, 0, 0, 0, topRandom, topSleep, topTime, topError};
    sqlite3_result_int(context, sqlite3_vfs_register(top, 0));
}

int sqlite3_topvfs_init(sqlite3 *db, char **error, const sqlite3_api_routines *api) {
    SQLITE_EXTENSION_INIT2(api);
    int rc = sqlite3_create_function(db, "topvfs", 2, SQLITE_UTF8, 0, put, 0, 0);
    return rc == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}
