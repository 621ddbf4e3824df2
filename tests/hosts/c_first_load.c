/* Two threads load the library for the first time at once: the slower one is held up in the midst of it (where it asks for
 * the default VFS) until the other has loaded and has made a path a replica. Both then work on replicas of their own. */
#include <dlfcn.h>
#include <pthread.h>
#include <sqlite3.h>
#define SQLITE_CORE 1 /* the table's type, not its macros */
#include <sqlite3ext.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static sqlite3_api_routines table;
static int (*load)(sqlite3 *, char **, const sqlite3_api_routines *);
static _Thread_local int is_slow;

static sqlite3_vfs *slow_find(const char *name) {
    if (is_slow)
        usleep(500000);
    return sqlite3_vfs_find(name);
}

/* SQLite hands its API table to auto-extensions. */
static int catch_table(sqlite3 *db, char **error, const sqlite3_api_routines *api) {
    (void)db, (void)error;
    table = *api;
    table.vfs_find = slow_find;
    return SQLITE_OK;
}

static void run(sqlite3 *db, const char *sql) {
    char *error = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
        fprintf(stderr, "%s: %s\n", sql, error);
}

static void *work(void *name) {
    sqlite3 *db, *replica;
    char *error = NULL, *sql;
    is_slow = *(char *)name == 's';
    sqlite3_open(":memory:", &db);
    if (!is_slow)
        usleep(100000); /* the other is in the midst of it by now */
    if ((load(db, &error, &table) & 0xff) != SQLITE_OK)
        fprintf(stderr, "load: %s\n", error);
    is_slow = 0;
    sql = sqlite3_mprintf("SELECT replica_open(%Q, '{\"sync_url\": \"%s\", \"timeout\": 2}')", name, getenv("PRIMARY"));
    run(db, sql);
    if (sqlite3_open(name, &replica) != SQLITE_OK)
        fprintf(stderr, "%s: %s\n", (char *)name, sqlite3_errmsg(replica));
    run(replica, "INSERT INTO notes(text) VALUES('written here')");
    sqlite3_close(replica);
    sqlite3_close(db);
    return NULL;
}

int main(void) {
    pthread_t threads[2];
    char path[500];
    sqlite3 *db;
    sqlite3_auto_extension((void (*)(void))catch_table);
    sqlite3_open(":memory:", &db);
    sqlite3_close(db);
    sqlite3_cancel_auto_extension((void (*)(void))catch_table);
    snprintf(path, sizeof path, "%s.so", getenv("LIBREPLICA"));
    *(void **)&load = dlsym(dlopen(path, RTLD_NOW), "sqlite3_replica_init");
    pthread_create(&threads[0], NULL, work, "slow.db");
    pthread_create(&threads[1], NULL, work, "fast.db");
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    return 0;
}
