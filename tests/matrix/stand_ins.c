/* What Python's module is linked with and a build may leave out (OMIT_SHARED_CACHE, OMIT_PROGRESS_CALLBACK):
** there the call does nothing. */
#define STAND_IN __attribute__((weak))

STAND_IN int sqlite3_enable_shared_cache(int on) { (void)on; return 1; }

STAND_IN void sqlite3_progress_handler(void *db, int steps, int (*handler)(void *), void *argument) {
  (void)db; (void)steps; (void)handler; (void)argument;
}
