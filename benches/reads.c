/* Times reads of one database file through three connections of one process, taken in turns:
 * a and a2 on the default VFS, b on the VFS `replica`. Prints "CACHE TEST CONNECTION SECONDS" per slice of
 * the same amount of work. a2 against a is the noise of the measurement.
 *
 * usage: reads EXTENSION|- FILE REPLICA_URI ROUNDS     (- : b is a third connection on the default VFS)
 */
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONNECTIONS = 3, POINTS = 1000, SCAN_ROWS = 20000 };

static void check(int rc, sqlite3 *db, const char *what) {
    if (rc == SQLITE_OK) return;
    fprintf(stderr, "%s: %s\n", what, db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
    exit(1);
}

static void run(sqlite3 *db, const char *sql) { check(sqlite3_exec(db, sql, 0, 0, 0), db, sql); }

static int64_t number(sqlite3 *db, const char *sql) {
    sqlite3_stmt *stmt;
    check(sqlite3_prepare_v2(db, sql, -1, &stmt, 0), db, sql);
    if (sqlite3_step(stmt) != SQLITE_ROW) check(SQLITE_ERROR, db, sql);
    int64_t n = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return n;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static uint64_t next(uint64_t *state) { /* xorshift */
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

/* POINTS reads of a row by its key, each a read transaction of its own. */
static void points(sqlite3 *db, sqlite3_stmt *stmt, uint64_t seed, int64_t rows) {
    for (int i = 0; i < POINTS; i++) {
        sqlite3_bind_int64(stmt, 1, 1 + (int64_t)(next(&seed) % (uint64_t)rows));
        if (sqlite3_step(stmt) != SQLITE_ROW) check(SQLITE_ERROR, db, "point read");
        sqlite3_column_blob(stmt, 1);
        check(sqlite3_reset(stmt), db, "point read");
    }
}

/* One statement that walks SCAN_ROWS rows from a place that depends on the seed. */
static void scan(sqlite3 *db, sqlite3_stmt *stmt, uint64_t seed, int64_t rows) {
    int64_t last = rows > SCAN_ROWS ? rows - SCAN_ROWS : 1;
    sqlite3_bind_int64(stmt, 1, 1 + (int64_t)(next(&seed) % (uint64_t)last));
    int rc = 0, count = 0;
    while (count < SCAN_ROWS && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        sqlite3_column_blob(stmt, 1);
        count++;
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) check(rc, db, "scan");
    check(sqlite3_reset(stmt), db, "scan");
}

static const struct {
    const char *name, *sql;
    void (*work)(sqlite3 *, sqlite3_stmt *, uint64_t, int64_t);
} TESTS[] = {
    {"point", "SELECT grp, body FROM item WHERE id = ?", points},
    {"scan", "SELECT grp, body FROM item WHERE id >= ?", scan},
};

static const struct { const char *name, *pragmas; } CACHES[] = {
    {"tiny", "PRAGMA mmap_size=0; PRAGMA cache_size=10;"},
    {"default", "PRAGMA mmap_size=0; PRAGMA cache_size=-2000;"},
    {"all", "PRAGMA mmap_size=0; PRAGMA cache_size=-1000000; SELECT sum(length(body)) FROM item;"},
    {"mmap", "PRAGMA cache_size=-2000; PRAGMA mmap_size=1000000000; SELECT sum(length(body)) FROM item;"},
};

/* Every order once in six rounds, and new rows for every slice: nobody gains by whom it follows. */
static const int TURNS[6][CONNECTIONS] = {{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {0, 2, 1}, {2, 0, 1}, {1, 0, 2}};

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "usage: reads EXTENSION|- FILE REPLICA_URI ROUNDS\n"), 2;
    const char *names[CONNECTIONS] = {"a", "a2", "b"};
    int rounds = atoi(argv[4]), stock = !strcmp(argv[1], "-");
    sqlite3 *db[CONNECTIONS];
    sqlite3_config(SQLITE_CONFIG_URI, 1);
    if (!stock) {
        char *error = 0;
        check(sqlite3_open(":memory:", &db[0]), db[0], "open");
        sqlite3_enable_load_extension(db[0], 1);
        if (sqlite3_load_extension(db[0], argv[1], 0, &error)) return fprintf(stderr, "%s\n", error), 1;
        sqlite3_close(db[0]);
    }
    for (int c = 0; c < CONNECTIONS; c++) {
        const char *file = c == 2 && !stock ? argv[3] : argv[2];
        check(sqlite3_open_v2(file, &db[c], SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, 0), db[c], file);
    }
    printf("sqlite %s %s\n", sqlite3_libversion(), sqlite3_sourceid());
    for (size_t k = 0; k < sizeof CACHES / sizeof *CACHES; k++) {
        for (int c = 0; c < CONNECTIONS; c++) run(db[c], CACHES[k].pragmas);
        for (size_t t = 0; t < sizeof TESTS / sizeof *TESTS; t++) {
            sqlite3_stmt *stmt[CONNECTIONS];
            int64_t rows = number(db[0], "SELECT max(id) FROM item");
            for (int c = 0; c < CONNECTIONS; c++)
                check(sqlite3_prepare_v2(db[c], TESTS[t].sql, -1, &stmt[c], 0), db[c], TESTS[t].sql);
            uint64_t seed = 0x9e3779b97f4a7c15u;
            for (int r = -6; r < rounds; r++) /* six rounds to warm up */
                for (int i = 0; i < CONNECTIONS; i++) {
                    int c = TURNS[(r + 6) % 6][i];
                    next(&seed);
                    double start = now();
                    TESTS[t].work(db[c], stmt[c], seed, rows);
                    double seconds = now() - start;
                    if (r >= 0) printf("%s %s %s %.9f\n", CACHES[k].name, TESTS[t].name, names[c], seconds);
                }
            for (int c = 0; c < CONNECTIONS; c++) sqlite3_finalize(stmt[c]);
        }
    }
    for (int c = 0; c < CONNECTIONS; c++) check(sqlite3_close(db[c]), db[c], "close");
    return 0;
}
