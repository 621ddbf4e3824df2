/* C, linked against libsqlite3. SQLITE_OPEN_URI makes the URI's options count; load once, the library stays.
 * Errors of an open say little: SELECT replica_last_error() on another connection says why. */
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void fail(sqlite3 *db) {
    fprintf(stderr, "%s\n", sqlite3_errmsg(db));
    exit(1);
}

static void step(const char *name, int value) {
    printf("%s %d\n", name, value);
    fflush(stdout);
    getchar();
}

static sqlite3 *connect_to(const char *name, const char *options) {
    char uri[500];
    sqlite3 *db;
    snprintf(uri, sizeof uri, "file:%s?vfs=replica&sync_url=%s%s", name, getenv("PRIMARY"), options);
    if (sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL) != SQLITE_OK)
        fail(db);
    return db;
}

static void load(sqlite3 *db) {
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if (sqlite3_load_extension(db, getenv("LIBREPLICA"), NULL, NULL) != SQLITE_OK)
        fail(db);
}

static int query(sqlite3 *db, const char *sql, const char *argument) {
    sqlite3_stmt *statement;
    int value = 0;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        fail(db);
    if (argument)
        sqlite3_bind_text(statement, 1, argument, -1, SQLITE_TRANSIENT);
    while (sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_int(statement, 0);
    if (sqlite3_finalize(statement) != SQLITE_OK)
        fail(db);
    return value;
}

static int count(sqlite3 *db) { return query(db, "SELECT count(*) FROM notes", NULL); }
static void write_note(sqlite3 *db, const char *text) { query(db, "INSERT INTO notes(text) VALUES(?)", text); }

static void *work(void *number) {
    sqlite3 *db = connect_to("app.db", "");
    for (int row = 0; row < 5; row++) {
        char text[50];
        snprintf(text, sizeof text, "thread %d row %d", (int)(long)number, row);
        write_note(db, text);
    }
    sqlite3_close(db);
    return NULL;
}

int main(void) {
    sqlite3 *loader;
    sqlite3_open(":memory:", &loader);
    load(loader);
    sqlite3_close(loader);
    sqlite3 *app = connect_to("app.db", "");
    step("open", count(app));
    query(app, "SELECT replica_sync()", NULL);
    step("sync", count(app));
    write_note(app, "written here");
    step("write", count(app));
    sqlite3 *secret = connect_to("secret.db", "&encryption_key=env:KEY");
    write_note(secret, "sealed here");
    step("encrypted", count(secret));
    sqlite3_close(secret);
    sqlite3 *live = connect_to("live.db", "&live=1");
    int before = count(live);
    step("live", before);
    for (int i = 0; i < 1000 && count(live) == before; i++)
        usleep(10000);
    step("seen", count(live));
    sqlite3 *second = connect_to("app.db", "");
    write_note(second, "a second connection");
    step("second", count(app));
    pthread_t threads[8];
    for (long number = 0; number < 8; number++)
        pthread_create(&threads[number], NULL, work, (void *)number);
    for (int number = 0; number < 8; number++)
        pthread_join(threads[number], NULL);
    step("threads", count(app));
    load(second); /* once more is harmless */
    step("again", count(second));
    return 0;
}
