"""The core of the suite that runs on every SQLite, and what does not apply where."""
from harness import sqlites
from harness.crypt import RAW

CORE = """
test_hosts_core.py
test_write.py::test_rows_of_every_kind[pages-optimistic]
test_write.py::test_rows_of_every_kind[rows-eager]
test_write.py::test_what_returning_gave_is_what_the_primary_holds[pages-eager]
test_write.py::test_what_returning_gave_is_what_the_primary_holds[rows-optimistic]
test_write.py::test_rollback_and_savepoints[pages-eager]
test_write.py::test_rollback_and_savepoints[rows-optimistic]
test_write.py::test_spilled_pages_and_savepoints[pages-optimistic]
test_write.py::test_spilled_pages_and_savepoints[rows-eager]
test_write.py::test_a_crash_behind_spilled_pages_that_were_rolled_back[pages-2-30]
test_write.py::test_schema_changes[pages-eager]
test_write.py::test_virtual_tables[rows-eager]
test_write.py::test_attached_replicas_and_plain_databases[pages]
test_write.py::test_the_mix_of_local_and_foreign_writes_is_identical[pages-eager]
test_write_codes.py::test_locally_locked[pages]
test_write_codes.py::test_a_local_write_is_not_built_upon[pages]
test_write_codes.py::test_nothing_of_a_failed_commit_is_in_the_log[pages]
test_pull.py::test_own_checkpoint_leaves_the_primary_s_bytes
test_pull.py::test_close_leaves_the_primary_s_bytes
test_pull.py::test_schema_change_reaches_every_connection
test_pull.py::test_spill_files_of_a_big_query
test_pull.py::test_copies_out_of_a_replica
test_live.py::test_a_burst_of_commits
test_live.py::test_an_empty_primary_gets_its_first_table
test_live.py::test_the_primary_restarts[kill]
test_live.py::test_snapshots_stay_whole
test_live_writes.py::test_own_commits_are_not_applied_twice[pages]
test_live_writes.py::test_a_write_in_a_forked_child_of_a_live_process[pages]
test_crypt.py::test_no_plaintext_in_any_file[RAW-delete]
test_crypt.py::test_no_plaintext_in_any_file[RAW-wal]
test_crypt.py::test_rekey[wal]
test_crypt.py::test_a_flipped_bit_anywhere_is_found
test_crypt.py::test_an_altered_log_is_found_while_it_is_in_use
test_crypt_sql.py::test_modes_and_page_sizes[wal-4096]
test_crypt_sql.py::test_modes_and_page_sizes[delete-8192]
test_crypt_sql.py::test_backup_and_vacuum_into[RAW-None]
test_crypt_sql.py::test_attach_both[wal]
test_crypt_sql.py::test_without_powersafe_overwrite
test_crypt_replica.py::test_end_to_end[RAW]
""".replace("RAW", RAW).split()

# What a test's SQL needs, where not every SQLite has it: the oldest version.
NEEDS = {
    "test_write.py::test_what_returning_gave_is_what_the_primary_holds": ("RETURNING", (3, 35)),
    "test_write.py::test_schema_changes": ("DROP COLUMN, STRICT", (3, 37)),
}
# What else does not apply, and why.
LAYOUT = "the test knows the pages: 4096 bytes, no map of pointers"
FLIPPED = ("test_crypt.py::test_a_flipped_bit_anywhere_is_found",)
ALONE = "exclusive locking is its default: a database that is no replica, or a stock program, lets nobody else in"
NOT_FOR = {
    "3.37.0-exclusive": {ALONE: ("test_pull.py::test_schema_change_reaches", "test_crypt.py::test_rekey",
                                 "test_crypt.py::test_an_altered_log", "test_crypt_sql.py::test_backup",
                                 "test_crypt_sql.py::test_attach_both", *FLIPPED)},
    "3.38.2-pages": {LAYOUT: FLIPPED},
    "3.39.2-android": {LAYOUT: FLIPPED},
    "3.44.0-recommended": {
        "THREADSAFE=0: a live replica needs a thread beside the program's": ("test_live.py", "test_live_writes.py"),
    },
    "3.51.3-apple": {LAYOUT: FLIPPED},
    "3.54.1-setlk1": {LAYOUT: FLIPPED},
}


def core_of(name):
    """The core that applies to a SQLite."""
    version = sqlites.BUILDS[name].number if name in sqlites.BUILDS else (99,)
    without = [test for test, (_, oldest) in NEEDS.items() if version < oldest]
    without += [test for tests in NOT_FOR.get(name, {}).values() for test in tests]
    return [test for test in CORE if not test.startswith(tuple(without))]
